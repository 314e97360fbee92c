"""Adapt K prompts to K tasks at once, as plain torch expressions that can be differentiated through.

An update is a closure ``(prompts_KPH, grad_KPH, state) -> (prompts_KPH, state)``. It works on each prompt
by itself, so that K stacked prompts move exactly as K separate ones. See ``ops.shapes`` for the letters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From prompts [K, P, H] to their losses [K] in nats and the losses' gradients [K, P, H]; both can be
differentiated again wherever second-order gradients are taken."""

Update = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]
"""One step of an inner optimiser; its state is ``None`` before the first."""


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
    prompts_KPH, state, losses = start_KPH, None, []
    for _ in range(num_steps):
        loss_K, grad_KPH = gradient(prompts_KPH)
        prompts_KPH, state = update(prompts_KPH, grad_KPH, state)
        losses.append(loss_K.detach())
    return prompts_KPH, torch.stack(losses) if losses else start_KPH.new_zeros(0, len(start_KPH))


def sgd(lr: float) -> Update:
    """Plain gradient descent.

    Example:
        >>> sgd(0.1)(torch.ones(1, 1, 1), torch.ones(1, 1, 1), None)[0].item()
        0.8999999761581421
    """
    return lambda prompts_KPH, grad_KPH, state: (prompts_KPH - lr * grad_KPH, state)


def adam(lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Update:
    """Adam without weight decay, as ``torch.optim.Adam``.

    Example:
        >>> adam(0.1)(torch.ones(1, 1, 1), torch.full((1, 1, 1), 5.0), None)[0].item()
        0.8999999761581421
    """
    first, second = betas

    def update(prompts_KPH: Tensor, grad_KPH: Tensor, state: Any) -> tuple[Tensor, Any]:
        zeros = torch.zeros_like(grad_KPH)
        step, mean_KPH, square_KPH = state or (0, zeros, zeros)
        step = step + 1
        mean_KPH = first * mean_KPH + (1 - first) * grad_KPH
        square_KPH = second * square_KPH + (1 - second) * grad_KPH.square()
        scale_KPH = _root(square_KPH / (1 - second**step)) + eps
        moved_KPH = prompts_KPH - lr * (mean_KPH / (1 - first**step)) / scale_KPH
        return moved_KPH, (step, mean_KPH, square_KPH)

    return update


def adafactor(
    lr: float, decay: float = -0.8, eps: float = 1e-30, clip_threshold: float = 1.0
) -> Update:
    """Adafactor with a given step size (no relative step, no parameter scale), clipped per prompt.

    As transformers' ``Adafactor(scale_parameter=False, relative_step=False)`` on one prompt.

    Example:
        >>> adafactor(0.1)(torch.ones(1, 2, 2), torch.full((1, 2, 2), 5.0), None)[0][0, 0, 0].item()
        0.8999999761581421
    """

    def update(prompts_KPH: Tensor, grad_KPH: Tensor, state: Any) -> tuple[Tensor, Any]:
        square_KPH = grad_KPH.square() + eps
        rows_KP, columns_KH = square_KPH.mean(-1), square_KPH.mean(-2)
        step, old_KP, old_KH = state or (0, torch.zeros_like(rows_KP), torch.zeros_like(columns_KH))
        step = step + 1
        keep = 1.0 - step**decay
        rows_KP = keep * old_KP + (1 - keep) * rows_KP
        columns_KH = keep * old_KH + (1 - keep) * columns_KH
        row_scale_KP1 = (rows_KP / rows_KP.mean(-1, keepdim=True)).rsqrt()[:, :, None]
        change_KPH = grad_KPH * row_scale_KP1 * columns_KH.rsqrt()[:, None, :]
        size_K11 = _root(change_KPH.square().mean((1, 2), keepdim=True))
        change_KPH = change_KPH / (size_K11 / clip_threshold).clamp(min=1.0)
        return prompts_KPH - lr * change_KPH, (step, rows_KP, columns_KH)

    return update


def _root(values: Tensor) -> Tensor:
    """The square root, with derivative 0 instead of infinity at 0."""
    positive = values > 0
    return torch.where(positive, values, 1).sqrt() * positive


UPDATES: dict[str, Callable[[float], Update]] = {"sgd": sgd, "adam": adam, "adafactor": adafactor}
