"""One update of continued pretraining: the gradient of model and prompt, by each of paper A's methods.

The model is never copied. An inner step moves the prompts of all tasks of an update at once, with the model
frozen; what the outer loss then says about the weights is added up in their ``grad``. The prompt is
small: every task has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from headstart.learn.gradient import PLAIN, StackedLoss, row_losses
from headstart.learn.pretrain_loss import (
    TaskRows,
    Trainee,
    bare_gradient,
    prompt_loss,
    row_weights,
    stacked_loss,
)
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.shards import is_sharded, settled
from headstart.models.base import Encoded
from headstart.ops.inner_loop import (
    CHANGES,
    Change,
    Update,
    adafactor_change,
    adapt_along,
    stepping,
)


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """What an update found; what it says about the weights is in their ``grad``.

    Attributes:
        gradient_PX: The prompt's gradient, mean over tasks; ``None``: there is no prompt.
        loss: Of the rows of the outer gradient, in nats.
        support_loss: Of ``fomaml``, ``reptile`` and ``maml``: at the start of the inner steps.
        moved: How far the inner steps moved the prompt: root mean square of coordinates.

    Example:
        >>> Outer(None, 0.5).moved
        0.0
    """

    gradient_PX: Tensor | None
    loss: float
    support_loss: float = 0.0
    moved: float = 0.0


def multitask_step(
    trainee: Trainee,
    rows: Sequence[Encoded],
    settings: Pretrain,
    without: Sequence[bool] = (),
    weight_B: Tensor | None = None,
) -> Outer:
    """Take the gradient of the mean loss of rows of all tasks.

    Args:
        trainee: Model and prompt.
        rows: The update's rows.
        settings: The mean that is taken.
        without: Rows that are read without the prompt. Default: none.
        weight_B: What each row counts, where these are a process's share of the update's rows. Default:
            as the reading has it.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7, 8),), target=0)]
        >>> trainee = Trainee(load_model("tiny-causal"), [], torch.zeros(2, 16))
        >>> multitask_step(trainee, rows, Pretrain()).gradient_PX.shape
        torch.Size([2, 16])
    """
    weight_B = row_weights(rows, settings) if weight_B is None else weight_B
    if trainee.prompt_PX is None:
        return Outer(None, bare_gradient(trainee, rows, weight_B))
    owner = [-1 if out else 0 for out in without] or [0] * len(rows)
    loss = prompt_loss(trainee, rows, owner, weight_B, trainee.weights)
    loss_1, grad_1PX = loss.first_order(trainee.prompt_PX.detach()[None])
    return Outer(grad_1PX[0], float(loss_1))


def fomaml_step(
    trainee: Trainee,
    tasks: Sequence[TaskRows],
    settings: Pretrain,
    without: Sequence[Sequence[bool]] = (),
) -> Outer:
    """Take the query gradient of model and prompt at every task's adapted prompt: paper A's Algorithm 1.

    Args:
        trainee: Model and prompt; where inner state is carried, it is changed.
        tasks: The update's tasks.
        settings: Inner steps and reading.
        without: For each task, query rows that are read without the prompt. Default: none.

    Example:
        >>> from headstart.models.load import load_model
        >>> row = Encoded("a", (5, 6), ((7, 8),), target=0)
        >>> trainee = Trainee(load_model("tiny-causal"), [], torch.zeros(2, 16))
        >>> settings = Pretrain(method="fomaml", trains="prompt", inner_steps=2)
        >>> found = fomaml_step(trainee, [TaskRows([[row], [row]], [row])] * 3, settings)
        >>> found.gradient_PX.shape, found.moved > 0
        (torch.Size([2, 16]), True)
    """
    adapted_KPX, losses, _ = _adapted(trainee, tasks, settings)
    query = stacked_loss(
        trainee, [task.query for task in tasks], settings, trainee.weights, without
    )
    loss_K, grad_KPX = query.first_order(adapted_KPX)
    _divide(trainee.weights, len(tasks))
    return _outer(trainee, grad_KPX.mean(0), loss_K, losses, adapted_KPX)


def maml_step(
    trainee: Trainee,
    tasks: Sequence[TaskRows],
    settings: Pretrain,
    without: Sequence[Sequence[bool]] = (),
) -> Outer:
    """Differentiate the query losses through the inner steps, by the prompt and by the model.

    Arguments as of :func:`fomaml_step`. The weights stand in every inner gradient too, so they get a
    second-order term from each step.
    """
    assert trainee.prompt_PX is not None
    leaf_PX = trainee.prompt_PX.detach().requires_grad_()
    start_KPX = leaf_PX.expand(len(tasks), *leaf_PX.shape)
    with torch.enable_grad():
        support = _supports(trainee, tasks, settings, trainee.weights)
        adapted_KPX, losses, _ = adapt_along(start_KPX, support, _update(settings))
    query = stacked_loss(
        trainee, [task.query for task in tasks], settings, trainee.weights, without
    )
    loss_K, grad_KPX = query.first_order(adapted_KPX.detach())
    (grad_PX,) = torch.autograd.grad(adapted_KPX, leaf_PX, grad_KPX)
    _divide(trainee.weights, len(tasks))
    return _outer(trainee, grad_PX / len(tasks), loss_K, losses, adapted_KPX.detach())


def reptile_step(
    trainee: Trainee,
    tasks: Sequence[TaskRows],
    settings: Pretrain,
    without: Sequence[Sequence[bool]] = (),
) -> Outer:
    """Take the way of every task's inner steps and one step of the whole model: paper A's Algorithm 2.

    Arguments as of :func:`fomaml_step`. The whole model's step is not taken: what the inner optimiser would
    take off a weight is added up as its gradient arrives, so that there is never a second copy.
    """
    assert trainee.prompt_PX is not None
    carried = settings.reading.inner_state == "carried"
    start_PX, update = trainee.prompt_PX.detach(), _update(settings)
    taken = [torch.zeros_like(weight) for weight in trainee.weights]
    ends, told, query_losses = [], [], []
    for group in [[k] for k in range(len(tasks))] if carried else [range(len(tasks))]:
        mine = [tasks[k] for k in group]
        adapted_KPX, losses, state = _adapted(trainee, mine, settings)
        gradients = []
        for position, k in enumerate(group):
            found = _whole_model(
                *(trainee, taken, adapted_KPX[position], tasks[k].query, settings),
                without[k] if without else (),
            )
            query_losses.append(found[0])
            gradients.append(found[1])
        moved_KPX, state = update(adapted_KPX, torch.stack(gradients), state)
        trainee.prompt_state = state if carried else None
        ends.append(moved_KPX)
        told.append(losses)
    scale = 1 / settings.inner_lr if settings.reading.displacement == "divided" else 1.0
    for weight, change in zip(trainee.weights, taken, strict=True):
        weight.grad = change.mul_(settings.inner_lr * scale / len(tasks))
    end_KPX = torch.cat(ends)
    gradient_PX = (start_PX - end_KPX).mean(0) * scale
    return _outer(trainee, gradient_PX, torch.stack(query_losses), torch.cat(told, 1), end_KPX)


STEPS: dict[str, Callable[..., Outer]] = {
    "fomaml": fomaml_step,
    "maml": maml_step,
    "reptile": reptile_step,
}
"""The methods that adapt to tasks."""


@contextmanager
def frozen(weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Let a block's forwards keep nothing for the gradients of weights; spread ones keep what they keep.

    Example:
        >>> with frozen([]):
        ...     pass
    """
    weights = [weight for weight in weights if not isinstance(weight, DTensor)]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _adapted(
    trainee: Trainee, tasks: Sequence[TaskRows], settings: Pretrain
) -> tuple[Tensor, Tensor, Any]:
    """Adapt the prompt to every task: all at once, or one after the other where state is carried."""
    assert trainee.prompt_PX is not None
    start_PX, update = trainee.prompt_PX.detach(), _update(settings)
    if settings.reading.inner_state == "fresh":
        support = _supports(trainee, tasks, settings)
        start_KPX = start_PX.expand(len(tasks), *start_PX.shape)
        with frozen(trainee.weights), torch.no_grad():
            return adapt_along(start_KPX, support, update)
    ends, told = [], []
    for task in tasks:
        support = _supports(trainee, [task], settings)
        with frozen(trainee.weights), torch.no_grad():
            end_1PX, losses, trainee.prompt_state = adapt_along(
                start_PX[None], support, update, trainee.prompt_state
            )
        ends.append(end_1PX)
        told.append(losses)
    return torch.cat(ends), torch.cat(told, 1), trainee.prompt_state


