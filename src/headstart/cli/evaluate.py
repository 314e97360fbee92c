"""``headstart evaluate``: measure tuned prompts on labelled rows."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import options
from headstart.cli.output import Output, spread
from headstart.cli.rows import TEST_SPLIT, check_label, memory_note, record, split_of
from headstart.cli.studied import scoring_from, studied

if TYPE_CHECKING:
    from headstart.recipes.judge import Judgement
    from headstart.recipes.study import Study
    from headstart.tasks.example import Example


ZeroShotFlag = Annotated[bool, typer.Option("--zero-shot", help="Also score without a prompt.")]
CalibrateFlag = Annotated[
    bool, typer.Option("--calibrate", help="Subtract the scores of content-free texts.")
]


def evaluate(
    folder: options.Folder,
    test: options.TestArgument,
    split: options.SplitFlag = None,
    text: options.TextFlag = None,
    label: options.SameLabelFlag = None,
    columns: options.ColumnsFlag = None,
    limit: options.LimitFlag = None,
    seed: options.SeedFlag = None,
    out: options.ScoresFlag = None,
    format: options.FormatFlag = options.Format.jsonl,
    zero_shot: ZeroShotFlag = False,
    calibrate: CalibrateFlag = False,
    max_length: options.SameMaxLengthFlag = None,
    model: options.SameModelFlag = None,
    dtype: options.DtypeFlag = options.Dtype.auto,
    attention: options.AttentionFlag = options.Attention.auto,
    assignments: options.SetScoringFlag = None,
    dry_run: options.DryRunFlag = False,
    overwrite: options.OverwriteFlag = False,
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Measure tuned prompts on labelled rows."""
    output = Output(as_json, quiet)
    tuned = studied(folder, seed)
    label, chosen = label or tuned.label, tuned.columns_for(text, columns)
    check_label(label, chosen)
    asked = list(assignments or []) + (["scoring.calibrate=true"] if calibrate else [])
    scoring = scoring_from(tuned.scoring, asked)
    load = options.loader(dtype, attention)

    def read() -> tuple[Study, list[Example], dict[str, Any]]:
        rows, data = _read(test, split, label, chosen, limit)
        study = tuned.open(load, model, scoring, max_length)
        if note := memory_note(tuned.train or {}, data):
            output.note(note)
        return study, rows, data

    if dry_run:
        from headstart.cli.scoring_plan import show_scoring_plan
        from headstart.recipes.study import EVALUATION, check_new

        if out is not None:
            check_new(out, overwrite, EVALUATION)
        show_scoring_plan(output, *read(), zero_shot=zero_shot)
        return
    with _scratch(out, overwrite) as scratch:
        study, rows, data = read()
        started = time.perf_counter()
        judged = _judge(output, "scoring", study, rows)
        bare = _judge(output, "zero-shot", replace(study, prompts=()), rows) if zero_shot else None
        report: dict[str, Any] = {"folder": str(folder), "test": test, "data": data}
        report |= _measured(study, judged, bare)
        report["seconds"] = round(time.perf_counter() - started, 2)
        if scratch is not None:
            _write(scratch, format.value, report, study, judged, bare)
    _report(output, report, out)
    output.result(report)


def _read(
    test: str, split: str | None, label: str, columns: dict[str, str], limit: int | None
) -> tuple[list[Example], dict[str, Any]]:
    """Read the rows to measure on, and where they came from."""
    from headstart.recipes.judge import fixed_rows
    from headstart.tasks.readers import read_all

    split = split_of(test, split, TEST_SPLIT)
    every = read_all(test, label=label, columns=columns, split=split)
    rows = fixed_rows(every, limit)
    data = record(test, split, label, columns)
    return rows, {**data, "rows": len(rows), "of": len(every)}


def _scratch(out: Path | None, overwrite: bool) -> AbstractContextManager[Path | None]:
    from headstart.recipes.study import EVALUATION, new_folder

    return nullcontext() if out is None else new_folder(out, overwrite, EVALUATION)


def _measured(study: Study, judged: Judgement, bare: Judgement | None) -> dict[str, Any]:
    return {
        "rows": len(judged.ensemble_rows),
        "cut_rows": sum(row["cut_tokens"] > 0 for row in judged.ensemble_rows),
        "calibrated": study.scoring.calibrate,
        "scoring": study.scoring.model_dump(),
        "members": dict(zip(study.seeds, judged.members, strict=True)),
        "over_seeds": judged.over_seeds,
        "ensemble": judged.ensemble,
        "zero_shot": None if bare is None else bare.ensemble,
    }


def _judge(output: Output, label: str, study: Study, rows: list[Example]) -> Judgement:
    from headstart.recipes.judge import judge

    with output.progress(label, len(rows) * max(1, len(study.prompts))) as progress:
        return judge(study, rows, progress.add)


def _write(
    folder: Path,
    suffix: str,
    report: dict[str, Any],
    study: Study,
    judged: Judgement,
    bare: Judgement | None,
) -> None:
    from headstart.evaluate.predictions import prediction_file
    from headstart.prompts.files import to_json, write_whole

    parts = dict(zip(study.seeds, judged.rows, strict=True))
    if len(study.seeds) > 1:
        parts["ensemble"] = judged.ensemble_rows
    if bare is not None:
        parts["zero-shot"] = bare.ensemble_rows
    for name, rows in parts.items():
        with prediction_file(folder / f"{name}.{suffix}") as sink:
            sink.write(rows)
    write_whole(folder / "metrics.json", to_json(report))


def _report(output: Output, report: dict[str, Any], out: Path | None) -> None:
    names = list(report["ensemble"])
    rows: list[list[object]] = []
    if report["zero_shot"] is not None:
        rows.append(["zero-shot", *report["zero_shot"].values()])
    rows += [[name, *metrics.values()] for name, metrics in report["members"].items()]
    if len(report["members"]) > 1:
        rows.append(["mean ± std", *map(spread, report["over_seeds"].values())])
        rows.append(["ensemble", *report["ensemble"].values()])
    output.table(["prompt", *(name.replace("_", "-") for name in names)], rows)
    calibrated = ", calibrated" if report["calibrated"] else ""
    output.say("", f"{report['rows']} rows{calibrated}, {report['seconds']:.1f} s")
    output.say_cut(report["cut_rows"], report["rows"])
    if out is not None:
        output.say(f"predictions written to {out}")
