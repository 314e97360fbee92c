"""``headstart tune``: labelled rows in, a folder of tuned prompts out."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from headstart.cli import options
from headstart.cli.output import Output, spread
from headstart.cli.rows import many_labels_note, memory_note
from headstart.errors import UsageError

if TYPE_CHECKING:
    from headstart.cli.question import Question
    from headstart.config import TuneSettings
    from headstart.models.base import BaseModel
    from headstart.recipes.judge import Judgement
    from headstart.recipes.write_study import Tuning


def tune(
    ctx: typer.Context,
    train: options.TrainArgument,
    out: options.NewFolderFlag,
    split: options.TrainSplitFlag = None,
    text: options.TextFlag = None,
    label: options.LabelFlag = "label",
    columns: options.ColumnsFlag = None,
    model: options.ModelFlag = "smollm2-135m",
    init: options.InitFlag = None,
    prompt_kind: options.PromptKindFlag = None,
    prompt_length: options.PromptLengthFlag = None,
    shots: options.ShotsFlag = None,
    dev_shots: options.DevShotsFlag = None,
    stratified: options.StratifiedFlag = None,
    seeds: options.SeedsFlag = None,
    label_words: options.LabelWordsFlag = None,
    template: options.TemplateFlag = None,
    templates: options.TemplatesFlag = None,
    template_name: options.TemplateNameFlag = None,
    test: options.TestFlag = None,
    test_split: options.TestSplitFlag = None,
    limit_test: options.LimitTestFlag = None,
    max_length: options.MaxLengthFlag = None,
    dtype: options.DtypeFlag = options.Dtype.auto,
    attention: options.AttentionFlag = options.Attention.auto,
    assignments: options.SetFlag = None,
    dry_run: options.DryRunFlag = False,
    overwrite: options.OverwriteFlag = False,
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Tune a soft prompt from a few labelled rows."""
    from headstart.cli.question import read_question, read_template, read_words

    output = Output(as_json, quiet)
    seed_list = None if seeds is None else options.read_seeds(seeds)
    read = partial(
        read_question,
        *(train, test),
        template=read_template(template, templates, template_name),
        words=read_words(label_words),
        label=label,
        columns=options.read_columns(text, columns),
        limit_test=limit_test,
        split=split,
        test_split=test_split,
    )
    from headstart.recipes.study import check_new, new_folder  # torch: after what is instant

    check_new(out, overwrite)
    drawn = {"num_shots": shots, "dev_shots": dev_shots, "stratified": stratified}
    made = {"init": init, "prompt_length": prompt_length, "max_length": max_length}
    made |= {"prompt_kind": prompt_kind and prompt_kind.value}
    settings = settings_from({**drawn, **made, "seeds": seed_list}, assignments or [])
    load = options.loader(dtype, attention)
    if dry_run:
        return _plan(output, _checked(output, read(), settings), settings, load(model))
    with new_folder(out, overwrite) as scratch:
        question = _checked(output, read(), settings)
        summary, seconds = _run(output, load, model, question, settings, scratch, ctx.obj)
    _report(output, out, summary, seconds, _again(test, test_split))
    output.result({"folder": str(out), **summary, "seconds": seconds})


def _plan(output: Output, question: Question, settings: TuneSettings, base: BaseModel) -> None:
    from headstart.cli.plan import plan_of, show_plan

    plan = plan_of(base, question, settings)
    show_plan(output, plan)
    output.result(plan)


def settings_from(flags: dict[str, Any], assignments: list[str]) -> TuneSettings:
    """Join flags (``None``: not given) and dotted overrides into checked settings.

    Raises:
        UsageError: An unknown name, a value of the wrong kind, or a seed that comes twice.

    Example:
        >>> settings_from({"prompt_length": 5}, ["train.lr=0.1"]).prompt_length
        5
    """
    from headstart.config import TuneSettings, override
    from headstart.models.initial import check_spec

    given = {name: value for name, value in flags.items() if value is not None}
    settings = override(TuneSettings().model_copy(update=given), assignments)
    if len(set(settings.seeds)) < len(settings.seeds):
        raise UsageError(f"a seed comes twice in {list(settings.seeds)}; each makes one prompt")
    check_spec(settings.init)
    return settings


def _checked(output: Output, question: Question, settings: TuneSettings) -> Question:
    """Find what would go wrong before the model is loaded."""
    from headstart.recipes.fewshot import draw

    for note in _notes(question):
        output.note(note)
    for seed in settings.seeds:
        drawn = draw(question.train, settings, seed)
        for row in (*drawn.train, *drawn.dev):
            question.task.render(question.train[row])
    return question


