"""N stacked runs are N runs; a run learns, stops and is watched as it should be."""

from dataclasses import replace

import pytest
import torch

from headstart.config import FewShot, FineTune
from headstart.learn.fewshot import Run, batches, tune
from headstart.learn.finetune import dev_accuracy as bare_accuracy
from headstart.learn.finetune import finetune
from headstart.models.base import Limits
from headstart.models.batches import score_all
from headstart.models.load import load_model
from headstart.ops.initialise import from_vocabulary
from headstart.prompts.bank import PromptBank
from headstart.tasks.example import ANSWER_SLOT, Rendered


@pytest.fixture(scope="module", params=["tiny-causal", "tiny-seq2seq"])
def model(request):
    return load_model(request.param)


def rows(model, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        size = int(torch.randint(3, 12, (1,), generator=generator))
        made.append(
            Rendered(str(i), ("a" if i % 2 else "z") * size + ANSWER_SLOT, ("x", "y"), i % 2)
        )
    return model.encode(made, Limits())


def start(model, length, seed):
    generator = torch.Generator().manual_seed(seed)
    return from_vocabulary(model.embedding_VH)(length, generator)


def runs_of(model):
    return [
        Run("a", start(model, 5, 1), rows(model, 9, 1), seed=1),
        Run("b", start(model, 3, 2), rows(model, 9, 2), seed=2, lr=0.3),
        Run("c", start(model, 7, 3), rows(model, 7, 3), seed=3, lr=0.01),
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("loss", ["candidates", "tokens"])
def test_stacked_tuning_equals_separate_tuning(model, optimizer, loss):
    settings = FewShot(
        optimizer=optimizer, loss=loss, lr=0.1, num_steps=6, batch_size=4, warmup_steps=2
    )
    stacked = tune(model, runs_of(model), settings)
    for run, together in zip(runs_of(model), stacked, strict=True):
        (alone,) = tune(model, [run], settings)
        assert together.vitals.losses == pytest.approx(alone.vitals.losses, abs=1e-4)
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=1e-4)
        assert not torch.allclose(alone.prompt_PH, run.start_PH, atol=1e-3)


def with_dev(model, run, lr, dev):
    return Run(run.name, run.start_PH, run.train, dev, run.seed, lr)


def test_stacked_early_stopping_equals_separate(model):
    """One run stops early, one goes on, one has no dev rows and runs to the end."""
    settings = FewShot(num_steps=20, batch_size=4, eval_every=2, patience=2, schedule="constant")
    a, b, c = runs_of(model)
    still = with_dev(model, a, 1e-9, rows(model, 6, 9))
    mixed = [still, with_dev(model, b, 0.1, rows(model, 6, 9)), c]
    stacked = tune(model, mixed, settings)
    for run, together in zip(mixed, stacked, strict=True):
        (alone,) = tune(model, [run], settings)
        assert (together.steps, together.dev_accuracy) == (alone.steps, alone.dev_accuracy)
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=1e-4)
    # a prompt that cannot move is best before the first update: two more looks, and it ends
    assert stacked[0].steps == 4
    assert stacked[2].steps == 20 and stacked[2].dev_accuracy is None


def dev_accuracy(model, prompt_PH, dev):
    scores, _ = score_all(model, dev, PromptBank.stack([prompt_PH]))
    return (scores.argmax(-1) == torch.tensor([row.target for row in dev])).float().mean().item()


def test_the_best_prompt_on_dev_is_kept_not_the_last(model):
    """Dev rows with swapped labels get worse as the run learns: the best prompt is an early one."""
    settings = FewShot(lr=0.05, num_steps=40, eval_every=1, patience=40, warmup_steps=0)
    train = rows(model, 20, 1)
    swapped = [replace(row, target=1 - row.target) for row in rows(model, 11, 50)]
    (best,) = tune(model, [Run("r", start(model, 3, 1), train, swapped, 1)], settings)
    (last,) = tune(model, [Run("r", start(model, 3, 1), train, (), 1)], settings)
    assert dev_accuracy(model, best.prompt_PH, swapped) == pytest.approx(best.dev_accuracy)
    assert best.dev_accuracy > dev_accuracy(model, last.prompt_PH, swapped)


def test_only_a_learned_start_is_blended_with_what_tuning_made_of_it(model):
    settings = FewShot(lr=0.1, num_steps=5, batch_size=4, start_worth=27)
    sampled = runs_of(model)[0]
    learned = replace(sampled, learned=True)
    (all_of_it,), (part,) = (tune(model, [run], settings) for run in (sampled, learned))
    way_PH = all_of_it.prompt_PH - sampled.start_PH
    assert torch.allclose(part.prompt_PH, sampled.start_PH + 0.25 * way_PH, atol=1e-6)
    assert way_PH.abs().max() > 0.1


def test_the_dev_rows_judge_the_blended_prompt(model):
    settings = FewShot(lr=0.05, num_steps=10, eval_every=5, start_worth=20)
    dev = rows(model, 11, 50)
    run = Run("r", start(model, 3, 1), rows(model, 20, 1), dev, 1, learned=True)
    (best,) = tune(model, [run], settings)
    assert dev_accuracy(model, best.prompt_PH, dev) == pytest.approx(best.dev_accuracy)


def test_patience_ends_a_run_that_does_not_get_better(model):
    for patience in (1, 3):
        settings = FewShot(num_steps=30, eval_every=2, patience=patience)
        run = with_dev(model, runs_of(model)[0], 1e-9, rows(model, 6, 9))
        (result,) = tune(model, [run], settings)
        assert result.steps == 2 * patience


