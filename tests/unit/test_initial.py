"""Every initialiser gives P finite vectors of the model's size, at its scale, the same for a seed."""

import pytest
import torch

from headstart.config import FewShot, TuneSettings
from headstart.errors import UsageError
from headstart.models.initial import NAMES, initialiser
from headstart.models.load import load_model
from headstart.ops.initialise import from_class_words, from_vocabulary, root_mean_square
from headstart.prompts import shipped
from headstart.prompts.files import PromptCard, save_prompt
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.fewshot import tune_seeds
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

WORDS = ("terrible", "great")


@pytest.fixture(scope="module")
def model():
    return load_model("tiny-causal")


def saved(folder, model, length):
    prompt = SoftPrompt.of(torch.randn(length, model.hidden_size))
    card = PromptCard(
        base_model=model.name,
        fingerprint=model.fingerprint(),
        length=length,
        hidden_size=model.hidden_size,
    )
    save_prompt(folder, prompt, card)
    return prompt


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 7])
def test_every_initialiser_holds_the_contract(name, length, model, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path)
    arguments = {
        "text": "text:Is it good?",
        "file": f"file:{tmp_path / 'ours'}",
        "headstart": "headstart:ours",
    }
    argument = arguments.get(name, name)
    saved(tmp_path / "ours", model, length)
    make = initialiser(argument, model, WORDS)
    one, again, other = (make(length, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (length, model.hidden_size) and one.dtype == torch.float32
    assert torch.isfinite(one).all() and torch.equal(one, again)
    if name in ("vocab", "normal", "uniform"):
        assert not torch.equal(one, other)
        rows = make(200, torch.Generator().manual_seed(1))
        scale = root_mean_square(rows) / root_mean_square(model.embedding_VH)
        assert scale == pytest.approx(1, abs=0.1)


def test_a_file_is_taken_as_it_is(model, tmp_path):
    prompt = saved(tmp_path, model, 4)
    made = initialiser(f"file:{tmp_path}", model)(4, torch.Generator())
    assert torch.equal(made, prompt.vectors_PH)


def test_vocabulary_rows_are_the_tables_without_replacement(model):
    rows = from_vocabulary(model.embedding_VH, 10)(10, torch.Generator().manual_seed(1))
    distances = torch.cdist(rows, model.embedding_VH[:10].float())
    assert sorted(distances.argmin(-1).tolist()) == list(range(10))


def test_class_words_stand_last_next_to_the_text():
    filler = from_vocabulary(torch.zeros(3, 2))
    made = from_class_words([torch.ones(2, 2), torch.full((1, 2), 3.0)], filler)(
        4, torch.Generator()
    )
    assert made[:, 0].tolist() == [0.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "spec, line",
    [
        ("vocabb", "did you mean 'vocab'"),
        ("vocab:many", "a number of tokens"),
        ("text:", "needs a text"),
        ("normal:wide", "a number above 0"),
        ("normal:nan", "a number above 0"),
        ("vocab:999999", "the model has 260 tokens"),
        ("zero:3", "takes no argument"),
        ("class-words", "needs label words"),
    ],
)
def test_a_wrong_spec_is_one_clear_line(model, spec, line):
    with pytest.raises(UsageError, match=line):
        initialiser(spec, model)


def test_a_file_of_another_length_is_one_clear_line(model, tmp_path):
    saved(tmp_path, model, 4)
    with pytest.raises(UsageError, match="has 4 vectors, and 7 were asked for"):
        initialiser(f"file:{tmp_path}", model)(7, torch.Generator())


def test_a_study_of_one_seed_stands_for_its_prompt(model, tmp_path):
    prompt = saved(tmp_path / "seed-3", model, 4)
    made = initialiser(f"file:{tmp_path}", model)(4, torch.Generator())
    assert torch.equal(made, prompt.vectors_PH)
    saved(tmp_path / "seed-4", model, 4)
    with pytest.raises(UsageError, match="a study of 2 prompts; name one"):
        initialiser(f"file:{tmp_path}", model)


def test_a_shipped_start_is_for_its_model_and_its_length(model, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path)
    saved(tmp_path / "ours", model, 4)
    mark = model.fingerprint()
    assert shipped.fitting_starts(mark, 4) == ["ours"] and shipped.fitting_starts(mark, 5) == []
    # another copy of the same model is no other model, and another tokenizer is
    assert shipped.fitting_starts(mark.model_copy(update={"weights": "w"}), 4) == ["ours"]
    assert shipped.fitting_starts(mark.model_copy(update={"tokenizer": "t"}), 4) == []
    with pytest.raises(
        UsageError, match="made for base model 'tiny-causal', not for 'tiny-seq2seq'"
    ):
        initialiser("headstart:ours", load_model("tiny-seq2seq"))
    with pytest.raises(UsageError, match="did you mean 'ours'"):
        initialiser("headstart:our", model)
    with pytest.raises(UsageError, match="that prompt has 4 vectors, and 5 were asked for"):
        initialiser("headstart:ours", model)(5, torch.Generator())
    with pytest.raises(UsageError, match="name a start"):
        initialiser("headstart", model)


def test_tuning_takes_the_start_that_fits_the_labels_best(model, tmp_path, monkeypatch):
    """A prompt that was tuned on the task beats sampled vocabulary on it; turned around, it does not."""
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path)
    task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
    rows = [Example(str(i), {"text": "ab"[i % 2] * (1 + i % 5)}, "ab"[i % 2]) for i in range(16)]
    settings = TuneSettings(init="headstart", prompt_length=4, train=FewShot(num_steps=0))
    (plain,) = tune_seeds(model, task, rows, settings)
    assert plain.prompt.spec.init == "vocab"
    learn = settings.model_copy(update={"train": FewShot(num_steps=40, lr=0.1)})
    (learned,) = tune_seeds(model, task, rows, learn)
    card = PromptCard(
        base_model=model.name, fingerprint=model.fingerprint(), length=4, hidden_size=16
    )
    save_prompt(tmp_path / "ours", learned.prompt, card)
    (chosen,) = tune_seeds(model, task, rows, settings)
    assert chosen.prompt.spec.init == "headstart:ours"
    assert torch.equal(chosen.prompt.vectors_PH, learned.prompt.vectors_PH)
    turned = [Example(row.id, row.fields, "ba"["ab".index(row.label)]) for row in rows]
    (other,) = tune_seeds(model, task, turned, settings)
    assert other.prompt.spec.init == "vocab"
