"""The stage that tunes from few labels: every start on every target, all seeds of a pair in one stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import pydantic
import torch

from headstart.config import (
    GROUPS,
    FewShot,
    Groups,
    PromptKind,
    Scoring,
    Settings,
    check_settings,
)
from headstart.errors import told_by_settings
from headstart.evaluate.rank import scores_under
from headstart.learn.fewshot import Run, tune
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser, is_learned, named_start
from headstart.models.load import load_model
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import read_card
from headstart.recipes.results import Result, collect, judged
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.recipes.targets import Protocol, Rows, Target, rows_reader
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.task import Task

NAMES = r"^[A-Za-z0-9][A-Za-z0-9 ._+()-]*$"
"""Names of targets and starts; they become file names."""

Name = Annotated[str, pydantic.StringConstraints(pattern=NAMES, max_length=60)]


class Start(Settings):
    """Where prompts begin: an initialiser, or the prompt that an earlier stage learned.

    Attributes:
        init: An initialiser, e.g. ``vocab``.
        stage: A ``meta-train`` stage.
        train: Changes to the stage's training settings for this start alone, e.g. a smaller ``lr``.

    Raises:
        UsageError: Both or neither is given.

    Example:
        >>> Start(init="vocab").stage is None
        True
    """

    init: str | None = None
    stage: Annotated[StageRef, of_kind("meta-train")] | None = None
    train: dict[str, float | int | str] = pydantic.Field({})

    _init = pydantic.field_validator("init")(named_start)

    @pydantic.model_validator(mode="after")
    def _one_of_two(self) -> Start:
        if (self.init is None) == (self.stage is None):
            raise ValueError("give either init or stage")
        return self


class FewShotStage(Settings):
    """What the stage ``few-shot`` may be told.

    Attributes:
        targets: The target tasks, by name.
        starts: Where prompts begin, by the name that tables show.
        protocol: Labels, seeds, test rows.
        prompt_kind: ``shallow``, ``deep`` or ``gated``; a learned start that is shallow is deepened.
        prompt_groups: Of an encoder-decoder, where a deep or gated prompt speaks.
        prompt_length: Vectors of the prompts that an initialiser makes; learned ones have their own.
        max_length: Truncate longer rows to this many tokens, prompt included.
        untuned: Also judge every learned start as it is, as method ``NAME, untuned``.
        train: How prompts are tuned.

    Example:
        >>> target = {"train": "a.jsonl", "test": "b.jsonl", "words": {"0": "bad", "1": "good"}}
        >>> stage = FewShotStage(targets={"sst2": target}, starts={"vocabulary": {"init": "vocab"}})
        >>> stage.train.num_steps
        60
    """

    targets: dict[Name, Target] = pydantic.Field(min_length=1)
    starts: dict[Name, Start] = pydantic.Field(min_length=1)
    protocol: Protocol = Protocol()
    prompt_kind: PromptKind = "shallow"
    prompt_groups: Groups = GROUPS
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    max_length: int = pydantic.Field(256, ge=8)
    untuned: bool = True
    train: FewShot = FewShot()

    @pydantic.model_validator(mode="after")
    def _changes_are_settings(self) -> FewShotStage:
        for name in self.starts:
            with told_by_settings(f"starts.{name}.train: "):
                self.train_of(name)
        return self

    def train_of(self, start: str) -> FewShot:
        """Return the training settings of a start, its own changes made.

        Raises:
            UsageError: A change to a setting that there is not, or to a wrong value.
        """
        return check_settings(self.train.model_dump() | self.starts[start].train, FewShot)


def run_few_shot(context: Context[FewShotStage]) -> None:
    """Tune and judge every start on every target; a pair that is done is not done again."""
    settings = context.settings
    pairs = [(target, start) for target in settings.targets for start in settings.starts]
    model = load_model(context.base_model)

    read = rows_reader(settings.targets, context.data, settings.protocol)

    def work(position: int, name: str, start: str) -> Iterator[Result]:
        def note(step: int, loss: float) -> None:
            told = f"{start}, step {step}, loss {loss:.3f}"
            context.progress(f"tuning for {name}", position, len(pairs), told)

        yield from tune_and_judge(context, model, name, start, read(name), note)

    collect(context.folder, pairs, work)


def tune_and_judge(
    context: Context[FewShotStage],
    model: BaseModel,
    name: str,
    start_name: str,
    rows: Rows,
    note: Callable[[int, float], None] = lambda step, loss: None,
) -> Iterator[Result]:
    """Tune one start on one target, all seeds stacked, and judge the prompts; see :class:`FewShotStage`.

    Args:
        context: The stage's.
        model: The frozen base model.
        name: The target's name.
        start_name: The start's name.
        rows: The target's rows.
        note: Called after each update with the number done and the mean loss.
    """
    settings = context.settings
    start, task = settings.starts[start_name], settings.targets[name].task
    spec = start.init or f"file:{context.inputs[start.stage or '']}"
    length = settings.prompt_length if start.stage is None else learned_length(spec)
    train = settings.train_of(start_name)
    encode = encoder(model, task, Limits(settings.max_length, length))
    begin = initialiser(spec, model, task.words, settings.prompt_kind, settings.prompt_groups)
    runs = []
    for seed in settings.protocol.seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        start_PH = begin(length, generator)
        shots, dev = encode(rows.train[seed]), encode(rows.dev[seed])
        run = Run(
            *(str(seed), start_PH, shots, dev, seed),
            learned=is_learned(spec),
            kind=settings.prompt_kind,
            groups=settings.prompt_groups,
        )
        runs.append(run)
    tuned = tune(model, runs, train, progress=note)
    prompts = [result.prompt_PH for result in tuned]
    if settings.untuned and is_learned(spec):
        prompts.append(runs[0].start_PH)
    bank = PromptBank.stack(prompts, settings.prompt_kind, settings.prompt_groups)
    scores_NRC = scores_under(model, encode(rows.test), bank, Scoring())
    gold = [str(row.label) for row in rows.test]
    guesses = [[task.labels[c] for c in scores.argmax(-1).tolist()] for scores in scores_NRC]
    counts = settings.protocol.labels
    for run, result, guess in zip(runs, tuned, guesses, strict=False):
        losses = result.vitals.losses
        details = {
            "steps": result.steps, "dev_accuracy": result.dev_accuracy,
            "final_loss": losses[-1] if losses else None, "drift": result.vitals.drift,
        }  # fmt: skip
        yield judged(gold, guess, name, start_name, run.seed, counts, details)
    if len(guesses) > len(runs):
        yield judged(gold, guesses[-1], name, f"{start_name}, untuned", 0, {}, {})


def learned_length(spec: str) -> int:
    """Return the length of the prompt that ``file:FOLDER`` names.

    Example:
        >>> learned_length("file:nowhere")
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no card.json here; a tuned prompt is a folder ...
    """
    return read_card(Path(spec.partition(":")[2])).length


def encoder(
    model: BaseModel, task: Task, limits: Limits
) -> Callable[[Sequence[Example]], list[Encoded]]:
    """Make the function that turns a task's examples into a model's tokens.

    Example:
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> encode = encoder(load_model("tiny-causal"), task, Limits())
        >>> encode([Example("a:1", {"text": "hi"}, "b")])[0].target
        1
    """
    return lambda rows: model.encode([task.render(row) for row in rows], limits)


FEW_SHOT = StageKind("few-shot", 1, FewShotStage, run_few_shot)
