"""Files of published text corpora, each as its authors wrote it; no suffix tells them apart."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from headstart.errors import DataError, did_you_mean
from headstart.tasks.semeval import semeval_rows
from headstart.tasks.tables import Row, Rows, csv_cells, full_lines, lines

SENTIMENTS = ("Negative", "Positive")
"""SentiHood's own words; the labels are the same in small letters."""

_ESCAPED = re.compile(r'\\([n"])')
_PTB_ESCAPED = re.compile(r"\\([/*])")
_BRACKETS = {"-LRB-": "(", "-RRB-": ")"}
_TREE_PART = re.compile(r"\(([0-4]) |([^ ()]+)\)|\)| ")  # a word may hold a no-break space
_FASTTEXT = re.compile(r"__label__(\S+)\s+(.*\S)\s*")
_log = logging.getLogger(__name__)


def zhang_rows(path: Path) -> Rows:
    r"""Read a CSV of Zhang et al. 2015: no header, ``class,text`` or ``class,title,text``.

    ``label`` is the class number; ``\n`` and ``\"`` in the texts become what they stand for.

    Raises:
        DataError: The CSV cannot be read, rows differ in length, or a class is no number, as in a
            file with a header.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text('"5","Great","Say ""yes"".\\nTwice."\n')
        ...     next(zhang_rows(path)).values
        {'label': '5', 'title': 'Great', 'text': 'Say "yes".\nTwice.'}
    """
    columns: list[str] = []
    for number, (where, cells) in enumerate(csv_cells(path), 1):
        columns = columns or ["label", "title", "text"][:: 2 if len(cells) == 2 else 1]
        if len(cells) != len(columns):
            expected = "class,text or class,title,text" if number == 1 else ",".join(columns)
            raise DataError(f"{where}: has {len(cells)} columns; expected {expected}")
        if not cells[0].isdecimal():
            raise DataError(
                f"{where}: '{cells[0][:40]}' is no class number, and zhang: files have no header; "
                "read a file that has one without 'zhang:' before its name"
            )
        texts = [unescaped(cell) for cell in cells[1:]]
        yield Row(where, str(number), dict(zip(columns, [cells[0], *texts], strict=True)))


def unescaped(text: str) -> str:
    r"""Turn the ``\n`` and ``\"`` of Zhang et al.'s texts into line breaks and quotes.

    Example:
        >>> unescaped('Say \\"yes\\".\\nTwice.')
        'Say "yes".\nTwice.'
    """
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def tree_rows(path: Path) -> Rows:
    r"""Read the Stanford Sentiment Treebank: a tree a line, its root's label 0 to 4.

    The text is the tree's words with spaces between them, the treebank's escapes for slashes,
    asterisks and round brackets undone.

    Raises:
        DataError: The file cannot be read, or a line is no such tree.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "dev.txt")
        ...     _ = path.write_text("(3 (2 It) (4 (4 works) (2 .)))\n")
        ...     next(tree_rows(path)).values
        {'text': 'It works .', 'label': '3'}
    """
    for number, (where, line) in enumerate(full_lines(path), 1):
        words = _words_of_tree(line.strip())
        if words is None:
            raise DataError(
                f"{where}: is no sentiment tree such as (3 (2 It) (4 works)), but {line.strip()[:40]!r}"
            )
        yield Row(where, str(number), {"text": " ".join(words), "label": line.strip()[1]})


def fasttext_rows(path: Path) -> Rows:
    r"""Read fastText's lines, ``__label__5 text``, with a space or a tab between the two.

    Raises:
        DataError: The file cannot be read, or a line has no label, no text, or several labels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.tsv")
        ...     _ = path.write_text("__label__5\tIt works .\n")
        ...     next(fasttext_rows(path)).values
        {'text': 'It works .', 'label': '5'}
    """
    for number, (where, line) in enumerate(full_lines(path), 1):
        match = _FASTTEXT.fullmatch(line)
        if match is None or match[2].startswith("__label__"):
            problem = "expected one" if match is None else "has several labels; expected one"
            raise DataError(f"{where}: {problem}, as in '__label__5 text', not {line[:40]!r}")
        yield Row(where, str(number), {"text": match[2], "label": match[1]})


