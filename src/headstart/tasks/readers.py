"""Reads labelled and unlabelled data row by row; every complaint names the file and the line."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import DataError, did_you_mean
from headstart.tasks.columns import Columns
from headstart.tasks.example import Example

FIELD_LIMIT = 10 * 2**20
"""Characters one CSV field may have."""

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?")
_HUB_SECONDS = 5.0
_Rows = Iterator[tuple[str, Mapping[str, Any]]]


def read_examples(
    source: str | Path,
    *,
    label: str | None = "label",
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    split: str | None = None,
) -> Iterator[Example]:
    r"""Stream the rows of a file or of a Hub data set as examples.

    Files are CSV, TSV, JSON lines (.jsonl, .ndjson, .json-lines), each also gzipped, or Parquet,
    told by their suffix. What is no file and reads like ``name``, ``owner/name`` or
    ``owner/name:config``, with or without ``hub:`` before it, is a data set on the Hub.

    Args:
        source: The file, or the data set's name.
        label: The column that holds the label. Default ``"label"``; None reads unlabelled rows.
        columns: Field name to column. Default None: all columns but the label's and the id's, under
            their own names.
        id_column: The column that names each row. Default None: ``file:number``, counting from 1.
        split: The split of a Hub data set. Default None: ``"train"``. Files have no splits.

    Raises:
        DataError: The source cannot be found or read, or one of its rows or columns cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text("review,label\nLovely!,1\n")
        ...     list(read_examples(path, columns={"text": "review"}))
        [Example(id='train.csv:1', fields={'text': 'Lovely!'}, label='1')]
    """
    name, rows = _open_source(source, split)
    pick: Columns | None = None
    number = 0
    for number, (where, row) in enumerate(rows, 1):
        if pick is None:
            pick = Columns(where, row, label, columns, id_column)
        yield pick.example(where, row, f"{name}:{number}")
    if number == 0:
        raise DataError(f"{source} has no rows")


def read_all(
    source: str | Path,
    *,
    label: str | None = "label",
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    split: str | None = None,
) -> list[Example]:
    """Read all rows at once; arguments, defaults and errors are those of ``read_examples``.

    Raises:
        DataError: As ``read_examples``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "new.jsonl")
        ...     _ = path.write_text('{"text": "Lovely!"}')
        ...     read_all(path, label=None)[0].fields
        {'text': 'Lovely!'}
    """
    rows = read_examples(source, label=label, columns=columns, id_column=id_column, split=split)
    return list(rows)


def label_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return the labels that occur, numbers in numeric order and else in alphabetical order.

    Raises:
        DataError: A row has no label, or there are fewer than two classes.

    Example:
        >>> label_names([Example("a:1", {}, "10"), Example("a:2", {}, "9")])
        ('9', '10')
    """
    names: set[str] = set()
    for example in examples:
        if example.label is None:
            raise DataError(f"{example.id}: the row has no label; read it with a label column")
        names.add(example.label)
    if len(names) < 2:
        found = f"only the label '{names.pop()}'" if names else "no labels"
        raise DataError(f"the data has {found}; classification needs at least two classes")
    if all(re.fullmatch(r"-?[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _open_source(source: str | Path, split: str | None) -> tuple[str, _Rows]:
    """Decide what a source is; returns what its rows are called after, and the rows."""
    text, path = str(source), Path(source)
    if text.startswith("hub:"):
        return text[4:], _hub_rows(text[4:], split or "train")
    kind = path.name.lower().removesuffix(".gz")
    reader = next((_READERS[suffix] for suffix in _READERS if kind.endswith(suffix)), None)
    if path.is_file():
        if split is not None:
            raise DataError(f"{source}: a file has no split '{split}'; name the split's own file")
        if reader is None or (reader is _parquet_rows and path.suffix.lower() == ".gz"):
            known = ", ".join(_READERS)
            raise DataError(f"{source}: the suffix says no known format; known are {known} (.gz)")
        return path.name, reader(path)
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name one of the files in it")
    missing_file = reader is not None or (path.parent != Path() and path.parent.is_dir())
    if isinstance(source, str) and not missing_file and _HUB_NAME.fullmatch(text):
        return text, _hub_rows(text, split or "train")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{source}: no such file{did_you_mean(path.name, siblings)}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Decode line by line, so that a wrong byte is found with the line it is in."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    raise DataError(
                        f"{path} line {number}: is not UTF-8 text; save the file as UTF-8"
                    ) from None
                if "\0" in line:
                    raise DataError(f"{path} line {number}: holds a NUL byte; remove it")
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason})") from None


