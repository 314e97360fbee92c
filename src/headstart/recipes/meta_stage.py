"""The stage that learns a start: clusters of labelled rows in, a prompt that starts ahead out."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch

from headstart.config import GROUPS, Groups, MetaTrain, PromptKind, Scoring, Settings
from headstart.errors import DataError
from headstart.learn.doctor import diagnose_meta
from headstart.learn.meta import MetaTrained, meta_train
from headstart.learn.meta_step import inner_rate
from headstart.learn.processes import is_first
from headstart.learn.space import Space, space_of
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser, named_start
from headstart.models.load import load_model
from headstart.prompts.files import PromptCard, save_prompt, to_json, write_whole
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.fewshot import library_versions
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.readers import read_examples
from headstart.tasks.task import Task
from headstart.tasks.template import Template

log = logging.getLogger(__name__)

IT_WAS = "{{ text }} It was {{ answer }}"
"""Paper B's template: the answer stands where its mask token X stood."""


class MetaStage(Settings):
    """What the stage ``meta-train`` may be told.

    Attributes:
        tasks: The stage that made the clusters; each is a meta-training task.
        template: Asks the question.
        views: One or more readings of the labels, each from label to label word; labels with one word are
            one class, and a label without a word is left out. Every view of every cluster is a task
            of its own: the same rows as five classes, as three, and as two. None: labels are words.
        all_words: Whether a word that none of a cluster's rows has is a candidate there all the same, as
            in paper B, whose verbaliser is fixed; clusters of one label are tasks only then.
        init: Where the start begins: any initialiser.
        prompt_kind: ``shallow``, ``deep`` or ``gated``.
        prompt_groups: Of an encoder-decoder, where a deep or gated prompt speaks.
        prompt_length: Vectors of the prompt, P; paper B: 100.
        max_length: Truncate longer rows to this many tokens, prompt included.
        max_rows: Take this many rows, drawn evenly over the clusters (Figure 3a); ``None``: all.
        train: The method and its settings.

    Example:
        >>> MetaStage(tasks="topics", views=[{"0": "bad", "1": "good"}]).train.method
        'maml'
    """

    tasks: Annotated[StageRef, of_kind("cluster")]
    template: str = IT_WAS
    views: tuple[dict[str, str], ...] = ()
    all_words: bool = False
    init: str = "vocab"
    prompt_kind: PromptKind = "shallow"
    prompt_groups: Groups = GROUPS
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    max_length: int = pydantic.Field(96, ge=8)
    max_rows: int | None = pydantic.Field(None, ge=1)
    train: MetaTrain = MetaTrain()

    _init = pydantic.field_validator("init")(named_start)


@dataclass(frozen=True, slots=True)
class MetaTask:
    """One meta-training task: a view of a cluster.

    Attributes:
        name: Cluster and view, e.g. ``"food/2"`` for its view with two labels.
        task: Template and words of the view.
        examples: The cluster's rows whose label the view has a word for.

    Example:
        >>> MetaTask("0/2", Task(Template(IT_WAS), ("0", "1"), ("bad", "good")), ()).name
        '0/2'
    """

    name: str
    task: Task
    examples: tuple[Example, ...]


def meta_tasks(
    clusters: Mapping[str, Sequence[Example]],
    template: str,
    views: Sequence[Mapping[str, str]],
    at_least: int,
    all_words: bool = False,
) -> tuple[list[MetaTask], list[str]]:
    """Make a task of every view of every cluster; those with fewer than ``at_least`` rows are left out.

    A word that no row of a cluster has is no candidate there, unless ``all_words``; views that then are
    alike are one task. Without views, labels are their own words.

    Returns:
        The tasks, and the names of those that were left out.

    Raises:
        DataError: No task is left, or a view knows none of the labels.

    Example:
        >>> rows = [Example(str(i), {"text": "a"}, str(i % 3)) for i in range(6)]
        >>> views = [{"0": "bad", "2": "good"}, {"0": "bad", "1": "so-so", "2": "good"}]
        >>> made, left_out = meta_tasks({"food": rows}, IT_WAS, views, at_least=5)
        >>> [task.name for task in made], left_out
        (['food/3'], ['food/2'])
    """
    views = views or [
        {str(row.label): str(row.label) for rows in clusters.values() for row in rows}
    ]
    made: list[MetaTask] = []
    left_out: list[str] = []
    for name, rows in clusters.items():
        seen: list[tuple[tuple[str, ...], tuple[Example, ...]]] = []
        for view in views:
            found = tuple(
                replace(row, label=view[str(row.label)]) for row in rows if str(row.label) in view
            )
            there = {row.label for row in found}
            words = tuple(
                word for word in dict.fromkeys(view.values()) if all_words or word in there
            )
            label = f"{name}/{len(words)}"
            if (words, found) in seen:
                continue
            seen.append((words, found))
            if any(task.name == label for task in made):
                label += f"-{len(seen)}"
            if len(words) < 2 or len(found) < at_least:
                left_out.append(label)
            else:
                made.append(MetaTask(label, Task(Template(template), words, words), found))
    if not made:
        raise DataError(
            f"no task has {at_least} rows with a label word (labels of the views: "
            f"{', '.join(views[0])}); give other views, fewer clusters, or a smaller draw"
        )
    return made, left_out


