"""The protocol of a base model: embed, encode, score under prompts, and say who it is.

A model knows tokens and tensors. It does not know tasks, files of prompts, training or printing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from headstart.config import Group
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import Fingerprint
from headstart.tasks.example import Rendered


@dataclass(frozen=True, slots=True)
class Encoded:
    """A rendered row as tokens, once for all steps.

    Attributes:
        id: The example's id.
        source: Tokens of the source text.
        candidates: Tokens of each of the C candidates, as they follow the source.
        target: The gold candidate's index, or ``None``.
        lead: Tokens the decoder reads before each candidate (a T5 sentinel); unused by causal models.
        truncated: Tokens that were cut off to fit the limit.

    Example:
        >>> Encoded("a:1", (5, 6), ((7,), (8, 9))).size
        4
    """

    id: str
    source: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    target: int | None = None
    lead: tuple[int, ...] = ()
    truncated: int = 0

    @property
    def size(self) -> int:
        """Slots the row takes in a batch: its text and its candidates' inner tokens."""
        inner = sum(max(len(tokens) - 1, 0) for tokens in self.candidates)
        return len(self.source) + len(self.lead) + inner + 1 if inner else len(self.source)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a row may be.

    Attributes:
        max_length: Truncate longer rows to this many tokens, prompt included. ``None``: a row longer
            than the model is an error.
        reserve: Slots kept free for the soft prompt.
        eos: Whether each candidate ends with the end-of-sequence token, and is scored with it.
        max_target: Cut longer candidates to this many tokens, the end among them. ``None``: they stay whole.
        source_eos: Whether an encoder's source ends with the end-of-sequence token, as T5 was trained; the
            released T0 was not.

    Example:
        >>> Limits().eos
        False
    """

    max_length: int | None = None
    reserve: int = 0
    eos: bool = False
    max_target: int | None = None
    source_eos: bool = True


class BaseModel(Protocol):
    """A frozen language model that scores candidate answers under soft prompts.

    Attributes:
        name: The name it was loaded by.
        kind: ``causal`` or ``seq2seq``.
        hidden_size: H, the size of its input embeddings.
        max_length: Most positions a row may take; ``None`` where the model has no limit of its own.
        network: The transformers model underneath.
        tokenizer: Its fast tokenizer.
        choices: What was probed: dtype and attention kernel, with the measurements.

    Example:
        >>> from headstart.models.load import load_model
        >>> load_model("tiny-causal").kind
        'causal'
    """

    name: str
    kind: str
    hidden_size: int
    max_length: int | None
    network: Any
    tokenizer: Any
    choices: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        ...

    @property
    def embedding_VH(self) -> Tensor:
        """Its input embedding table."""
        ...

    def embed(self, text: str) -> Tensor:
        """Embed a text without special tokens: [T, H] in float32."""
        ...

    def encode(self, rendered: Sequence[Rendered], limits: Limits) -> list[Encoded]:
        """Turn rendered rows into tokens."""
        ...

    def prefill(self, bank: PromptBank) -> PromptBank:
        """Compute once what all rows under a prompt share; where that is nothing, return the bank."""
        ...

    def score(
        self, rows: Sequence[Encoded], bank: PromptBank | None, prompt_of_row_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum token log-probabilities of every candidate: ([B, C] in nats, tokens [B, C])."""
        ...

    @property
    def groups(self) -> frozenset[Group]:
        """The kinds of attention it has, where a deep or gated prompt can speak."""
        ...

    @property
    def deep_size(self) -> int:
        """X, the numbers of a deep prompt's vector: all layers' keys and values."""
        ...

    @property
    def deep_unit_X(self) -> Tensor:
        """The usual size of each of them."""
        ...

    @property
    def is_key_X(self) -> Tensor:
        """Which of them are of keys."""
        ...

    def deepen(self, prompts_NPH: Tensor, mask_NP: Tensor) -> Tensor:
        """Run shallow prompts through the network: every layer's keys and values [N, P, X]."""
        ...

    def generate(
        self,
        rows: Sequence[Encoded],
        bank: PromptBank | None,
        prompt_of_row_B: Tensor | None,
        **settings: Any,
    ) -> list[tuple[int, ...]]:
        """Write on from each row: new tokens, up to the end of the sequence."""
        ...

    def fingerprint(self) -> Fingerprint:
        """Hash the weights and the tokenizer."""
        ...
