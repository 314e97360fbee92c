"""Meta-training learns, resumes to the same numbers, shares tasks over processes, says when it is dead."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.config import MetaTrain
from headstart.errors import DataError, UsageError
from headstart.learn.checkpoint import load_state
from headstart.learn.doctor import diagnose_meta
from headstart.learn.meta import LOG, STATE, meta_train, read_log
from headstart.learn.meta_look import split_tasks
from headstart.learn.meta_step import meta_gradient, stacked
from headstart.models.base import Encoded
from headstart.models.load import load_model
from headstart.ops.inner_loop import sgd
from headstart.ops.meta_gradient import multitask
from headstart.recipes.meta_stage import inner_gains
from headstart.tasks.episodes import Episode, draw_episodes

QUICK = {"num_steps": 6, "num_support": 2, "num_query": 2, "num_validation": 4, "eval_every": 2}


def tasks(num_tasks=3, per_task=12, seed=0):
    """Tasks whose texts differ in length and letters; a token tells the label in all of them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for k in range(num_tasks):
        rows = []
        for i in range(per_task):
            size = int(torch.randint(2, 8, (1,), generator=generator))
            text = torch.randint(20 + 20 * k, 40 + 20 * k, (size,), generator=generator).tolist()
            rows.append(Encoded(f"{k}:{i}", (*text, 200 + i % 2), ((7,), (8,)), i % 2))
        made.append(rows)
    return made


def start(model, length=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, model.hidden_size, generator=generator)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-causal")


@given(
    st.lists(st.integers(8, 20), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 50), st.integers(0, 50),
)  # fmt: skip
def test_support_and_query_never_overlap(sizes, support, query, seed, step):
    ends = torch.tensor(sizes).cumsum(0).tolist()
    groups = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    episodes = draw_episodes(groups, support, query, seed, step)
    assert [episode.task for episode in episodes] == list(range(len(sizes)))
    for episode, group in zip(episodes, groups, strict=True):
        rows = (*episode.support, *episode.query)
        assert len(set(rows)) == support + query and set(rows) <= set(group)
    assert episodes == draw_episodes(groups, support, query, seed, step)


def test_steps_draw_different_rows_and_samples_of_tasks():
    groups = [list(range(20 * k, 20 * k + 20)) for k in range(6)]
    draws = [draw_episodes(groups, 2, 2, 1, step, num_tasks=3) for step in range(20)]
    assert len({str(draw) for draw in draws}) == 20
    assert {episode.task for draw in draws for episode in draw} == set(range(6))
    assert all(len(draw) == 3 for draw in draws)


def test_a_task_that_is_too_small_is_named():
    with pytest.raises(DataError, match="task 1 has 3 rows, and 2 support and 2 query"):
        draw_episodes([[1, 2, 3, 4], [5, 6, 7]], 2, 2, 0, 0)
    with pytest.raises(DataError, match="task 0 has 7 rows, too few for 4 held-out, 2 support"):
        split_tasks([7], MetaTrain(**QUICK), 0)
    with pytest.raises(UsageError, match="num_validation=2: 2 of them are support rows"):
        split_tasks([70], MetaTrain(num_support=2, num_validation=2), 0)


def test_held_out_rows_are_never_trained_on():
    train, episodes = split_tasks([10, 14], MetaTrain(**QUICK), seed=3)
    for rows, episode, begin, size in zip(train, episodes, (0, 10), (10, 14), strict=True):
        held = {*episode.support, *episode.query}
        assert len(held) == 4 and not held & set(rows)
        assert held | set(rows) == set(range(begin, begin + size))


@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile", "multitask", "plain"])
def test_every_method_learns_and_sees_the_same_number_of_rows(model, method):
    changes = {"num_steps": 25, "num_support": 4, "num_query": 4}
    settings = MetaTrain(
        **{**QUICK, **changes, "num_validation": 12}, method=method, inner_lr=0.1, meta_lr=0.05
    )
    found = meta_train(model, tasks(per_task=40), start(model), settings)
    losses = [record["query_loss"] for record in found.log]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert found.looks[-1]["loss_after"] < found.looks[0]["loss_after"]
    assert found.rows_seen == found.steps * 3 * 8
    assert torch.isfinite(found.prompt_PH).all()
    if method in ("multitask", "plain"):
        assert all(look["gain"] == 0 for look in found.looks)


