"""Label a stream of texts with a teacher: chunk by chunk, resumable, shared by processes.

    FOLDER/plan.json            what the run was begun with
    FOLDER/shard-I-of-N.jsonl   the chunks of process I: I, I + N, I + 2N, ...; gone at the end
    FOLDER/labels.jsonl         all rows in the stream's order, whatever N was
    FOLDER/labels.json          plan, rows and mean confidence per label, hash; last: it means done

A chunk is the unit: it is batched by length on its own, appended in one write, and labelled again
when a kill tore it. So a run that was killed, or shared, ends with the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np

from headstart.errors import DataError, StorageError, UsageError
from headstart.models.processes import own_processes
from headstart.prompts.files import storage_errors, to_json, write_whole
from headstart.sources.corpus import text_of
from headstart.sources.labels_file import PseudoLabel
from headstart.sources.plan import begin, check
from headstart.sources.teacher import Labeller
from headstart.tasks.example import Example

CHUNK_ROWS = 1024
DIGITS = 5

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def pseudo_label(
    teacher: Labeller,
    passages: Iterable[Example],
    folder: str | Path,
    *,
    corpus: Mapping[str, Any] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], None] = lambda rows_done: None,
) -> dict[str, Any]:
    """Label a stream into a folder; return what ``labels.json`` there holds.

    Call it with the same stream in each of the processes that ``torchrun``
    started; each takes its share of the chunks, and the first puts the shards together. Called again
    after a kill it goes on, and where all is done already it reads no text.

    Args:
        teacher: Gives probabilities.
        passages: The texts, in an order that is always the same.
        folder: Where the labels go.
        corpus: Names the stream and its settings (JSON-able); a folder begun with another is refused.
            Default None: only ids are compared.
        chunk_rows: Texts batched together by length, and at most lost by a kill. Default 1024.
        progress: Called with the rows this process has done, first with those done before.

    Raises:
        UsageError: The folder was begun with another teacher, corpus, chunk size or, unless it is
            done, another number of processes.
        DataError: No passages, or not those that were labelled before.
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from headstart.sources.labels_file import read_labels
        >>> class Length:
        ...     labels, mark = ("short", "long"), "length"
        ...     def probabilities(self, texts):
        ...         return np.array([[0.75, 0.25] if len(text) < 5 else [0.1, 0.9] for text in texts])
        >>> rows = [Example("a#1", {"text": "Hm."}), Example("a#2", {"text": "A long text."})]
        >>> folder = Path(tempfile.mkdtemp())
        >>> pseudo_label(Length(), rows, folder)["per_label"]["long"]
        {'confidence': 0.9, 'rows': 1}
        >>> [(row.id, row.label) for row in read_labels(folder / "labels.jsonl")]
        [('a#1', 'short'), ('a#2', 'long')]
    """
    if chunk_rows < 1:
        raise UsageError(f"chunk_rows={chunk_rows} must be at least 1")
    state = own_processes()
    index, processes = state.process_index, state.num_processes
    folder = Path(folder)
    shared = {
        "teacher": teacher.mark,
        "labels": list(teacher.labels),
        "corpus": dict(corpus or {}),
        "chunk_rows": chunk_rows,
    }
    plan = {**shared, "processes": processes}
    done = (folder / "labels.json").is_file()
    if done:
        check(folder / "labels.json", shared)
    elif (folder / "plan.json").is_file():
        check(folder / "plan.json", plan)
    state.wait_for_everyone()  # all have looked before one writes
    if done:
        return _read_summary(folder)
    if state.is_main_process:
        begin(folder / "plan.json", plan)
    state.wait_for_everyone()
    label_share(
        teacher,
        passages,
        shard_path(folder, index, processes),
        index,
        processes,
        chunk_rows,
        progress,
    )
    state.wait_for_everyone()
    if state.is_main_process:
        merge_shards(folder, processes, shared)
    state.wait_for_everyone()
    return _read_summary(folder)


def label_share(
    teacher: Labeller,
    passages: Iterable[Example],
    path: Path,
    index: int,
    processes: int,
    chunk_rows: int = CHUNK_ROWS,
    progress: Callable[[int], None] = lambda rows_done: None,
) -> None:
    """Label one process's share of the chunks into its shard; go on where it ends.

    Args:
        teacher: Gives probabilities.
        passages: The whole stream.
        path: The shard.
        index: Which of the processes this is, from 0; it takes every ``processes``-th chunk.
        processes: How many share the stream.
        chunk_rows: Rows of a chunk. Default 1024.
        progress: Called with the rows done.

    Raises:
        DataError: The stream does not hold the rows that the shard does.
        StorageError: The shard cannot be written to, or another process writes to it.

    Example:
        >>> import tempfile
        >>> from headstart.sources.labels_file import read_labels
        >>> class Coin:
        ...     labels, mark = ("heads", "tails"), "unfair"
        ...     def probabilities(self, texts):
        ...         return np.tile([0.6, 0.4], (len(texts), 1))
        >>> rows = [Example(f"a#{i}", {"text": "?"}) for i in range(5)]
        >>> path = Path(tempfile.mkdtemp(), "shard.jsonl")
        >>> label_share(Coin(), rows, path, index=1, processes=2, chunk_rows=2)
        >>> [row.id for row in read_labels(path)]
        ['a#2', 'a#3']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(path), path.open("ab+") as file:
        size, last = whole_chunks(path, chunk_rows)
        file.truncate(size)
        done = -1 if last is None else last[0]
        mine = islice(chunks(passages, chunk_rows), index, None, processes)
        rows_done = chunk_rows * (done + 1)
        if last is not None:
            _skip(path, islice(mine, done + 1), *last)
            progress(rows_done)
        for chunk in mine:
            lines = b"".join(row.to_line() for row in label_chunk(teacher, chunk))
            if os.fstat(file.fileno()).st_size != size:
                raise StorageError(
                    f"{path}: another process writes to it too; start the processes together, with "
                    "torchrun, or one only"
                )
            size += file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            rows_done += len(chunk)
            progress(rows_done)


