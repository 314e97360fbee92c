"""Predictions on disk: one row an example, with a score for every candidate; JSONL or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from headstart.errors import UsageError
from headstart.prompts.files import made_parents, storage_errors

SUFFIXES = (".jsonl", ".parquet")


def prediction(
    id: str,
    labels: Sequence[str],
    probabilities: Sequence[float],
    scores: Sequence[float],
    gold: str | None,
) -> dict[str, Any]:
    """Make one prediction row.

    Example:
        >>> prediction("a:1", ["no", "yes"], [0.2, 0.8], [-2.0, -0.6], "yes")["predicted"]
        'yes'
    """
    best = max(range(len(labels)), key=lambda c: probabilities[c])
    return {
        "id": id,
        "label": gold,
        "predicted": labels[best],
        "probabilities": dict(zip(labels, (round(p, 6) for p in probabilities), strict=True)),
        "scores": dict(zip(labels, (round(s, 5) for s in scores), strict=True)),
    }


class Sink(Protocol):
    """Takes prediction rows, a chunk at a time.

    Example:
        >>> class Count:
        ...     def write(self, rows): print(len(rows))
        >>> Count().write([{}])
        1
    """

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        ...


@contextmanager
def prediction_file(path: Path) -> Iterator[Sink]:
    """Open a file for predictions; it appears whole when the block ends well, and else not at all.

    Raises:
        UsageError: A suffix other than ``.jsonl`` or ``.parquet``.
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "p.jsonl"
        >>> with prediction_file(path) as sink:
        ...     sink.write([prediction("a:1", ["no"], [1.0], [0.0], None)])
        >>> path.read_text().count("a:1")
        1
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: predictions are written as {' or '.join(SUFFIXES)}")
    temporary = path.with_name(f".tmp-{uuid4().hex}-{path.name}")
    with made_parents(path):
        try:
            with storage_errors(path):
                sink = _Jsonl(temporary) if path.suffix == ".jsonl" else _Parquet(temporary)
            try:
                yield sink
            finally:
                sink.close()
            with storage_errors(path):
                temporary.replace(path)
        finally:
            with storage_errors(path):
                temporary.unlink(missing_ok=True)


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with storage_errors(self.path):
            self.file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def close(self) -> None:
        self.file.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self.writer: Any = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist([_flat(row) for row in rows])
        with storage_errors(self.path):
            if self.writer is None:
                self.writer = pq.ParquetWriter(self.path, table.schema)
            self.writer.write_table(table.cast(self.writer.schema))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the candidates as two parallel lists: a column a label would change with the task."""
    flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
    flat["label"] = row["label"] or ""
    flat["candidates"] = list(row["scores"])
    flat |= {key: list(row[key].values()) for key in ("probabilities", "scores")}
    return flat
