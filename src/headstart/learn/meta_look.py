"""Look at meta-training from outside: adapt the start on held-out rows of every task, and judge it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headstart.config import MetaTrain
from headstart.errors import DataError, UsageError
from headstart.learn.meta_step import inner_update, stacked
from headstart.models.base import BaseModel, Encoded
from headstart.models.batches import score_all
from headstart.ops.inner_loop import adapt
from headstart.ops.scores import candidate_cross_entropy, rank_scores
from headstart.prompts.bank import PromptBank
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
    support = stacked(model, rows, [episode.support for episode in episodes], settings)
    steps = 0 if settings.method in ("multitask", "plain") else settings.inner_steps
    with torch.no_grad():
        adapted_KPH, _ = adapt(start_KPH, support, inner_update(settings, model), steps)
    owner = [k for k, episode in enumerate(episodes) for _ in episode.query]
    queries = [rows[i] for episode in episodes for i in episode.query]
    gold = torch.tensor([row.target for row in queries])
    look: dict[str, float] = {}
    for name, prompts_KPH in (("before", start_KPH), ("after", adapted_KPH)):
        if name == "after" and not steps:
            look |= {"loss_after": look["loss_before"], "accuracy_after": look["accuracy_before"]}
            continue
        logprob, length = score_all(model, queries, PromptBank.stack(list(prompts_KPH)), owner)
        scores = rank_scores(logprob, length)
        look[f"loss_{name}"] = float(candidate_cross_entropy(scores, gold).mean())
        look[f"accuracy_{name}"] = float((scores.argmax(-1) == gold).float().mean())
    return look | {"gain": 1 - look["loss_after"] / max(look["loss_before"], 1e-12)}
