"""From the labels of the data to the classes of a task: joined, renamed or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from headstart.errors import DataError, did_you_mean
from headstart.tasks.example import Example

FIVE_TO_TWO: Mapping[str, str | None] = MappingProxyType(
    {"0": "0", "1": "0", "2": None, "3": "1", "4": "1"}
)
"""Five classes from 0 to negative and positive, the middle left out: SST-2, and Amazon's polarity."""

FIVE_TO_THREE: Mapping[str, str | None] = MappingProxyType(
    {"0": "negative", "1": "negative", "2": "neutral", "3": "positive", "4": "positive"}
)
"""Five classes from 0 to SemEval's three."""


def relabel(
    examples: Iterable[Example],
    mapping: Mapping[str, str | None],
    tally: Counter[str] | None = None,
) -> Iterator[Example]:
    """Give each example its label's new name, lazily and in order.

    Args:
        examples: Labelled rows.
        mapping: Every label that may occur to its new name; None leaves its rows out.
        tally: Is counted into: rows left out, by their old label. Default None: nothing is counted.

    Raises:
        DataError: A row has no label, or one that ``mapping`` does not name.

    Example:
        >>> rows = [Example(f"a:{stars}", {}, str(stars)) for stars in range(5)]
        >>> left_out = Counter()
        >>> [row.label for row in relabel(rows, FIVE_TO_TWO, left_out)], left_out
        (['0', '0', '1', '1'], Counter({'2': 1}))
    """
    for example in examples:
        if example.label is None:
            raise DataError(f"{example.id}: the row has no label; read it with a label column")
        if example.label not in mapping:
            raise DataError(
                f"{example.id}: the label '{example.label}' is not among those to map "
                f"({', '.join(map(repr, mapping))}){did_you_mean(example.label, mapping)}; "
                "map it too, or to null to leave its rows out"
            )
        new = mapping[example.label]
        if new is not None:
            yield replace(example, label=new)
        elif tally is not None:
            tally[example.label] += 1


def with_label_field(row: Example, name: str) -> Example:
    """Give a row's templates its label under another name; digits become a number.

    Example:
        >>> with_label_field(Example("a", {}, "2"), "answer").fields
        {'answer': 2}
    """
    label = str(row.label)
    value = int(label) if label.isdecimal() else label
    return replace(row, fields={**row.fields, name: value})