def run_meta_train(context: Context[MetaStage]) -> None:
    """Learn a start and write it as a prompt that ``--init file:FOLDER`` takes, with its log."""
    settings = context.settings
    model = load_model(context.base_model)
    needed = settings.train.num_validation + settings.train.num_support + settings.train.num_query
    clusters = read_clusters(context.inputs[settings.tasks], settings.max_rows)
    tasks, left_out = meta_tasks(
        clusters, settings.template, settings.views, needed, settings.all_words
    )
    limits = Limits(settings.max_length, settings.prompt_length)
    encoded = [
        model.encode([task.task.render(row) for row in task.examples], limits) for task in tasks
    ]
    generator = torch.Generator().manual_seed(derive_seed(context.seed, "prompt"))
    words = tasks[0].task.words
    begin = initialiser(settings.init, model, words, settings.prompt_kind, settings.prompt_groups)
    start_PH = begin(settings.prompt_length, generator)
    space = space_of(model, settings.prompt_kind, settings.prompt_groups)

    def progress(done: int, record: dict[str, float]) -> None:
        note = f"loss {record['query_loss']:.3f}"
        context.progress(settings.train.method, done, settings.train.num_steps, note)

    found = meta_train(
        *(model, encoded, start_PH, settings.train, context.seed, context.folder, progress),
        space,
    )
    if is_first():
        _write(context, model, found, tasks, left_out, encoded, space)


def read_clusters(folder: Path, max_rows: int | None = None) -> dict[str, list[Example]]:
    r"""Read the rows that a cluster stage wrote, by cluster; ``max_rows`` takes turns over the clusters.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> lines = ['{"id": "a", "text": "Hi", "label": "1", "cluster": "food"}']
        >>> _ = (folder / "rows.jsonl").write_text("\n".join(lines))
        >>> read_clusters(folder)["food"][0].label
        '1'
    """
    clusters: dict[str, list[Example]] = {}
    columns = {"text": "text", "cluster": "cluster"}
    for row in read_examples(folder / "rows.jsonl", columns=columns, id_column="id"):
        clusters.setdefault(str(row.fields["cluster"]), []).append(row)
    if max_rows is None:
        return clusters
    turns = sorted(
        (position, name) for name, rows in clusters.items() for position in range(len(rows))
    )[:max_rows]
    kept = Counter(name for _, name in turns)
    return {name: rows[: kept[name]] for name, rows in clusters.items() if kept[name]}


def _write(
    context: Context[MetaStage],
    model: BaseModel,
    found: MetaTrained,
    tasks: Sequence[MetaTask],
    left_out: Sequence[str],
    encoded: Sequence[Sequence[Encoded]],
    space: Space,
) -> None:
    settings = context.settings
    rate = inner_rate(settings.train, model, space)
    losses = [record["query_loss"] for record in found.log]
    drift = found.log[-1]["drift"] if found.log else 0.0
    advice = diagnose_meta(losses, inner_gains(found, settings.train), rate, drift)
    if advice:
        log.warning("%s", advice)
    summary: dict[str, Any] = {
        "method": settings.train.method,
        "settings": settings.model_dump(mode="json"),
        "tasks": {task.name: len(task.examples) for task in tasks},
        "tasks_left_out": list(left_out),
        "rows": sum(map(len, encoded)),
        "rows_cut": sum(row.truncated > 0 for rows in encoded for row in rows),
        "rows_seen": found.rows_seen,
        "steps": found.steps,
        "best_step": found.best_step,
        "inner_lr": rate,
        "last_look": found.looks[-1] if found.looks else None,
        "advice": advice,
    }
    looks = "".join(json.dumps(look) + "\n" for look in found.looks)
    write_whole(context.folder / "looks.jsonl", looks)
    write_whole(context.folder / "meta.json", to_json(summary))
    prompt = SoftPrompt.of(
        found.prompt_PH, settings.init, settings.prompt_kind, settings.prompt_groups
    )
    card = PromptCard.of(
        prompt,
        base_model=model.name,
        fingerprint=model.fingerprint(),
        task={**tasks[0].task.to_dict(), "scoring": Scoring().model_dump()},
        training={"seed": context.seed, "model_choices": model.choices, "meta": summary},
        versions=library_versions(),
        created="see manifest.json",
    )
    save_prompt(context.folder, prompt, card)


def inner_gains(found: MetaTrained, train: MetaTrain) -> list[float]:
    """Return the gains that a run is judged by: of its looks, or else that of its later updates together.

    Example:
        >>> log = [{"support_loss": 2.0, "query_loss": 1.5}]
        >>> inner_gains(MetaTrained(torch.zeros(1, 2), log=log), MetaTrain())
        [0.25]
    """
    if not train.has_inner_loop:
        return []
    if found.looks:
        return [look["gain"] for look in found.looks]
    later = found.log[len(found.log) // 2 :]
    if train.method == "reptile" or not later:  # whose query rows are its support rows
        return []
    before, after = (sum(r[name] for r in later) for name in ("support_loss", "query_loss"))
    return [1 - after / max(before, 1e-12)]


META_TRAIN = StageKind("meta-train", 1, MetaStage, run_meta_train, shared=True)
