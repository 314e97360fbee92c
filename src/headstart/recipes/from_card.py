"""Read back from a prompt's card what made it: the task, the settings, and how the run went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        raise PromptFileError(f"{folder / 'card.json'}: cannot be read ({reason})") from error


def task_of(card: PromptCard) -> Task:
    """Return the task a prompt was tuned for.

    Example:
        >>> task_of.__name__
        'task_of'
    """
    return Task.from_dict({key: value for key, value in card.task.items() if key != "scoring"})


def settings_of(card: PromptCard) -> TuneSettings:
    """Return the settings a prompt was tuned with.

    Example:
        >>> settings_of.__name__
        'settings_of'
    """
    return check_settings({**card.training["settings"], "scoring": card.task["scoring"]})


def result_of(prompt: SoftPrompt, card: PromptCard) -> SeedResult:
    """Return how a run went, as far as its card tells: of the losses, the last.

    Example:
        >>> result_of.__name__
        'result_of'
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
            Vitals(losses, drift=told["drift"]),
            told["seconds_of_stack"],
        ),
        told["advice"],
    )
