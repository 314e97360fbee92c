"""From a row of a table to an example: which columns are its fields, its label and its id."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

from headstart.errors import DataError, did_you_mean
from headstart.tasks.example import Example

_NO_LABEL = (
    "; name it by --label; `headstart predict`, or label=None in Python, reads unlabelled rows"
)


class Columns:
    """Which columns become fields, label and id; settled by the first row, true for all.

    Args:
        where: What errors call the first row.
        first: The first row.
        label: The column that holds the label; None reads unlabelled rows.
        columns: Field name to column; None: all columns but the label's and the id's.
        id_column: The column that names each row; None: the caller counts.

    Raises:
        DataError: There is no column besides the label's.

    Example:
        >>> pick = Columns("a.csv line 2", {"text": "Hm", "label": 1}, "label", None, None)
        >>> pick.example("a.csv line 2", {"text": "Hm", "label": 1}, "a.csv:1")
        Example(id='a.csv:1', fields={'text': 'Hm'}, label='1')
    """

    def __init__(
        self,
        where: str,
        first: Mapping[str, Any],
        label: str | None,
        columns: Mapping[str, str] | None,
        id_column: str | None,
    ) -> None:
        self.label, self.id_column, self.seen = label, id_column, set[str]()
        self.columns = columns or {c: c for c in first if c not in (label, id_column)}
        self.all = None if columns else {*first, label, id_column}
        if not self.columns:
            raise DataError(f"{where}: there is no column besides the label '{label}'")

    def example(self, where: str, row: Mapping[str, Any], counted_id: str) -> Example:
        """Make a row an example.

        Raises:
            DataError: A column is missing, empty or of the wrong kind, or an id occurs twice.
        """
        if self.all is not None and not self.all.issuperset(row):
            extra = next(column for column in row if column not in self.all)
            raise DataError(
                f"{where}: the column '{extra}' is not in the first row; name the columns you need"
            )
        fields = {name: _field(where, row, name, column) for name, column in self.columns.items()}
        label = None
        if self.label is not None:
            value = _value(where, row, self.label, "label column", _NO_LABEL)
            label = _label(where, self.label, value)
        if self.id_column is None:
            return Example(counted_id, fields, label)
        name = str(_value(where, row, self.id_column, "id column"))
        if not name.strip() or name in self.seen:
            problem = "occurs twice" if name.strip() else "is empty"
            raise DataError(f"{where}: the id '{name}' in column '{self.id_column}' {problem}")
        self.seen.add(name)
        return Example(name, fields, label)


def _value(where: str, row: Mapping[str, Any], column: str, kind: str, way_out: str = "") -> Any:
    if column not in row:
        raise DataError(
            f"{where}: there is no {kind} '{column}' (columns: {', '.join(map(str, row))})"
            f"{did_you_mean(column, row)}{way_out}"
        )
    value = row[column]
    if value is None:
        hidden = ", or choose another split" if where.startswith("hub:") else ""
        raise DataError(
            f"{where}: the {kind} '{column}' is null; fill it in or remove the row{hidden}"
        )
    return value


def _field(where: str, row: Mapping[str, Any], name: str, column: str) -> Any:
    guess = next(iter(row)) if len(row) == 1 else "COLUMN"
    way_out = (
        f"; say which column holds it: --columns {quote(f'{name}={guess}')}, "
        f"or in Python columns={{'{name}': '{guess}'}}"
    )
    value = _value(where, row, column, "column", way_out)
    if isinstance(value, str) and not value.strip():
        raise DataError(
            f"{where}: the column '{column}' is empty; fill it in, remove the row, or name only "
            "the columns you need"
        )
    return value


def _label(where: str, column: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return str(value)
    expected = "a text, a whole number or true/false"
    raise DataError(f"{where}: the label {value!r} in column '{column}' is not {expected}")
