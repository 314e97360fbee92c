"""Losses of N prompts on one stream of rows, and their gradients of first and second order.

A row depends on its own prompt alone, so one backward over the summed loss gives every prompt exactly
the gradient it would get alone. Rows go through the model in groups of like length, several groups side
by side; a second-order product runs the groups once more instead of keeping all their graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from headstart.config import Scoring
from headstart.learn.processes import largest_over_processes, my_rows, sum_over_processes
from headstart.learn.shards import is_sharded
from headstart.learn.space import SHALLOW, Space
from headstart.models.base import BaseModel, Encoded
from headstart.models.batches import by_length, score_all, slots
from headstart.models.parallel import map_groups
from headstart.ops.scores import candidate_cross_entropy, rank_scores, token_cross_entropy
from headstart.prompts.bank import PromptBank

PLAIN = Scoring()
"""Sum of token log-probabilities, no calibration."""


def row_losses(
    model: BaseModel,
    rows: Sequence[Encoded],
    bank: PromptBank | None,
    prompt_of_row_B: Tensor | None,
    loss: str,
    scoring: Scoring,
) -> Tensor:
    """Score rows and return each one's loss in nats [B].

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,),), target=0)]
        >>> row_losses(load_model("tiny-causal"), rows, None, None, "tokens", Scoring()).shape
        torch.Size([1])
    """
    logprob_BC, length_BC = model.score(rows, bank, prompt_of_row_B)
    target_B = torch.tensor([row.target for row in rows], device=logprob_BC.device)
    if loss == "tokens":
        return token_cross_entropy(logprob_BC, length_BC, target_B)
    scores_BC = rank_scores(logprob_BC, length_BC, scoring.rule, scoring.gamma)
    return candidate_cross_entropy(scores_BC, target_B)


def scored(
    model: BaseModel,
    rows: Sequence[Encoded],
    bank: PromptBank | None = None,
    prompt_of_row: Sequence[int] | None = None,
    scoring: Scoring = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Score labelled rows without gradients; return scores [R, C] and the gold candidates [R].

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8,)), target=1)]
        >>> scores_RC, gold_R = scored(load_model("tiny-causal"), rows)
        >>> scores_RC.shape, gold_R.tolist()
        (torch.Size([1, 2]), [1])
    """
    logprob_RC, length_RC = score_all(model, rows, bank, prompt_of_row)
    scores_RC = rank_scores(logprob_RC, length_RC, scoring.rule, scoring.gamma)
    return scores_RC, torch.tensor([row.target for row in rows])


