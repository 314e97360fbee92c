"""Look at meta-training from outside: adapt the start on held-out rows of every task, and judge it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headstart.config import MetaTrain
from headstart.errors import DataError, UsageError
from headstart.learn.gradient import scored
from headstart.learn.meta_step import inner_update, stacked
from headstart.learn.space import SHALLOW, Space
from headstart.models.base import BaseModel, Encoded
from headstart.ops.inner_loop import adapt
from headstart.ops.scores import candidate_cross_entropy
from headstart.seeds import derive_seed
from headstart.tasks.episodes import Episode


def split_tasks(
    sizes: Sequence[int], settings: MetaTrain, seed: int
) -> tuple[list[list[int]], list[Episode]]:
    """Hold rows of every task out: the rows to train on, and one fixed episode a task to look at.

    Raises:
        UsageError: The held-out rows are all needed to adapt on.
        DataError: A task has too few rows.

    Example:
        >>> train, (episode,) = split_tasks([6], MetaTrain(num_support=1, num_query=1, num_validation=3), 0)
        >>> len(train[0]), len(episode.support), len(episode.query)
        (3, 1, 2)
    """
    held, m = settings.num_validation, settings.num_support
    if 0 < held <= m:
        raise UsageError(
            f"num_validation={held}: {m} of them are support rows and none is left to judge by; hold out "
            f"more than {m}, or none"
        )
    train, episodes, begin = [], [], 0
    for task, size in enumerate(sizes):
        if size < held + m + settings.num_query:
            raise DataError(
                f"task {task} has {size} rows, too few for {held} held-out, {m} support and "
                f"{settings.num_query} query rows; merge or drop small tasks, or lower num_validation"
            )
        order = np.random.default_rng(derive_seed(seed, "held-out", task)).permutation(size)
        rows = [begin + int(i) for i in order]
        if held:
            episodes.append(Episode(task, tuple(rows[:m]), tuple(rows[m:held])))
        train.append(sorted(rows[held:]))
        begin += size
    return train, episodes


def look_at_held_out(
    model: BaseModel,
    prompt_PH: Tensor,
    rows: Sequence[Encoded],
    episodes: Sequence[Episode],
    settings: MetaTrain,
    space: Space = SHALLOW,
) -> dict[str, float]:
    """Adapt the start to each task's support rows and judge it on the query rows, before and after.

    Returns:
        ``loss_before``, ``loss_after`` (mean over tasks, nats), ``accuracy_before``, ``accuracy_after``
        and ``gain``, the part of the loss that adapting takes away.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded(str(i), (5, 6), ((7,), (8,)), target=i % 2) for i in range(4)]
        >>> episodes, model = [Episode(0, (0, 1), (2, 3))], load_model("tiny-causal")
        >>> look = look_at_held_out(model, torch.zeros(2, 16), rows, episodes, MetaTrain(inner_lr=0.1))
        >>> look["accuracy_before"], look["loss_before"] > look["loss_after"]
        (0.5, True)
    """
    start_KPH = prompt_PH.expand(len(episodes), *prompt_PH.shape)
    support = stacked(model, rows, [episode.support for episode in episodes], settings, space)
    steps = settings.inner_steps if settings.has_inner_loop else 0
    with torch.no_grad():
        update = inner_update(settings, model, space)
        adapted_KPH, _ = adapt(start_KPH, support, update, steps)
    owner = [k for k, episode in enumerate(episodes) for _ in episode.query]
    queries = [rows[i] for episode in episodes for i in episode.query]

    def judged(prompts_KPH: Tensor) -> tuple[float, float]:
        scores_RC, gold_R = scored(model, queries, space.bank(prompts_KPH), owner)
        loss = float(candidate_cross_entropy(scores_RC, gold_R).mean())
        return loss, float((scores_RC.argmax(-1) == gold_R).float().mean())

    loss_before, accuracy_before = before = judged(start_KPH)
    loss_after, accuracy_after = judged(adapted_KPH) if steps else before
    return {
        "loss_before": loss_before,
        "accuracy_before": accuracy_before,
        "loss_after": loss_after,
        "accuracy_after": accuracy_after,
        "gain": 1 - loss_after / max(loss_before, 1e-12),
    }