def _supports(
    trainee: Trainee,
    tasks: Sequence[TaskRows],
    settings: Pretrain,
    weights: Sequence[torch.nn.Parameter] = (),
) -> list[StackedLoss]:
    """One loss an inner step, of the tasks' rows of that step."""
    steps = range(settings.inner_steps)
    return [
        stacked_loss(
            trainee, [task.support[t % len(task.support)] for task in tasks], settings, weights
        )
        for t in steps
    ]


def _whole_model(
    trainee: Trainee,
    taken: Sequence[Tensor],
    prompt_PX: Tensor,
    rows: Sequence[Encoded],
    settings: Pretrain,
    without: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Add to ``taken`` what one step on the query rows takes off every weight; return loss and gradient."""
    owner = [-1 if out else 0 for out in without] or [0] * len(rows)
    carried = settings.reading.inner_state == "carried"
    states, change = trainee.weight_states, _change(settings)
    if carried and not states:
        states.extend([None] * len(taken))

    def take(i: int, weight: Tensor) -> None:
        assert weight.grad is not None
        step_1, state = change(weight.grad[None], states[i] if carried else None)
        taken[i].add_(step_1[0])
        weight.grad = None
        if carried:
            states[i] = settled(state)

    if is_sharded(trainee.model):  # what all processes say about a weight comes at the end
        weight_B = row_weights(rows, settings)
        loss_1, grad_1PX = prompt_loss(trainee, rows, owner, weight_B, trainee.weights).first_order(
            prompt_PX[None]
        )
        for i, weight in enumerate(trainee.weights):
            if weight.grad is not None:
                take(i, weight)
        return loss_1[0], grad_1PX[0]
    leaf_1PX = prompt_PX.detach()[None].requires_grad_()
    hooks = [
        weight.register_post_accumulate_grad_hook(partial(take, i))
        for i, weight in enumerate(trainee.weights)
    ]
    try:
        with torch.enable_grad():
            bank = trainee.space.bank(leaf_1PX)
            loss_B = row_losses(trainee.model, rows, bank, torch.tensor(owner), "tokens", PLAIN)
            loss = (loss_B * row_weights(rows, settings).to(loss_B)).sum()
            torch.autograd.backward(loss, inputs=[leaf_1PX, *trainee.weights])
    finally:
        for hook in hooks:
            hook.remove()
    gradient = leaf_1PX.grad
    return loss.detach(), torch.zeros_like(prompt_PX) if gradient is None else gradient[0]


def _change(settings: Pretrain) -> Change:
    if settings.inner_optimizer == "adafactor":
        return partial(adafactor_change, least_factored=settings.reading.least_factored)
    return CHANGES[settings.inner_optimizer]


def _update(settings: Pretrain) -> Update:
    return stepping(settings.inner_lr, _change(settings))


def _divide(weights: Sequence[torch.nn.Parameter], count: int) -> None:
    for weight in weights:
        if weight.grad is not None:
            weight.grad /= count


def _outer(
    trainee: Trainee, gradient_PX: Tensor, loss_K: Tensor, losses: Tensor, end_KPX: Tensor
) -> Outer:
    assert trainee.prompt_PX is not None
    moved_K = (end_KPX - trainee.prompt_PX.detach()).square().mean((1, 2)).sqrt()
    before = float(losses[0].mean()) if len(losses) else float(loss_K.mean())
    return Outer(gradient_PX, float(loss_K.mean()), before, float(moved_K.mean()))