def _notes(question: Question) -> list[str]:
    """Say what is allowed but hardly meant."""
    from headstart.cli.question import are_bare_numbers

    notes: list[str | None] = []
    train, labels = question.data["train"], question.task.labels
    if "test" in question.data:
        notes.append(memory_note(train, question.data["test"]))
    classes = many_labels_note(labels, len(question.train), train["label"])
    notes.append(classes)
    if classes is None and question.task.words and are_bare_numbers(question.task.words):
        notes.append(
            "note: the labels are bare numbers, which say nothing to the model; words usually "
            f'start far ahead: --label-words "{labels[0]}=terrible,{labels[-1]}=great"'
        )
    return [note for note in notes if note is not None]


def _run(
    output: Output,
    load: Any,
    model: str,
    question: Question,
    settings: TuneSettings,
    folder: Path,
    command: str,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Load, tune, measure, write; return the summary and how long each part took."""
    from headstart.recipes.write_study import write_study

    clock = [time.perf_counter()]
    base = load(model)
    clock.append(time.perf_counter())
    tuning = tune_rows(output, base, question, settings, command)
    clock.append(time.perf_counter())
    judged = _judge_rows(output, tuning, question)
    clock.append(time.perf_counter())
    summary = write_study(folder, tuning, judged)
    parts = zip(("loading", "tuning", "testing"), clock[1:], clock[:-1], strict=True)
    return summary, {name: round(end - start, 2) for name, end, start in parts}


def tune_rows(
    output: Output,
    base: BaseModel,
    question: Question,
    settings: TuneSettings,
    command: str,
    prefix: str = "",
) -> Tuning:
    """Tune with progress shown, under a label that starts with ``prefix``.

    Example:
        >>> from headstart.cli.question import Question, make_task
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.example import Example
        >>> rows = [Example(f"a:{x}", {"text": "..."}, x) for x in ("good", "bad")]
        >>> asked = Question(make_task(rows, None, None), rows)
        >>> settings = settings_from({"prompt_length": 4}, ["train.num_steps=2"])
        >>> tuning = tune_rows(Output(), load_model("tiny-causal"), asked, settings, "by hand")
        >>> [result.seed for result in tuning.results]
        [1]
    """
    from headstart.recipes.fewshot import tune_seeds
    from headstart.recipes.write_study import Tuning

    seeds = len(settings.seeds)
    label = prefix + ("tuning" if seeds == 1 else f"tuning {seeds} seeds together")
    with output.progress(label, settings.train.num_steps) as progress:
        results = tune_seeds(
            base,
            question.task,
            question.train,
            settings,
            lambda done, loss: progress.to(done, f"loss {loss:.3f}"),
        )
    return Tuning(base, question.task, settings, results, question.data, command)


def _judge_rows(output: Output, tuning: Tuning, question: Question) -> Judgement | None:
    """Measure on the test rows, where there are any, with progress shown."""
    from headstart.recipes.judge import judge

    if not question.test:
        return None
    with output.progress("testing", len(question.test) * len(tuning.results)) as progress:
        return judge(tuning.study(), question.test, progress.add)


def _again(test: str | None, split: str | None) -> str:
    """Return the words that name the test rows for `evaluate`."""
    if test is None:
        return "TEST"
    return quote(test) + (f" --split {quote(split)}" if split else "")


def _report(
    output: Output, out: Path, summary: dict[str, Any], seconds: dict[str, float], test: str
) -> None:
    seeds, test_metrics = summary["seeds"], summary["metrics"].get("test")
    names = list(test_metrics["ensemble"]) if test_metrics else []
    dev = any(seed["dev_accuracy"] is not None for seed in seeds)
    header = ["seed", "steps", "final loss", *(["dev accuracy"] if dev else [])]
    rows: list[list[object]] = []
    for seed in seeds:
        row = [seed["seed"], seed["steps"], seed["final_loss"]]
        row += [seed["dev_accuracy"]] if dev else []
        rows.append(row + [seed["test"][name] for name in names])
    if len(seeds) > 1 and test_metrics:
        blank = [""] * (len(header) - 1)
        rows.append(["mean ± std", *blank, *map(spread, test_metrics["over_seeds"].values())])
        rows.append(["ensemble", *blank, *test_metrics["ensemble"].values()])
    output.table([*header, *(f"test {name.replace('_', '-')}" for name in names)], rows)
    for seed in seeds:
        if seed["advice"]:
            output.say(f"seed {seed['seed']}: {seed['advice']}")
    labels_used = [seed["labels"]["total"] for seed in seeds]
    output.say_cut(sum(seed["cut_rows"] for seed in seeds), sum(labels_used))
    used = {(seed["labels"]["train"], seed["labels"]["dev"]) for seed in seeds}
    train, dev_labels = next(iter(used))
    output.say(
        "",
        f"started from: {', '.join(dict.fromkeys(seed['init'] for seed in seeds))}",
        f"labels used: {train} train + {dev_labels} dev per seed",
        f"time: {', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())}",
        f"a prompt file: {summary['prompt_bytes'] / 1024:.0f} KB; written to {out}",
        "",
        "next:",
        f"  headstart evaluate {quote(str(out))} {test}",
        f"  headstart predict {quote(str(out))} INPUT --out predictions.jsonl",
    )
