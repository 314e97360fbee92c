"""A few-shot study: labelled examples in, one tuned prompt a seed out, all seeds in one batch stream."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from headstart.config import TuneSettings
from headstart.errors import DataError, HeadstartError
from headstart.learn.choose_start import choose_start
from headstart.learn.doctor import diagnose
from headstart.learn.fewshot import Run, Tuned, learning_rate, tune
from headstart.learn.space import Space
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser, is_learned
from headstart.prompts.files import Fingerprint, PromptCard, storage_errors
from headstart.prompts.prompt import SoftPrompt
from headstart.prompts.shipped import fitting_starts
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.fewshot import LabelLedger, Shots, draw_shots
from headstart.tasks.readers import file_of
from headstart.tasks.task import Task

CHOICE_ROWS = 40
"""Training rows that a start is chosen by."""

LIBRARIES = ("headstart", "torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True, slots=True, eq=False)
class SeedResult:
    """One seed of a study.

    Attributes:
        seed: The seed.
        prompt: The tuned prompt.
        shots: Which rows it learned from.
        ledger: How many labels it used.
        tuned: How the run went.
        advice: The doctor's line; ``None`` for a healthy run.
        cut_rows: Rows that were cut to fit ``max_length``.

    Example:
        >>> vectors_PH = torch.zeros(2, 4)
        >>> shots, ledger = Shots("all", (0, 1), ()), LabelLedger(2, 0)
        >>> result = SeedResult(
        ...     1, SoftPrompt.of(vectors_PH), shots, ledger, Tuned("seed-1", vectors_PH), None
        ... )
        >>> result.prompt.spec.length, result.cut_rows
        (2, 0)
    """

    seed: int
    prompt: SoftPrompt
    shots: Shots
    ledger: LabelLedger
    tuned: Tuned
    advice: str | None
    cut_rows: int = 0


def limits_for(settings: TuneSettings, prompt_length: int | None = None) -> Limits:
    """Say how long a row may be beside a prompt.

    Example:
        >>> limits_for(TuneSettings(max_length=128)).reserve
        20
    """
    return Limits(
        settings.max_length,
        settings.prompt_length if prompt_length is None else prompt_length,
        settings.scoring.eos,
    )


def tune_seeds(
    model: BaseModel,
    task: Task,
    examples: Sequence[Example],
    settings: TuneSettings,
    progress: Callable[[int, float], None] = lambda done, loss: None,
) -> list[SeedResult]:
    """Tune one prompt a seed, stacked.

    Args:
        model: The frozen base model.
        task: Template, labels and label words.
        examples: Labelled rows to draw from.
        settings: The study's settings.
        progress: Called after each update with the number done and the mean loss.

    Raises:
        DataError: A row without a label, too few rows, or a row longer than the model.
        TemplateError: The template does not fit the rows or the model.
        UsageError: An unknown initialiser.
        HeadstartError: A seed's prompt is not finite; every such seed is told, with what to try.

    Example:
        >>> from headstart.config import FewShot
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> rows = [Example(str(i), {"text": "ab"[i % 2] * 3}, "ab"[i % 2]) for i in range(8)]
        >>> settings = TuneSettings(seeds=(1, 2), prompt_length=4, train=FewShot(num_steps=2))
        >>> [result.seed for result in tune_seeds(load_model("tiny-causal"), task, rows, settings)]
        [1, 2]
    """
    draws = [draw(examples, settings, seed) for seed in settings.seeds]
    used = sorted({row for shots in draws for row in (*shots.train, *shots.dev)})
    encoded = model.encode([task.render(examples[row]) for row in used], limits_for(settings))
    row_of = dict(zip(used, encoded, strict=True))
    begin = starts_for(model, task, settings)
    space = Space(settings.prompt_kind, settings.prompt_groups)
    runs, inits = [], []
    for seed, shots in zip(settings.seeds, draws, strict=True):
        train = _chosen(row_of, shots.train)
        starts = begin(seed)
        init, _ = choose_start(model, starts, train[:CHOICE_ROWS], settings.scoring, space)
        dev = _chosen(row_of, shots.dev)
        run = Run(
            *(f"seed-{seed}", starts[init], train, dev, seed),
            learned=is_learned(init),
            kind=settings.prompt_kind,
            groups=settings.prompt_groups,
        )
        runs.append(run)
        inits.append(init)
    results = tune(model, runs, settings.train, settings.scoring, progress)
    rate = learning_rate(settings.train, model, settings.prompt_kind)
    advice = [
        diagnose(tuned.vitals, chance_loss(run.train), rate)
        for run, tuned in zip(runs, results, strict=True)
    ]
    _refuse_unbounded(settings.seeds, results, advice, rate)
    return [
        SeedResult(
            seed,
            SoftPrompt.of(tuned.prompt_PH, init, settings.prompt_kind, settings.prompt_groups),
            shots,
            LabelLedger(len(shots.train), len(shots.dev)),
            tuned,
            line,
            sum(row.truncated > 0 for row in (*run.train, *run.dev)),
        )
        for seed, init, shots, run, tuned, line in zip(
            settings.seeds, inits, draws, runs, results, advice, strict=True
        )
    ]


def starts_for(
    model: BaseModel, task: Task, settings: TuneSettings
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Give each seed the starts it may choose from, by initialiser: one, unless ``init`` is ``headstart``.

    ``headstart`` offers the shipped starts that fit the model and the prompt length, and sampled
    vocabulary, which is all there is for other models.

    Raises:
        UsageError: An unknown initialiser, or one that does not fit.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> list(starts_for(load_model("tiny-causal"), task, TuneSettings(init="headstart"))(1))
        ['vocab']
    """
    specs = [settings.init]
    if settings.init == "headstart":
        fitting = fitting_starts(model.fingerprint(), settings.prompt_length)
        specs = [*(f"headstart:{name}" for name in fitting), "vocab"]
    makers = {
        spec: initialiser(spec, model, task.words, settings.prompt_kind, settings.prompt_groups)
        for spec in specs
    }

    def of_seed(seed: int) -> dict[str, torch.Tensor]:
        mark = derive_seed(seed, "prompt")
        return {
            spec: make(settings.prompt_length, torch.Generator().manual_seed(mark))
            for spec, make in makers.items()
        }

    return of_seed