def sentihood_rows(path: Path) -> Rows:
    r"""Read SentiHood's JSON, a list of sentences, as ``sentihood_opinions`` says.

    Raises:
        DataError: The file is no such JSON.

    Example:
        >>> import tempfile
        >>> opinion = {"target_entity": "LOCATION1", "aspect": "price", "sentiment": "Positive"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.json")
        ...     _ = path.write_text(json.dumps([{"id": 7, "text": "Cheap!", "opinions": [opinion]}]))
        ...     [(row.name, row.values["label"]) for row in sentihood_rows(path)]
        [('7#1', 'positive')]
    """
    text = "".join(line for _, line in lines(path))
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(items, list):
        raise DataError(f"{path}: expected a JSON list of sentences, not {type(items).__name__}")
    yield from sentihood_opinions(
        Row(f"{path} item {number}", str(number), item) for number, item in enumerate(items, 1)
    )


def sentihood_opinions(sentences: Iterable[Row]) -> Rows:
    """Turn SentiHood's sentences into one row per opinion: ``text``, ``target``, ``aspect``, ``label``.

    Sentences without opinions are left out, and counted in the log.

    Raises:
        DataError: A sentence is no object with ``id``, ``text`` and ``opinions``, or an opinion
            lacks a key or has an unknown sentiment.

    Example:
        >>> opinion = {"target_entity": "LOCATION1", "aspect": "price", "sentiment": "Positive"}
        >>> sentence = {"id": 7, "text": "  Cheap!", "opinions": [opinion]}
        >>> next(sentihood_opinions([Row("train item 1", "1", sentence)])).values
        {'text': 'Cheap!', 'target': 'LOCATION1', 'aspect': 'price', 'label': 'positive'}
    """
    seen: Counter[str] = Counter()
    total = left_out = 0
    for where, _, sentence in sentences:
        _need_keys(where, "sentence", sentence, {"id": (int, str), "text": str, "opinions": list})
        total += 1
        left_out += not sentence["opinions"]
        for opinion in sentence["opinions"]:
            keys = ("target_entity", "aspect", "sentiment")
            _need_keys(where, "opinion", opinion, dict.fromkeys(keys, str))
            sentiment = opinion["sentiment"]
            if sentiment not in SENTIMENTS:
                raise DataError(
                    f"{where}: the sentiment '{sentiment}' is not one of {', '.join(SENTIMENTS)}"
                    f"{did_you_mean(sentiment, SENTIMENTS)}"
                )
            name = str(sentence["id"])
            seen[name] += 1
            values = {
                "text": sentence["text"].strip(),
                "target": opinion["target_entity"],
                "aspect": opinion["aspect"],
                "label": sentiment.lower(),
            }
            yield Row(where, f"{name}#{seen[name]}", values)
    _log.info("SentiHood: left out %d of %d sentences without an opinion", left_out, total)


CORPORA: dict[str, Callable[[Path], Rows]] = {
    "zhang": zhang_rows,
    "trees": tree_rows,
    "fasttext": fasttext_rows,
    "semeval16": semeval_rows,
    "sentihood": sentihood_rows,
}
"""What may stand before a file's name, as in ``zhang:train.csv``, and what then reads it."""


def _words_of_tree(text: str) -> list[str] | None:
    """Return a tree's words, or None where the text is no tree."""
    words: list[str] = []
    depth = position = 0
    while position < len(text):
        part = _TREE_PART.match(text, position)
        if part is None or (depth == 0 and position > 0):
            return None
        depth += 1 if part[1] else -part[0].count(")")
        if part[2]:
            words.append(_BRACKETS.get(part[2], _PTB_ESCAPED.sub(r"\1", part[2])))
        position = part.end()
    return words if depth == 0 and words else None


def _need_keys(where: str, what: str, value: Any, keys: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: the {what} is no object {{...}}, but {str(value)[:40]}")
    for key, kind in keys.items():
        if key not in value:
            raise DataError(f"{where}: the {what} has no '{key}'{did_you_mean(key, value)}")
        if not isinstance(value[key], kind):
            raise DataError(f"{where}: the {what}'s '{key}' is {str(value[key])[:40]!r}")
