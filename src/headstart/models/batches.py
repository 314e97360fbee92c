"""Group rows by length under a budget of slots, and score any number of rows that way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from headstart.models.base import BaseModel, Encoded
from headstart.models.parallel import map_groups
from headstart.prompts.bank import PromptBank

SLOTS = 512
"""Slots (rows x longest row, padding included) in one forward: enough to fill a processor's matrix
units, and few enough that rows of one length meet and little is padding."""


def by_length(sizes: Sequence[int], budget: int = SLOTS) -> Iterator[list[int]]:
    """Yield groups of row indices, longest rows first, each within ``budget`` slots (or one row).

    Example:
        >>> list(by_length([3, 9, 4], budget=9))
        [[1], [2, 0]]
    """
    group: list[int] = []
    width = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if group and (len(group) + 1) * width > budget:
            yield group
            group = []
        width = sizes[index] if not group else width
        group.append(index)
    if group:
        yield group


def slots(rows: Sequence[Encoded], bank: PromptBank | None) -> list[int]:
    """Count the slots each row takes in a forward: its own, and its prompt's unless that was run before.

    Example:
        >>> slots([Encoded("a", (5, 6), ((7,),))], PromptBank.stack([torch.zeros(3, 4)]))
        [5]
    """
    before = bank.shallow.mask_NP.shape[1] if bank and bank.shallow else 0
    return [before + row.size for row in rows]


def pad(rows: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """Left-align token rows in one tensor [B, T]; return it with the mask of what is real.

    Example:
        >>> [tensor.tolist() for tensor in pad([(1, 2), (3,)])]
        [[[1, 2], [3, 0]], [[True, True], [True, False]]]
    """
    from torch.nn.utils.rnn import pad_sequence

    tokens_BT = pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in rows], True, padding_value=pad_id
    )
    sizes_B = torch.tensor([len(row) for row in rows])
    return tokens_BT, torch.arange(tokens_BT.shape[1]) < sizes_B[:, None]


def score_all(
    model: BaseModel,
    rows: Sequence[Encoded],
    bank: PromptBank | None = None,
    prompt_of_row_B: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda rows_done: None,
) -> tuple[Tensor, Tensor]:
    """Score any number of rows without gradients, grouped by length; results in the rows' order.

    Args:
        model: The base model.
        rows: R encoded rows.
        bank: The prompts; ``None``: no row has one.
        prompt_of_row_B: Each row's prompt. Default: prompt 0 for all.
        progress: Called with the number of rows just scored, from the thread that scored them.

    Returns:
        Log-probabilities [R, C] in nats and token counts [R, C]; count 0 marks a missing candidate.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8, 9)))]
        >>> score_all(load_model("tiny-causal"), rows)[1].tolist()
        [[1, 2]]
    """
    width = max((len(row.candidates) for row in rows), default=0)
    logprob_RC = torch.zeros(len(rows), width)
    length_RC = torch.zeros(len(rows), width, dtype=torch.long)
    chosen = torch.tensor(list(prompt_of_row_B) if prompt_of_row_B is not None else [0] * len(rows))
    if bank is not None:
        with torch.inference_mode():
            bank = model.prefill(bank)

    def score(group: list[int]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            scored = model.score([rows[i] for i in group], bank, chosen[group])
        progress(len(group))
        return scored

    groups = list(by_length(slots(rows, bank)))
    for group, scored in zip(groups, map_groups(score, groups, model.device), strict=True):
        columns = scored[0].shape[1]
        logprob_RC[group, :columns] = scored[0].cpu()
        length_RC[group, :columns] = scored[1].cpu()
    return logprob_RC, length_RC