class StackedLoss:
    """The mean loss of each of N prompts on its own rows, as an :data:`~headstart.ops.inner_loop.Gradient`.

    Args:
        model: The frozen base model.
        rows: B labelled rows of all prompts together.
        prompt_of_row: Which prompt each row belongs to [B]; a prompt without rows has loss 0. -1: the row is
            read without a prompt, and counts in the loss of the first.
        loss: ``candidates`` or ``tokens``.
        scoring: The rule the losses use.
        space: The kind of the prompts and their units. Default: shallow.
        mask_NP: Which prompt slots are real. Default: all.
        weight_B: What each row counts in the loss of its prompt. Default: all rows of a prompt alike.
        weights: Weights of the model whose gradients are taken too: :meth:`first_order` and
            :meth:`second_order` add them to their ``grad``. These are all that ask for a gradient.

    Where the model's weights are spread over processes, each process works on a share of the rows, and
    all get the same losses and gradients.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8,)), target=0)] * 2
        >>> of_prompts = StackedLoss(load_model("tiny-causal"), rows, [0, 1])
        >>> loss_N, grad_NPH = of_prompts(torch.zeros(2, 3, 16))
        >>> loss_N.shape, grad_NPH.shape, of_prompts.rows_of_prompt_N.tolist()
        (torch.Size([2]), torch.Size([2, 3, 16]), [1.0, 1.0])
    """

    def __init__(
        self,
        model: BaseModel,
        rows: Sequence[Encoded],
        prompt_of_row: Sequence[int],
        loss: str = "candidates",
        scoring: Scoring = PLAIN,
        space: Space = SHALLOW,
        mask_NP: Tensor | None = None,
        weight_B: Tensor | None = None,
        weights: Sequence[Tensor] = (),
    ) -> None:
        """Hold rows and their owners; nothing is computed yet."""
        self.model, self.rows, self.loss, self.scoring = model, rows, loss, scoring
        self.owner_B = torch.tensor(prompt_of_row, dtype=torch.long)
        # a row without a prompt is one of the first prompt's
        self.counted_B = self.owner_B.clamp(min=0)
        self.rows_of_prompt_N = torch.bincount(self.counted_B).float()
        if weight_B is None:
            weight_B = 1 / self.rows_of_prompt_N[self.counted_B]
        self.weight_B, self.weights = weight_B, list(weights)
        self.space, self.mask_NP = space, mask_NP
        self.together = is_sharded(model)
        if self.together:
            mine, counts = my_rows(len(rows), model.device)
            self.rows = [rows[i] for i in mine]
            self.owner_B, self.counted_B = self.owner_B[mine], self.counted_B[mine]
            self.weight_B = weight_B[mine] * counts

    def __call__(self, prompts_NPH: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses [N] in nats and gradients [N, P, H], which can be differentiated again."""
        losses, gradients = _Differentiable.apply(prompts_NPH, self)  # type: ignore[no-untyped-call]
        return losses, gradients

    def first_order(self, prompts_NPH: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses [N] and gradients [N, P, H] without history."""
        return self._first_order(prompts_NPH, self.weights)

    def _first_order(
        self, prompts_NPH: Tensor, weights: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        def work(group: _Group) -> tuple[Tensor, Tensor]:
            loss_B, leaf_GPX = self._weighted(group), group.bank.only.vectors_NPX
            torch.autograd.backward(loss_B.sum(), inputs=None if weights else [leaf_GPX])
            return _gradient(leaf_GPX), loss_B.detach()

        leaf_NPH, shared = self._prefill(prompts_NPH)
        groups, parts = self._map(work, shared)
        grad_NPX = _gathered(shared, groups, [grad for grad, _ in parts])
        torch.autograd.backward(
            shared.only.vectors_NPX, grad_NPX, inputs=None if weights else [leaf_NPH]
        )
        loss_N = torch.zeros(len(prompts_NPH), dtype=parts[0][1].dtype)
        for group, (_, loss_B) in zip(groups, parts, strict=True):
            loss_N.index_add_(0, self.counted_B[group.rows], loss_B.cpu())
        loss_N, grad_NPH = loss_N.to(prompts_NPH.device), _gradient(leaf_NPH)
        if self.together:
            return sum_over_processes(loss_N), sum_over_processes(grad_NPH)
        return loss_N, grad_NPH

    def second_order(self, prompts_NPH: Tensor, direction_NPH: Tensor) -> Tensor:
        """Return the Hessian of the summed losses times a direction [N, P, H].

        Prompts P are prefilled to D(P), and the loss is L(D). With J the derivative of D, the product
        with v is ``J' L'' J v`` plus the derivative of ``(J' L') . v`` with L' held fixed.
        """
        grad = torch.autograd.grad
        # the fused kernels have no second derivative; this changes nothing for plain attention
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            leaf_NPH, shared = self._prefill(prompts_NPH)
            deep_NPX = shared.only.vectors_NPX
            dummy_NPX = torch.zeros_like(deep_NPX).requires_grad_()
            (back_NPH,) = grad(deep_NPX, leaf_NPH, dummy_NPX, create_graph=True)
            (moved_NPX,) = grad(back_NPH, dummy_NPX, direction_NPH, retain_graph=True)

            def work(group: _Group) -> tuple[Tensor, Tensor]:
                loss, leaf_GPX = self._weighted(group).sum(), group.bank.only.vectors_NPX
                (grad_GPX,) = grad(loss, leaf_GPX, create_graph=True)
                along_GPX = moved_NPX[group.owners.clamp(min=0)]
                torch.autograd.backward(grad_GPX, along_GPX, inputs=[leaf_GPX, *self.weights])
                return grad_GPX.detach(), _gradient(leaf_GPX)

            groups, parts = self._map(work, shared)
            grad_NPX = _gathered(shared, groups, [part for part, _ in parts])
            product_NPX = _gathered(shared, groups, [part for _, part in parts])
            inputs = [leaf_NPH, *self.weights]
            (back_NPH,) = grad(deep_NPX, leaf_NPH, grad_NPX, create_graph=True)
            torch.autograd.backward(deep_NPX, product_NPX, inputs=inputs, retain_graph=True)
            if back_NPH.requires_grad:  # else prefilling is no computation at all
                torch.autograd.backward(back_NPH, direction_NPH, inputs=inputs)
            return _gradient(leaf_NPH)

    def _prefill(self, prompts_NPH: Tensor) -> tuple[Tensor, PromptBank]:
        """Compute once what the rows of each prompt share, with its graph down to a fresh leaf."""
        with torch.enable_grad():
            leaf_NPH = prompts_NPH.detach().requires_grad_()
            return leaf_NPH, self.model.prefill(self.space.bank(leaf_NPH, self.mask_NP))

    def _weighted(self, group: _Group) -> Tensor:
        """Each row's loss times its weight: by default their sum is the sum of the prompts' means."""
        rows = [self.rows[i] for i in group.rows]
        loss_B = row_losses(self.model, rows, group.bank, group.owner_B, self.loss, self.scoring)
        return loss_B * self.weight_B[group.rows].to(loss_B) * group.counts

    def _map(
        self, work: Callable[[_Group], Any], shared: PromptBank
    ) -> tuple[list[_Group], list[Any]]:
        """Work on groups of rows of like length; a group holds the prompts of its own rows only."""
        device = self.model.device
        reduced = torch.is_autocast_enabled(device.type)  # a thread of its own does not know
        dtype = torch.get_autocast_dtype(device.type)

        def one(group: _Group) -> Any:
            with torch.enable_grad(), torch.autocast(device.type, dtype, enabled=reduced):
                return work(group)

        groups = []
        for rows in by_length(slots(self.rows, shared)):
            owners, owner_B = self.owner_B[rows].unique(return_inverse=True)
            bank = shared.take(owners)
            leaf_GPX = bank.only.vectors_NPX.detach().requires_grad_()
            groups.append(_Group(rows, owners, owner_B, bank.holding(leaf_GPX)))
        if self.together:  # all run as many forwards, the last ones for nothing
            missing = largest_over_processes(len(groups), device) - len(groups)
            leaf_GPX = groups[-1].bank.only.vectors_NPX
            groups += [
                replace(groups[-1], bank=bank.holding(leaf_GPX.detach().requires_grad_()), counts=0)
                for _ in range(missing)
            ]
            return groups, list(map(one, groups))
        if self.weights or self.model.network.training:  # they share gradients, or random numbers
            return groups, list(map(one, groups))
        return groups, map_groups(one, groups, device)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Rows that go through the model together, and the G prompts they belong to."""

    rows: list[int]
    owners: Tensor
    owner_B: Tensor
    bank: PromptBank
    counts: int = 1


def _gathered(shared: PromptBank, groups: Sequence[_Group], parts: Sequence[Tensor]) -> Tensor:
    total_NPX = torch.zeros_like(shared.only.vectors_NPX)
    for group, part_GPX in zip(groups, parts, strict=True):
        total_NPX.index_add_(0, group.owners.clamp(min=0).to(part_GPX.device), part_GPX)
    return total_NPX


class _Differentiable(torch.autograd.Function):
    """Loss and gradient as one operation, whose backward is a product with the Hessian."""

    @staticmethod
    def forward(ctx: Any, prompts_NPH: Tensor, losses: StackedLoss) -> tuple[Tensor, Tensor]:
        """Compute both without keeping any graph of the model."""
        loss_N, grad_NPH = losses._first_order(prompts_NPH)
        ctx.losses = losses
        ctx.save_for_backward(prompts_NPH, grad_NPH)
        return loss_N, grad_NPH

    @staticmethod
    def backward(ctx: Any, d_loss_N: Tensor, d_grad_NPH: Tensor) -> tuple[Tensor, None]:
        """Apply the chain rule: the loss's own gradient, and the Hessian for the gradient's."""
        prompts_NPH, grad_NPH = ctx.saved_tensors
        back_NPH = d_loss_N[:, None, None] * grad_NPH
        return back_NPH + ctx.losses.second_order(prompts_NPH, d_grad_NPH), None
