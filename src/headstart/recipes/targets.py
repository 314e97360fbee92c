"""Target tasks of a study: where their rows are, how they are asked, and which rows each seed draws.

All methods of a study read their rows here, so that all see the same labels and the same test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import DataError
from headstart.recipes.stages import DataFile
from headstart.tasks.example import Example
from headstart.tasks.fewshot import draw_shots
from headstart.tasks.paper_sets import read_paper_set
from headstart.tasks.readers import read_examples
from headstart.tasks.relabel import relabel
from headstart.tasks.task import Task
from headstart.tasks.template import Template


class Target(Settings):
    """One target task.

    Attributes:
        train: The file that labels are drawn from.
        test: The file that methods are judged on.
        words: Label to label word, in the order of the classes; after ``relabel``, where there is one.
        relabel: Label in the files to class; null leaves its rows out. Default: labels are classes.
        template: Asks the question.
        text: The column of the text.

    Example:
        >>> Target(train="a.jsonl", test="b.jsonl", words={"0": "bad", "1": "good"}).task.words
        ('bad', 'good')
    """

    train: DataFile
    test: DataFile
    words: dict[str, str] = pydantic.Field(min_length=2)
    relabel: dict[str, str | None] | None = None
    template: str = "{{ text }} It was {{ answer }}"
    text: str = "text"

    @property
    def task(self) -> Task:
        """Template, labels and label words."""
        return Task(Template(self.template), tuple(self.words), tuple(self.words.values()))

    def read(self, path: str) -> list[Example]:
        """Read one of its files, relabelled."""
        rows = list(stream_rows(path, self.text))
        return rows if self.relabel is None else list(relabel(rows, self.relabel))


class Protocol(Settings):
    """How few labels are drawn, and how many rows are judged (paper B: 40 + 40, seeds 1-5).

    Attributes:
        num_shots: Training labels in all.
        dev_shots: Further labels for early stopping; 0: a fixed number of steps.
        seeds: One draw each.
        num_test: Fixed test rows, drawn once; ``None``: all.
        skip_test: Of these, so many are left out before: rows that choices may have been made by.

    Example:
        >>> Protocol().seeds
        (1, 2, 3, 4, 5)
    """

    num_shots: int = pydantic.Field(40, ge=2)
    dev_shots: int = pydantic.Field(40, ge=0)
    seeds: tuple[int, ...] = pydantic.Field((1, 2, 3, 4, 5), min_length=1)
    num_test: int | None = pydantic.Field(400, ge=1)
    skip_test: int = pydantic.Field(0, ge=0)

    @property
    def labels(self) -> dict[str, int]:
        """How many labels a result rests on, by what they were used for."""
        return {"train": self.num_shots, "dev": self.dev_shots}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one target under one protocol.

    Attributes:
        train: Each seed's training rows.
        dev: Each seed's rows for early stopping.
        test: The test rows, the same for all.

    Example:
        >>> Rows({1: []}, {1: []}, []).test
        []
    """

    train: Mapping[int, list[Example]]
    dev: Mapping[int, list[Example]]
    test: list[Example]


def stream_rows(source: str, text: str = "text", label: str | None = "label") -> Iterator[Example]:
    """Stream a file, a Hub data set, or one split of a paper's set, which knows its own columns.

    Args:
        source: As a stage's ``context.data`` gives it.
        text: The column of the text.
        label: The column of the label; ``None``: unlabelled.

    Raises:
        DataError: It cannot be read.
        UsageError: There is no such set or split.

    Example:
        >>> list(stream_rows("set:sst55/test"))
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: there is no set 'sst55'...
    """
    if source.startswith("set:"):
        name, _, split = source.removeprefix("set:").partition("/")
        return read_paper_set(name, split or "train")
    return read_examples(source, label=label, columns={"text": text})


def rows_of_target(target: Target, train: str, test: str, protocol: Protocol) -> Rows:
    r"""Draw a target's rows.

    Args:
        target: How its files are read.
        train: Where its training file is.
        test: Where its test file is.
        protocol: How many labels, which seeds, how many test rows.

    Raises:
        DataError: A file that cannot be read, a label that is not mapped, or too few rows.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "a.jsonl")
        >>> _ = path.write_text("".join(f'{{"text": "t{i}", "label": {i % 2}}}\n' for i in range(9)))
        >>> target = Target(train="a.jsonl", test="a.jsonl", words={"0": "bad", "1": "good"})
        >>> protocol = Protocol(num_shots=4, dev_shots=2, seeds=[1], num_test=5)
        >>> rows = rows_of_target(target, str(path), str(path), protocol)
        >>> len(rows.train[1]), len(rows.dev[1]), len(rows.test)
        (4, 2, 5)
    """
    pool, judged = target.read(train), target.read(test)
    labels = [str(row.label) for row in pool]
    draws = {
        seed: draw_shots(labels, protocol.num_shots, seed, dev_shots=protocol.dev_shots)
        for seed in protocol.seeds
    }
    return Rows(
        {seed: [pool[i] for i in draw.train] for seed, draw in draws.items()},
        {seed: [pool[i] for i in draw.dev] for seed, draw in draws.items()},
        fixed_rows(judged, protocol.num_test, protocol.skip_test),
    )


def rows_reader(
    targets: Mapping[str, Target], data: Mapping[str, str], protocol: Protocol
) -> Callable[[str], Rows]:
    """Make the function that draws a target's rows by its name, from files it reads once.

    Args:
        targets: The target tasks, by name.
        data: Where their files are, as a stage's ``context.data``.
        protocol: How many labels, which seeds, how many test rows.

    Example:
        >>> rows_reader({}, {}, Protocol())("sst2")
        Traceback (most recent call last):
        ...
        KeyError: 'sst2'
    """

    @lru_cache(maxsize=1)  # pairs come target by target
    def read(name: str) -> Rows:
        target = targets[name]
        return rows_of_target(target, data[target.train], data[target.test], protocol)

    return read


def fixed_rows(rows: Sequence[Example], count: int | None, skip: int = 0) -> list[Example]:
    """Take ``count`` rows that depend on the number of rows alone, in their order.

    Args:
        rows: All rows.
        count: How many; ``None``: all.
        skip: Leave out those that so many would be.

    Raises:
        DataError: None is left.

    Example:
        >>> rows = [Example(str(i), {}) for i in range(9)]
        >>> [row.id for row in fixed_rows(rows, 3)], [row.id for row in fixed_rows(rows, 2, skip=3)]
        (['2', '4', '5'], ['3', '6'])
    """
    chosen = np.random.default_rng(0).permutation(len(rows))[skip:][:count]
    if rows and not len(chosen):
        raise DataError(f"skip_test={skip}: there are {len(rows)} test rows; leave some")
    return [rows[i] for i in sorted(chosen)]
