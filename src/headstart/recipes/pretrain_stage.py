"""The stage of continued pretraining (paper A): rows of many tasks in, a trained model and prompt out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch

from headstart.config import GROUPS, Groups, PromptKind, Scoring, Settings
from headstart.errors import DataError
from headstart.learn.pretrain import Pretrained, pretrain
from headstart.learn.pretrain_cost import Shape, cost_of
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.processes import is_first
from headstart.learn.space import space_of
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser, wordless_start
from headstart.models.load import TINY, cached_model, load_model, skeleton
from headstart.models.probe import matmul_rate
from headstart.models.processes import own_device, own_processes
from headstart.prompts.files import PromptCard, save_prompt, to_json, write_whole
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.fewshot import library_versions
from headstart.recipes.p3_stage import task_files
from headstart.recipes.source_stages import ROWS, read_source_rows
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.seeds import derive_seed
from headstart.tasks.example import Example, Rendered
from headstart.tasks.mixture import Mixture
from headstart.tasks.template import Template

MODEL = "model"
"""The folder of the trained model, within the stage's."""

SAMPLE = 256
"""Rows, evenly over all, whose lengths an estimate is of."""

CACHE = ".cache"
"""Where the rows of files are laid out while they are read, within the stage's."""


class PretrainStage(Settings):
    """What the stage ``pretrain`` may be told.

    Attributes:
        rows: The stage that made the rows: text, and the target as their label.
        by: The column whose values are the tasks (paper A: a set under a template); a ``p3`` stage has its
            own.
        template: What the model reads before the target.
        init: Where the prompt begins: any initialiser that needs no label words.
        prompt_kind: ``shallow``, ``deep`` or ``gated``.
        prompt_groups: Of an encoder-decoder, where a deep or gated prompt speaks.
        in_units: Whether a deep or gated prompt is trained in units of its layers' own keys and values, so
            that a step size is a part of their usual size, as ``lr_scale`` is in tuning; else, as in paper A,
            in plain numbers, as ``lr`` is there.
        prompt_length: Vectors of the prompt, P; paper A: 20.
        max_length: Truncate longer sources to this many tokens, prompt included; paper A: 768 without it.
        max_target: Truncate longer targets to this many tokens; paper A: 192.
        eos: Whether the target ends with the end-of-sequence token.
        save_every: Updates between saves of the state.
        train: Method, reading, optimisers.

    Example:
        >>> PretrainStage(rows="p3").train.method
        'multitask'
    """

    rows: Annotated[StageRef, of_kind("p3", "labelled", "pseudo-label", "cluster")]
    by: str = "source"
    template: str = "{{ text }}"
    init: str = "vocab:5000"
    prompt_kind: PromptKind = "shallow"
    prompt_groups: Groups = GROUPS
    in_units: bool = False
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    max_length: int = pydantic.Field(768, ge=8)
    max_target: int = pydantic.Field(192, ge=1)
    eos: bool = True
    save_every: int = pydantic.Field(50, ge=1)
    train: Pretrain = Pretrain()

    _init = pydantic.field_validator("init")(wordless_start)


def run_pretrain(context: Context[PretrainStage]) -> None:
    """Train model and prompt; write the prompt, the model where it was trained, and the log."""
    settings = context.settings
    model = load_model(context.base_model)
    limits = limits_of(settings)
    cache = context.folder / CACHE
    encoded = encoded_tasks(
        model,
        context.inputs[settings.rows],
        settings.by,
        Template(settings.template),
        limits,
        cache,
    )
    space = space_of(model, settings.prompt_kind, settings.prompt_groups, settings.in_units)
    start_PX = None
    if limits.reserve:
        generator = torch.Generator().manual_seed(derive_seed(context.seed, "prompt"))
        begin = initialiser(settings.init, model, (), settings.prompt_kind, settings.prompt_groups)
        start_PX = begin(settings.prompt_length, generator)

    def progress(done: int, record: dict[str, float]) -> None:
        note = f"loss {record['loss']:.3f}"
        context.progress(settings.train.method, done, settings.train.num_steps, note)

    found = pretrain(
        *(model, list(encoded.values()), start_PX, settings.train, context.seed, context.folder),
        *(settings.save_every, progress, space),
    )
    if is_first():
        _write(context, model, found, encoded)
        shutil.rmtree(cache, ignore_errors=True)


