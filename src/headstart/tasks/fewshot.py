"""Few-shot splits: which rows a prompt may learn from, which may choose among its checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from headstart.errors import DataError, UsageError
from headstart.seeds import derive_seed


@dataclass(frozen=True)
class Shots:
    """The rows of one few-shot draw, as 0-based indices into the data set, each part sorted.

    Attributes:
        name: Says how the rows were drawn, e.g. ``"shots-16+0-plain-seed1"``.
        train: The rows that train the prompt.
        dev: The rows that choose a step or a learning rate; disjoint from ``train``.

    Example:
        >>> Shots("shots-2+1-plain-seed0", (0, 3), (5,)).dev
        (5,)
    """

    name: str
    train: tuple[int, ...]
    dev: tuple[int, ...]


@dataclass(frozen=True)
class LabelLedger:
    """Counts every label a result rests on, those that only chose a checkpoint included.

    Selecting a checkpoint on labelled rows is learning from them: paper B trained on 40 labels,
    chose on 40 more and reported 40. A result states this ledger's ``total``.

    Attributes:
        train: Labels the prompt was trained on.
        dev: Labels that chose a checkpoint or a setting.

    Example:
        >>> LabelLedger(train=40, dev=40).total
        80
    """

    train: int
    dev: int

    @property
    def total(self) -> int:
        """All labels used.

        Example:
            >>> LabelLedger(16, 0).total
            16
        """
        return self.train + self.dev

    def to_dict(self) -> dict[str, int]:
        """Return ``train``, ``dev`` and ``total`` as a JSON-able dict.

        Example:
            >>> LabelLedger(16, 8).to_dict()
            {'train': 16, 'dev': 8, 'total': 24}
        """
        return {**asdict(self), "total": self.total}


def draw_shots(
    labels: Sequence[str],
    num_shots: int,
    seed: int,
    *,
    dev_shots: int = 0,
    stratified: bool = False,
) -> Shots:
    """Draw ``num_shots`` training rows, in all and not per class, and ``dev_shots`` further rows.

    A plain draw depends on the number of rows and the seed alone, a stratified one on the labels
    too. ``train`` is the same whatever ``dev_shots`` is, and part of every larger draw's.

    Args:
        labels: The label of every row of the data set, in order.
        num_shots: How many rows to train on, over all classes together.
        seed: The number this draw is named after.
        dev_shots: How many rows to choose checkpoints with. Default 0.
        stratified: Draw as equal a number per class as there is; a class with too few rows
            gives all it has and the others fill up. Default False: a plain random draw, as
            papers A and B do.

    Raises:
        UsageError: ``num_shots`` is below 1 or ``dev_shots`` below 0.
        DataError: The data has too few rows, or all the training rows drawn are of one class.

    Example:
        >>> shots = draw_shots(["a", "b"] * 50, 16, seed=1, dev_shots=8, stratified=True)
        >>> shots.name, len(shots.train), len(shots.dev)
        ('shots-16+8-stratified-seed1', 16, 8)
    """
    if num_shots < 1 or dev_shots < 0:
        raise UsageError(
            f"num_shots must be at least 1 and dev_shots at least 0, not {num_shots} "
            f"and {dev_shots}"
        )
    if num_shots + dev_shots > len(labels):
        raise DataError(
            f"{num_shots} shots and {dev_shots} dev shots need {num_shots + dev_shots} rows, but "
            f"the data has {len(labels)}; ask for fewer"
        )
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "shots")))
    order: list[int] = generator.permutation(len(labels)).tolist()
    if stratified:
        order = _by_turns(order, labels)
    train, dev = order[:num_shots], order[num_shots : num_shots + dev_shots]
    drawn = {labels[row] for row in train}
    if len(drawn) == 1:
        raise DataError(
            f"all {num_shots} training rows drawn with seed {seed} have the label {drawn.pop()!r}; "
            + _way_out(labels, num_shots)
        )
    kind = "stratified" if stratified else "plain"
    name = f"shots-{num_shots}+{dev_shots}-{kind}-seed{seed}"
    return Shots(name, tuple(sorted(train)), tuple(sorted(dev)))


def _by_turns(order: Sequence[int], labels: Sequence[str]) -> list[int]:
    """Reorder rows so that the classes take turns; a class that has run out is passed over.

    Any stretch of the result is as balanced as the rows allow, the dev part too. Which class begins
    follows from the shuffled order.
    """
    queues: dict[str, deque[int]] = {}
    for row in order:
        queues.setdefault(labels[row], deque()).append(row)
    turns: list[int] = []
    while len(turns) < len(order):
        for queue in queues.values():
            if queue:
                turns.append(queue.popleft())
    return turns


def _way_out(labels: Sequence[str], num_shots: int) -> str:
    if len(set(labels)) == 1:
        return "the data has no other class"
    if num_shots == 1:
        return "ask for at least 2 shots"
    return "draw stratified, or take another seed"
