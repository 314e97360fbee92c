"""One update of meta-training: every task's rows through the model, and the gradient that moves the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.config import MetaTrain
from headstart.learn.gradient import StackedLoss
from headstart.learn.processes import my_share, sum_over_processes
from headstart.learn.space import SHALLOW, Space, usual_size
from headstart.models.base import BaseModel, Encoded
from headstart.ops.inner_loop import UPDATES, Update
from headstart.ops.meta_gradient import METHODS
from headstart.tasks.episodes import Episode


def meta_gradient(
    model: BaseModel,
    start_PH: Tensor,
    rows: Sequence[Encoded],
    episodes: Sequence[Episode],
    settings: MetaTrain,
    space: Space = SHALLOW,
) -> tuple[Tensor, dict[str, float]]:
    """Compute one update's gradient [P, H] over all tasks and processes, and what to log of it.

    Args:
        model: The frozen base model.
        start_PH: The start.
        rows: The rows that the episodes point into.
        episodes: This update's tasks, of all processes.
        settings: Method, inner loop and reduction.
        space: The kind of the prompt and its units, which the gradient is in too. Default: shallow.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded(str(i), (5, 6), ((7,), (8,)), target=i % 2) for i in range(4)]
        >>> episodes, settings = [Episode(0, (0, 1), (2, 3))], MetaTrain(method="fomaml")
        >>> gradient_PH, record = meta_gradient(
        ...     load_model("tiny-causal"), torch.zeros(2, 16), rows, episodes, settings
        ... )
        >>> gradient_PH.shape, sorted(record)
        (torch.Size([2, 16]), ['moved', 'query_loss', 'support_loss'])
    """
    mine = my_share(episodes, model.device)
    sums = torch.zeros(3, device=start_PH.device)
    gradient_PH = torch.zeros_like(start_PH)
    if mine:
        draws = [(episode.support, episode.query) for episode in mine]
        if settings.method == "reptile":
            draws = [(support + query, ()) for support, query in draws]
        if settings.method == "multitask":  # nothing adapts: the start is run once for all tasks
            heaps = [[row for draw in draws for row in draw[part]] for part in (0, 1)]
            draws = [(tuple(heaps[0]), tuple(heaps[1]))]
        tasks_a_prompt = len(mine) // len(draws)
        support, query = (
            stacked(model, rows, [draw[part] for draw in draws], settings, space) for part in (0, 1)
        )
        method = METHODS["multitask" if settings.method == "plain" else settings.method]
        update, steps = inner_update(settings, model, space), settings.inner_steps
        found = method(start_PH, len(draws), support, query, update, steps)
        gradient_PH = found.gradient_PH * tasks_a_prompt
        parts = (found.support_loss_K, found.query_loss_K, found.moved_K)
        sums = tasks_a_prompt * torch.stack([part.sum() for part in parts]).to(start_PH)
    # one message: the gradient and what is logged
    total = sum_over_processes(torch.cat([gradient_PH.flatten(), sums]))
    gradient_PH, sums = total[:-3].view_as(start_PH), total[-3:] / len(episodes)
    if settings.reduction == "mean":
        gradient_PH = gradient_PH / len(episodes)
    names = ("support_loss", "query_loss", "moved")
    return gradient_PH, dict(zip(names, sums.tolist(), strict=True))


def inner_update(settings: MetaTrain, model: BaseModel, space: Space = SHALLOW) -> Update:
    """Make the inner optimiser: SGD steps in units of the gradient, the others in units of the prompt.

    Example:
        >>> from headstart.models.load import load_model
        >>> sgd = inner_update(MetaTrain(inner_lr=0.5), load_model("tiny-causal"))
        >>> sgd(torch.ones(1, 1, 1), torch.ones(1, 1, 1), None)[0].item()
        0.5
    """
    return UPDATES[settings.inner_optimizer](inner_rate(settings, model, space))


def inner_rate(settings: MetaTrain, model: BaseModel, space: Space = SHALLOW) -> float:
    """Return the inner step size: the one given, or the scale in the optimiser's own units.

    Example:
        >>> from headstart.models.load import load_model
        >>> inner_rate(MetaTrain(inner_lr=0.5), load_model("tiny-causal"))
        0.5
    """
    sgd = settings.inner_optimizer == "sgd"
    unit = 1.0 if sgd else usual_size(model, space)
    return settings.inner_lr or settings.inner_lr_scale * unit


def stacked(
    model: BaseModel,
    rows: Sequence[Encoded],
    draws: Sequence[Sequence[int]],
    settings: MetaTrain,
    space: Space = SHALLOW,
) -> StackedLoss:
    """Give the k-th of K prompts the rows of the k-th draw.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded(str(i), (5, 6), ((7,), (8,)), target=0) for i in range(3)]
        >>> stacked(load_model("tiny-causal"), rows, [(0, 1), (2,)], MetaTrain()).owner_B.tolist()
        [0, 0, 1]
    """
    owner = [k for k, draw in enumerate(draws) for _ in draw]
    chosen = [rows[i] for draw in draws for i in draw]
    return StackedLoss(model, chosen, owner, settings.loss, space=space)
