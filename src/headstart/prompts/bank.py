"""N prompts in one value, gathered by row: what lets one batch hold many prompts of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from headstart.config import GROUPS, Group, PromptKind
from headstart.prompts.prompt import SoftPrompt

NO_PROMPT = -1
"""The index of a row that is scored without a prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """N prompts of one kind and any lengths, right-aligned in one tensor.

    Attributes:
        vectors_NPX: The vectors; gradients reach the tensors they were stacked from.
        mask_NP: True where a vector stands; a prompt of another kind has none.
        on_NG: Which groups of attention a prompt of keys and values speaks to
            (:data:`~headstart.config.GROUPS`). ``None``: all.

    Example:
        >>> Stack(torch.ones(1, 2, 4), torch.ones(1, 2).bool()).take(torch.tensor([0, 0])).mask_NP.shape
        torch.Size([2, 2])
    """

    vectors_NPX: Tensor
    mask_NP: Tensor
    on_NG: Tensor | None = None

    @classmethod
    def of(cls, vectors_NPX: Tensor, mask_NP: Tensor, groups: Sequence[Group] = GROUPS) -> Stack:
        """Make a stack whose prompts all speak to the same groups.

        Example:
            >>> Stack.of(torch.ones(1, 2, 4), torch.ones(1, 2).bool(), ["cross"]).on_NG.tolist()
            [[False, False, True]]
        """
        if tuple(groups) == GROUPS:
            return cls(vectors_NPX, mask_NP)
        on_G = torch.tensor([group in groups for group in GROUPS], device=mask_NP.device)
        return cls(vectors_NPX, mask_NP, on_G.expand(len(mask_NP), -1))

    def take(self, index_M: Tensor) -> Stack:
        """Gather prompts by their number; ``NO_PROMPT`` gathers one without a vector."""
        chosen_M = index_M.to(self.vectors_NPX.device)
        has_prompt_M1 = (chosen_M >= 0)[:, None]
        chosen_M = chosen_M.clamp(min=0)
        return Stack(
            self.vectors_NPX[chosen_M],
            self.mask_NP[chosen_M] & has_prompt_M1,
            None if self.on_NG is None else self.on_NG[chosen_M],
        )

    def to(self, like: Tensor) -> Stack:
        """Return the stack with its vectors in another tensor's dtype and all of it on its device.

        Example:
            >>> stack = PromptBank.stack([torch.ones(1, 2)]).only
            >>> stack.to(torch.zeros(1, dtype=torch.float64)).vectors_NPX.dtype
            torch.float64
        """
        on_NG = None if self.on_NG is None else self.on_NG.to(like.device)
        return Stack(self.vectors_NPX.to(like), self.mask_NP.to(like.device), on_NG)

    def over(self, other: Stack) -> Stack:
        """Fill the places where this stack has no prompt with those of another stack.

        Example:
            >>> nothing = Stack(torch.zeros(1, 1, 4), torch.zeros(1, 1).bool())
            >>> nothing.over(Stack(torch.ones(1, 2, 4), torch.ones(1, 2).bool())).vectors_NPX.sum().item()
            8.0
        """
        P = max(self.mask_NP.shape[1], other.mask_NP.shape[1])
        mine, theirs = (
            Stack(
                pad(s.vectors_NPX, (0, 0, P - s.mask_NP.shape[1], 0)),
                pad(s.mask_NP, (P - s.mask_NP.shape[1], 0)),
            )
            for s in (self, other)
        )
        taken_N1 = self.mask_NP.any(-1, keepdim=True)
        on_NG = None
        if self.on_NG is not None or other.on_NG is not None:
            on_NG = torch.where(taken_N1, self._groups(), other._groups().to(taken_N1.device))
        return Stack(
            torch.where(taken_N1[..., None], mine.vectors_NPX, theirs.vectors_NPX),
            torch.where(taken_N1, mine.mask_NP, theirs.mask_NP),
            on_NG,
        )

    def _groups(self) -> Tensor:
        if self.on_NG is not None:
            return self.on_NG
        return self.mask_NP.new_ones(len(self.mask_NP), len(GROUPS))


