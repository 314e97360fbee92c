"""Adapt K prompts to K tasks at once, as plain torch expressions that can be differentiated through.

An update is a closure ``(prompts_KPH, grad_KPH, state) -> (prompts_KPH, state)``. It works on each prompt
by itself, so that K stacked prompts move exactly as K separate ones. See ``ops.shapes`` for the letters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From prompts [K, P, H] to their losses [K] in nats and the losses' gradients [K, P, H]; both can be
differentiated again wherever second-order gradients are taken."""

Update = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""One step of an inner optimiser; its state is ``None`` before the first."""

Change = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""What an optimiser would take off K parameters [K, ...] at a step size of 1, given their gradients."""


def adapt(
    start_KPH: Tensor, gradient: Gradient, update: Update, num_steps: int
) -> tuple[Tensor, Tensor]:
    """Take inner steps from a start: ``P_i' = P_i - lr * grad L_i(P_i)``, paper B's Equation 1, for SGD.

    Args:
        start_KPH: The prompts before.
        gradient: Losses and gradients on the support rows.
        update: The inner optimiser.
        num_steps: Inner steps; 0 returns the start.

    Returns:
        The adapted prompts [K, P, H], and the support losses before each step [steps, K].

    Example:
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> adapt(torch.ones(1, 1, 2), square, sgd(0.5), 2)[0].tolist()
        [[[0.25, 0.25]]]
    """
    prompts_KPH, losses, _ = adapt_along(start_KPH, [gradient] * num_steps, update)
    return prompts_KPH, losses


def adapt_along(
    start_KPH: Tensor, gradients: Sequence[Gradient], update: Update, state: Any = None
) -> tuple[Tensor, Tensor, Any]:
    """Take one inner step a gradient, each on rows of its own; as :func:`adapt`.

    Args:
        start_KPH: The prompts before.
        gradients: Losses and gradients on each step's rows.
        update: The inner optimiser.
        state: Its state before, e.g. of the task before. Default: a fresh one.

    Returns:
        The adapted prompts [K, P, H], the losses before each step [steps, K], and the optimiser's state.

    Example:
        >>> square = lambda prompts: (prompts.square().sum((1, 2)) / 2, prompts)
        >>> adapt_along(torch.ones(1, 1, 1), [square, square], sgd(0.5))[0].item()
        0.25
    """
    prompts_KPH, losses = start_KPH, []
    for gradient in gradients:
        loss_K, grad_KPH = gradient(prompts_KPH)
        prompts_KPH, state = update(prompts_KPH, grad_KPH, state)
        losses.append(loss_K.detach())
    told = torch.stack(losses) if losses else start_KPH.new_zeros(0, len(start_KPH))
    return prompts_KPH, told, state


def sgd(lr: float) -> Update:
    """Plain gradient descent.

    Example:
        >>> sgd(0.1)(torch.ones(1, 1, 1), torch.ones(1, 1, 1), None)[0].item()
        0.8999999761581421
    """
    return stepping(lr, sgd_change)


def adam(lr: float) -> Update:
    """Adam without weight decay, as ``torch.optim.Adam``.

    Example:
        >>> adam(0.1)(torch.ones(1, 1, 1), torch.full((1, 1, 1), 5.0), None)[0].item()
        0.8999999761581421
    """
    return stepping(lr, adam_change)


def adafactor(lr: float) -> Update:
    """Adafactor with a given step size (no relative step, no parameter scale), clipped per prompt.

    As transformers' ``Adafactor(scale_parameter=False, relative_step=False)`` on one prompt.

    Example:
        >>> adafactor(0.1)(torch.ones(1, 2, 2), torch.full((1, 2, 2), 5.0), None)[0][0, 0, 0].item()
        0.8999999761581421
    """
    return stepping(lr, adafactor_change)


def stepping(lr: float, change: Change) -> Update:
    """Take ``lr`` times what an optimiser would take off.

    Example:
        >>> stepping(0.5, sgd_change)(torch.ones(1, 1, 1), torch.ones(1, 1, 1), None)[0].item()
        0.5
    """

    def update(prompts_KPH: Tensor, grad_KPH: Tensor, state: Any) -> tuple[Tensor, Any]:
        change_KPH, state = change(grad_KPH, state)
        return prompts_KPH - lr * change_KPH, state

    return update


def sgd_change(grad_KD: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return the gradient itself.

    Example:
        >>> sgd_change(torch.full((1, 3), 5.0), None)[0].tolist()
        [[5.0, 5.0, 5.0]]
    """
    return grad_KD, state


def adam_change(
    grad_KD: Tensor, state: Any, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> tuple[Tensor, Any]:
    """Return what Adam would take off K parameters at a step size of 1, and its new state.

    Example:
        >>> adam_change(torch.full((1, 3), 5.0), None)[0].tolist()
        [[1.0, 1.0, 1.0]]
    """
    first, second = betas
    zeros = torch.zeros_like(grad_KD)
    step, mean_KD, square_KD = state or (0, zeros, zeros)
    step = step + 1
    mean_KD = first * mean_KD + (1 - first) * grad_KD
    square_KD = second * square_KD + (1 - second) * grad_KD.square()
    scale_KD = _root(square_KD / (1 - second**step)) + eps
    return (mean_KD / (1 - first**step)) / scale_KD, (step, mean_KD, square_KD)


def adafactor_change(
    grad_KD: Tensor,
    state: Any,
    decay: float = -0.8,
    eps: float = 1e-30,
    clip_threshold: float = 1.0,
    least_factored: int = 0,
) -> tuple[Tensor, Any]:
    """Return what Adafactor would take off K parameters of one shape at a step size of 1, and its new state.

    Args:
        grad_KD: Their gradients [K, ...].
        state: ``None`` before the first step.
        decay: Of the second moments.
        eps: Added to squared gradients.
        clip_threshold: Largest root mean square of a change.
        least_factored: Second moments are kept by row and column only where both count at least so many;
            paper A's code has 128, so that a prompt's are kept whole.

    Example:
        >>> adafactor_change(torch.full((1, 3), 5.0), None)[0].tolist()
        [[1.0, 1.0, 1.0]]
    """
    step, moments = state or (0, None)
    step, keep = step + 1, 1.0 - (step + 1) ** decay
    square_KD = grad_KD.square() + eps
    factored = grad_KD.dim() > 2 and min(grad_KD.shape[-2:]) >= least_factored
    new = [square_KD.mean(-1), square_KD.mean(-2)] if factored else [square_KD]
    moments = tuple(
        keep * old + (1 - keep) * now
        for old, now in zip(moments or map(torch.zeros_like, new), new, strict=True)
    )
    if factored:
        rows, columns = moments
        row_scale = (rows / rows.mean(-1, keepdim=True)).rsqrt()[..., :, None]
        change_KD = grad_KD * row_scale * columns.rsqrt()[..., None, :]
    else:
        change_KD = grad_KD * moments[0].rsqrt()
    inner = tuple(range(1, grad_KD.dim()))
    size_K = _root(change_KD.square().mean(inner, keepdim=True))
    return change_KD / (size_K / clip_threshold).clamp(min=1.0), (step, moments)


def _root(values: Tensor) -> Tensor:
    """The square root, with derivative 0 instead of infinity at 0."""
    positive = values > 0
    return torch.where(positive, values, 1).sqrt() * positive


UPDATES: dict[str, Callable[[float], Update]] = {"sgd": sgd, "adam": adam, "adafactor": adafactor}

CHANGES: dict[str, Change] = {
    "sgd": sgd_change,
    "adam": adam_change,
    "adafactor": adafactor_change,
}
