"""The values that flow through the house: an example, and what the model is asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANSWER_SLOT = "\ue000"
"""The private-use character that stands where the answer goes in a rendered source."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of data: its fields by column name, and its label's name where it has one.

    Attributes:
        id: A name that finds the row again, e.g. ``"test.csv:17"``.
        fields: Column name to value (text, number or list).
        label: The label's name; ``None`` for an unlabelled row.

    Example:
        >>> Example("a:1", {"text": "Lovely."}, "positive").label
        'positive'
    """

    id: str
    fields: Mapping[str, Any] = field(hash=False)
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """One question to the model: a source text and the candidate answers to it.

    Attributes:
        id: The example's id.
        source: The text before (or around) the answer. It holds ``ANSWER_SLOT`` at most once; without
            it the answer follows the text.
        candidates: The C answers to score, in the order of the labels.
        target: The gold candidate's index; ``None`` when it is not known.
        cuts: Character spans ``(start, end)`` of ``source`` that truncation may shorten, each from
            its end: the fields that stand there as they are. Empty: any text but the slot may go.

    Example:
        >>> Rendered("a:1", f"Lovely. It was {ANSWER_SLOT}", ("bad", "good"), 1, ((0, 7),)).target
        1
    """

    id: str
    source: str
    candidates: tuple[str, ...]
    target: int | None = None
    cuts: tuple[tuple[int, int], ...] = ()
