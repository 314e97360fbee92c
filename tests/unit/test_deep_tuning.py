"""Prompts in every layer are started, tuned, meta-trained, saved and loaded as shallow ones are."""

import json

import pytest
import torch
from typer.testing import CliRunner

from headstart.cli.main import app
from headstart.config import GROUPS, FewShot, MetaTrain
from headstart.errors import UsageError
from headstart.learn.fewshot import Run, tune
from headstart.learn.folded import Reparameterised
from headstart.learn.meta import meta_train
from headstart.learn.space import space_of
from headstart.models.batches import score_all
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import PromptCard, load_prompt, save_prompt
from headstart.prompts.prompt import SoftPrompt
from tests.unit.test_fewshot_tuning import rows

DEEP = ("deep", "gated")
SPECS = ("vocab", "text:Is it good?", "class-words", "normal", "uniform", "zero", "normal:0.5")


@pytest.fixture(scope="module", params=["tiny-causal", "tiny-seq2seq"])
def model(request):
    return load_model(request.param)


def begin(model, kind, spec="vocab", length=3, seed=1, groups=GROUPS):
    draw = torch.Generator().manual_seed(seed)
    return initialiser(spec, model, ("x", "y"), kind, groups)(length, draw)


def score(model, start_PX, kind):
    return score_all(model, rows(model, 4), PromptBank.stack([start_PX], kind))[0]


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("spec", SPECS)
def test_every_start_is_there_in_every_layer(model, kind, spec):
    start_PX = begin(model, kind, spec)
    assert start_PX.shape == (3, model.deep_size) and torch.isfinite(start_PX).all()
    assert torch.equal(start_PX, begin(model, kind, spec))
    if kind == "gated":
        assert start_PX[:, ~model.is_key_X].abs().max() == 0
        without, _ = score_all(model, rows(model, 4))
        assert torch.equal(score(model, start_PX, kind), without)


def test_a_deep_start_of_a_causal_model_is_its_shallow_start():
    model = load_model("tiny-causal")
    deep, shallow = (score(model, begin(model, kind), kind) for kind in ("deep", "shallow"))
    assert torch.allclose(deep, shallow, atol=1e-5)


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("reparameterise", [None, 8])
def test_stacked_deep_runs_learn_and_equal_each_run_alone(model, kind, reparameterise):
    settings = FewShot(num_steps=25, batch_size=4, lr_scale=0.2, reparameterise=reparameterise)
    runs = [
        Run(str(n), begin(model, kind, length=2 + n), rows(model, 8, n), seed=n, kind=kind)
        for n in range(2)
    ]
    for run, together in zip(runs, tune(model, runs, settings), strict=True):
        (alone,) = tune(model, [run], settings)
        assert together.vitals.losses == pytest.approx(alone.vitals.losses, abs=1e-3)
        assert torch.allclose(together.prompt_PH, alone.prompt_PH, atol=1e-2)
        assert together.prompt_PH.shape == run.start_PH.shape
        losses = together.vitals.losses
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_step_moves_every_layer_by_its_own_measure(model):
    start_PX = begin(model, "deep")
    (done,) = tune(
        model,
        [Run("a", start_PX, rows(model, 4), kind="deep")],
        FewShot(num_steps=1, warmup_steps=0, lr_scale=0.1),
    )
    moved_PX = (done.prompt_PH - start_PX).abs() / model.deep_unit_X
    learned = moved_PX[moved_PX > 0.05]  # Adam's first step is lr, or 0 where there is no gradient
    assert len(learned) > moved_PX.numel() / 2
    assert torch.allclose(learned, torch.full_like(learned, 0.1), atol=1e-2)


def test_a_plain_step_size_is_of_the_vectors_themselves(model):
    start_PX = begin(model, "deep")
    settings = FewShot(num_steps=1, warmup_steps=0, lr=0.01)
    (done,) = tune(model, [Run("a", start_PX, rows(model, 4), kind="deep")], settings)
    assert float((done.prompt_PH - start_PX).abs().max()) == pytest.approx(0.01, rel=1e-3)


def test_groups_that_are_off_do_not_learn():
    model = load_model("tiny-seq2seq")
    start_PX = begin(model, "deep")
    run = Run("a", start_PX, rows(model, 4), kind="deep", groups=("cross",))
    (done,) = tune(model, [run], FewShot(num_steps=3))
    for place in model.places.values():
        part = slice(place.start, place.end)
        same = torch.allclose(done.prompt_PH[:, part], start_PX[:, part], atol=1e-6)
        assert same == (place.group != 2)


