"""Episodes: for each meta-training task a few support rows to adapt on and other query rows to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import DataError
from headstart.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Episode:
    """One task's rows in one meta-training step, as 0-based indices; support and query never overlap.

    Attributes:
        task: The task's index.
        support: Rows the prompt adapts on.
        query: Rows the adapted prompt is judged by.

    Example:
        >>> Episode(0, (3, 5), (1, 2)).task
        0
    """

    task: int
    support: tuple[int, ...]
    query: tuple[int, ...]


def draw_episodes(
    tasks: Sequence[Sequence[int]],
    num_support: int,
    num_query: int,
    seed: int,
    step: int,
    num_tasks: int | None = None,
) -> list[Episode]:
    """Draw the episodes of one step: a function of seed and step alone, so a resumed run draws the same.

    Args:
        tasks: The rows of each of the K tasks, as indices into one list.
        num_support: Rows to adapt on, of each task (paper B's m).
        num_query: Other rows to judge by.
        seed: Of the run.
        step: Which update, from 0.
        num_tasks: Sample this many tasks without replacement. Default: all, in order.

    Raises:
        DataError: A task has too few rows for one draw.

    Example:
        >>> (episode,) = draw_episodes([[10, 11, 12, 13]], 2, 2, seed=1, step=0)
        >>> sorted(episode.support + episode.query)
        [10, 11, 12, 13]
    """
    for task, rows in enumerate(tasks):
        if len(rows) < num_support + num_query:
            raise DataError(
                f"task {task} has {len(rows)} rows, and {num_support} support and {num_query} query "
                "rows are drawn from each; merge or drop small tasks, or draw fewer"
            )
    generator = np.random.default_rng(derive_seed(seed, "episodes", step))
    chosen = list(range(len(tasks)))
    if num_tasks is not None and num_tasks < len(tasks):
        chosen = sorted(generator.choice(len(tasks), num_tasks, replace=False).tolist())
    episodes = []
    for task in chosen:
        drawn = generator.choice(len(tasks[task]), num_support + num_query, replace=False)
        rows = [tasks[task][i] for i in drawn]
        episodes.append(Episode(task, tuple(rows[:num_support]), tuple(rows[num_support:])))
    return episodes
