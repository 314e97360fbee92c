"""A mixture of tasks, read one epoch after the other: what is read when is a function of seed and epoch.

Paper A, appendix A: every set counts with at most so many rows, and the tasks are mixed in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import DataError
from headstart.seeds import derive_seed


class Mixing(Settings):
    """How much of each task an epoch reads.

    Attributes:
        cap: At most so many rows of a task in an epoch; the next epoch goes on with others. Paper A:
            500,000. ``None``: all.
        temperature: 1: tasks count in proportion to their (capped) rows; higher: more alike, large
            ones giving up rows (Raffel et al. 2020, section 3.5.2).

    Example:
        >>> Mixing(cap=500_000).temperature
        1.0
    """

    cap: int | None = pydantic.Field(None, ge=1)
    temperature: float = pydantic.Field(1.0, ge=1, le=100)


@dataclass(frozen=True)
class Mixture:
    """Tasks of so many rows each; rows are named by ``(task, row)``.

    Attributes:
        sizes: Rows of each task.
        mixing: How much of each an epoch reads.
        seed: Orders everything.

    Example:
        >>> mixture = Mixture((2, 9), Mixing(cap=3), seed=1)
        >>> mixture.quotas
        (2, 3)
        >>> sorted(mixture.epoch(0)) == sorted(mixture.epoch(1))  # the rest of the nine comes later
        False
    """

    sizes: tuple[int, ...]
    mixing: Mixing = field(default_factory=Mixing)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a mixture of nothing."""
        if not self.sizes or min(self.sizes) < 1:
            raise DataError("a mixture needs tasks, and each of them rows")

    @cached_property
    def quotas(self) -> tuple[int, ...]:
        """Rows of each task in an epoch."""
        capped = np.minimum(self.sizes, self.mixing.cap or max(self.sizes))
        shares = capped ** (1 / self.mixing.temperature)
        # the task that gives up nothing is the one with the least rows for its share
        scale = (capped / shares).min()
        return tuple(int(n) for n in np.maximum(1, np.minimum(capped, np.round(shares * scale))))

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.quotas)

    def num_batches(self, size: int) -> int:
        """Return how many batches of so many rows of one task an epoch has.

        Raises:
            DataError: No task has enough rows for one.

        Example:
            >>> Mixture((2, 5)).num_batches(2)
            3
        """
        count = sum(quota // size for quota in self.quotas)
        if not count:
            raise DataError(
                f"no task has {size} rows in an epoch, which one draw takes; draw fewer rows a task"
            )
        return count

    def task_rows(self, task: int, epoch: int) -> list[int]:
        """Return the rows of a task that an epoch reads: the next of a fixed rotation, in a new order.

        Example:
            >>> mixture = Mixture((4,), Mixing(cap=2), seed=1)
            >>> sorted(mixture.task_rows(0, 0) + mixture.task_rows(0, 1))
            [0, 1, 2, 3]
        """
        size, quota = self.sizes[task], self.quotas[task]
        rotation = np.random.default_rng(derive_seed(self.seed, "rotation", task)).permutation(size)
        taken = rotation[(np.arange(quota) + epoch * quota) % size]
        order = np.random.default_rng(derive_seed(self.seed, "order", task, epoch))
        return [int(row) for row in order.permutation(taken)]

    def epoch(self, epoch: int) -> list[tuple[int, int]]:
        """Return an epoch's rows in the order in which they are read."""
        rows = [
            (task, row) for task in range(len(self.sizes)) for row in self.task_rows(task, epoch)
        ]
        order = np.random.default_rng(derive_seed(self.seed, "mixture", epoch))
        return [rows[i] for i in order.permutation(len(rows))]

    def task_batches(self, epoch: int, size: int) -> list[list[tuple[int, int]]]:
        """Return an epoch's rows as batches of one task each, in the order in which they are read.

        Tasks so come in proportion to their rows, without replacement; rows that do not fill a batch are
        left to other epochs.

        Raises:
            DataError: No task has enough rows for one batch.

        Example:
            >>> Mixture((2, 5), seed=1).task_batches(0, 2)[0][0][0] in (0, 1)
            True
        """
        batches = []
        for task in range(len(self.sizes)):
            rows = self.task_rows(task, epoch)
            batches += [
                [(task, row) for row in rows[i : i + size]]
                for i in range(0, len(rows) - size + 1, size)
            ]
        assert len(batches) == self.num_batches(size)
        order = np.random.default_rng(derive_seed(self.seed, "tasks", epoch))
        return [batches[i] for i in order.permutation(len(batches))]


class Stream:
    """A mixture's rows, or its batches of one task each, update by update: one epoch after the other.

    Args:
        mixture: What is read.
        rows_a_task: Rows of a batch of one task. ``None``: rows one by one.

    Example:
        >>> stream = Stream(Mixture((2, 3), seed=1), None)
        >>> len({*stream.update(0, 2), *stream.update(1, 2)})
        4
        >>> [[task for task, row in batch] for batch in Stream(Mixture((4,)), 2).update(0, 3)]
        [[0, 0], [0, 0], [0, 0]]
    """

    def __init__(self, mixture: Mixture, rows_a_task: int | None) -> None:
        """Hold the mixture; epochs are laid out when an update first reads of them."""
        self.mixture, self.rows_a_task = mixture, rows_a_task
        self._epochs: dict[int, list[Any]] = {}

    def update(self, index: int, count: int) -> list[Any]:
        """Return the items of an update that reads so many, as all before it did."""
        size = self.mixture.num_rows
        if self.rows_a_task is not None:
            size = self.mixture.num_batches(self.rows_a_task)
        return [self._epoch(i // size)[i % size] for i in range(index * count, (index + 1) * count)]

    def _epoch(self, epoch: int) -> list[Any]:
        if epoch not in self._epochs:  # an update may reach from one into the next
            self._epochs = {e: items for e, items in self._epochs.items() if e == epoch - 1}
            if self.rows_a_task is None:
                self._epochs[epoch] = list(self.mixture.epoch(epoch))
            else:
                self._epochs[epoch] = list(self.mixture.task_batches(epoch, self.rows_a_task))
        return self._epochs[epoch]