def test_runs_of_two_kinds_are_not_one_stack(model):
    one = Run("a", begin(model, "deep"), rows(model, 4), kind="deep")
    other = Run("b", begin(model, "shallow"), rows(model, 4))
    with pytest.raises(ValueError, match="one kind"):
        tune(model, [one, other], FewShot())


def test_a_reparameterised_prompt_begins_at_its_start_and_is_not_stuck():
    start_PX = torch.randn(3, 5)
    prompt = Reparameterised(start_PX, 4, torch.Generator().manual_seed(0))
    assert torch.equal(prompt(), start_PX)
    prompt().square().sum().backward()
    assert prompt.outer_UX.grad is not None and prompt.outer_UX.grad.abs().max() > 0


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("method", ["maml", "fomaml", "reptile", "multitask", "plain"])
def test_every_method_meta_trains_every_kind(kind, method):
    model = load_model("tiny-causal")
    settings = MetaTrain(
        method=method, num_steps=12, num_support=2, num_query=2, num_validation=0, inner_lr=0.05
    )
    tasks = [rows(model, 12, seed) for seed in range(3)]
    start_PX = begin(model, kind)
    found = meta_train(model, tasks, start_PX, settings, space=space_of(model, kind))
    losses = [record["query_loss"] for record in found.log]
    assert found.prompt_PH.shape == start_PX.shape
    assert sum(losses[-3:]) < sum(losses[:3])


def saved(folder, model, kind, groups=("decoder", "cross")):
    prompt = SoftPrompt.of(begin(model, kind), "vocab", kind, groups)
    card = PromptCard(
        base_model=model.name,
        fingerprint=model.fingerprint(),
        length=3,
        hidden_size=prompt.spec.hidden_size,
        kind=kind,
        groups=groups,
    )
    save_prompt(folder, prompt, card)
    return prompt


@pytest.mark.parametrize("kind", DEEP)
def test_a_saved_prompt_comes_back_with_its_kind(model, kind, tmp_path):
    prompt = saved(tmp_path, model, kind)
    loaded, _ = load_prompt(tmp_path, model.fingerprint())
    assert loaded.spec.kind == kind and loaded.spec.groups == ("decoder", "cross")
    assert torch.equal(loaded.vectors_PH, prompt.vectors_PH)


def test_a_file_begins_its_own_kind_and_a_shallow_one_begins_all(model, tmp_path):
    prompt = saved(tmp_path / "deep", model, "deep")
    spec = f"file:{tmp_path / 'deep'}"
    if model.kind == "causal":
        with pytest.raises(UsageError, match="decoder alone"):
            begin(model, "deep", spec, groups=("encoder",))
    assert torch.equal(begin(model, "deep", spec, groups=("decoder", "cross")), prompt.vectors_PH)
    with pytest.raises(UsageError, match=r"take prompt_groups=\[decoder,cross\]"):
        begin(model, "deep", spec)
    for other in ("shallow", "gated"):
        with pytest.raises(UsageError, match="a deep prompt"):
            begin(model, other, spec)
    shallow = saved(tmp_path / "shallow", model, "shallow")
    made = begin(model, "deep", f"file:{tmp_path / 'shallow'}")
    ones = torch.ones(1, 3).bool()
    assert torch.allclose(made, model.deepen(shallow.vectors_PH[None], ones)[0], atol=1e-6)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
@pytest.mark.parametrize("kind", DEEP)
def test_the_command_line_tunes_and_uses_every_kind(name, kind, tmp_path):
    lines = [("Lovely food.", "1"), ("Awful, cold food.", "0")] * 4
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(json.dumps({"text": t, "label": y}) for t, y in lines))

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result

    out = tmp_path / "out"
    told = ("--prompt-kind", kind, "--prompt-length", 3, "--set", "train.num_steps=2")
    run("tune", train, "--out", out, "--model", name, *told, "--seeds", "1,2")
    card = json.loads((out / "seed-1" / "card.json").read_text())
    assert card["kind"] == kind
    found = json.loads(run("evaluate", out, train, "--json").stdout)
    assert set(found["members"]) == {"seed-1", "seed-2"}
