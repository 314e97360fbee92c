"""Rows of tables and of lines: CSV, TSV, JSON lines, Parquet and plain text, one at a time."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from headstart.errors import DataError

FIELD_LIMIT = 10 * 2**20
"""Characters one CSV field, or bytes one piece of markup, may have."""


class Row(NamedTuple):
    """One row as it stands in its source, before columns become fields.

    Attributes:
        where: What errors call it, e.g. ``"train.csv line 3"``.
        name: What finds it in its source again, e.g. ``"2"``; no two rows share one.
        values: Column to value.

    Example:
        >>> Row("train.csv line 3", "2", {"text": "Lovely."}).values["text"]
        'Lovely.'
    """

    where: str
    name: str
    values: Mapping[str, Any]


Rows = Iterator[Row]


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file, gzipped or not; what goes wrong while it is read becomes one clear line.

    Raises:
        DataError: The file cannot be opened or read.

    Example:
        >>> with opened(Path("nowhere.csv")) as file:
        ...     pass
        Traceback (most recent call last):
        ...
        headstart.errors.DataError: nowhere.csv: cannot be read (No such file or directory)
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason})") from None


def lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Decode line by line, so that a wrong byte is found with the line it is in.

    Raises:
        DataError: The file cannot be read, is not UTF-8 or holds a NUL byte.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     _ = path.write_text("One.\nTwo.\n")
        ...     list(lines(path))
        [(1, 'One.\n'), (2, 'Two.\n')]
    """
    with opened(path) as file:
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


def full_lines(path: Path) -> Iterator[tuple[str, str]]:
    r"""Give each line with what errors call it; blank lines may only end the file.

    A blank line among the rows might be a row that was lost.

    Raises:
        DataError: As ``lines``, or rows follow a blank line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     _ = path.write_text("One.\n\n")
        ...     [line for _, line in full_lines(path)]
        ['One.\n']
    """
    blank: int | None = None
    for number, line in lines(path):
        if not line.strip():
            blank = blank or number
            continue
        _refuse_gap(path, blank)
        yield f"{path} line {number}", line


def json_rows(path: Path) -> Rows:
    r"""Read JSON lines: one object a line.

    Raises:
        DataError: As ``full_lines``, or a line is no JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.jsonl")
        ...     _ = path.write_text('{"text": "Hm"}\n')
        ...     [row.values for row in json_rows(path)]
        [{'text': 'Hm'}]
    """
    for number, (where, line) in enumerate(full_lines(path), 1):
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object {{...}}, not {line.strip()[:40]}")
        yield Row(where, str(number), row)


def csv_rows(path: Path, delimiter: str = ",") -> Rows:
    r"""Read a table whose first row names its columns.

    Raises:
        DataError: As ``csv_cells``, or the header is unusable, or a row has more or fewer columns.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("text,label\nHm,1\n")
        ...     [row.values for row in csv_rows(path)]
        [{'text': 'Hm', 'label': '1'}]
    """
    header: list[str] | None = None
    for number, (where, cells) in enumerate(csv_cells(path, delimiter)):
        if header is None:
            header = _header(where, cells)
        elif len(cells) != len(header):
            raise DataError(
                f"{where}: has {len(cells)} columns where the header has {len(header)}; put texts "
                f"that hold {delimiter!r} in double quotes"
            )
        else:
            yield Row(where, str(number), dict(zip(header, cells, strict=True)))


def csv_cells(path: Path, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    r"""Give each row's cells with what errors call it; a quoted cell may run over several lines.

    Raises:
        DataError: As ``lines``, or the quotes do not pair up, a cell is longer than
            ``FIELD_LIMIT``, or rows follow a blank line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text('"5","Say ""yes""."\n')
        ...     [cells for _, cells in csv_cells(path)]
        [['5', 'Say "yes".']]
    """
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader((line for _, line in lines(path)), delimiter=delimiter, strict=True)
    start, blank = 1, None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path} line {start}: cannot be read ({error})") from None
        if cells is None:
            return
        here, start = start, reader.line_num + 1
        if not any(cells) and len(cells) <= 1:
            blank = blank or here
            continue
        _refuse_gap(path, blank)
        yield f"{path} line {here}", cells


def tsv_rows(path: Path) -> Rows:
    r"""Read a table with tabs, as ``csv_rows``.

    Raises:
        DataError: As ``csv_rows``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.tsv")
        ...     _ = path.write_text("text\tlabel\nHm\t1\n")
        ...     [row.values for row in tsv_rows(path)]
        [{'text': 'Hm', 'label': '1'}]
    """
    return csv_rows(path, "\t")


def text_rows(path: Path) -> Rows:
    r"""Read plain text, one document a line, in the one column ``text``; no line holds a label.

    Blank lines are passed over: documents are often set apart by one. So a row's name is the number
    of its line.

    Raises:
        DataError: As ``lines``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "news.txt")
        ...     _ = path.write_text("First one.\n\nSecond one.\n")
        ...     [(row.name, row.values) for row in text_rows(path)]
        [('1', {'text': 'First one.'}), ('3', {'text': 'Second one.'})]
    """
    for number, line in lines(path):
        if text := line.strip():
            yield Row(f"{path} line {number}", str(number), {"text": text})


def parquet_rows(path: Path) -> Rows:
    """Read a Parquet file, 1,024 rows in memory at a time.

    Raises:
        DataError: The file cannot be read.

    Example:
        >>> import tempfile, pyarrow, pyarrow.parquet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.parquet")
        ...     pyarrow.parquet.write_table(pyarrow.table({"text": ["Hm"]}), path)
        ...     [row.values for row in parquet_rows(path)]
        [{'text': 'Hm'}]
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", str(number), row)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read after row {number} ({reason})") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _refuse_gap(path: Path, blank: int | None) -> None:
    if blank is not None:
        raise DataError(f"{path} line {blank}: is blank, but rows follow; remove the line")


def _header(where: str, cells: list[str]) -> list[str]:
    for cell in cells:
        if len(cell) > 200:
            raise DataError(
                f"{where}: '{cell[:40]}...' is no column name; give the file a header, or where its "
                "rows are class,text or class,title,text read it as zhang:FILE"
            )
        if not cell.strip() or cells.count(cell) > 1:
            problem = "occurs twice" if cell.strip() else "is empty"
            raise DataError(f"{where}: the column name '{cell}' in the header {problem}")
    return cells
