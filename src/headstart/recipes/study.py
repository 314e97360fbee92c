"""A study's folder: one sub-folder a seed, and ``study.json``, written last, so its presence means done.

    OUT/seed-1/prompt.safetensors   the vectors
    OUT/seed-1/card.json            everything about them
    OUT/seed-1/test.jsonl           predictions on the test rows, where there were any
    OUT/study.json                  task, settings, data, metrics over seeds
    OUT/README.md                   the same for people

The folder is built beside its place and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pydantic
from torch import Tensor

from headstart.config import Scoring
from headstart.errors import PromptFileError, UsageError, did_you_mean
from headstart.models.base import BaseModel, Limits
from headstart.prompts.files import (
    PromptCard,
    load_prompt,
    made_parents,
    read_card,
    storage_errors,
)
from headstart.prompts.prompt import SoftPrompt
from headstart.tasks.task import Task

DONE = ("study.json", "metrics.json", "card.json")
"""Files that are written last: a folder that holds one is a finished result."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Tuned prompts of one task, ready to score.

    Attributes:
        model: The base model.
        task: Template, labels, label words.
        scoring: The rule.
        seeds: The members' names.
        prompts: The members' vectors [P, H]; none: the bare model.
        cards: The members' cards.
        max_length: Tokens a row is truncated to; ``None``: a longer row than the model is an error.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> Study(load_model("tiny-causal"), task).limits.reserve
        0
    """

    model: BaseModel
    task: Task
    scoring: Scoring = field(default_factory=Scoring)
    seeds: tuple[str, ...] = ()
    prompts: tuple[Tensor, ...] = ()
    cards: tuple[PromptCard, ...] = ()
    max_length: int | None = None

    @property
    def limits(self) -> Limits:
        """How long a row may be beside the longest prompt."""
        reserve = max((len(prompt) for prompt in self.prompts), default=0)
        return Limits(self.max_length, reserve, self.scoring.eos)


@contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a scratch folder that becomes ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        UsageError: ``path`` holds something already and ``overwrite`` is not set.
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "out"
        >>> with new_folder(target) as scratch:
        ...     _ = (scratch / "a.txt").write_text("whole")
        >>> [p.name for p in target.iterdir()]
        ['a.txt']
    """
    check_new(path, overwrite)
    place = Path(os.path.abspath(path))  # "." has no name to stand beside
    scratch = place.with_name(f".tmp-{uuid4().hex}-{place.name}")
    with made_parents(place):
        with storage_errors(path):
            scratch.mkdir()
        try:
            yield scratch
            with storage_errors(path):
                if place.is_dir():
                    retired = place.with_name(f".old-{uuid4().hex}-{place.name}")
                    place.replace(retired)
                    scratch.replace(place)
                    shutil.rmtree(retired)
                else:
                    scratch.replace(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_new(path: Path, overwrite: bool = False) -> None:
    """Make sure that a folder at ``path`` would replace nothing, or only an earlier result.

    Raises:
        UsageError: ``path`` is a file, or holds something that may not be replaced.
        StorageError: It cannot be looked at.

    Example:
        >>> check_new(Path("nowhere-yet"))
    """
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is a file; --out names a folder")
        if not path.is_dir() or not any(path.iterdir()):
            return
        if not overwrite:
            raise UsageError(
                f"{path}: holds files already; choose another --out, or pass --overwrite"
            )
        if not any((path / done).is_file() for done in DONE):
            raise UsageError(
                f"{path}: holds other files; --overwrite replaces an earlier result only "
                f"(a folder with {' or '.join(DONE)})"
            )


def seed_folders(folder: Path, seed: int | None = None) -> list[Path]:
    """List a study's members, or the one asked for; a single prompt's folder is its own member.

    Raises:
        PromptFileError: No tuned prompt here.
        UsageError: No such seed.

    Example:
        >>> seed_folders(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no such folder; `headstart tune --out nowhere` makes one
    """
    if not folder.is_dir():
        raise PromptFileError(
            f"{folder}: no such folder; `headstart tune --out {folder}` makes one"
        )
    if (folder / "card.json").is_file():
        return [folder]
    members = sorted(
        (path for path in folder.glob("seed-*") if path.is_dir()),
        key=lambda path: (len(path.name), path.name),
    )
    if not members:
        raise PromptFileError(f"{folder}: no tuned prompt here (no card.json, no seed-* folder)")
    if seed is None:
        return members
    chosen = [path for path in members if path.name == f"seed-{seed}"]
    if not chosen:
        names = [path.name.removeprefix("seed-") for path in members]
        raise UsageError(
            f"{folder}: no seed {seed}{did_you_mean(str(seed), names) or ';'} it has {', '.join(names)}"
        )
    return chosen


def load_study(
    folder: Path,
    load: Callable[[str], BaseModel],
    model: str | None = None,
    seed: int | None = None,
) -> Study:
    """Load a study's prompts and the base model they were made for.

    Args:
        folder: A study's folder, or one prompt's.
        load: Loads a base model by name.
        model: Another name for the same base model, e.g. its local folder. Default: the card's.
        seed: Take this member only. Default: all.

    Raises:
        PromptFileError: Damaged files, or made for another base model.
        UsageError: No such seed.
        ModelError: The base model cannot be loaded.

    Example:
        >>> from headstart.models.load import load_model
        >>> load_study(Path("nowhere"), load_model)
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no such folder; `headstart tune --out nowhere` makes one
    """
    members = seed_folders(folder, seed)
    card = read_card(members[0])
    for member in members:
        load_prompt(member)
    base = load(model or card.base_model)
    mark = base.fingerprint()
    loaded = [(member.name, *load_prompt(member, mark)) for member in members]
    return assemble(folder, base, loaded)


def assemble(
    folder: Path, model: BaseModel, members: Sequence[tuple[str, SoftPrompt, PromptCard]]
) -> Study:
    """Put prompts of one task beside their base model.

    Args:
        folder: What errors name.
        model: The base model they were made for.
        members: Each one's name, prompt and card; task and scoring are the first card's.

    Raises:
        PromptFileError: The card's task cannot be read.

    Example:
        >>> from headstart.models.load import load_model
        >>> assemble(Path("runs/x"), load_model("tiny-causal"), [])
        Traceback (most recent call last):
        ...
        ValueError: no members
    """
    if not members:
        raise ValueError("no members")
    card = members[0][2]
    try:
        task = Task.from_dict({k: v for k, v in card.task.items() if k != "scoring"})
        scoring = Scoring.model_validate(card.task["scoring"])
    except (KeyError, pydantic.ValidationError) as error:
        where = folder / members[0][0] / "card.json"
        raise PromptFileError(f"{where}: its task cannot be read ({error})") from error
    return Study(
        model,
        task,
        scoring,
        tuple(name for name, _, _ in members),
        tuple(prompt.vectors_PH.to(model.device) for _, prompt, _ in members),
        tuple(card for _, _, card in members),
        card.training.get("settings", {}).get("max_length"),
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ``study.json``; empty where there is none.

    Example:
        >>> read_summary(Path("nowhere"))
        {}
    """
    path = folder / "study.json"
    if not path.is_file():
        return {}
    with storage_errors(path):
        summary: dict[str, Any] = json.loads(path.read_text())
    return summary