def limits_of(settings: PretrainStage) -> Limits:
    """Say how long a row may be: beside the prompt, where there is one.

    Example:
        >>> limits_of(PretrainStage(rows="p3")).reserve
        20
    """
    reserve = settings.prompt_length if settings.train.trains != "model" else 0
    return Limits(settings.max_length, reserve, settings.eos, settings.max_target)


def too_small(sizes: Mapping[str, int], train: Pretrain, seed: int) -> list[str]:
    """Name the tasks that an epoch reads too few rows of for one draw, which meta-learning so never sees.

    Example:
        >>> too_small({"a": 4, "b": 2}, Pretrain(method="fomaml", task_batch_size=1, inner_steps=3), 1)
        ['b']
    """
    if train.method == "multitask":
        return []
    quotas = Mixture(tuple(sizes.values()), train.mixing, seed).quotas
    return sorted(n for n, quota in zip(sizes, quotas, strict=True) if quota < train.rows_a_task)


def encoded_tasks(
    model: BaseModel, folder: Path, by: str, template: Template, limits: Limits, cache: Path
) -> dict[str, Sequence[Encoded]]:
    """Make the tasks of a stage's rows, as tokens: at once, or of a ``p3`` stage's files as they are drawn.

    Args:
        model: The base model.
        folder: The stage's.
        by: The column whose values are the tasks.
        template: What the model reads.
        limits: How long a row may be.
        cache: Where rows of files are laid out, to be drawn in any order.

    Raises:
        DataError: A row does not have the column, or no target.
    """
    files = task_files(folder)
    if files is not None:
        return {
            name: TaskFile(path, model, template, limits, cache) for name, path in files.items()
        }
    return {
        name: model.encode([asked(template, row) for row in rows], limits)
        for name, rows in tasks_of(read_source_rows(folder), by).items()
    }


class TaskFile(Sequence[Encoded]):
    """A task's rows in a Parquet file, turned into tokens one by one, as they are drawn.

    Example:
        >>> import tempfile
        >>> from headstart.recipes.p3_stage import write_task
        >>> path = Path(tempfile.mkdtemp()) / "a.parquet"
        >>> write_task(path, iter([Example("a", {"text": "Hi"}, "Hello")]))
        >>> limits, template = Limits(), Template("{{ text }} {{ answer }}")
        >>> task = TaskFile(path, load_model("tiny-causal"), template, limits, path.parent / "cache")
        >>> len(task), len(task[0].candidates[0])
        (1, 6)
    """

    def __init__(
        self, path: Path, model: BaseModel, template: Template, limits: Limits, cache: Path
    ) -> None:
        """Open the file; nothing is read yet."""
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        self._rows = Dataset.from_parquet(str(path), cache_dir=str(cache))
        self._model, self._template, self._limits = model, template, limits

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Return a row as tokens."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows[int(index)]
        example = Example(row["id"], {"text": row["text"]}, row["label"])
        return self._model.encode([asked(self._template, example)], self._limits)[0]


def tasks_of(rows: list[Example], by: str) -> dict[str, list[Example]]:
    """Sort rows into tasks by a column.

    Raises:
        DataError: A row does not have the column, or no target.

    Example:
        >>> rows = [Example("a", {"text": "Hi", "source": "greet"}, "Hello")]
        >>> list(tasks_of(rows, "source"))
        ['greet']
    """
    tasks: dict[str, list[Example]] = {}
    for row in rows:
        if by not in row.fields:
            raise DataError(f"{row.id}: no column '{by}' to sort tasks by")
        if row.label is None:
            raise DataError(f"{row.id}: no label, which is the target to learn")
        tasks.setdefault(str(row.fields[by]), []).append(row)
    return tasks


