"""Rows and labels that are in memory already: lists, arrays, series and data frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from headstart.errors import DataError
from headstart.tasks.example import Example

_EXPECTED = (
    "expected texts: a list, array or series of str, a list of dicts of fields, or a data frame"
)
_MEND = "fill it in or drop the row"


def examples_from(rows: Any) -> list[Example]:
    """Turn rows into unlabelled examples called ``row 0``, ``row 1``, ...

    Args:
        rows: Texts (their field is called ``text``), dicts of fields, a column of texts of shape
            (n, 1), or anything with ``columns`` and ``to_dict("records")``, such as a pandas frame.

    Raises:
        DataError: No rows, or a row that is missing, empty or no text, or has such a field.

    Example:
        >>> examples_from(["Lovely!", "Awful."])[1]
        Example(id='row 1', fields={'text': 'Awful.'}, label=None)
        >>> examples_from([{"title": "Hm", "body": "Fine."}])[0].fields
        {'title': 'Hm', 'body': 'Fine.'}
    """
    if isinstance(rows, (str, bytes, Mapping)):
        raise DataError(f"{_EXPECTED}, not one {type(rows).__name__}; put it in a list")
    if hasattr(rows, "to_dicts"):  # polars
        values = rows.to_dicts()
    elif hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        values = rows.to_dict("records")
    else:
        try:
            values = list(rows)
        except TypeError:
            raise DataError(f"{_EXPECTED}, not {type(rows).__name__}") from None
    if not values:
        raise DataError(f"there are no rows (0 samples); {_EXPECTED}")
    return [Example(f"row {i}", _fields(f"row {i}", value)) for i, value in enumerate(values)]


def label_name(value: Any) -> str:
    """Write a label as text, the way the file readers do.

    Example:
        >>> [label_name(value) for value in ("spam", 3, 3.0, True, np.int64(3))]
        ['spam', '3', '3', 'true', '3']
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def labels_from(labels: Any) -> np.ndarray:
    """Turn labels into an array of texts, whole numbers or booleans, of at least two classes.

    Raises:
        DataError: No labels, a missing one, one class, or labels of another kind or of several.
        ValueError: Not one label a row, or continuous numbers.

    Example:
        >>> labels_from(["spam", "ham"])
        array(['spam', 'ham'], dtype='<U4')
    """
    if labels is None:
        raise DataError("fit requires y to be passed, but the target y is None")
    values: np.ndarray = column_or_1d(np.asarray(labels), warn=True)
    for i, value in enumerate(values):
        if _is_missing(value):
            raise DataError(f"row {i}: the label is missing ({value}); {_MEND}")
    kinds = {type(value) for value in values.tolist()}
    if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f"labels of type {found}; give all texts, all whole numbers or all booleans"
        )
    if values.dtype == object and kinds != {str}:
        values = np.array(values.tolist())
    check_classification_targets(values)
    if len(np.unique(values)) < 2:
        raise DataError(
            f"y holds one class only ({values[:1].tolist()}); classification needs at least two"
        )
    return values


def _is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, or a data frame's NA and NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _is_blank(value: Any) -> bool:
    """Whether a text says nothing, as the file readers see it."""
    return isinstance(value, str) and not value.strip()


def _fields(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        for name, field in value.items():
            if _is_missing(field):
                raise DataError(f"{where}: the field '{name}' is missing ({field}); {_MEND}")
            if _is_blank(field):
                raise DataError(f"{where}: the field '{name}' is empty; {_MEND}")
        return {str(name): field for name, field in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) and np.shape(value) == (1,):
        value = value[0]
    if _is_missing(value):
        raise DataError(f"{where}: the text is missing ({value}); {_MEND}")
    if _is_blank(value):
        raise DataError(f"{where}: the text is empty; {_MEND}")
    if isinstance(value, str):
        return {"text": str(value)}
    size = (
        f" of {len(value)} columns without names" if isinstance(value, (list, np.ndarray)) else ""
    )
    raise DataError(f"{where} is a {type(value).__name__}{size}; {_EXPECTED}")
