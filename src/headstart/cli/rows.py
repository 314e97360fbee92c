"""Which rows a command reads: a file, or one split of a data set on the Hub, and what to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headstart.errors import UsageError

TRAIN_SPLIT, TEST_SPLIT = "train", "test"
"""What is read of a Hub data set unless a flag says otherwise: to learn from, and for all else."""


def split_of(source: str, given: str | None, default: str) -> str | None:
    """Settle which split is read; a file has none.

    Example:
        >>> split_of("hub:imdb", None, "test"), split_of("hub:imdb", "unsupervised", "test")
        ('test', 'unsupervised')
    """
    from headstart.tasks.readers import file_of

    return given if given or file_of(source)[0].is_file() else default


def record(
    source: str, split: str | None, label: str | None, columns: Mapping[str, str]
) -> dict[str, Any]:
    """Write down where rows came from: enough to tell whether two sets of rows are the same.

    Example:
        >>> record("hub:imdb", "test", None, {"text": "text"})
        {'source': 'hub:imdb', 'split': 'test', 'columns': {'text': 'text'}}
    """
    from headstart.recipes.fewshot import file_record

    found = {**file_record(source), "split": split, "label": label, "columns": dict(columns)}
    return {name: value for name, value in found.items() if value is not None}


def memory_note(train: Mapping[str, Any], test: Mapping[str, Any]) -> str | None:
    """Say so where the rows to measure on are those that were learned from.

    Example:
        >>> a, b = record("imdb", "train", None, {}), record("hub:imdb", "train", None, {})
        >>> memory_note(a, b)
        'note: the test rows are the training rows: they measure memory, not skill'
        >>> memory_note(a, record("imdb", "test", None, {}))
    """

    def mark(kept: Mapping[str, Any]) -> tuple[object, ...]:
        if "sha256" in kept:
            return ("file", kept["sha256"])
        # a card written before splits were kept was made from `train`
        return (
            str(kept.get("source", "")).removeprefix("hub:"),
            kept.get("split") or TRAIN_SPLIT,
        )

    if not train or mark(train) != mark(test):
        return None
    return "note: the test rows are the training rows: they measure memory, not skill"


def check_label(label: str, columns: Mapping[str, str]) -> None:
    """Refuse a label that is also read as a field: the answer would stand in the question.

    Raises:
        UsageError: It is.

    Example:
        >>> check_label("label", {"text": "review"})
    """
    for field, column in columns.items():
        if column == label:
            raise UsageError(
                f"the column '{column}' is both the label and the field '{field}', so the answer "
                "would stand in the question; name another by --label, or by --text or --columns"
            )


def many_labels_note(labels: Iterable[str], rows: int, column: str) -> str | None:
    """Say so where the labels look like no classes at all.

    Example:
        >>> many_labels_note(["0.1", "0.5", "0.7"], 4, "score")
        "note: 3 classes in 4 rows: does the column 'score' hold classes? --label names another"
        >>> many_labels_note(["bad", "good"], 2, "label")
    """
    count = len(set(labels))
    if count <= max(2, rows / 2):
        return None
    return (
        f"note: {count} classes in {rows} rows: does the column '{column}' hold classes? "
        "--label names another"
    )
