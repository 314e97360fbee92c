"""What an epoch of a mixture reads: every row once, capped tasks in turns, the same for a seed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError
from headstart.tasks.mixture import Mixing, Mixture

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(SIZES, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_an_epoch_reads_every_row_once(sizes, epoch):
    mixture = Mixture(tuple(sizes), seed=1)
    every = [(task, row) for task, size in enumerate(sizes) for row in range(size)]
    assert sorted(mixture.epoch(epoch)) == every
    assert mixture.epoch(epoch) == Mixture(tuple(sizes), seed=1).epoch(epoch)


@given(SIZES, st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_capped_task_shows_all_its_rows_before_any_comes_back(sizes, cap):
    mixture = Mixture(tuple(sizes), Mixing(cap=cap), seed=2)
    for task, (size, quota) in enumerate(zip(sizes, mixture.quotas, strict=True)):
        assert quota == min(size, cap)
        turns = -(-size // quota)
        seen = Counter(row for epoch in range(turns) for row in mixture.task_rows(task, epoch))
        assert sorted(seen) == list(range(size)) and max(seen.values()) <= 2


@given(SIZES, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_batches_are_of_one_task_and_share_no_row(sizes, batch):
    mixture = Mixture(tuple(sizes), seed=3)
    if max(sizes) < batch:
        with pytest.raises(DataError, match="draw fewer rows"):
            mixture.task_batches(0, batch)
        return
    batches = mixture.task_batches(0, batch)
    assert all(len({task for task, _ in each}) == 1 and len(each) == batch for each in batches)
    rows = [row for each in batches for row in each]
    assert len(set(rows)) == len(rows)
    assert Counter(each[0][0] for each in batches) == {
        task: size // batch for task, size in enumerate(sizes) if size >= batch
    }


def test_temperature_brings_small_tasks_up():
    plain = Mixture((100, 10_000), seed=1).quotas
    warm = Mixture((100, 10_000), Mixing(temperature=2), seed=1).quotas
    assert plain == (100, 10_000) and warm == (100, 1_000)


def test_epochs_and_seeds_differ():
    mixture = Mixture((50,), seed=1)
    assert mixture.epoch(0) != mixture.epoch(1)
    assert mixture.epoch(0) != Mixture((50,), seed=2).epoch(0)


def test_nothing_is_no_mixture():
    for sizes in ((), (3, 0)):
        with pytest.raises(DataError, match="needs tasks"):
            Mixture(sizes)