@dataclass(frozen=True, slots=True, eq=False)
class PromptBank:
    """N prompts, each in the stack of its kind; every stack that is there has N places.

    Attributes:
        shallow: Vectors beside the embedded text.
        deep: Keys and values of every layer, before those of the text. A causal model makes them of
            shallow prompts too (:meth:`~headstart.models.base.BaseModel.prefill`).
        gated: Keys and values of every layer that are attended to apart.

    Example:
        >>> bank = PromptBank.stack([torch.ones(2, 4), torch.ones(3, 4)])
        >>> bank.shallow.mask_NP.int().tolist()
        [[0, 1, 1], [1, 1, 1]]
        >>> len(bank)
        2
    """

    shallow: Stack | None = None
    deep: Stack | None = None
    gated: Stack | None = None

    def __len__(self) -> int:
        """Return the number of prompts, N."""
        return len(next(iter(self.stacks.values())).mask_NP)

    @property
    def stacks(self) -> dict[str, Stack]:
        """The stacks that are there, by kind."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {kind: stack for kind, stack in found.items() if stack is not None}

    @property
    def only(self) -> Stack:
        """The stack of a bank of one kind.

        Raises:
            ValueError: There are prompts of several kinds.
        """
        (stack,) = self.stacks.values()
        return stack

    @classmethod
    def stack(
        cls,
        prompts: Sequence[Tensor],
        kind: PromptKind = "shallow",
        groups: Sequence[Group] = GROUPS,
    ) -> PromptBank:
        """Stack the vectors of prompts of one kind [P_n, X]; the shorter ones get empty slots on their left.

        Raises:
            ValueError: No prompt, or vectors of different sizes.

        Example:
            >>> PromptBank.stack([torch.zeros(5, 8)]).only.vectors_NPX.shape
            torch.Size([1, 5, 8])
        """
        sizes = {prompt.shape[-1] for prompt in prompts}
        if len(sizes) != 1:
            raise ValueError(
                f"a stack holds prompts of one size of vectors, not of {sorted(sizes)}"
            )
        longest = max(len(prompt) for prompt in prompts)
        padded = [pad(prompt, (0, 0, longest - len(prompt), 0)) for prompt in prompts]
        mask = [torch.arange(longest) >= longest - len(prompt) for prompt in prompts]
        vectors_NPX = torch.stack(padded)
        mask_NP = torch.stack(mask).to(vectors_NPX.device)
        return cls(**{kind: Stack.of(vectors_NPX, mask_NP, groups)})

    @classmethod
    def of(cls, prompts: Sequence[SoftPrompt]) -> PromptBank:
        """Stack prompts of any kinds.

        Raises:
            ValueError: No prompt, or two of one kind whose vectors differ in size.

        Example:
            >>> prompts = [SoftPrompt.of(torch.ones(2, 4)), SoftPrompt.of(torch.ones(1, 9), kind="deep")]
            >>> bank = PromptBank.of(prompts)
            >>> bank.shallow.mask_NP.int().tolist(), bank.deep.mask_NP.int().tolist()
            ([[1, 1], [0, 0]], [[0], [1]])
        """
        stacks: dict[str, Stack] = {}
        for kind in dict.fromkeys(prompt.spec.kind for prompt in prompts):
            mine = [prompt for prompt in prompts if prompt.spec.kind == kind]
            nothing = mine[0].vectors_PH[:0]
            stack = cls.stack(
                [p.vectors_PH if p.spec.kind == kind else nothing for p in prompts], kind
            ).only
            on = [[group in prompt.spec.groups for group in GROUPS] for prompt in prompts]
            stacks[kind] = Stack(
                stack.vectors_NPX,
                stack.mask_NP,
                None if kind == "shallow" else torch.tensor(on),
            )
        if not stacks:
            raise ValueError("a bank holds at least one prompt")
        return cls(**stacks)

    def take(self, index_M: Tensor) -> PromptBank:
        """Gather prompts by their number; ``NO_PROMPT`` gathers one without a vector.

        Example:
            >>> bank = PromptBank.stack([torch.ones(2, 4)])
            >>> bank.take(torch.tensor([0, NO_PROMPT])).only.mask_NP.int().tolist()
            [[1, 1], [0, 0]]
        """
        return PromptBank(**{kind: stack.take(index_M) for kind, stack in self.stacks.items()})

    def holding(self, vectors_NPX: Tensor) -> PromptBank:
        """Return this bank of one kind with other vectors in the same places.

        Example:
            >>> bank = PromptBank.stack([torch.ones(2, 4)])
            >>> bank.holding(torch.zeros(1, 2, 4)).only.vectors_NPX.sum().item()
            0.0
        """
        ((kind, stack),) = self.stacks.items()
        return PromptBank(**{kind: replace(stack, vectors_NPX=vectors_NPX)})
