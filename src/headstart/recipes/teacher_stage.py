"""The stage that trains a teacher and judges it on its own rows and on every target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.prompts.files import to_json, write_whole
from headstart.recipes.stages import Context, DataFile, StageKind
from headstart.recipes.targets import Target, fixed_rows, stream_rows
from headstart.seeds import derive_seed
from headstart.sources.judge import judge_teacher
from headstart.sources.teacher import TeacherSettings
from headstart.sources.train_teacher import train_teacher
from headstart.tasks.example import Example
from headstart.tasks.readers import label_names


class JudgedOn(Settings):
    """A target task that a teacher is judged on: its zero-shot accuracy is a baseline and a leak check.

    Attributes:
        target: The task.
        label_map: Teacher label to target label, or null. Default: they are the same.
        num_test: Fixed test rows; ``None``: all.

    Example:
        >>> target = {"train": "a.jsonl", "test": "b.jsonl", "words": {"0": "bad", "1": "good"}}
        >>> JudgedOn(target=target).num_test
        400
    """

    target: Target
    label_map: dict[str, str | None] | None = None
    num_test: int | None = pydantic.Field(400, ge=1)


class TeacherStage(Settings):
    """What the stage ``teacher`` may be told.

    Attributes:
        train: Labelled rows to learn from; one file or several.
        dev: Rows that choose the checkpoint; ``None``: ``dev_rows`` of ``train``, drawn and left out of it.
        dev_rows: See ``dev``.
        test: Its own held-out rows.
        text: The column of the text.
        max_rows: Rows of ``train`` to use, drawn; ``None``: all.
        balance: Use as many rows of every label as the rarest has.
        targets: The target tasks to judge it on, by name.
        teacher: Encoder and training; its seed is the recipe's.

    Example:
        >>> TeacherStage(train="a.jsonl", test="c.jsonl").train
        ('a.jsonl',)
    """

    train: tuple[DataFile, ...] = pydantic.Field(min_length=1)
    dev: DataFile | None = None
    dev_rows: int = pydantic.Field(1000, ge=1)
    test: DataFile
    text: str = "text"
    max_rows: int | None = pydantic.Field(None, ge=1)
    balance: bool = False
    targets: dict[str, JudgedOn] = pydantic.Field({})
    teacher: TeacherSettings = TeacherSettings(encoder="minilm")

    @pydantic.field_validator("train", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


def run_teacher(context: Context[TeacherStage]) -> None:
    """Train a teacher; write it and how good and how calibrated it is on its own rows and on every target."""
    settings = context.settings
    test = list(stream_rows(context.data[settings.test], settings.text))
    files = (stream_rows(context.data[name], settings.text) for name in settings.train)
    train = _shuffled([row for rows in files for row in rows], context.seed)
    if settings.dev is None:
        dev, train = train[: settings.dev_rows], train[settings.dev_rows :]
    else:
        dev = list(stream_rows(context.data[settings.dev], settings.text))
    if settings.balance:
        train = balanced(train)
    plan = settings.teacher.model_copy(update={"seed": context.seed})
    teacher = train_teacher(
        train[: settings.max_rows],
        dev,
        label_names([*train, *dev]),
        plan,
        context.folder / "teacher",
        lambda done, total: context.progress("training", done, total),
    )
    found = {"own": judge_teacher(teacher, test)}
    for name, judged in settings.targets.items():
        rows = fixed_rows(judged.target.read(context.data[judged.target.test]), judged.num_test)
        found[name] = judge_teacher(teacher, rows, judged.label_map)
    write_whole(context.folder / "judged.json", to_json(found))


def balanced(rows: Sequence[Example]) -> list[Example]:
    """Take the first rows of every label, as many as the rarest has, in their order.

    Example:
        >>> rows = [Example(str(i), {}, label) for i, label in enumerate("aabab")]
        >>> [row.id for row in balanced(rows)]
        ['0', '1', '2', '4']
    """
    fewest = min(Counter(row.label for row in rows).values(), default=0)
    taken: Counter[object] = Counter()
    kept = []
    for row in rows:
        taken[row.label] += 1
        if taken[row.label] <= fewest:
            kept.append(row)
    return kept


def _shuffled(rows: list[Example], seed: int) -> list[Example]:
    generator = np.random.default_rng(derive_seed(seed, "teacher rows"))
    return [rows[i] for i in generator.permutation(len(rows))]


TEACHER = StageKind("teacher", 1, TeacherStage, run_teacher, uses_model=False)
