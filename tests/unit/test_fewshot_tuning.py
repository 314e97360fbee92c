"""N stacked runs are N runs; a run learns, stops and is watched as it should be."""

import pytest
import torch

from headstart.config import FewShot, FineTune
from headstart.learn.fewshot import Run, batches, tune
from headstart.learn.finetune import finetune
from headstart.models.base import Limits
from headstart.models.load import load_model
from headstart.ops.initialise import from_vocabulary
from headstart.tasks.example import ANSWER_SLOT, Rendered


@pytest.fixture(scope="module", params=["tiny-causal", "tiny-seq2seq"])
def model(request):
    return load_model(request.param)


def rows(model, count, seed):
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
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=2e-3)
        assert not torch.allclose(alone.prompt_PH, run.start_PH, atol=1e-3)


def test_stacked_early_stopping_equals_separate(model):
    settings = FewShot(lr=0.1, num_steps=20, batch_size=4, eval_every=2, patience=2)
    with_dev = [
        Run(run.name, run.start_PH, run.train, rows(model, 6, 9), run.seed, run.lr)
        for run in runs_of(model)
    ]
    stacked = tune(model, with_dev, settings)
    for run, together in zip(with_dev, stacked, strict=True):
        (alone,) = tune(model, [run], settings)
        assert (together.steps, together.dev_accuracy) == (alone.steps, alone.dev_accuracy)
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=2e-3)
    assert len({result.steps for result in stacked}) >= 1
    assert all(result.dev_accuracy is not None for result in stacked)


def test_the_best_prompt_on_dev_is_kept_not_the_last(model):
    settings = FewShot(lr=5.0, schedule="constant", num_steps=12, eval_every=1, patience=3)
    run = Run("r", start(model, 3, 1), rows(model, 6, 1), rows(model, 6, 1), seed=1)
    (result,) = tune(model, [run], settings)
    assert result.dev_accuracy is not None
    assert result.steps <= 12


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


def test_clipping_is_per_prompt(model):
    """A prompt with a huge gradient does not slow its stack-mates."""
    calm, wild = runs_of(model)[0], Run("w", 100 * start(model, 5, 4), rows(model, 9, 4), seed=4)
    settings = FewShot(lr=0.1, num_steps=3, clip_norm=0.01)
    beside, _ = tune(model, [calm, wild], settings)
    (alone,) = tune(model, [calm], settings)
    assert torch.allclose(beside.prompt_PH, alone.prompt_PH, atol=2e-3)


def test_full_fine_tuning_learns_and_freezes_again():
    model = load_model("tiny-causal")
    run = Run("r", torch.zeros(0, 16), rows(model, 20, 1), seed=1)
    before = model.fingerprint()
    losses = finetune(model, run, FineTune(lr=3e-3, num_steps=40))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert model.fingerprint() != before
    assert not any(weight.requires_grad for weight in model.network.parameters())