def spied(monkeypatch, look):
    """What ``look`` sees of every parameter group at every step."""
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args):
        seen.append([look(group) for group in self.param_groups])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    return seen


def test_each_run_follows_the_schedule_at_its_own_rate(model, monkeypatch):
    rates = spied(monkeypatch, lambda group: group["lr"])
    for schedule, factors in (("linear", [0.5, 1, 1, 0.5]), ("constant", [0.5, 1, 1, 1])):
        rates.clear()
        settings = FewShot(lr=0.1, num_steps=4, warmup_steps=2, schedule=schedule)
        tune(model, runs_of(model), settings)
        expected = [[0.1 * f, 0.3 * f, 0.01 * f] for f in factors]
        assert rates == [pytest.approx(step) for step in expected]


def test_clipping_bounds_each_prompts_gradient_alone(model, monkeypatch):
    norms = spied(monkeypatch, lambda group: group["params"][0].grad.norm().item())
    (loose,) = tune(model, [runs_of(model)[0]], FewShot(lr=0.1, num_steps=2, clip_norm=1e9))
    free = [step[0] for step in norms]
    assert free == pytest.approx(loose.vitals.grad_norms)
    norms.clear()
    bound = 0.5 * free[0]
    tune(model, runs_of(model), FewShot(lr=0.1, num_steps=2, clip_norm=bound))
    assert norms[0][0] == pytest.approx(bound, rel=1e-3)
    assert all(norm <= bound * 1.001 for step in norms for norm in step)


def test_tuning_works_where_gradients_are_switched_off(model):
    with torch.no_grad():
        (result,) = tune(model, [runs_of(model)[0]], FewShot(lr=0.1, num_steps=2))
    assert not torch.equal(result.prompt_PH, runs_of(model)[0].start_PH)


def test_tasks_of_unlike_candidates_stack(model):
    """Two tasks with other words and another number of classes, in one stream."""
    three = [
        Rendered(str(i), "abc"[i % 3] * 4 + ANSWER_SLOT, ("red", "so green", "b"), i % 3)
        for i in range(9)
    ]
    other = Run("three", start(model, 4, 8), model.encode(three, Limits()), seed=8)
    settings = FewShot(lr=0.1, num_steps=4, batch_size=4)
    stacked = tune(model, [runs_of(model)[0], other], settings)
    for run, together in zip([runs_of(model)[0], other], stacked, strict=True):
        (alone,) = tune(model, [run], settings)
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=1e-4)


def test_it_learns_and_the_base_model_stays_as_it_was(model):
    before = model.fingerprint()
    run = Run("r", start(model, 6, 1), rows(model, 20, 1), seed=1)
    (result,) = tune(model, [run], FewShot(lr=0.1, num_steps=60))
    losses = result.vitals.losses
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert model.fingerprint() == before


def test_the_same_seed_gives_the_same_prompt_bit_for_bit(model):
    first, second = (tune(model, runs_of(model), FewShot(num_steps=3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.prompt_PH, b.prompt_PH)


def test_zero_steps_change_nothing(model):
    run = runs_of(model)[0]
    (result,) = tune(model, [run], FewShot(num_steps=0))
    assert torch.equal(result.prompt_PH, run.start_PH)


def test_every_pass_shows_each_row_once():
    run = Run("r", torch.zeros(1, 4), list(range(10)), seed=3)
    stream = batches(run, 4)
    for _ in range(3):
        seen = [row for _ in range(3) for row in next(stream)]
        assert sorted(seen) == list(range(10))


def test_a_run_without_labels_is_refused(model):
    unlabelled = model.encode([Rendered("a", f"hm{ANSWER_SLOT}", ("x", "y"))], Limits())
    with pytest.raises(ValueError, match="needs labelled rows"):
        tune(model, [Run("r", start(model, 2, 1), unlabelled)], FewShot(num_steps=1))


def test_full_fine_tuning_learns_and_freezes_again():
    model = load_model("tiny-causal")
    run = Run("r", torch.zeros(0, 16), rows(model, 20, 1), seed=1)
    before = model.fingerprint()
    losses = finetune(model, run, FineTune(lr=3e-3, num_steps=40)).losses
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert model.fingerprint() != before
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_fine_tuning_stops_early_and_keeps_its_best_weights():
    model = load_model("tiny-causal")
    dev = rows(model, 6, 9)
    run = Run("r", torch.zeros(0, 16), rows(model, 20, 1), dev, seed=1)
    settings = FineTune(lr=3e-3, num_steps=60, eval_every=2, patience=4)
    found = finetune(model, run, settings)
    assert bare_accuracy(model, dev) == found.dev_accuracy > 0.5
    still = load_model("tiny-causal")
    idle = finetune(still, run, settings.model_copy(update={"lr": 1e-12}))
    assert len(idle.losses) == 10  # best at the first look, four more, and it ends


def test_a_start_that_is_best_on_dev_is_kept():
    """A step that only hurts leaves the start, which was looked at before the first update."""
    model = load_model("tiny-causal")
    run = Run("r", start(model, 4, 1), rows(model, 12, 1), seed=1)
    (learned,) = tune(model, [run], FewShot(num_steps=60, lr=0.1))
    dev = rows(model, 8, 5)
    again = Run("r", learned.prompt_PH, rows(model, 12, 1), dev, seed=1)
    (kept,) = tune(model, [again], FewShot(num_steps=4, lr=50.0, eval_every=1, warmup_steps=0))
    assert kept.dev_accuracy > 0.6
    assert torch.equal(kept.prompt_PH, learned.prompt_PH)