def asked(template: Template, row: Example) -> Rendered:
    """Render a row whose one candidate is its target.

    Example:
        >>> row = Example("a", {"text": "Hi"}, "Hello")
        >>> asked(Template("{{ text }} {{ answer }}"), row).candidates
        ('Hello',)
    """
    return template.render(row, (str(row.label),), 0)


def _write(
    context: Context[PretrainStage],
    model: BaseModel,
    found: Pretrained,
    encoded: Mapping[str, Sequence[Encoded]],
) -> None:
    settings, folder = context.settings, context.folder
    sizes = {name: len(task) for name, task in encoded.items()}
    at_hand = [row for task in encoded.values() if isinstance(task, list) for row in task]
    summary: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "reading": settings.train.reading.model_dump(),
        "tasks": sizes,
        "tasks_left_out": too_small(sizes, settings.train, context.seed),
        "rows": sum(sizes.values()),
        "rows_cut": sum(row.truncated > 0 for row in at_hand) if at_hand else found.rows_cut,
        "rows_seen": found.rows_seen,
        "tokens_seen": found.tokens_seen,
        "steps": found.steps,
    }
    write_whole(folder / "pretrain.json", to_json(summary))
    if settings.train.trains != "prompt":
        save_model(folder / MODEL, model)
    if found.prompt_PX is None:
        return
    prompt = SoftPrompt.of(
        found.prompt_PX, settings.init, settings.prompt_kind, settings.prompt_groups
    )
    card = PromptCard.of(
        prompt,
        base_model=model.name if settings.train.trains == "prompt" else f"{folder.name}/{MODEL}",
        fingerprint=model.fingerprint(),
        task={"scoring": Scoring(rule="mean", eos=settings.eos).model_dump()},
        training={"seed": context.seed, "model_choices": model.choices, "pretrain": summary},
        versions=library_versions(),
        created="see manifest.json",
    )
    save_prompt(folder, prompt, card)


def save_model(folder: Path, model: BaseModel) -> None:
    """Save a model and its tokenizer as a folder that :func:`load_model` takes.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> save_model(folder, load_model("tiny-causal"))
        >>> load_model(str(folder), dtype="float32").fingerprint() == load_model("tiny-causal").fingerprint()
        True
    """
    model.network.save_pretrained(folder, safe_serialization=True)
    model.tokenizer.save_pretrained(folder)


def estimate_pretrain(context: Context[PretrainStage]) -> str:
    """Say what memory and time the stage will take on this machine, by a short measurement of it.

    Rows count as long as those that are there are on average; before they are, as long as they may be.
    """
    settings = context.settings
    shape = Shape.of(skeleton(context.base_model))
    folder = context.inputs[settings.rows]
    source, target = float(settings.max_length), float(settings.max_target)
    how = "rows of full length, "
    if task_files(folder) is None and (folder / ROWS).is_file():
        source, target = _mean_lengths(
            context.base_model, folder, settings.template, limits_of(settings)
        )
        how = f"rows of {source:.0f} and {target:.0f} tokens, "
    cost = cost_of(shape, settings.train, source, target, own_processes().num_processes)
    place = own_device()
    dtype = torch.bfloat16 if context.base_model not in TINY else torch.float32
    rate = matmul_rate(shape.hidden, 4 * shape.hidden, dtype, place)
    return how + cost.told(rate * own_processes().num_processes, settings.train.num_steps)


@lru_cache(maxsize=16)  # stages of a recipe read the same rows
def _mean_lengths(base_model: str, folder: Path, text: str, limits: Limits) -> tuple[float, float]:
    """Tokens of a row's source, prompt included, and of its target, on average over a sample."""
    rows, template = read_source_rows(folder), Template(text)
    some = cached_model(base_model).encode(
        [asked(template, row) for row in rows[:: 1 + len(rows) // SAMPLE]], limits
    )
    source = limits.reserve + sum(len(row.source) for row in some) / len(some)
    return source, sum(len(row.candidates[0]) for row in some) / len(some)


PRETRAIN = StageKind(
    "pretrain", 1, PretrainStage, run_pretrain, shared=True, estimate=estimate_pretrain
)