@pytest.mark.parametrize("method", ["fomaml", "multitask", "plain"])
def test_a_sample_of_tasks_costs_every_method_the_same_rows(model, method):
    settings = MetaTrain(**QUICK, method=method, meta_batch_size=2)
    found = meta_train(model, tasks(num_tasks=3), start(model), settings)
    assert found.rows_seen == found.steps * 2 * (settings.num_support + settings.num_query)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_multi_task_in_one_heap_is_the_sum_over_its_tasks(model, reduction):
    """Nothing adapts, so the start is run once; the gradient is that of a prompt a task."""
    rows = [row for task in tasks(num_tasks=3) for row in task]
    episodes = [Episode(k, (4 * k, 4 * k + 1), (4 * k + 2, 4 * k + 3)) for k in range(3)]
    settings = MetaTrain(method="multitask", reduction=reduction)
    found_PH, record = meta_gradient(model, start(model), rows, episodes, settings)
    support, query = (
        stacked(model, rows, draws, settings)
        for draws in ([e.support for e in episodes], [e.query for e in episodes])
    )
    apart = multitask(start(model), 3, support, query, sgd(0.1), 0)
    whole_PH = apart.gradient_PH / (3 if reduction == "mean" else 1)
    assert torch.allclose(found_PH, whole_PH, atol=1e-6)
    assert record["query_loss"] == pytest.approx(float(apart.query_loss_K.mean()), abs=1e-6)


def test_reptile_without_an_inner_step_is_refused():
    with pytest.raises(ValueError, match="its start never moves"):
        MetaTrain(method="reptile", inner_steps=0)


