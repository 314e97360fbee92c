"""Predictions on disk: one row an example, with a score for every candidate; JSONL or Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from headstart.errors import HeadstartError, UsageError
from headstart.prompts.files import made_parents, storage_errors

SUFFIXES = (".jsonl", ".parquet")


def prediction(
    id: str,
    labels: Sequence[str],
    probabilities: Sequence[float],
    scores: Sequence[float],
    gold: str | None,
    candidates: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Make one prediction row; candidates that the row does not have are left out of it.

    Args:
        id: The example's id.
        labels: The name of each candidate that the row has.
        probabilities: Of each candidate; what goes beyond ``labels`` belongs to wider rows.
        scores: The same; -inf marks a candidate the row does not have.
        gold: The gold label, where it is known.
        candidates: The candidates' texts. Default None: they are left out.

    Raises:
        HeadstartError: A score is NaN or infinite, or the row has no candidate.

    Example:
        >>> prediction("a:1", ["no", "yes"], [0.2, 0.8], [-2.0, -0.6], "yes")["predicted"]
        'yes'
        >>> prediction("a:2", ["0", "1"], [0.2, 0.8, 0.0], [-2.0, -0.6, -math.inf], None)["scores"]
        {'0': -2.0, '1': -0.6}
    """
    there = [c for c, score in enumerate(scores[: len(labels)]) if score != -math.inf]
    if not there or not all(math.isfinite(scores[c] + probabilities[c]) for c in there):
        raise HeadstartError(
            f"{id}: the model gives no finite scores {list(scores)}; tune the prompt with a lower "
            "learning rate, or load the base model in float32"
        )
    row = {
        "id": id,
        "label": gold,
        "predicted": labels[max(there, key=lambda c: probabilities[c])],
        "probabilities": {labels[c]: round(probabilities[c], 6) for c in there},
        "scores": {labels[c]: round(scores[c], 5) for c in there},
    }
    return (
        row
        if candidates is None
        else row | {"candidates": {labels[c]: candidates[c] for c in there}}
    )


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
                with storage_errors(path):
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
            self.file.writelines(
                json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows
            )

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
    """Keep the candidates as parallel lists: a column a label would change with the task."""
    flat = {key: list(v.values()) if isinstance(v, dict) else v for key, v in row.items()}
    return flat | {"label": row["label"] or "", "classes": list(row["scores"])}
