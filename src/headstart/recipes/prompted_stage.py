"""The stage that prompts a model on held-out sets, under every template: paper A's evaluation.

Zero-shot, and after tuning the prompt alone on a few rows. All runs of a set, templates x seeds, are one
stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
import torch

from headstart.config import GROUPS, FewShot, Group, Groups, PromptKind, Scoring, Settings
from headstart.errors import DataError, UsageError, told_by_settings
from headstart.evaluate.rank import scores_under
from headstart.learn.fewshot import Run, tune
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser, wordless_start
from headstart.models.load import load_model
from headstart.prompts.bank import PromptBank
from headstart.prompts.files import read_card
from headstart.recipes.downstream_stage import Name
from headstart.recipes.pretrain_stage import MODEL
from headstart.recipes.results import Result, collect, judged
from headstart.recipes.stages import Context, DataFile, StageKind, StageRef, of_kind
from headstart.recipes.targets import fixed_rows
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.fewshot import draw_shots
from headstart.tasks.paper_mixture import mixture_tasks
from headstart.tasks.promptsource import chosen_templates
from headstart.tasks.readers import read_all
from headstart.tasks.relabel import relabel, with_label_field
from headstart.tasks.task import Task

PAPER_A = FewShot(
    optimizer="adafactor",
    lr=1e-3,
    schedule="constant",
    warmup_steps=0,
    num_steps=100,
    batch_size=16,
    loss="tokens",
    start_worth=0,
)
"""Appendix C: one batch of 16 rows, 100 times."""


class PromptedSet(Settings):
    """One held-out set.

    Attributes:
        train: The file that a few rows are drawn from.
        test: The file that methods are judged on.
        templates: promptsource's ``templates.yaml`` of the set.
        train_split: Which split of a Hub data set ``train`` is.
        test_split: Which ``test`` is.
        use: The templates that are taken, by name. Default: all.
        mixture: Take the templates that paper A's held-out mixture has of this set (``super_glue/rte``).
        columns: The templates' name of a field to the column in the files. Default: their own names.
        label: The column of the label.
        relabel: Label in the files to the index of the answer. Default: it is the index.
        label_field: The name by which the templates call the label as the files have it (WinoGrande:
            ``answer``); digits become a number.
        group: What the set counts as in the average over groups. Default: its own name.

    Example:
        >>> PromptedSet(train="a.jsonl", test="b.jsonl", templates="t.yaml").use
        ()
    """

    train: DataFile
    test: DataFile
    templates: DataFile
    train_split: str | None = None
    test_split: str | None = None
    use: tuple[str, ...] = ()
    mixture: str | None = None
    columns: dict[str, str] | None = None
    label: str = "label"
    relabel: dict[str, str] | None = None
    label_field: str | None = None
    group: str | None = None

    @pydantic.model_validator(mode="after")
    def _known_to_the_mixture(self) -> PromptedSet:
        if self.mixture is not None and self.use:
            raise ValueError("use names templates, and so does mixture; give one of them")
        with told_by_settings():
            mixture_tasks("held_out", [self.mixture] if self.mixture else [])
        return self

    @property
    def templates_used(self) -> tuple[str, ...]:
        """The templates by name; none: all."""
        if self.mixture is None:
            return self.use
        return tuple(task.template for task in mixture_tasks("held_out", [self.mixture]))


class PromptedStage(Settings):
    """What the stage ``prompted`` may be told.

    Attributes:
        sets: The held-out sets, by name.
        method: What tables call it.
        model: The stage whose trained model is prompted. Default: the base model as it is.
        prompt: The stage whose prompt is there from the start. Default: none in zero-shot; tuning begins
            at ``init``.
        init: Where prompts begin that no stage made.
        prompt_kind: Of those.
        prompt_groups: Of an encoder-decoder, where they speak; a prompt of a stage has its own.
        prompt_length: Their vectors, P.
        num_shots: Rows of each tuning run; paper A: 16, not balanced. 0: zero-shot alone.
        zero_shot: Whether the model is also prompted without tuning.
        seeds: One draw of rows each; the same rows under all templates of a
            set that have a question for them.
        num_test: Fixed test rows of each set; ``None``: all.
        max_length: Truncate longer rows to this many tokens, prompt included.
        scoring: Paper A: the mean over tokens, with the end of the sequence.
        source_eos: Whether an encoder's source ends with the end of the sequence; T0 as
            released does not.
        train: How prompts are tuned.

    Example:
        >>> one = {"train": "a.jsonl", "test": "b.jsonl", "templates": "t.yaml"}
        >>> PromptedStage(sets={"rte": one}, method="T0").num_shots
        16
    """

    sets: dict[Name, PromptedSet] = pydantic.Field(min_length=1)
    method: Name
    model: Annotated[StageRef, of_kind("pretrain")] | None = None
    prompt: Annotated[StageRef, of_kind("pretrain", "meta-train")] | None = None
    init: str = "vocab:5000"
    prompt_kind: PromptKind = "shallow"
    prompt_groups: Groups = GROUPS
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    num_shots: int = pydantic.Field(16, ge=0)
    zero_shot: bool = True
    seeds: tuple[int, ...] = pydantic.Field((1,), min_length=1)
    num_test: int | None = pydantic.Field(None, ge=1)
    max_length: int = pydantic.Field(768, ge=8)
    scoring: Scoring = Scoring(rule="mean", eos=True)
    source_eos: bool = True
    train: FewShot = PAPER_A

    _init = pydantic.field_validator("init")(wordless_start)

    @pydantic.model_validator(mode="after")
    def _scores_as_they_are(self) -> PromptedStage:
        if self.scoring.calibrate:
            raise ValueError("scoring.calibrate is of one task's label words; take it away")
        return self


@dataclass(frozen=True, slots=True)
class Asked:
    """A set's rows under one of its templates.

    Attributes:
        template: The template's name.
        train: For each seed, the rows to tune on.
        test: The rows to judge on: those that the template has a question for.
        chance: The accuracy of a guess.

    Example:
        >>> Asked("a", {}, [], 0.5).chance
        0.5
    """

    template: str
    train: dict[int, list[Encoded]]
    test: list[Encoded]
    chance: float


def run_prompted(context: Context[PromptedStage]) -> None:
    """Prompt the model on every set; a set that is done is not done again."""
    settings = context.settings
    model = load_model(
        str(trained_model(context.inputs[settings.model])) if settings.model else context.base_model
    )
    names = list(settings.sets)

    def work(position: int, name: str, method: str) -> Iterator[Result]:
        def note(step: int, loss: float) -> None:
            context.progress(
                f"prompting on {name}", position, len(names), f"step {step}, loss {loss:.3f}"
            )

        yield from prompt_and_judge(context, model, name, note)

    collect(context.folder, [(name, settings.method) for name in names], work)


def trained_model(folder: Path) -> Path:
    """Return the model that a ``pretrain`` stage trained.

    Raises:
        UsageError: It trained a prompt alone.

    Example:
        >>> trained_model(Path("both"))
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: model: stage 'both' trained no model; ...
    """
    if not (folder / MODEL).is_dir():
        raise UsageError(
            f"model: stage '{folder.name}' trained no model; take model away, so that the base model is "
            "prompted, or name a stage with trains: both or model"
        )
    return folder / MODEL


def own_groups(folder: Path) -> tuple[Group, ...]:
    """Return where the prompt of a stage speaks.

    Raises:
        UsageError: The stage trained no prompt.

    Example:
        >>> own_groups(Path("model-only"))
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: prompt: stage 'model-only' trained no prompt; ...
    """
    if not (folder / "card.json").is_file():
        raise UsageError(
            f"prompt: stage '{folder.name}' trained no prompt; take prompt away, so that tuning begins at "
            "init, or name a stage with trains: both or prompt"
        )
    return read_card(folder).groups


def prompt_and_judge(
    context: Context[PromptedStage],
    model: BaseModel,
    name: str,
    note: Callable[[int, float], None] = lambda step, loss: None,
) -> Iterator[Result]:
    """Judge one set: a result a template for zero-shot, and one a template and seed after tuning.

    Args:
        context: The stage's.
        model: The model that is prompted.
        name: The set's name.
        note: Called after each update with the number done and the mean loss.
    """
    settings = context.settings
    asked = ask(settings, model, name, context.data)
    spec = f"file:{context.inputs[settings.prompt]}" if settings.prompt else settings.init
    groups = settings.prompt_groups
    if settings.prompt:
        groups = own_groups(context.inputs[settings.prompt])
    begin = initialiser(spec, model, (), settings.prompt_kind, groups)
    group = settings.sets[name].group or name

    def results(
        prompts: Sequence[torch.Tensor] | None,
        which: Sequence[Asked],
        shots: int,
        seeds: Sequence[int],
    ) -> Iterator[Result]:
        """Judge each prompt on the rows of its own template."""
        for n, (one, seed) in enumerate(zip(which, seeds, strict=True)):
            bank = None
            if prompts is not None:
                bank = PromptBank.stack([prompts[n]], settings.prompt_kind, groups)
            scores_RC = scores_under(model, one.test, bank, settings.scoring)[0]
            yield judged(
                [str(row.target) for row in one.test],
                [str(c) for c in scores_RC.argmax(-1).tolist()],
                f"{name}/{one.template}",
                f"{settings.method}, {shots}-shot",
                seed,
                {"train": shots} if shots else {},
                {"chance": one.chance, "group": group, "set": name, "template": one.template},
            )

    def start(seed: int) -> torch.Tensor:
        return begin(
            settings.prompt_length, torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        )

    if settings.zero_shot:
        prompts = [start(0)] * len(asked) if settings.prompt else None
        yield from results(prompts, asked, 0, [0] * len(asked))
    if settings.num_shots:
        pairs = [(one, seed) for seed in settings.seeds for one in asked]
        runs = [
            Run(
                *(f"{one.template}/{seed}", start(seed), one.train[seed], (), seed),
                learned=settings.prompt is not None,
                kind=settings.prompt_kind,
                groups=groups,
            )
            for one, seed in pairs
        ]
        tuned = tune(model, runs, settings.train, settings.scoring, note)
        yield from results(
            [result.prompt_PH for result in tuned],
            [one for one, _ in pairs],
            settings.num_shots,
            [seed for _, seed in pairs],
        )


def ask(
    settings: PromptedStage, model: BaseModel, name: str, data: Mapping[str, str]
) -> list[Asked]:
    """Render a set under its templates; rows that a template has no question for are left out of it.

    Raises:
        DataError: A file that cannot be read, a template that there is not, or one that fits no row.
        TemplateError: The templates cannot be read.
    """
    chosen = settings.sets[name]
    path = Path(data[chosen.templates])
    templates = chosen_templates(path, chosen.templates_used, chosen.templates)
    pool, test = (
        _read(chosen, data[file], split)
        for file, split in ((chosen.train, chosen.train_split), (chosen.test, chosen.test_split))
    )
    test = fixed_rows(test, settings.num_test)
    limits = Limits(
        *(settings.max_length, settings.prompt_length, settings.scoring.eos),
        source_eos=settings.source_eos,
    )
    found = []
    for template, text in templates.items():
        task = Task(text, (), ())

        def encode(rows: Sequence[Example], task: Task = task) -> list[Encoded]:
            return model.encode([task.render(row) for row in rows], limits)

        # templates may be for some rows alone, as COPA's for causes
        able, judged_on = (
            [row for row in rows if task.template.applies_to(row)] for rows in (pool, test)
        )
        if not judged_on:
            raise DataError(f"{chosen.test}: template '{template}' has a question for no row")
        shots = {
            seed: draw_shots([str(row.label) for row in able], settings.num_shots, seed).train
            for seed in settings.seeds
            if settings.num_shots
        }
        test_rows = encode(judged_on)
        found.append(
            Asked(
                template,
                {seed: encode([able[i] for i in drawn]) for seed, drawn in shots.items()},
                test_rows,
                sum(1 / len(row.candidates) for row in test_rows) / len(test_rows),
            )
        )
    return found


def _read(chosen: PromptedSet, path: str, split: str | None) -> list[Example]:
    rows = read_all(path, label=chosen.label, columns=chosen.columns, split=split)
    if chosen.label_field:
        rows = [with_label_field(row, chosen.label_field) for row in rows]
    return rows if chosen.relabel is None else list(relabel(rows, chosen.relabel))


PROMPTED = StageKind("prompted", 1, PromptedStage, run_prompted)