def test_one_task_in_one_heap_is_plain_training(model):
    """PPT is multi-task training with a single task."""
    settings = MetaTrain(**QUICK, method="plain", meta_lr=0.1)
    shared = MetaTrain(**QUICK, method="multitask", meta_lr=0.1)
    one = tasks(num_tasks=1)
    left, right = (meta_train(model, one, start(model), s) for s in (settings, shared))
    assert torch.allclose(left.prompt_PH, right.prompt_PH, atol=1e-6)


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["maml", "reptile"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(model, tmp_path, method, optimizer):
    settings = MetaTrain(**QUICK, method=method, optimizer=optimizer, inner_lr=0.5, meta_lr=0.1)
    whole = meta_train(model, tasks(), start(model), settings, seed=4)

    (tmp_path / LOG).write_text("of a run that was killed before its first state\n")
    for stop in (1, 2, 5):

        def die(done, record, stop=stop):
            if done == stop:
                raise Killed

        with pytest.raises(Killed):
            meta_train(model, tasks(), start(model), settings, 4, tmp_path, die)
    with (tmp_path / LOG).open("a") as log:
        log.write("killed between the log and the state\n")
    resumed = meta_train(model, tasks(), start(model), settings, 4, tmp_path)
    assert len((tmp_path / LOG).read_text().splitlines()) == 6
    assert torch.equal(resumed.prompt_PH, whole.prompt_PH)
    assert (resumed.log, resumed.looks) == (whole.log, whole.looks)
    assert (resumed.steps, resumed.best_step, resumed.rows_seen) == (6, whole.best_step, 72)
    again = meta_train(model, tasks(), start(model), settings, 4, tmp_path)
    assert torch.equal(again.prompt_PH, whole.prompt_PH) and again.steps == 6


def test_a_state_of_another_run_is_refused(model, tmp_path):
    settings = MetaTrain(**QUICK, method="fomaml")
    meta_train(model, tasks(), start(model), settings, 0, tmp_path)
    for change, name in [
        ({"settings": settings.model_copy(update={"inner_steps": 2})}, "settings"),
        ({"seed": 1}, "seed"),
        ({"start_PH": start(model, seed=2)}, "start"),
    ]:
        given_ = {"start_PH": start(model), "settings": settings, "seed": 0} | change
        with pytest.raises(UsageError, match=f"that run had other {name}; delete it"):
            meta_train(model, tasks(), folder=tmp_path, **given_)


def test_the_best_start_on_held_out_rows_is_kept_and_patience_ends_the_run(model):
    settings = MetaTrain(
        **{**QUICK, "num_steps": 40, "eval_every": 1}, method="fomaml", patience=3, meta_lr=1e-9
    )
    found = meta_train(model, tasks(), start(model), settings)
    # a start that cannot move is best at the first look: three more, and the run ends
    assert found.steps < 40 and found.best_step is not None
    assert torch.allclose(found.prompt_PH, start(model), atol=1e-5)


def test_the_doctor_names_dead_meta_learning(model):
    def gains(inner_lr):
        changes = {"num_support": 4, "num_validation": 12, "method": "fomaml", "meta_lr": 1e-6}
        settings = MetaTrain(**{**QUICK, **changes}, inner_lr=inner_lr)
        found = meta_train(model, tasks(per_task=40), start(model), settings)
        return [look["gain"] for look in found.looks]

    dead, alive = gains(1e-7), gains(1.0)
    assert "dead meta-learning" in diagnose_meta([0.7], dead, 1e-7)
    assert diagnose_meta([0.7], alive, 1.0) is None
    assert "the inner step hurts" in diagnose_meta([0.7], gains(1e4), 1e4)
    assert "not finite" in diagnose_meta([float("nan")], [], 0.1)
    assert "the start cannot move" in diagnose_meta([0.7] * 20, alive, 1.0, drift=1e-5)


def test_without_looks_the_log_says_what_an_inner_step_gains(model):
    changes = {"num_support": 4, "num_validation": 0, "method": "fomaml", "meta_lr": 1e-6}
    settings = MetaTrain(**{**QUICK, **changes}, inner_lr=1e-7)
    found = meta_train(model, tasks(per_task=40), start(model), settings)
    gains = [1 - record["query_loss"] / record["support_loss"] for record in found.log]
    assert [record["gain"] for record in found.log] == pytest.approx(gains)
    before, after = (sum(r[n] for r in found.log[3:]) for n in ("support_loss", "query_loss"))
    assert inner_gains(found, settings) == pytest.approx([1 - after / before])
    assert inner_gains(found, settings.model_copy(update={"method": "plain"})) == []


TWO = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {root!r})
from headstart.config import MetaTrain
from headstart.learn.meta import meta_train
from headstart.models.load import load_model
from tests.unit.test_meta_training import QUICK, start, tasks
model = load_model("tiny-causal")
settings = MetaTrain(**QUICK, method={method!r}, inner_lr=0.5, meta_lr=0.1)
meta_train(model, tasks(), start(model), settings, 4, Path({folder!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maml", "multitask"])
def test_two_processes_equal_one(model, tmp_path, method):
    """Three tasks over two processes (gloo): the sums, and so the run, are those of one process."""
    script = tmp_path / "two.py"
    root = str(Path(__file__).parents[2])
    script.write_text(TWO.format(root=root, method=method, folder=str(tmp_path / "two")))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run([sys.executable, *launch], check=True, timeout=240)
    settings = MetaTrain(**QUICK, method=method, inner_lr=0.5, meta_lr=0.1)
    alone = meta_train(model, tasks(), start(model), settings, seed=4)
    tensors, values = load_state(tmp_path / "two" / STATE)
    assert torch.allclose(tensors["best"], alone.prompt_PH, atol=1e-4)
    losses = [record["query_loss"] for record in alone.log]
    log = read_log(tmp_path / "two" / LOG, values["steps"])
    assert [record["query_loss"] for record in log] == pytest.approx(losses, abs=1e-5)
