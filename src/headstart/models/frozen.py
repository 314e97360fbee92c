"""What every base model is, whatever its kind: a frozen network, its tokenizer and its embedding table."""

from __future__ import annotations

from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from headstart.config import GROUPS, Group
from headstart.models.deep_attention import LayerPrompts, Place, Recorder, install
from headstart.models.fingerprint import fingerprint_of
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import Fingerprint

SAMPLE = 32
"""Tokens, evenly over the vocabulary, that the usual size of keys and values is taken from."""


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
        install(network)

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

    @cached_property
    def places(self) -> dict[Any, Place]:
        """Where every attention module finds its keys and values in a prompt of all layers."""
        one_slot = self.embedding_VH[:1, None].detach()
        with torch.no_grad():
            recorded = self._record(one_slot, one_slot.new_ones(1, 1).bool())
        return recorded.places(self._group_of)

    @property
    def groups(self) -> frozenset[Group]:
        """The kinds of attention it has."""
        return frozenset(GROUPS[place.group] for place in self.places.values())

    @property
    def deep_size(self) -> int:
        """X, the keys and values of all layers together: the size of a deep prompt's vectors."""
        return max(place.end for place in self.places.values())

    @cached_property
    def deep_unit_X(self) -> Tensor:
        """The usual size of every number of a deep prompt: its layer's keys or values, of some vocabulary."""
        table_VH = self.embedding_VH.detach()
        some_1PH = table_VH[:: max(1, len(table_VH) // SAMPLE)][None, :SAMPLE]
        with torch.no_grad():
            sizes = [
                part.float().square().mean().sqrt().expand(part.shape[1] * part.shape[3])
                for pair in self._record(
                    some_1PH, some_1PH.new_ones(1, SAMPLE).bool()
                ).seen.values()
                for part in pair
            ]
        return torch.cat(sizes).clamp(min=1e-6)

    @property
    def is_key_X(self) -> Tensor:
        """Which numbers of a deep prompt are of keys rather than of values."""
        marks = [
            torch.full((size,), part == 0)
            for place in self.places.values()
            for part, size in enumerate(place.sizes)
        ]
        return torch.cat(marks).to(self.device)

    def deepen(self, prompts_NPH: Tensor, mask_NP: Tensor) -> Tensor:
        """Run prompts through the network: every layer's keys and values [N, P, X], in float32 at least.

        Args:
            prompts_NPH: N prompts of vectors beside a text; gradients of any order reach them.
            mask_NP: True where a vector stands.
        """
        recorded = self._record(prompts_NPH.to(self.embedding_VH), mask_NP.to(self.device))
        deep_NPX = recorded.vectors()
        # rows add their gradients up here, in more digits than bfloat16 has
        return deep_NPX.to(torch.promote_types(deep_NPX.dtype, torch.float32))

    def _layer_prompts(
        self, bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> LayerPrompts | None:
        """Gather what rows bring to the layers; ``None`` where that is nothing."""
        bank = None if bank is None else self.prefill(bank)
        if bank is None or prompt_of_row_B is None or not (bank.deep or bank.gated):
            return None
        deep, gated = (
            None if stack is None else stack.take(prompt_of_row_B).to(self.embedding_VH)
            for stack in (bank.deep, bank.gated)
        )
        return LayerPrompts(self.places, deep, gated)

    def _new_tokens(self, found_BS: Tensor) -> list[tuple[int, ...]]:
        """Cut what was generated at the end of the sequence."""
        ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        return [tuple(takewhile(lambda token: token not in ends, row)) for row in found_BS.tolist()]

    def _record(self, prompts_NPH: Tensor, mask_NP: Tensor) -> Recorder:
        recorder = Recorder()
        self._run_prompts(prompts_NPH, mask_NP, recorder)
        return recorder

    def _run_prompts(self, prompts_NPH: Tensor, mask_NP: Tensor, recorder: Recorder) -> None:
        raise NotImplementedError

    def _group_of(self, module: Any) -> Group:
        raise NotImplementedError

    def fingerprint(self) -> Fingerprint:
        """Hash the weights and the tokenizer."""
        return fingerprint_of(self.network, self.tokenizer)
