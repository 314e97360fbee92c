"""The stage that gathers P3, paper A's training data, from the Hub: a file a task, to be read lazily."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import told_by_settings
from headstart.prompts.files import to_json, write_whole
from headstart.recipes.stages import Context, StageKind
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.paper_mixture import P3, MixtureTask, Part, mixture_tasks
from headstart.tasks.readers import read_examples

TASKS = "tasks.json"
"""The tasks of a folder: name, file and number of rows."""


class P3Stage(Settings):
    """What the stage ``p3`` may be told.

    Attributes:
        part: ``train``, ``held_out`` or ``development`` of paper A's mixture.
        sets: Sets, or kinds of tasks, that are taken. Default: all.
        without: Sets, or kinds of tasks, that are left out.
        cap: Rows that are taken at most, drawn from all of them, as a set's file may be sorted by label;
            paper A: 500,000.
        cap_of: What they are of: a ``set``, as the text says, all its templates together; or a ``task``, as
            the code has it.
        repository: P3 on the Hub, maybe ``@revision``.

    Example:
        >>> P3Stage(sets=["Sentiment"]).cap
        500000
    """

    part: Part = "train"
    sets: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    cap: int = pydantic.Field(500_000, ge=1)
    cap_of: Literal["set", "task"] = "set"
    repository: str = P3

    @pydantic.model_validator(mode="after")
    def _has_tasks(self) -> P3Stage:
        with told_by_settings():
            found = mixture_tasks(self.part, self.sets, self.without)
        if not found:
            raise ValueError("sets and without leave no task")
        return self


def run_p3(context: Context[P3Stage]) -> None:
    """Write a Parquet file a task, and their list last; a task whose file is there is not read again."""
    settings = context.settings
    tasks = mixture_tasks(settings.part, settings.sets, settings.without)
    templates: dict[str, int] = {}
    for task in tasks:
        templates[task.set] = templates.get(task.set, 0) + 1
    found = []
    for number, task in enumerate(tasks):
        context.progress("reading", number, len(tasks), task.name)
        share = templates[task.set] if settings.cap_of == "set" else 1
        path = context.folder / "tasks" / f"{task.config}.parquet"
        if not path.is_file():
            rows = read_task(settings.repository, task)
            mark = derive_seed(context.seed, "p3", task.name)
            write_task(path, iter(drawn(rows, max(1, settings.cap // share), mark)))
        found.append({"name": task.name, "file": f"tasks/{path.name}", "rows": rows_in(path)})
    write_whole(context.folder / TASKS, to_json(found))


def read_task(repository: str, task: MixtureTask) -> Iterator[Example]:
    """Stream a task's rows: source as text, target as label, without the spaces around them.

    Raises:
        DataError: The Hub has no such task, or cannot be reached.
    """
    name, _, revision = repository.partition("@")
    source = f"hub:{name}:{task.config}" + (f"@{revision}" if revision else "")
    columns = {"text": "inputs_pretokenized"}
    for row in read_examples(source, label="targets_pretokenized", columns=columns, split="train"):
        text, target = str(row.fields["text"]).strip(), str(row.label or "").strip()
        if text and target:  # promptsource's templates render some rows to nothing
            yield Example(row.id, {"text": text}, target)


def drawn(rows: Iterator[Example], count: int, seed: int) -> list[Example]:
    """Draw so many rows of a stream, each alike (Vitter 1985, algorithm R), and keep their order.

    Example:
        >>> rows = [Example(str(i), {}, None) for i in range(100)]
        >>> [row.id for row in drawn(iter(rows), 3, seed=1)]
        ['21', '43', '45']
    """
    generator = np.random.default_rng(seed)
    kept: list[tuple[int, Example]] = []
    for position, row in enumerate(rows):
        if position < count:
            kept.append((position, row))
        elif (place := int(generator.integers(position + 1))) < count:
            kept[place] = position, row
    return [row for _, row in sorted(kept, key=lambda each: each[0])]


def write_task(path: Path, rows: Iterator[Example]) -> None:
    """Write rows to a Parquet file, whole or not at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.parquet"
        >>> write_task(path, iter([Example("a", {"text": "Hi"}, "Hello")]))
        >>> rows_in(path)
        1
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".tmp-{path.name}")
    with pq.ParquetWriter(scratch, schema) as sink:
        while batch := list(islice(rows, 10_000)):
            lines: list[dict[str, Any]] = [
                {"id": row.id, "text": row.fields["text"], "label": row.label} for row in batch
            ]
            sink.write_table(pa.Table.from_pylist(lines, schema))
    scratch.replace(path)


def rows_in(path: Path) -> int:
    """Count the rows of a Parquet file without reading them."""
    import pyarrow.parquet as pq

    return int(pq.ParquetFile(path).metadata.num_rows)


def task_files(folder: Path) -> dict[str, Path] | None:
    """Return the files of the tasks that a ``p3`` stage found rows of; ``None`` where another stage wrote.

    Example:
        >>> task_files(Path("nowhere")) is None
        True
    """
    path = folder / TASKS
    if not path.is_file():
        return None
    tasks = json.loads(path.read_text())
    return {task["name"]: folder / task["file"] for task in tasks if task["rows"]}


P3_KIND = StageKind("p3", 2, P3Stage, run_p3, uses_model=False)
