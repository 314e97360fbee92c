"""A soft prompt: a few trained vectors that stand before a text, or in every layer, and what they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.config import GROUPS, Group, PromptKind
from headstart.errors import PromptFileError


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """What a prompt is, apart from its numbers.

    Attributes:
        length: Number of vectors, P.
        hidden_size: Size of each vector: H, that of the base model's embeddings; of the other kinds X, the
            keys and values of all layers together.
        kind: ``shallow``, ``deep`` or ``gated``.
        init: The initialiser it started from, e.g. ``"vocab:5000"``.
        groups: Where a deep or gated prompt speaks; the vectors' other parts are not used.

    Example:
        >>> PromptSpec(length=20, hidden_size=576).num_bytes
        46080
    """

    length: int
    hidden_size: int
    kind: PromptKind = "shallow"
    init: str = "unknown"
    groups: tuple[Group, ...] = GROUPS

    @property
    def num_bytes(self) -> int:
        """Bytes of the vectors in float32."""
        return 4 * self.length * self.hidden_size


@dataclass(frozen=True, slots=True, eq=False)
class SoftPrompt:
    """P vectors in float32, and their spec.

    Raises:
        PromptFileError: The vectors' shape is not the spec's, or a value is not finite.

    Example:
        >>> SoftPrompt.of(torch.zeros(5, 8), init="zero").spec.length
        5
    """

    vectors_PH: Tensor
    spec: PromptSpec

    def __len__(self) -> int:
        """Return the number of vectors, P."""
        return self.spec.length

    def __post_init__(self) -> None:
        """Refuse vectors that do not fit the spec or are not finite."""
        expected = (self.spec.length, self.spec.hidden_size)
        if tuple(self.vectors_PH.shape) != expected:
            raise PromptFileError(
                f"a prompt of shape {list(self.vectors_PH.shape)} where {list(expected)} "
                "was expected (vectors, hidden size)"
            )
        bad = int((~torch.isfinite(self.vectors_PH)).sum())
        if bad:
            raise PromptFileError(
                f"{bad} of {self.vectors_PH.numel()} values of the prompt are NaN or infinite; "
                "tune it again with a lower learning rate, or take an earlier copy"
            )

    @classmethod
    def of(
        cls,
        vectors_PH: Tensor,
        init: str = "unknown",
        kind: PromptKind = "shallow",
        groups: tuple[Group, ...] = GROUPS,
    ) -> SoftPrompt:
        """Wrap vectors [P, H], detached, in float32 on the CPU.

        Example:
            >>> SoftPrompt.of(torch.ones(2, 4)).spec.hidden_size
            4
        """
        vectors_PH = vectors_PH.detach().float().cpu().contiguous()
        length, hidden_size = vectors_PH.shape
        return cls(vectors_PH, PromptSpec(length, hidden_size, kind, init, groups))