def chance_loss(rows: Sequence[Encoded]) -> float:
    """Return the mean loss of a guess in nats; rows may differ in their number of candidates.

    Example:
        >>> chance_loss([Encoded("a", (5,), ((6,), (7,)))])  # log 2
        0.6931471805599453
    """
    return statistics.fmean(math.log(max(2, len(row.candidates))) for row in rows)


def _refuse_unbounded(
    seeds: Sequence[int], results: Sequence[Tuned], advice: Sequence[str | None], rate: float
) -> None:
    """Tell which seeds have no usable prompt, and what to try, before anything is made of them."""
    found: dict[str, list[int]] = {}
    for seed, tuned, line in zip(seeds, results, advice, strict=True):
        if not bool(torch.isfinite(tuned.prompt_PH).all()):
            line = line or f"lower the learning rate from {rate:.3g} to about {rate / 10:.3g}"
            found.setdefault(line, []).append(seed)
    if not found:
        return
    told = "; ".join(f"seed {', '.join(map(str, bad))}: {line}" for line, bad in found.items())
    bad = {seed for group in found.values() for seed in group}
    good = ", ".join(str(seed) for seed in seeds if seed not in bad)
    rest = f"; the seeds {good} went well and can be tuned without it" if good else ""
    raise HeadstartError(f"tuning gave a prompt of NaN or infinite values: {told}{rest}")


