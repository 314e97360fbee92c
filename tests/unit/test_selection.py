"""Which pseudo-labelled rows are kept, and the report that adds up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, UsageError
from headstart.sources.labels_file import PseudoLabel, read_labels, write_labels
from headstart.sources.selection import (
    PPT_THRESHOLDS,
    SelectionSettings,
    balance,
    normal_form,
    select,
    top_thresholds,
)

LABELS = list("01234")


def row(i: int, label: str = "0", confidence: float = 0.9, text: str = "") -> PseudoLabel:
    """A row whose text, if not given, is like no other's."""
    letters = "".join(chr(97 + int(digit)) for digit in str(i))
    return PseudoLabel(f"d#{i}", text or f"word {letters}", label, confidence, ())


def test_ppts_thresholds_are_strict() -> None:
    confidences = (0.5, 0.51, 0.7, 0.71, 0.95, 0.96)
    rows = [row(5 * i + int(y), y, c) for i, c in enumerate(confidences) for y in LABELS]
    kept, report = select(lambda: rows, LABELS, SelectionSettings(thresholds=PPT_THRESHOLDS))
    assert Counter(r.label for r in kept) == {"0": 1, "1": 5, "2": 5, "3": 5, "4": 3}
    assert report.dropped == {"unsure": 11} and report.thresholds == PPT_THRESHOLDS


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9]), min_size=1), st.floats(0.01, 1))
def test_the_top_share_is_the_most_confident_and_holds_ties(
    values: list[float], top: float
) -> None:
    rows = [row(i, "0", c) for i, c in enumerate(values)]
    limit = top_thresholds(rows, ["0", "1"], top)["0"]
    kept = [c for c in values if c > limit]
    assert len(kept) >= top * len(values) - 1e-9
    if top < 1:
        above_last = [c for c in values if c > min(kept)]
        assert len(above_last) < top * len(values)


def test_the_report_adds_up() -> None:
    rows = [
        row(1, "0", text="A fine day it was."),
        row(2, "0", text="A fine day it was."),
        row(3, "1", text="a FINE  day, it was"),
        row(4, "1", text="Short."),
        row(5, "1", 0.2, text="Not sure of it."),
        row(6, "1", text="It took 20 long days."),
        row(7, "0", text="It took 7 long days."),
        row(8, "0", text="Nobody knows, and the cat sat on the mat again, they say."),
        row(9, "0", text="One two three four five six seven eight nine ten eleven twelve up."),
        row(10, "0", text="This one is kept."),
        row(11, "1", text="So is this one."),
        row(12, "0", text="Or perhaps this one."),
    ]
    settings = SelectionSettings(
        thresholds={"0": 0.5, "1": 0.5}, min_words=2, max_words=12, leak_words=5, size=6
    )
    held_out = {"test": ["The cat sat on the mat."], "other": ["Nothing at all like that here."]}
    kept, report = select(lambda: rows, ["0", "1"], settings, held_out)
    assert [r.id for r in kept] == ["d#1", "d#6", "d#10", "d#11", "d#12"]
    assert report.read == 12 and report.kept == 5
    assert report.dropped == {
        "too_short": 1,
        "too_long": 1,
        "unsure": 1,
        "duplicate": 1,
        "near_duplicate": 2,
        "leak": 1,
    }
    assert report.leaks == {"test": 1, "other": 0}
    assert report.missing == {"1": 1}
    for counts in report.per_label.values():
        assert counts["read"] == sum(n for reason, n in counts.items() if reason != "read")
    json.dumps(report.model_dump(), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "held_out", "leak"),
    [
        ("a great movie", "A great movie!", True),  # all of a short one
        ("it is a great movie", "a great movie", False),
        (
            "they say one two three four five six seven eight",
            "One, two three four five six seven EIGHT!",
            True,
        ),
        (
            "one two three four five six seven eight",
            "x one two three four five six seven eight y",
            True,
        ),
        (
            "one two three four five six seven nine",
            "one two three four five six seven eight",
            False,
        ),
    ],
)
def test_leaks(text: str, held_out: str, leak: bool) -> None:
    rows = [row(1, "0", text=text), row(2, "1")]
    kept, report = select(lambda: rows, ["0", "1"], SelectionSettings(), {"test": [held_out]})
    assert report.leaks["test"] == int(leak) and len(kept) == 2 - leak


def test_balancing_is_equal_seeded_and_nested() -> None:
    rows = [row(i, LABELS[i % 5 % 3]) for i in range(200)]
    draw = {n: balance(rows, {"0": n, "1": n, "2": n}, seed=1) for n in (5, 20)}
    assert Counter(r.label for r in draw[5]) == {"0": 5, "1": 5, "2": 5}
    assert set(draw[5]) <= set(draw[20])
    assert [rows.index(r) for r in draw[20]] == sorted(rows.index(r) for r in draw[20])
    assert draw[5] != balance(rows, {"0": 5, "1": 5, "2": 5}, seed=2)
    assert set(balance(rows[::-1], {"0": 5, "1": 5, "2": 5}, seed=1)) == set(draw[5])


def test_a_size_is_divided_and_the_surplus_is_counted() -> None:
    rows = [row(i, LABELS[i % 3]) for i in range(60)]
    kept, report = select(lambda: rows, LABELS[:3], SelectionSettings(size=11))
    assert Counter(r.label for r in kept) == {"0": 4, "1": 4, "2": 3}
    assert report.dropped == {"surplus": 49} and report.missing == {}


def test_kept_rows_are_written_and_read(tmp_path: Path) -> None:
    rows = [row(i) for i in range(3)]
    write_labels(tmp_path / "kept.jsonl", rows)
    again = list(read_labels(tmp_path / "kept.jsonl"))
    assert again == rows


def test_normal_form_of_a_tokenised_text_is_the_same() -> None:
    assert normal_form("It 's  a charming , funny movie .") == normal_form(
        "it's a CHARMING, funny movie"
    )


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"thresholds": {"0": 0.5}}, UsageError, "the label '1' has none"),
        ({"thresholds": {"0": 0.5, "1": 0.5, "2": 0.1}}, UsageError, "'2' is no label"),
        ({"min_words": 99}, DataError, "no row is left of 1: {'too_short': 1}"),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        select(lambda: [row(1)], ["0", "1"], SelectionSettings(**settings))
    with pytest.raises(DataError, match="d#1: the label '7' is none of 0, 1"):
        select(lambda: [row(1, "7")], ["0", "1"], SelectionSettings())
