"""Read back from a prompt's card what made it: the task, the settings, and how the run went."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic

from headstart.config import TuneSettings, check_settings
from headstart.errors import PromptFileError
from headstart.learn.doctor import Vitals
from headstart.learn.fewshot import Tuned
from headstart.prompts.files import PromptCard
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.fewshot import SeedResult
from headstart.tasks.fewshot import LabelLedger, Shots
from headstart.tasks.task import Task


@contextmanager
def card_errors(folder: Path) -> Iterator[None]:
    """Turn an error about a card's content into one clear line.

    Raises:
        PromptFileError: The block met a missing key, or a value of the wrong kind.

    Example:
        >>> with card_errors(Path("seed-1")):
        ...     {}["task"]
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: seed-1/card.json: cannot be read ('task')
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pydantic.ValidationError):  # its first line says only how many
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the values"
            reason = f"{where}: {first['msg'].lower()}"
        raise PromptFileError(f"{folder / 'card.json'}: cannot be read ({reason})") from error


def task_of(card: PromptCard) -> Task:
    """Return the task a prompt was tuned for.

    Example:
        >>> from headstart.prompts.files import Fingerprint
        >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
        >>> card = PromptCard(base_model="m", fingerprint=mark, length=1, hidden_size=2)
        >>> task = {"template": {"text": "{{ text }}{{ answer }}"}, "labels": ["0"], "words": ["no"]}
        >>> task_of(card.model_copy(update={"task": task})).words
        ('no',)
    """
    return Task.from_dict({key: value for key, value in card.task.items() if key != "scoring"})


def settings_of(card: PromptCard) -> TuneSettings:
    """Return the settings a prompt was tuned with.

    Example:
        >>> from headstart.prompts.files import Fingerprint
        >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
        >>> card = PromptCard(base_model="m", fingerprint=mark, length=1, hidden_size=2)
        >>> told = {"training": {"settings": {"init": "normal"}}, "task": {"scoring": {"eos": True}}}
        >>> settings = settings_of(card.model_copy(update=told))
        >>> settings.init, settings.scoring.eos
        ('normal', True)
    """
    return check_settings({**card.training["settings"], "scoring": card.task["scoring"]})


def result_of(prompt: SoftPrompt, card: PromptCard) -> SeedResult:
    """Return how a run went, as far as its card tells: of the losses, the last.

    Example:
        >>> from headstart.config import FewShot
        >>> from headstart.models.load import load_model
        >>> from headstart.recipes.fewshot import card_for, tune_seeds
        >>> from headstart.tasks.example import Example
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> rows = [Example(label, {"text": label * 3}, label) for label in "ab"]
        >>> settings = TuneSettings(seeds=(7,), train=FewShot(num_steps=1))
        >>> model = load_model("tiny-causal")
        >>> (made,) = tune_seeds(model, task, rows, settings)
        >>> card = card_for(made, model, model.fingerprint(), task, settings, {})
        >>> result_of(made.prompt, card).ledger == made.ledger
        True
    """
    told, labels = card.training, card.training["labels"]
    losses = [] if told["final_loss"] is None else [told["final_loss"]]
    shots = told["shots"]
    return SeedResult(
        told["seed"],
        prompt,
        Shots(shots["name"], tuple(shots["train"]), tuple(shots["dev"])),
        LabelLedger(labels["train"], labels["dev"]),
        Tuned(
            f"seed-{told['seed']}",
            prompt.vectors_PH,
            told["steps"],
            card.metrics.get("dev_accuracy"),
            Vitals(losses, drift=math.nan if told["drift"] is None else told["drift"]),
            told["seconds_of_stack"],
        ),
        told["advice"],
    )
