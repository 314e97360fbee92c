"""N prompts in one tensor, gathered by row: what lets one batch hold many prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_PROMPT = -1
"""The index of a row that is scored without a prompt."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptBank:
    """Prompts of any lengths, right-aligned in one tensor, with the mask of what is real.

    Attributes:
        prompts_NPH: The stacked prompts; gradients reach the tensors they were stacked from.
        mask_NP: True where a prompt vector stands.
        deep: Whether a vector is the keys and values of every layer at its place, as
            :meth:`~headstart.models.base.BaseModel.prefill` makes them, rather than an input embedding.

    Example:
        >>> bank = PromptBank.stack([torch.ones(2, 4), torch.ones(3, 4)])
        >>> bank.mask_NP.int().tolist()
        [[0, 1, 1], [1, 1, 1]]
        >>> len(bank)
        2
    """

    prompts_NPH: Tensor
    mask_NP: Tensor
    deep: bool = False

    def __len__(self) -> int:
        """Return the number of prompts, N."""
        return len(self.prompts_NPH)

    @classmethod
    def stack(cls, prompts: Sequence[Tensor]) -> PromptBank:
        """Stack prompts [P_n, H]; the shorter ones get empty slots on their left.

        Raises:
            ValueError: No prompt, or prompts of different hidden sizes.

        Example:
            >>> PromptBank.stack([torch.zeros(5, 8)]).prompts_NPH.shape
            torch.Size([1, 5, 8])
        """
        sizes = {prompt.shape[-1] for prompt in prompts}
        if len(sizes) != 1:
            raise ValueError(f"a bank holds prompts of one hidden size, not of {sorted(sizes)}")
        longest = max(len(prompt) for prompt in prompts)
        padded = [
            torch.nn.functional.pad(prompt, (0, 0, longest - len(prompt), 0)) for prompt in prompts
        ]
        mask = [torch.arange(longest) >= longest - len(prompt) for prompt in prompts]
        return cls(torch.stack(padded), torch.stack(mask).to(padded[0].device))

    def rows(self, prompt_of_row_B: Tensor) -> tuple[Tensor, Tensor]:
        """Gather each row's prompt [B, P, H] and mask [B, P]; index ``NO_PROMPT`` gathers none.

        Example:
            >>> bank = PromptBank.stack([torch.ones(2, 4)])
            >>> bank.rows(torch.tensor([0, NO_PROMPT]))[1].int().tolist()
            [[1, 1], [0, 0]]
        """
        chosen_B = prompt_of_row_B.to(self.prompts_NPH.device)
        has_prompt_B1 = (chosen_B >= 0)[:, None]
        row_of_B = chosen_B.clamp(min=0)
        return self.prompts_NPH[row_of_B], self.mask_NP[row_of_B] & has_prompt_B1


def rows_of(
    bank: PromptBank | None, prompt_of_row_B: Tensor | None, text_BTH: Tensor
) -> tuple[Tensor, Tensor]:
    """Gather each row's prompt, or prompts of length 0 where there is no bank.

    Example:
        >>> rows_of(None, None, torch.zeros(2, 3, 4))[0].shape
        torch.Size([2, 0, 4])
    """
    if bank is None or prompt_of_row_B is None:
        B, _, H = text_BTH.shape
        return text_BTH.new_zeros(B, 0, H), torch.zeros(
            B, 0, dtype=torch.bool, device=text_BTH.device
        )
    prompts_BPH, mask_BP = bank.rows(prompt_of_row_B)
    return prompts_BPH.to(text_BTH.device), mask_BP.to(text_BTH.device)
