"""Put prompts beside embedded text, with explicit masks and positions, so that rows never meet.

A row of S slots is ``[empty][prompt][text][padding][extra]``: prompts stand right-aligned in their P
slots and texts left-aligned in their T slots, so prompt and text always touch (a model with relative
positions sees the true distance). ``extra`` slots hold the inner tokens of the candidate answers of
a causal model. What is empty is masked; positions count only what is there.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attach(
    prompts_BPH: Tensor, prompt_mask_BP: Tensor, text_BTH: Tensor, text_mask_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Join each row's prompt and text.

    Args:
        prompts_BPH: Each row's prompt, right-aligned [B, P, H]; P may be 0.
        prompt_mask_BP: True where a prompt vector stands.
        text_BTH: Embedded text, left-aligned [B, T, H]; its dtype is the result's.
        text_mask_BT: True where a text token stands.

    Returns:
        Embeddings [B, P+T, H] and their mask [B, P+T].

    Example:
        >>> mask = torch.tensor([[False, True]])
        >>> joined, mask = attach(torch.ones(1, 2, 4), mask, torch.zeros(1, 3, 4), torch.ones(1, 3).bool())
        >>> joined.shape, mask.sum().item()
        (torch.Size([1, 5, 4]), 4)
    """
    joined_BSH = torch.cat([prompts_BPH.to(text_BTH.dtype), text_BTH], dim=1)
    return joined_BSH, torch.cat([prompt_mask_BP, text_mask_BT], dim=1)


def positions(mask_BS: Tensor) -> Tensor:
    """Count each row's real slots from 0; empty slots get the position of their neighbour.

    Example:
        >>> positions(torch.tensor([[False, True, True, False]])).tolist()
        [[0, 0, 1, 1]]
    """
    return (mask_BS.long().cumsum(-1) - 1).clamp(min=0)


def causal_visibility(mask_BS: Tensor, branch_BE: Tensor, depth_BE: Tensor) -> Tensor:
    """Say which slot sees which: text is causal, and each candidate sees the text and itself only.

    Candidates branch off after the text, as in a tree: the row is encoded once, all its candidates
    are scored from it. Every slot sees itself, so that no softmax is empty.

    Args:
        mask_BS: Real slots of prompt and text [B, S].
        branch_BE: The candidate each extra slot belongs to; -1 where the slot is empty.
        depth_BE: The extra token's place in its candidate, from 0.

    Returns:
        Boolean [B, S+E, S+E]: ``[b, i, j]`` is True where slot i sees slot j.

    Example:
        >>> none = torch.zeros(1, 0, dtype=torch.long)
        >>> causal_visibility(torch.ones(1, 2).bool(), none, none)[0].int().tolist()
        [[1, 0], [1, 1]]
    """
    B, S = mask_BS.shape
    E = branch_BE.shape[1]
    visible = torch.zeros(B, S + E, S + E, dtype=torch.bool, device=mask_BS.device)
    visible[:, :S, :S] = torch.ones(S, S, dtype=torch.bool, device=mask_BS.device).tril()
    visible[:, :, :S] = (
        visible[:, :, :S] | (torch.arange(S + E) >= S)[None, :, None].to(mask_BS.device)
    ) & mask_BS[:, None, :]
    same_branch = (branch_BE[:, :, None] == branch_BE[:, None, :]) & (branch_BE >= 0)[:, None, :]
    visible[:, S:, S:] = same_branch & (depth_BE[:, :, None] >= depth_BE[:, None, :])
    visible.diagonal(dim1=1, dim2=2).fill_(True)
    return visible


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn True/False into 0 / lowest finite number of ``dtype``, as attention masks are added.

    Example:
        >>> additive(torch.tensor([True, False]), torch.float32)[0].item()
        0.0
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)
