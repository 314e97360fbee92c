from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError, UsageError
from headstart.tasks.fewshot import LabelLedger, Shots, draw_shots

draws = st.tuples(
    st.lists(st.sampled_from("abc"), min_size=20, max_size=60),
    st.integers(2, 10),
    st.integers(0, 10),
    st.integers(0, 5),
    st.booleans(),
)


def draw(labels: list[str], shots: int, dev: int, seed: int, stratified: bool) -> Shots | None:
    try:
        return draw_shots(labels, shots, seed, dev_shots=dev, stratified=stratified)
    except DataError:
        return None


@given(draws)
def test_parts_are_disjoint_sized_and_repeatable(
    values: tuple[list[str], int, int, int, bool],
) -> None:
    labels, num, dev, seed, stratified = values
    shots = draw(labels, num, dev, seed, stratified)
    if shots is None:
        return
    assert not set(shots.train) & set(shots.dev)
    assert (len(set(shots.train)), len(set(shots.dev))) == (num, dev)
    assert set(shots.train + shots.dev) <= set(range(len(labels)))
    assert len({labels[row] for row in shots.train}) > 1
    assert shots == draw(labels, num, dev, seed, stratified)


@given(draws)
def test_dev_shots_do_not_move_the_training_rows(
    values: tuple[list[str], int, int, int, bool],
) -> None:
    labels, num, dev, seed, stratified = values
    with_dev, without = (draw(labels, num, d, seed, stratified) for d in (dev, 0))
    assert (with_dev is None) == (without is None)
    if with_dev is not None and without is not None:
        assert with_dev.train == without.train


@given(st.integers(0, 20))
def test_a_plain_draw_ignores_the_labels(seed: int) -> None:
    first, second = ["a", "b"] * 50, ["a"] * 50 + ["b"] * 50
    one, two = (draw(labels, 32, 8, seed, False) for labels in (first, second))
    assert one is not None
    assert one == two


@given(st.lists(st.sampled_from("abc"), min_size=20, max_size=60), st.integers(2, 20))
def test_stratified_counts_are_as_equal_as_the_rows_allow(labels: list[str], num: int) -> None:
    shots = draw(labels, num, 0, 0, True)
    if shots is None:
        assert len(set(labels)) == 1
        return
    counts = Counter(labels[row] for row in shots.train)
    have = Counter(labels)
    for label in have:
        for other in have:
            assert counts[label] == have[label] or counts[label] >= counts[other] - 1


def test_a_small_class_gives_all_and_the_others_fill() -> None:
    labels = ["rare"] + ["a", "b"] * 20
    shots = draw_shots(labels, 11, seed=3, stratified=True)
    assert Counter(labels[row] for row in shots.train) == {"rare": 1, "a": 5, "b": 5}


def test_names_are_fixed() -> None:
    labels = ["a", "b"] * 40
    assert draw_shots(labels, 16, 7).name == "shots-16+0-plain-seed7"
    name = draw_shots(labels, 16, 7, dev_shots=4, stratified=True).name
    assert name == "shots-16+4-stratified-seed7"


def test_the_draw_is_frozen() -> None:
    shots = draw_shots(["a", "b"] * 10, 4, 1, dev_shots=2)
    assert shots == Shots("shots-4+2-plain-seed1", (6, 11, 15, 16), (0, 8))


@pytest.mark.parametrize(
    ("labels", "num", "dev", "words"),
    [
        (["a", "b"], 2, 1, "need 3 rows, but the data has 2"),
        (["a"] * 9, 4, 0, "the data has no other class"),
        (["a", "b"], 1, 0, "at least 2 shots"),
        (["a"] * 99 + ["b"], 2, 0, "draw stratified, or take another seed"),
    ],
)
def test_impossible_draws(labels: list[str], num: int, dev: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        draw_shots(labels, num, 0, dev_shots=dev)


@pytest.mark.parametrize(("num", "dev"), [(0, 0), (2, -1)])
def test_negative_sizes(num: int, dev: int) -> None:
    with pytest.raises(UsageError, match="at least"):
        draw_shots(["a", "b"], num, 0, dev_shots=dev)


def test_the_ledger_counts_dev_labels_too() -> None:
    assert LabelLedger(40, 40).to_dict() == {"train": 40, "dev": 40, "total": 80}
