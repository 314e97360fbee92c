"""What every base model is, whatever its kind: a frozen network, its tokenizer and its embedding table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headstart.models.fingerprint import fingerprint_of
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import Fingerprint


class Frozen:
    """A loaded transformers network; its kinds add how rows become tokens and tokens scores.

    Args:
        network: A transformers language model, frozen.
        tokenizer: Its fast tokenizer.
        name: The name it was loaded by.
        choices: What was probed at load time.

    Example:
        >>> from headstart.models.tiny import tiny_causal
        >>> Frozen(*tiny_causal(), "mine", {}).embed("hi").shape
        torch.Size([2, 16])
    """

    def __init__(self, network: Any, tokenizer: Any, name: str, choices: dict[str, Any]) -> None:
        """Hold a loaded network."""
        self.network, self.tokenizer, self.name, self.choices = network, tokenizer, name, choices
        self.hidden_size = int(self.embedding_VH.shape[1])

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding_VH.device

    @property
    def embedding_VH(self) -> Tensor:
        """Its input embedding table."""
        table: Tensor = self.network.get_input_embeddings().weight
        return table

    def embed(self, text: str) -> Tensor:
        """Embed a text without special tokens: [T, H] in float32."""
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.embedding_VH[torch.tensor(tokens, device=self.device)].detach().float()

    def prefill(self, bank: PromptBank) -> PromptBank:
        """Return the bank: what the rows of a prompt share is up to the kind."""
        return bank

    def fingerprint(self) -> Fingerprint:
        """Hash the weights and the tokenizer."""
        return fingerprint_of(self.network, self.tokenizer)
