"""What a prompt's card says about the estimator that made it, or that it can be loaded into."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.prompts.files import PromptCard
from headstart.recipes.from_card import settings_of, task_of
from headstart.tasks.rows import label_name

SHARED = ("init", "prompt_kind", "prompt_length", "max_length")
"""Parameters that ``TuneSettings`` has too, under the same names."""


def parameters_of(card: PromptCard) -> dict[str, Any]:
    """Return the parameters a card stands for; those that ``fit`` wrote down win.

    Raises:
        KeyError: The card is not of a tuned prompt; see :func:`.from_card.card_errors`.

    Example:
        >>> from headstart.classifier import PromptClassifier
        >>> fitted = PromptClassifier("tiny-causal", num_steps=1).fit(["a", "z"], [0, 1])
        >>> parameters_of(fitted.card_)["num_steps"]
        1
    """
    task, settings = task_of(card), settings_of(card)
    brings_answers = task.template.answer_choices is not None
    found = {
        **{name: getattr(settings, name) for name in SHARED},
        **settings.train.model_dump(),
        **settings.scoring.model_dump(),
        "dev_size": settings.dev_shots,
        "template": task.template if brings_answers else task.template.text,
        "label_words": dict(zip(task.labels, task.words, strict=True)) if task.words else None,
        "random_state": card.training["seed"],
    }
    return {
        **found,
        **card.training.get("classifier", {}).get("params", {}),
        "model": card.base_model,
    }


def classes_of(card: PromptCard) -> np.ndarray:
    """Return the labels in their own type; those of the command line are texts.

    Raises:
        ValueError: The classes written down are not the card's labels.

    Example:
        >>> from headstart.classifier import PromptClassifier
        >>> fitted = PromptClassifier("tiny-causal", num_steps=1).fit(["a", "z"], [0, 1])
        >>> classes_of(fitted.card_)
        array([0, 1])
    """
    names = card.task["labels"]
    kind, values = card.training.get("classifier", {}).get("classes", ("U", names))
    classes = np.array(values, dtype=kind)
    if not names or [label_name(label) for label in classes] != names:
        raise ValueError(f"classes {values} for the labels {names}")
    return classes