def label_chunk(teacher: Labeller, chunk: Sequence[Example]) -> list[PseudoLabel]:
    """Label a few texts at once.

    Example:
        >>> class Coin:
        ...     labels, mark = ("heads", "tails"), "unfair"
        ...     def probabilities(self, texts):
        ...         return np.tile([0.6, 0.4], (len(texts), 1))
        >>> label_chunk(Coin(), [Example("a#1", {"text": "?"})])[0].probs
        (0.6, 0.4)
    """
    texts = [text_of(example) for example in chunk]
    probabilities_RC = teacher.probabilities(texts)
    best_R = probabilities_RC.argmax(1)
    rounded_RC = np.round(probabilities_RC, DIGITS).tolist()
    return [
        PseudoLabel(example.id, text, teacher.labels[best], probs[best], tuple(probs))
        for example, text, best, probs in zip(
            chunk, texts, best_R.tolist(), rounded_RC, strict=True
        )
    ]


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of ``size`` items; the last may be shorter.

    Example:
        >>> list(chunks("abc", 2))
        [['a', 'b'], ['c']]
    """
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def shard_path(folder: Path, index: int, processes: int) -> Path:
    """Name a process's shard.

    Example:
        >>> shard_path(Path("out"), 1, 2).name
        'shard-00001-of-00002.jsonl'
    """
    return folder / f"shard-{index:05}-of-{processes:05}.jsonl"


def whole_chunks(path: Path, chunk_rows: int) -> tuple[int, tuple[int, bytes] | None]:
    r"""Find where a shard's last whole chunk ends: its bytes, and that chunk's index and last line.

    A line without its end, or one of a chunk that is not full, is behind that place.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "shard.jsonl")
        >>> _ = path.write_bytes(b"a\nb\nc\nd\ne\ntorn")
        >>> whole_chunks(path, 2)
        (8, (1, b'd\n'))
    """
    end, position, last = 0, 0, None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            position += len(line)
            if line.endswith(b"\n") and number % chunk_rows == 0:
                end, last = position, (number // chunk_rows - 1, line)
    return end, last


def merge_shards(folder: Path, processes: int, plan: Mapping[str, Any]) -> None:
    """Put finished shards together in the stream's order, write the summary, remove the shards.

    Args:
        folder: Where the shards are.
        processes: How many there are.
        plan: What the summary says of the run; holds ``chunk_rows`` and ``labels``.

    Raises:
        DataError: There are no rows.
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from headstart.sources.labels_file import write_labels
        >>> folder = Path(tempfile.mkdtemp())
        >>> row = PseudoLabel("a#1", "Hm.", "good", 0.9, (0.1, 0.9))
        >>> write_labels(shard_path(folder, 0, 1), [row])
        >>> merge_shards(folder, 1, {"labels": ["bad", "good"], "chunk_rows": 8})
        >>> sorted(path.name for path in folder.iterdir())
        ['labels.json', 'labels.jsonl']
    """
    shards = [shard_path(folder, index, processes) for index in range(processes)]
    target, digest = folder / "labels.jsonl", hashlib.sha256()
    sums = {label: [0, 0.0] for label in plan["labels"]}
    temporary = folder / f".tmp-{uuid4().hex}-labels.jsonl"
    with storage_errors(target), temporary.open("wb") as file:
        try:
            for number, line in enumerate(_in_turns(shards, plan["chunk_rows"]), 1):
                row = PseudoLabel.from_line(f"{folder} row {number}", line)
                sums[row.label][0] += 1
                sums[row.label][1] += row.confidence
                digest.update(line)
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    rows = int(sum(number for number, _ in sums.values()))
    if rows == 0:
        raise DataError(f"{folder}: there was no passage to label; look at the corpus and its cuts")
    per_label = {
        label: {
            "rows": int(number),
            "confidence": round(total / number, DIGITS) if number else None,
        }
        for label, (number, total) in sums.items()
    }
    summary = {**plan, "rows": rows, "sha256": digest.hexdigest()}
    write_whole(folder / "labels.json", to_json(summary | {"per_label": per_label}))
    for path in (*shards, folder / "plan.json"):
        path.unlink(missing_ok=True)


def _in_turns(shards: Sequence[Path], chunk_rows: int) -> Iterator[bytes]:
    """Yield the lines of chunk 0, 1, 2, ...; chunk k stands in shard k modulo their number."""
    files = [path.open("rb") for path in shards]
    try:
        for k in count():
            lines = list(islice(files[k % len(files)], chunk_rows))
            if not lines:
                return
            yield from lines
    finally:
        for file in files:
            file.close()


def _skip(path: Path, before: Iterator[list[Example]], index: int, line: bytes) -> None:
    """Pass over the chunks that are done; the last of them must end with the shard's last row."""
    labelled = PseudoLabel.from_line(f"{path}, the last whole chunk", line)
    last, number = None, 0
    for chunk in before:
        last, number = chunk[-1], number + 1
    if number <= index or last is None or (last.id, text_of(last)) != (labelled.id, labelled.text):
        found = f"'{last.id}'" if number > index and last else "nothing"
        raise DataError(
            f"{path}: holds '{labelled.id}' where the stream has {found}: the corpus or its cuts "
            "changed since; choose another folder"
        )
    log.info("%s: %d chunks were labelled before", path, number)


def _read_summary(folder: Path) -> dict[str, Any]:
    with storage_errors(folder / "labels.json"):
        summary: dict[str, Any] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    return summary
