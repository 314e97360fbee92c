"""Reads labelled and unlabelled data row by row; every complaint names the file and the line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import DataError, did_you_mean
from headstart.tasks.columns import Columns
from headstart.tasks.corpora import CORPORA
from headstart.tasks.example import Example
from headstart.tasks.tables import (
    Row,
    Rows,
    csv_rows,
    json_rows,
    parquet_rows,
    text_rows,
    tsv_rows,
)

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?(@\w[\w./-]*)?")
_HUB_SECONDS = 5.0


def read_examples(
    source: str | Path,
    *,
    label: str | None = "label",
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    split: str | None = None,
) -> Iterator[Example]:
    r"""Stream the rows of a file or of a Hub data set as examples.

    Files are CSV, TSV, JSON lines (.jsonl, .ndjson, .json-lines), plain text with one document a
    line (.txt, .text), each also gzipped, or Parquet, told by their suffix. The form of a published
    corpus is said before the file's name, since no suffix tells it: ``zhang:train.csv`` (Zhang et
    al. 2015: no header), ``trees:train.txt`` (SST), ``fasttext:train.tsv``, ``semeval16:train.xml``,
    ``sentihood:train.json``. What is no file and reads like ``name``, ``owner/name``,
    ``owner/name:config`` or ``owner/name@revision``, with or without ``hub:`` before it, is a data
    set on the Hub.

    Args:
        source: The file, or the data set's name.
        label: The column that holds the label. Default ``"label"``; None reads unlabelled rows.
        columns: Field name to column. Default None: all columns but the label's and the id's, under
            their own names.
        id_column: The column that names each row. Default None: ``file:number``, counting from 1;
            plain text counts its lines, and opinions are called ``file:sentence-id#number``.
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
    name, rows = open_rows(source, split)
    pick: Columns | None = None
    for row in rows:
        if pick is None:
            pick = Columns(row.where, row.values, label, columns, id_column)
        yield pick.example(row.where, row.values, f"{name}:{row.name}")
    if pick is None:
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


def open_rows(source: str | Path, split: str | None = None) -> tuple[str, Rows]:
    r"""Decide what a source is; return what its rows are called after, and its rows as they stand.

    Args:
        source: As in ``read_examples``.
        split: The split of a Hub data set. Default None: ``"train"``.

    Raises:
        DataError: The source cannot be found, or its form is not known. Rows are read, and found
            wanting, only as they are taken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "dev.txt").write_text("(3 (2 It) (4 works))\n")
        ...     name, rows = open_rows(f"trees:{folder}/dev.txt")
        ...     name, next(rows).values["label"]
        ('dev.txt', '3')
    """
    text = str(source)
    if text.startswith("hub:"):
        return text[4:], _hub_rows(text[4:], split or "train")
    path, corpus = file_of(source)
    if path.is_file():
        if split is not None:
            raise DataError(f"{source}: a file has no split '{split}'; name the split's own file")
        return path.name, (CORPORA[corpus] if corpus else _by_suffix(path))(path)
    if path.is_dir():
        raise DataError(f"{source}: is a folder; name one of the files in it")
    missing_file = corpus or _reader_of(path) or (path.parent != Path() and path.parent.is_dir())
    if isinstance(source, str) and not missing_file and _HUB_NAME.fullmatch(text):
        return text, _hub_rows(text, split or "train")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{source}: no such file{did_you_mean(path.name, siblings)}")


def file_of(source: str | Path) -> tuple[Path, str | None]:
    """Take the form of a corpus off a source: its path and the form, None where none is named.

    A file whose own name holds the prefix is that file.

    Example:
        >>> path, corpus = file_of("zhang:yelp/train.csv")
        >>> path.as_posix(), corpus
        ('yelp/train.csv', 'zhang')
        >>> file_of("train.csv")[1] is None
        True
    """
    corpus, colon, rest = str(source).partition(":")
    if not colon or corpus not in CORPORA or Path(source).is_file():
        return Path(source), None
    return Path(rest), corpus


def _reader_of(path: Path) -> Callable[[Path], Rows] | None:
    kind = path.name.lower().removesuffix(".gz")
    return next((_READERS[suffix] for suffix in _READERS if kind.endswith(suffix)), None)


def _by_suffix(path: Path) -> Callable[[Path], Rows]:
    reader = _reader_of(path)
    if reader is None or (reader is parquet_rows and path.suffix.lower() == ".gz"):
        corpora = ", ".join(f"{corpus}:FILE" for corpus in CORPORA)
        raise DataError(
            f"{path}: the suffix says no known format; known are {', '.join(_READERS)} (.gz), and "
            f"by name {corpora}"
        )
    return reader


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": csv_rows,
    ".tsv": tsv_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".json-lines": json_rows,
    ".txt": text_rows,
    ".text": text_rows,
    ".parquet": parquet_rows,
}


def _hub_rows(source: str, split: str) -> Rows:
    """Stream a Hub data set, or read its cached copy where the Hub cannot be reached."""
    import datasets

    rest, _, revision = source.partition("@")
    name, _, config = rest.partition(":")
    pinned = {"revision": revision} if revision else {}
    online = _hub_answers(name)
    where = f"hub:{source} ({split})"
    try:
        with _offline(not online):
            rows = datasets.load_dataset(
                name, config or None, split=split, streaming=online, **pinned
            )
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
        call += "".join(f", {key}={value!r}" for key, value in pinned.items())
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
            values = {column: _named(v, classes.get(column)) for column, v in row.items()}
            yield Row(f"{where} row {number}", str(number), values)
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
