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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pydantic
from torch import Tensor

from headstart.config import Scoring
from headstart.errors import PromptFileError, UsageError, did_you_mean
from headstart.evaluate.metrics import classification_metrics
from headstart.evaluate.predictions import Sink, prediction
from headstart.evaluate.rank import content_free_rows, probabilities, scores_under
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.prompts.files import (
    PromptCard,
    load_prompt,
    made_parents,
    read_card,
    storage_errors,
)
from headstart.prompts.prompt import SoftPrompt
from headstart.tasks.example import Example
from headstart.tasks.task import Task

CHUNK = 1024
"""Rows that are read, scored and written at a time: files may be larger than memory."""

DONE = ("study.json", "metrics.json", "card.json")
"""Files that are written last: a folder that holds one is a finished result."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Tuned prompts of one task, ready to score.

    Attributes:
        folder: Where it was read from.
        model: The base model.
        task: Template, labels, label words.
        scoring: The rule.
        seeds: The members' names.
        prompts: The members' vectors [P, H].
        cards: The members' cards.
        max_length: Tokens a row is truncated to; ``None``: a longer row than the model is an error.

    Example:
        >>> Study.__slots__[0]
        'folder'
    """

    folder: Path
    model: BaseModel
    task: Task
    scoring: Scoring
    seeds: tuple[str, ...]
    prompts: tuple[Tensor, ...]
    cards: tuple[PromptCard, ...]
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
        >>> assemble.__name__
        'assemble'
    """
    card = members[0][2]
    try:
        task = Task.from_dict({k: v for k, v in card.task.items() if k != "scoring"})
        scoring = Scoring.model_validate(card.task["scoring"])
    except (KeyError, pydantic.ValidationError) as error:
        where = folder / members[0][0] / "card.json"
        raise PromptFileError(f"{where}: its task cannot be read ({error})") from error
    return Study(
        folder,
        model,
        task,
        scoring,
        tuple(name for name, _, _ in members),
        tuple(prompt.vectors_PH.to(model.device) for _, prompt, _ in members),
        tuple(card for _, _, card in members),
        card.training.get("settings", {}).get("max_length"),
    )


def score_examples(
    study: Study,
    examples: Sequence[Example],
    content_free: Sequence[Encoded] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Score examples under every member: [N, R, C].

    Example:
        >>> score_examples.__name__
        'score_examples'
    """
    rows = study.model.encode([study.task.render(example) for example in examples], study.limits)
    return scores_under(study.model, rows, study.prompts, study.scoring, content_free, progress)


def content_free_for(study: Study) -> list[Encoded]:
    """Encode what calibration needs; nothing where the study does not calibrate.

    Example:
        >>> content_free_for.__name__
        'content_free_for'
    """
    if not study.scoring.calibrate:
        return []
    return content_free_rows(
        study.model, study.task, sorted(study.task.template.fields), study.limits
    )


def evaluate_members(
    study: Study,
    examples: Sequence[Example],
    sinks: Sequence[Sink] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, float]]:
    """Measure every member on labelled examples; write each one's predictions to its sink.

    Raises:
        DataError: A label the task does not know.

    Example:
        >>> evaluate_members.__name__
        'evaluate_members'
    """
    scores_NRC = score_examples(study, examples, content_free_for(study), progress)
    gold = [str(example.label) for example in examples]
    metrics = []
    for n in range(len(scores_NRC)):
        rows = predictions(study, examples, scores_NRC[n : n + 1])
        metrics.append(classification_metrics(gold, [row["predicted"] for row in rows]))
        if sinks:
            sinks[n].write(rows)
    return metrics


def predictions(
    study: Study, examples: Sequence[Example], scores_NRC: Tensor
) -> list[dict[str, Any]]:
    """Turn scores into prediction rows; several members are averaged by probability.

    Example:
        >>> predictions.__name__
        'predictions'
    """
    chances = probabilities(scores_NRC).tolist()
    scores = scores_NRC.mean(0).tolist()
    names = list(study.task.labels)
    return [
        prediction(example.id, names, chance, score, example.label)
        for example, chance, score in zip(examples, chances, scores, strict=True)
    ]


def predict_stream(
    study: Study,
    examples: Iterator[Example],
    sink: Sink,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Predict any number of examples a chunk at a time; return how many.

    Raises:
        DataError: A row that cannot be read, or is longer than the model.

    Example:
        >>> predict_stream.__name__
        'predict_stream'
    """
    content_free, count = content_free_for(study), 0
    while chunk := list(islice(examples, CHUNK)):
        scores_NRC = score_examples(study, chunk, content_free)
        sink.write(predictions(study, chunk, scores_NRC))
        count += len(chunk)
        progress(len(chunk))
    return count


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
