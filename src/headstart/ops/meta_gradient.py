"""The gradient that moves a shared start: four methods, one signature.

Each takes the start, the number of tasks, the tasks' support and query losses as functions of K
stacked prompts, an inner optimiser and a number of inner steps. The model is not seen here, and never
copied: only the prompt is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.ops.inner_loop import Gradient, Update, adapt


@dataclass(frozen=True, slots=True, eq=False)
class MetaGradient:
    """Which way the start should move, and what the tasks said.

    Attributes:
        gradient_PH: Summed over tasks.
        support_loss_K: Each task's support loss at the start, in nats.
        query_loss_K: Each task's query loss after the inner steps; of ``reptile``, which has no query
            rows, the support loss before the last step.
        moved_K: How far each task moved its prompt: root mean square over coordinates.

    Example:
        >>> MetaGradient(torch.zeros(1, 2), torch.ones(3), torch.ones(3), torch.zeros(3)).gradient_PH.shape
        torch.Size([1, 2])
    """

    gradient_PH: Tensor
    support_loss_K: Tensor
    query_loss_K: Tensor
    moved_K: Tensor


Method = Callable[[Tensor, int, Gradient, Gradient, Update, int], MetaGradient]


def maml(
    start_PH: Tensor,
    num_tasks: int,
    support: Gradient,
    query: Gradient,
    update: Update,
    inner_steps: int,
) -> MetaGradient:
    """Differentiate the query losses through the inner steps: paper B's Equation 2, second order.

    Args:
        start_PH: The shared start P.
        num_tasks: K.
        support: Losses and gradients of K prompts on the support rows; differentiable.
        query: The same on the query rows.
        update: The inner optimiser, e.g. ``sgd(inner_lr)``.
        inner_steps: Steps on the support rows; 0 gives the query gradient at the start.

    Example:
        >>> from headstart.ops.inner_loop import sgd
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> found = maml(torch.ones(1, 1), 2, square, square, sgd(0.5), 1)  # 2 * (1 - 0.5) * 0.5
        >>> found.gradient_PH.item()
        0.5
    """
    leaf_PH = start_PH.detach().requires_grad_()
    with torch.enable_grad():
        adapted_KPH, losses = adapt(_repeat(leaf_PH, num_tasks), support, update, inner_steps)
    query_loss_K, query_grad_KPH = query(adapted_KPH.detach())
    (gradient_PH,) = torch.autograd.grad(adapted_KPH, leaf_PH, query_grad_KPH)
    return _report(start_PH, gradient_PH, losses, query_loss_K, adapted_KPH)


@torch.no_grad()
def fomaml(
    start_PH: Tensor,
    num_tasks: int,
    support: Gradient,
    query: Gradient,
    update: Update,
    inner_steps: int,
) -> MetaGradient:
    """Take the query gradient at each adapted prompt for the start's own: first-order MAML.

    Arguments as of :func:`maml`; the gradients need not be differentiable.

    Example:
        >>> from headstart.ops.inner_loop import sgd
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> fomaml(torch.ones(1, 1), 2, square, square, sgd(0.5), 1).gradient_PH.item()
        1.0
    """
    adapted_KPH, losses = adapt(_repeat(start_PH, num_tasks), support, update, inner_steps)
    query_loss_K, query_grad_KPH = query(adapted_KPH)
    return _report(start_PH, query_grad_KPH.sum(0), losses, query_loss_K, adapted_KPH)


@torch.no_grad()
def reptile(
    start_PH: Tensor,
    num_tasks: int,
    support: Gradient,
    query: Gradient,
    update: Update,
    inner_steps: int,
) -> MetaGradient:
    """Move the start towards the adapted prompts: the gradient is ``sum_k (P - P_k')`` (Nichol et al. 2018).

    Arguments as of :func:`maml`; ``query`` is not called. Divided by the inner step size this is, for
    SGD, the sum of the gradients along the way; adaptive outer optimisers do not see the factor.

    Raises:
        ValueError: No inner steps: the start would never move.

    Example:
        >>> from headstart.ops.inner_loop import sgd
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> reptile(torch.ones(1, 1), 2, square, square, sgd(0.5), 2).gradient_PH.item()
        1.5
    """
    if inner_steps < 1:
        raise ValueError("reptile needs at least one inner step")
    adapted_KPH, losses = adapt(_repeat(start_PH, num_tasks), support, update, inner_steps)
    gradient_PH = (start_PH - adapted_KPH).sum(0)
    return _report(start_PH, gradient_PH, losses, losses[-1], adapted_KPH)


@torch.no_grad()
def multitask(
    start_PH: Tensor,
    num_tasks: int,
    support: Gradient,
    query: Gradient,
    update: Update,
    inner_steps: int,
) -> MetaGradient:
    """Train the start itself on all tasks' rows, without inner steps (Gu et al. 2022 with one task).

    Arguments as of :func:`maml`; the last two play no part. Support and query rows count alike, so
    that a step sees as many rows as a step of the others.

    Example:
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> multitask(torch.ones(1, 1), 2, square, square, lambda *x: x, 0).gradient_PH.item()
        2.0
    """
    start_KPH = _repeat(start_PH, num_tasks)
    support_loss_K, support_grad_KPH = support(start_KPH)
    query_loss_K, query_grad_KPH = query(start_KPH)
    gradient_PH = (support_grad_KPH + query_grad_KPH).sum(0) / 2
    return _report(start_PH, gradient_PH, support_loss_K[None], query_loss_K, start_KPH)


METHODS: dict[str, Method] = {
    "maml": maml,
    "fomaml": fomaml,
    "reptile": reptile,
    "multitask": multitask,
}


def _repeat(start_PH: Tensor, num_tasks: int) -> Tensor:
    return start_PH.expand(num_tasks, *start_PH.shape)


def _report(
    start_PH: Tensor, gradient_PH: Tensor, losses: Tensor, query_loss_K: Tensor, adapted_KPH: Tensor
) -> MetaGradient:
    support_loss_K = losses[0] if len(losses) else query_loss_K
    moved_K = (adapted_KPH.detach() - start_PH).square().mean((1, 2)).sqrt()
    return MetaGradient(
        gradient_PH.detach(), support_loss_K.detach(), query_loss_K.detach(), moved_K
    )