def _json_rows(path: Path) -> _Rows:
    blank: int | None = None
    for number, line in _lines(path):
        if not line.strip():
            blank = blank or number
            continue
        _refuse_gap(path, blank)
        where = f"{path} line {number}"
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object {{...}}, not {line.strip()[:40]}")
        yield where, row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _refuse_gap(path: Path, blank: int | None) -> None:
    """Blank lines may end a file; one among the rows might be a row that was lost."""
    if blank is not None:
        raise DataError(f"{path} line {blank}: is blank, but rows follow; remove the line")


def _csv_rows(path: Path, delimiter: str = ",") -> _Rows:
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    start, blank = 1, None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path} line {start}: cannot be read ({error})") from None
        if cells is None:
            return
        where, here, start = f"{path} line {start}", start, reader.line_num + 1
        if not any(cells) and len(cells) <= 1:
            blank = blank or here
            continue
        _refuse_gap(path, blank)
        if header is None:
            header = _header(where, cells)
        elif len(cells) != len(header):
            raise DataError(
                f"{where}: has {len(cells)} columns where the header has {len(header)}; put texts "
                f"that hold {delimiter!r} in double quotes"
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def _header(where: str, cells: list[str]) -> list[str]:
    for cell in cells:
        if not cell.strip() or cells.count(cell) > 1:
            problem = "occurs twice" if cell.strip() else "is empty"
            raise DataError(f"{where}: the column name '{cell}' in the header {problem}")
    return cells


def _tsv_rows(path: Path) -> _Rows:
    return _csv_rows(path, "\t")


def _parquet_rows(path: Path) -> _Rows:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read after row {number} ({reason})") from None


_READERS: dict[str, Callable[[Path], _Rows]] = {
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json-lines": _json_rows,
    ".parquet": _parquet_rows,
}


def _hub_rows(source: str, split: str) -> _Rows:
    """Stream a Hub data set, or read its cached copy where the Hub cannot be reached."""
    import datasets

    name, _, config = source.partition(":")
    online = _hub_answers(name)
    where = f"hub:{source} ({split})"
    try:
        with _offline(not online):
            rows = datasets.load_dataset(name, config or None, split=split, streaming=online)
    except Exception as error:  # whatever a data set's own files make the library raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if re.match("(Bad|Unknown) split", reason):
            raise DataError(
                f"{where}: has no split '{split}' ({reason}); name one of its splits: "
                "--split or --test-split, or in Python split="
            ) from error
        if online:
            raise DataError(f"{where}: cannot be loaded ({reason})") from error
        call = ", ".join(repr(part) for part in (name, config) if part)
        raise DataError(
            f"{where}: the Hub cannot be reached and no copy is cached; fetch it with network: "
            f'python -c "import datasets; datasets.load_dataset({call}, split={split!r})"'
        ) from error
    classes = {
        column: feature
        for column, feature in (rows.features or {}).items()
        if isinstance(feature, datasets.ClassLabel)
    }
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield f"{where} row {number}", {c: _named(v, classes.get(c)) for c, v in row.items()}
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: reading stopped after row {number} ({error})") from error


def _named(value: Any, feature: Any) -> Any:
    """Turn a class's index into its name; the Hub writes -1 for an unknown class."""
    if feature is None or not isinstance(value, int):
        return value
    return feature.int2str(value) if value >= 0 else None


def _hub_answers(name: str) -> bool:
    """Ask the Hub once, with a short time limit; the data sets library would retry for long."""
    if any(
        os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")
        for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    ):
        return False
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=_HUB_SECONDS)
    except RepositoryNotFoundError:
        raise DataError(
            f"hub:{name}: neither a file nor a data set on the Hub open to you; check the name"
        ) from None
    except Exception:  # no network, a proxy's refusal, a server's error: all mean no answer
        return False
    return True


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the data sets library from retrying for half a minute what has just failed."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