def draw(examples: Sequence[Example], settings: TuneSettings, seed: int) -> Shots:
    """Draw a seed's rows; with ``num_shots=None`` take every row that is not drawn for dev.

    Raises:
        DataError: A row has no label, or there are too few rows.

    Example:
        >>> rows = [Example(str(i), {}, "ab"[i % 2]) for i in range(6)]
        >>> len(draw(rows, TuneSettings(), 1).train)
        6
    """
    labels = [example.label for example in examples]
    if None in labels:
        raise DataError(f"{examples[labels.index(None)].id}: no label to learn from")
    names = [str(label) for label in labels]
    if settings.num_shots is None and settings.dev_shots >= len(names):
        raise DataError(
            f"{settings.dev_shots} dev rows leave none of {len(names)} to train on; ask for fewer"
        )
    num_shots = settings.num_shots or len(names) - settings.dev_shots
    return draw_shots(
        names, num_shots, seed, dev_shots=settings.dev_shots, stratified=settings.stratified
    )


def card_for(
    result: SeedResult,
    model: BaseModel,
    fingerprint: Fingerprint,
    task: Task,
    settings: TuneSettings,
    data: dict[str, Any],
) -> PromptCard:
    """Write down everything about one seed's prompt.

    Example:
        >>> from headstart.config import FewShot
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> rows = [Example(label, {"text": label * 3}, label) for label in "ab"]
        >>> settings, model = TuneSettings(train=FewShot(num_steps=1)), load_model("tiny-causal")
        >>> (result,) = tune_seeds(model, task, rows, settings)
        >>> card = card_for(result, model, model.fingerprint(), task, settings, {})
        >>> card.base_model, card.training["labels"]["train"]
        ('tiny-causal', 2)
    """
    return PromptCard.of(
        result.prompt,
        base_model=model.name,
        fingerprint=fingerprint,
        task={**task.to_dict(), "scoring": settings.scoring.model_dump()},
        training={
            "seed": result.seed,
            "shots": asdict(result.shots),
            "labels": result.ledger.to_dict(),
            "cut_rows": result.cut_rows,
            "data": data,
            "settings": settings.model_dump(mode="json"),
            "lr": learning_rate(settings.train, model, settings.prompt_kind),
            "steps": result.tuned.steps,
            "final_loss": final_loss(result),
            "drift": result.tuned.vitals.drift
            if math.isfinite(result.tuned.vitals.drift)
            else None,
            "seconds_of_stack": round(result.tuned.seconds, 2),
            "advice": result.advice,
            "model_choices": model.choices,
        },
        metrics={}
        if result.tuned.dev_accuracy is None
        else {"dev_accuracy": result.tuned.dev_accuracy},
        versions=library_versions(),
    )


def final_loss(result: SeedResult) -> float | None:
    """Return a run's last loss; ``None`` without updates, or where the loss is not finite.

    The prompt can be fine all the same: with dev rows it is the best one, not the last.

    Example:
        >>> from headstart.learn.doctor import Vitals
        >>> vectors_PH = torch.zeros(2, 4)
        >>> tuned = Tuned("seed-1", vectors_PH, vitals=Vitals(losses=[0.7, math.inf]))
        >>> prompt, shots = SoftPrompt.of(vectors_PH), Shots("all", (0, 1), ())
        >>> print(final_loss(SeedResult(1, prompt, shots, LabelLedger(2, 0), tuned, None)))
        None
    """
    losses = result.tuned.vitals.losses
    return losses[-1] if losses and math.isfinite(losses[-1]) else None


def library_versions() -> dict[str, str]:
    """Return the versions a result rests on.

    Example:
        >>> sorted(library_versions())[0]
        'headstart'
    """
    return {name: version(name) for name in LIBRARIES}


def file_record(source: str) -> dict[str, Any]:
    """Name a data source and hash it, where it is a file.

    Example:
        >>> file_record("hub:imdb")
        {'source': 'hub:imdb'}
    """
    path, _ = file_of(source)
    if not path.is_file():
        return {"source": source}
    with storage_errors(path), path.open("rb") as stream:
        return {"source": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _chosen(row_of: dict[int, Encoded], rows: Sequence[int]) -> list[Encoded]:
    return [row_of[row] for row in rows]
