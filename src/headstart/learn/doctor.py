"""Watch a run's vital signs and say in one line what is wrong and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from headstart.ops.initialise import root_mean_square


@dataclass(slots=True)
class Vitals:
    """What is measured at every update of one prompt.

    Attributes:
        losses: Mean loss of the update's rows, in nats.
        grad_norms: Norm of the prompt's gradient before clipping.
        update_ratios: Size of the update relative to the prompt (root mean squares).
        drift: How far the prompt is from its start, relative to the start's size.
        scale: The size that a smaller prompt is measured by: the embeddings' root mean square. A start of
            zeros has no size of its own.

    Example:
        >>> Vitals(losses=[0.7]).drift
        0.0
    """

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    update_ratios: list[float] = field(default_factory=list)
    drift: float = 0.0
    scale: float = 1e-12

    def record(
        self, loss: float, norm: float, start: Tensor, before: Tensor, after: Tensor
    ) -> None:
        """Add one update."""
        size = max(root_mean_square(before), self.scale)
        self.losses.append(loss)
        self.grad_norms.append(norm)
        self.update_ratios.append(root_mean_square(after - before) / size)
        self.drift = root_mean_square(after - start) / max(root_mean_square(start), self.scale)


def diagnose(vitals: Vitals, chance_loss: float, lr: float) -> str | None:
    """Return one line for a run in trouble, ``None`` for a healthy one.

    Args:
        vitals: The run's vital signs.
        chance_loss: Loss of a guess, log(number of candidates), in nats.
        lr: The learning rate, for the advice.

    Example:
        >>> sick = Vitals([0.7] * 20, [0.1] * 20, [1e-6] * 20, drift=2e-5)
        >>> diagnose(sick, 0.69, 1e-5)
        'the prompt cannot move: it changed by 0.00% in 20 steps; raise the learning rate ...'
    """
    count = len(vitals.losses)
    if not count:
        return None
    head = sum(vitals.losses[: max(1, count // 5)]) / max(1, count // 5)
    tail = sum(vitals.losses[-max(1, count // 5) :]) / max(1, count // 5)
    if not all(map(math.isfinite, (*vitals.losses, *vitals.grad_norms, vitals.drift))):
        return (
            f"the loss is not finite: lower the learning rate from {lr:.3g} to about {lr / 10:.3g}"
        )
    typical = sorted(vitals.update_ratios)[count // 2]
    if vitals.drift > 100 or typical > 1:
        return (
            f"the prompt ran away: it is {vitals.drift:.3g} times its own size from its start; "
            f"lower the learning rate from {lr:.3g} to about {lr / max(10.0, vitals.drift):.3g}"
        )
    still = vitals.drift < 1e-4 or (count >= 10 and vitals.drift < 0.01 and tail > 0.9 * head)
    if count >= 3 and still:
        better = lr * min(1000.0, max(10.0, 0.02 / max(typical, 1e-12)))
        return (
            f"the prompt cannot move: it changed by {vitals.drift:.2%} in {count} steps; "
            f"raise the learning rate from {lr:.3g} to about {better:.3g}"
        )
    if count >= 10 and tail > max(1.5 * head, 2 * chance_loss):
        return (
            f"the run diverges: loss {head:.2f} -> {tail:.2f}; lower the learning rate "
            f"from {lr:.3g} to about {lr / 3:.3g}"
        )
    if count >= 20 and tail > 0.97 * chance_loss and tail > 0.9 * head:
        return (
            f"the loss stays at a guess ({tail:.2f} nats, a guess is {chance_loss:.2f}): try other label "
            "words or another template, another init, or a learning rate three times larger or smaller"
        )
    return None


def diagnose_meta(
    losses: Sequence[float], gains: Sequence[float], inner_lr: float, drift: float = 1.0
) -> str | None:
    """Return one line for meta-training that teaches nothing, ``None`` for a healthy run.

    Args:
        losses: The outer loss of every update, in nats.
        gains: The inner-loop gain at every look, or of the updates where there was none: the part of the
            query loss that adapting takes away. Empty for methods without an inner loop.
        inner_lr: The inner step size, for the advice.
        drift: How far the start is from where it began, in units of its own size.

    Example:
        >>> diagnose_meta([0.7], [0.0, 1e-4], 0.001)
        'dead meta-learning: an inner step takes 0.01% off the query loss; raise inner_lr from 0.001 ...'
    """
    if not all(map(math.isfinite, (*losses, *gains))):
        return "the loss is not finite: lower meta_lr, or inner_lr, by a factor of ten"
    if len(losses) >= 20 and drift < 0.01:
        return f"the start cannot move: it changed by {drift:.2%} in {len(losses)} updates; raise meta_lr"
    gain = max(gains, default=1.0)
    if 0 <= gain < 0.005:
        return (
            f"dead meta-learning: an inner step takes {gain:.2%} off the query loss; raise inner_lr "
            f"from {inner_lr:.3g} to about {10 * inner_lr:.3g}, or take more inner steps"
        )
    if gain < 0:
        return (
            f"the inner step hurts: it adds {-gain:.2%} or more to the query loss; lower "
            f"inner_lr from {inner_lr:.3g} to about {inner_lr / 3:.3g}, or draw more support rows"
        )
    return None
