"""Which pseudo-labelled rows to learn from: sure, new, not leaked, balanced; and a report of why.

A row is dropped for the first reason that holds, in this order: ``too_short``, ``too_long``,
``unsure``, ``duplicate`` (the same text), ``near_duplicate`` (the same words), ``leak``, ``surplus``.
"""

from __future__ import annotations

import heapq
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import DataError, UsageError, did_you_mean
from headstart.seeds import derive_seed
from headstart.sources.labels_file import PseudoLabel

PPT_THRESHOLDS = {"0": 0.95, "1": 0.5, "2": 0.5, "3": 0.5, "4": 0.7}
"""PPT's, for Yelp's five classes: more for the classes its teacher was too sure of."""

REASONS = ("too_short", "too_long", "unsure", "duplicate", "near_duplicate", "leak", "surplus")

log = logging.getLogger(__name__)

Fate = Literal[
    "kept", "too_short", "too_long", "unsure", "duplicate", "near_duplicate", "leak", "surplus"
]
Filter = Callable[[PseudoLabel], Fate]
"""Says ``kept`` of a row, or why it is dropped."""


class SelectionSettings(Settings):
    """Which rows are kept.

    Attributes:
        thresholds: For each label, the confidence that a row must be over; ``None``: ``top`` decides.
            PPT's for five classes: ``PPT_THRESHOLDS``.
        top: Share of each label's rows, the most confident ones, that is kept; rows as confident as
            the last of them are kept too. 1 keeps all.
        min_words: Shorter texts are dropped.
        max_words: Longer texts are dropped; ``None``: none is.
        leak_words: A row that has this many words in a row in common with a held-out text is a leak.
            So few give false alarms, which cost one row each; a leak missed costs the result's worth.
        size: Rows to keep in all, as equally per label as it divides; ``None``: all that are left.
        seed: Of the choice among the rows that are left.

    Example:
        >>> SelectionSettings(thresholds=PPT_THRESHOLDS, size=1_000_000).top
        1.0
    """

    thresholds: Mapping[str, float] | None = None
    top: float = pydantic.Field(1.0, gt=0, le=1)
    min_words: int = pydantic.Field(1, ge=0)
    max_words: int | None = pydantic.Field(None, ge=1)
    leak_words: int = pydantic.Field(8, ge=1)
    size: int | None = pydantic.Field(None, ge=1)
    seed: int = 1


