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
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from headstart.config import Scoring
from headstart.errors import PromptFileError, UsageError, did_you_mean
from headstart.models.base import BaseModel, Limits
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import (
    PromptCard,
    check_fingerprint,
    load_prompt,
    made_parents,
    storage_errors,
)
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.from_card import card_errors, task_of
from headstart.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of result folder, known by what headstart writes into it.

    Attributes:
        name: What errors call it.
        marker: The JSON file that is written last.
        keys: Keys that headstart's own marker has.
        paths: From the marker's content, a pattern of every path that headstart writes.

    Example:
        >>> STUDY.marker, EVALUATION.marker
        ('study.json', 'metrics.json')
    """

    name: str
    marker: str
    keys: frozenset[str]
    paths: Callable[[Mapping[str, Any]], str]


def _study_paths(summary: Mapping[str, Any]) -> str:
    part = r"prompt\.safetensors|card\.json|test\.jsonl"
    return rf"study\.json|README\.md|seed--?\d+(/({part}))?"


def _evaluation_paths(report: Mapping[str, Any]) -> str:
    names = "|".join(re.escape(str(name)) for name in [*report["members"], "ensemble", "zero-shot"])
    return rf"metrics\.json|({names})\.(jsonl|parquet)"


STUDY = Kind("study", "study.json", frozenset({"format", "fingerprint", "seeds"}), _study_paths)
EVALUATION = Kind(
    "evaluation",
    "metrics.json",
    frozenset({"members", "over_seeds", "ensemble", "zero_shot"}),
    _evaluation_paths,
)


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Tuned prompts of one task, ready to score.

    Attributes:
        model: The base model.
        task: Template, labels, label words.
        scoring: The rule.
        seeds: The members' names.
        prompts: The members' prompts; none: the bare model.
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
    prompts: tuple[SoftPrompt, ...] = ()
    cards: tuple[PromptCard, ...] = ()
    max_length: int | None = None

    @property
    def bank(self) -> PromptBank | None:
        """The members' prompts, stacked."""
        return PromptBank.of(self.prompts) if self.prompts else None

    @property
    def limits(self) -> Limits:
        """How long a row may be beside the longest prompt."""
        reserve = max((len(prompt) for prompt in self.prompts), default=0)
        return Limits(self.max_length, reserve, self.scoring.eos)


@contextmanager
def new_folder(path: Path, overwrite: bool = False, kind: Kind = STUDY) -> Iterator[Path]:
    """Give a scratch folder that becomes ``path`` when the block ends well, and vanishes otherwise.

    Args:
        path: The folder to be.
        overwrite: Replace an earlier result of the same kind. What is anything else is never
            deleted: where it came while the block ran, it is moved aside, and a warning says so.
        kind: What the block writes.

    Raises:
        UsageError: ``path`` holds something that may not be replaced.
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "out"
        >>> with new_folder(target) as scratch:
        ...     _ = (scratch / "a.txt").write_text("whole")
        >>> [p.name for p in target.iterdir()]
        ['a.txt']
    """
    check_new(path, overwrite, kind)
    with storage_errors(path):
        place = path.resolve()  # "." has no name to stand beside; a link stays a link
    scratch = place.with_name(f".tmp-{uuid4().hex}-{place.name}")
    with made_parents(place):
        with storage_errors(path):
            scratch.mkdir()
        try:
            yield scratch
            with storage_errors(path):
                if place.is_dir():
                    _swap(scratch, place, overwrite, kind)
                else:
                    scratch.replace(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_new(path: Path, overwrite: bool = False, kind: Kind = STUDY) -> None:
    """Make sure that a folder at ``path`` would replace nothing, or an earlier result of its kind.

    Raises:
        UsageError: ``path`` is a file, or holds something that may not be replaced: an entry that
            headstart does not write into this kind of folder is named.
        StorageError: It cannot be looked at.

    Example:
        >>> check_new(Path("nowhere-yet"))
    """
    with storage_errors(path):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is a file; name a folder that is new")
        if not path.is_dir() or not any(path.iterdir()):
            return
        if not overwrite:
            raise UsageError(
                f"{path}: holds files already; name a folder that is new, or replace an earlier "
                f"{kind.name} by --overwrite (Python: overwrite=True)"
            )
        strange = _strange_entry(path, kind)
    if strange is not None:
        raise UsageError(
            f"{path}: holds other files than those of a headstart {kind.name} ('{strange}'), so it "
            "is not overwritten; move them away, or name another folder"
        )


def _strange_entry(folder: Path, kind: Kind) -> str | None:
    """Name something in a folder that is not of its kind; the marker itself, where it is not ours."""
    marker = _read_marker(folder, kind)
    known = re.compile(kind.paths(marker) if marker is not None else re.escape(kind.marker))
    for entry in _entries(folder):
        if not known.fullmatch(entry):
            return entry
    return kind.marker if marker is None else None


def _read_marker(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """Read the file that makes a folder one of its kind; ``None`` where it is not headstart's."""
    path = folder / kind.marker
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and kind.keys <= set(found)
    return found if ours and isinstance(found.get("members", {}), dict) else None


def _entries(folder: Path, above: str = "") -> Iterator[str]:
    for entry in sorted(folder.iterdir()):
        yield above + entry.name
        if entry.is_dir() and not entry.is_symlink():
            yield from _entries(entry, f"{above}{entry.name}/")


def _swap(scratch: Path, place: Path, overwrite: bool, kind: Kind) -> None:
    """Put a finished folder where another stands; delete that one only if it may still be."""
    aside = place.with_name(f"{place.name}.old-{uuid4().hex[:8]}")
    place.replace(aside)
    try:
        scratch.replace(place)
    except OSError:
        aside.replace(place)
        raise
    try:
        check_new(aside, overwrite, kind)
    except UsageError:
        log.warning("%s: was filled by others meanwhile; what they put is in %s", place, aside)
    else:
        shutil.rmtree(aside)


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
    # "." has no name of its own, and a single prompt's folder may be called that
    loaded = [(Path(os.path.abspath(one)).name, *load_prompt(one)) for one in members]
    base = load(model or loaded[0][2].base_model)
    mark = base.fingerprint()
    for member, (_, _, card) in zip(members, loaded, strict=True):
        check_fingerprint(member, card, mark)
    with card_errors(members[0]):
        return assemble(base, loaded)


def assemble(model: BaseModel, members: Sequence[tuple[str, SoftPrompt, PromptCard]]) -> Study:
    """Put prompts of one task beside their base model.

    Args:
        model: The base model they were made for.
        members: Each one's name, prompt and card; task and scoring are the first card's.

    Raises:
        KeyError: The card's task or its scoring is missing; see :func:`.from_card.card_errors`.
        ValueError: No members, or a task or scoring that is not valid.

    Example:
        >>> from headstart.models.load import load_model
        >>> assemble(load_model("tiny-causal"), [])
        Traceback (most recent call last):
        ...
        ValueError: no members
    """
    if not members:
        raise ValueError("no members")
    card = members[0][2]
    return Study(
        model,
        task_of(card),
        Scoring.model_validate(card.task["scoring"]),
        tuple(name for name, _, _ in members),
        tuple(prompt for _, prompt, _ in members),
        tuple(card for _, _, card in members),
        card.training.get("settings", {}).get("max_length"),
    )