class SelectionReport(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What was kept and why the rest was not; JSON-able by ``model_dump``.

    Attributes:
        read: All rows.
        kept: Those kept.
        dropped: Rows by reason.
        per_label: For each label: rows read, kept, and dropped by reason.
        thresholds: The confidence that a row of each label had to be over, to 6 digits.
        leaks: For each held-out set, how many rows met it (a row is counted once, for the first).
        missing: For each label that ran short, how many rows it lacks of its share of ``size``.

    Example:
        >>> SelectionReport(read=2, kept=1, dropped={"unsure": 1}).missing
        {}
    """

    read: int
    kept: int
    dropped: dict[str, int] = {}
    per_label: dict[str, dict[str, int]] = {}
    thresholds: dict[str, float] = {}
    leaks: dict[str, int] = {}
    missing: dict[str, int] = {}


def select(
    read: Callable[[], Iterable[PseudoLabel]],
    labels: Sequence[str],
    settings: SelectionSettings,
    held_out: Mapping[str, Iterable[str]] | None = None,
) -> tuple[list[PseudoLabel], SelectionReport]:
    """Choose the rows to learn from, in the stream's order.

    Args:
        read: Gives all rows, each time anew: they are read twice where ``top`` is below 1. Only
            what is kept is held in memory, and one number for every text that was sure enough.
        labels: The teacher's labels.
        settings: What is kept.
        held_out: Name to texts that no row may share: the targets' test rows. Default None.

    Returns:
        The rows kept, and the report.

    Raises:
        UsageError: The thresholds do not have exactly the labels.
        DataError: A row has an unknown label, or no row is left.

    Example:
        >>> rows = [
        ...     PseudoLabel("a#1", "A good film.", "good", 0.9, (0.1, 0.9)),
        ...     PseudoLabel("a#2", "a GOOD film", "good", 0.9, (0.1, 0.9)),
        ...     PseudoLabel("b#1", "A bad film.", "bad", 0.8, (0.8, 0.2)),
        ...     PseudoLabel("b#2", "A film.", "bad", 0.6, (0.6, 0.4)),
        ... ]
        >>> settings = SelectionSettings(thresholds={"good": 0.5, "bad": 0.7})
        >>> kept, report = select(lambda: rows, ["bad", "good"], settings)
        >>> [row.id for row in kept], report.dropped
        (['a#1', 'b#1'], {'unsure': 1, 'near_duplicate': 1})
    """
    thresholds = (
        top_thresholds(read(), labels, settings.top)
        if settings.thresholds is None
        else _checked(settings.thresholds, labels)
    )
    leaks: Counter[str] = Counter(dict.fromkeys(held_out or {}, 0))
    filters = (
        length_filter(settings.min_words, settings.max_words),
        confidence_filter(thresholds),
        novelty_filter(),
        leak_filter(held_out or {}, settings.leak_words, leaks),
    )
    fates: dict[str, Counter[str]] = {label: Counter() for label in labels}

    def survivors() -> Iterable[PseudoLabel]:
        for row in read():
            if row.label not in fates:
                raise DataError(f"{row.id}: the label '{row.label}' is none of {', '.join(labels)}")
            fate = next((fate for sieve in filters if (fate := sieve(row)) != "kept"), "kept")
            fates[row.label][fate] += 1
            if fate == "kept":
                yield row

    quotas = shares(settings.size, labels)
    kept = balance(survivors(), quotas, settings.seed)
    report = _report(fates, Counter(row.label for row in kept), quotas, thresholds, leaks)
    if not kept:
        raise DataError(f"no row is left of {report.read}: {report.dropped}; ask for less")
    if report.missing:
        log.warning(
            "labels that ran short of their share, and by how many rows: %s", report.missing
        )
    return kept, report


def normal_form(text: str) -> str:
    """Reduce a text to its words: no case, no punctuation, one space, every number a 0.

    Example:
        >>> normal_form("Rated  9.5 of 10 -- GOOD!")
        'rated 0 0 of 0 good'
    """
    return " ".join(re.findall(r"\w+", re.sub(r"\d+", "0", text.casefold())))


def top_thresholds(
    rows: Iterable[PseudoLabel], labels: Sequence[str], top: float
) -> dict[str, float]:
    """Find each label's confidence that the most confident share of its rows is over.

    Example:
        >>> rows = [PseudoLabel("a", "?", "good", c, (1 - c, c)) for c in (0.6, 0.7, 0.8, 0.9)]
        >>> found = top_thresholds(rows, ["bad", "good"], 0.5)
        >>> found["bad"], 0.7 < found["good"] < 0.8
        (0.0, True)
    """
    if top >= 1:
        return dict.fromkeys(labels, 0.0)
    found: dict[str, list[float]] = {label: [] for label in labels}
    for row in rows:
        found.setdefault(row.label, []).append(row.confidence)
    return {label: _over(values, top) for label, values in found.items()}


def length_filter(min_words: int, max_words: int | None) -> Filter:
    """Drop texts with too few or too many words.

    Example:
        >>> length_filter(3, None)(PseudoLabel("a", "Two words.", "good", 0.9, ()))
        'too_short'
    """

    def sieve(row: PseudoLabel) -> Fate:
        words = len(row.text.split())
        if words < min_words:
            return "too_short"
        return "too_long" if max_words is not None and words > max_words else "kept"

    return sieve


def confidence_filter(thresholds: Mapping[str, float]) -> Filter:
    """Drop rows whose confidence is not over their label's threshold.

    Example:
        >>> confidence_filter({"good": 0.9})(PseudoLabel("a", "Hm.", "good", 0.9, ()))
        'unsure'
    """
    return lambda row: "kept" if row.confidence > thresholds[row.label] else "unsure"


def novelty_filter() -> Filter:
    """Drop a text that was seen before, as it is or in its normal form; the first one is kept.

    Example:
        >>> new = novelty_filter()
        >>> [new(PseudoLabel("a", text, "good", 0.9, ())) for text in ("A 1.", "A 1.", "a 2")]
        ['kept', 'duplicate', 'near_duplicate']
    """
    seen: dict[int, int] = {}  # 64-bit hashes, as texts by the million would not fit

    def sieve(row: PseudoLabel) -> Fate:
        exact, normal = hash(row.text), hash(normal_form(row.text))
        if normal in seen:
            return "duplicate" if seen[normal] == exact else "near_duplicate"
        seen[normal] = exact
        return "kept"

    return sieve


def leak_filter(
    held_out: Mapping[str, Iterable[str]], leak_words: int, leaks: Counter[str]
) -> Filter:
    """Drop texts that share a run of words with a held-out text, or are all of it where it is short.

    Args:
        held_out: Name to texts.
        leak_words: Words of such a run, in normal form.
        leaks: Is counted into, by name.

    Example:
        >>> counts = Counter()
        >>> sieve = leak_filter({"test": ["So it was a GOOD film.", "Good."]}, 4, counts)
        >>> texts = ("It was a good film!", "good", "It was good.")
        >>> [sieve(PseudoLabel("a", text, "good", 0.9, ())) for text in texts], counts["test"]
        (['leak', 'leak', 'kept'], 2)
    """
    where: dict[int, str] = {}
    for name, texts in held_out.items():
        for text in texts:
            for run in _runs(text, leak_words):
                where.setdefault(run, name)

    def sieve(row: PseudoLabel) -> Fate:
        name = next((where[run] for run in _runs(row.text, leak_words) if run in where), None)
        if name is None:
            return "kept"
        leaks[name] += 1
        return "leak"

    return sieve if where else lambda row: "kept"


def shares(size: int | None, labels: Sequence[str]) -> dict[str, int] | None:
    """Divide a size among labels; the first ones get what is left over.

    Example:
        >>> shares(5, ["bad", "good"])
        {'bad': 3, 'good': 2}
    """
    if size is None:
        return None
    each, over = divmod(size, len(labels))
    return {label: each + (i < over) for i, label in enumerate(labels)}


def balance(
    rows: Iterable[PseudoLabel], quotas: Mapping[str, int] | None, seed: int
) -> list[PseudoLabel]:
    """Draw each label's share at random, and return what was drawn in the rows' order.

    Every row has a random number of its own, from the seed and its id, and a label's smallest are
    drawn: a row more or less elsewhere changes nothing else, and a larger draw holds a smaller one.

    Args:
        rows: Read once; no more than the shares are held.
        quotas: How many of each label. None: all.
        seed: Of the draw.

    Example:
        >>> rows = [PseudoLabel(f"a#{i}", "?", "good", 0.9, ()) for i in range(9)]
        >>> len(balance(rows, {"good": 4}, seed=1)), len(balance(rows, None, seed=1))
        (4, 9)
    """
    if quotas is None:
        return list(rows)
    heaps: dict[str, list[tuple[int, int, PseudoLabel]]] = {label: [] for label in quotas}
    for position, row in enumerate(rows):
        heap, item = heaps[row.label], (-derive_seed(seed, "balance", row.id), position, row)
        if len(heap) < quotas[row.label]:
            heapq.heappush(heap, item)
        elif heap:
            heapq.heappushpop(heap, item)
    drawn = sorted((position, row) for heap in heaps.values() for _, position, row in heap)
    return [row for _, row in drawn]


def _runs(text: str, length: int) -> Iterable[int]:
    """Hash every run of ``length`` words of a text's normal form, or all of a shorter one."""
    words = normal_form(text).split()
    if len(words) <= length:
        return [hash(" ".join(words))] if words else []
    return [hash(" ".join(words[i : i + length])) for i in range(len(words) - length + 1)]


def _over(values: Sequence[float], top: float) -> float:
    if not values:
        return 0.0
    last = sorted(values, reverse=True)[int(np.ceil(top * len(values))) - 1]
    return float(np.nextafter(last, 0))


def _checked(thresholds: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    for label in thresholds:
        if label not in labels:
            raise UsageError(
                f"thresholds: '{label}' is no label ({', '.join(labels)}){did_you_mean(label, labels)}"
            )
    for label in labels:
        if label not in thresholds:
            raise UsageError(f"thresholds: the label '{label}' has none; give every label one")
    return dict(thresholds)


def _report(
    fates: Mapping[str, Counter[str]],
    kept: Mapping[str, int],
    quotas: Mapping[str, int] | None,
    thresholds: Mapping[str, float],
    leaks: Mapping[str, int],
) -> SelectionReport:
    per_label = {}
    for label, counts in fates.items():
        final = {
            **counts,
            "kept": kept.get(label, 0),
            "surplus": counts["kept"] - kept.get(label, 0),
        }
        reasons = {reason: final[reason] for reason in REASONS if final.get(reason)}
        per_label[label] = {"read": counts.total(), "kept": final["kept"], **reasons}
    totals = {
        r: sum(row.get(r, 0) for row in per_label.values()) for r in ("read", "kept", *REASONS)
    }
    short = {label: quotas[label] - kept.get(label, 0) for label in fates} if quotas else {}
    return SelectionReport(
        read=totals.pop("read"),
        kept=totals.pop("kept"),
        dropped={reason: number for reason, number in totals.items() if number},
        per_label=per_label,
        thresholds={label: round(limit, 6) for label, limit in thresholds.items()},
        leaks=dict(leaks),
        missing={label: number for label, number in short.items() if number > 0},
    )
