"""``headstart evaluate``: measure tuned prompts on labelled rows."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import options
from headstart.cli.output import Output, spread

if TYPE_CHECKING:
    from headstart.recipes.judge import Judgement
    from headstart.recipes.study import Study
    from headstart.tasks.example import Example


def evaluate(
    folder: options.Folder,
    test: options.TestArgument,
    text: options.TextFlag = None,
    label: options.SameLabelFlag = None,
    columns: options.ColumnsFlag = None,
    limit: options.LimitFlag = None,
    seed: options.SeedFlag = None,
    out: options.ScoresFlag = None,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Also score without a prompt.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Subtract the scores of content-free texts.")
    ] = False,
    max_length: options.SameMaxLengthFlag = None,
    model: options.SameModelFlag = None,
    dtype: options.DtypeFlag = options.Dtype.auto,
    attention: options.AttentionFlag = options.Attention.auto,
    overwrite: options.OverwriteFlag = False,
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Measure tuned prompts on labelled rows."""
    from headstart.recipes.judge import fixed_rows
    from headstart.recipes.study import load_study, new_folder
    from headstart.tasks.readers import read_all

    output = Output(as_json, quiet)
    as_tuned, label_as_tuned = options.studied_columns(folder, seed)
    chosen = options.read_columns(text, columns) or as_tuned
    with new_folder(out, overwrite) if out is not None else nullcontext() as scratch:
        rows = fixed_rows(read_all(test, label=label or label_as_tuned, columns=chosen), limit)
        study = load_study(folder, options.loader(dtype, attention), model, seed)
        study = replace(study, max_length=max_length or study.max_length)
        if calibrate:
            scoring = study.scoring.model_copy(update={"calibrate": True})
            study = replace(study, scoring=scoring)
        started = time.perf_counter()
        judged = _judge(output, "scoring", study, rows)
        bare = _judge(output, "zero-shot", replace(study, prompts=()), rows) if zero_shot else None
        report: dict[str, Any] = {
            "folder": str(folder),
            "test": test,
            "rows": len(rows),
            "cut_rows": sum(row["cut_tokens"] > 0 for row in judged.ensemble_rows),
            "calibrated": study.scoring.calibrate,
            "members": dict(zip(study.seeds, judged.members, strict=True)),
            "over_seeds": judged.over_seeds,
            "ensemble": judged.ensemble,
            "zero_shot": None if bare is None else bare.ensemble,
            "seconds": round(time.perf_counter() - started, 2),
        }
        if scratch is not None:
            _write(scratch, report, study, judged, bare)
    _report(output, report, out)
    output.result(report)


def _judge(output: Output, label: str, study: Study, rows: list[Example]) -> Judgement:
    from headstart.recipes.judge import judge

    with output.progress(label, len(rows) * max(1, len(study.prompts))) as progress:
        return judge(study, rows, progress.add)


def _write(
    folder: Path, report: dict[str, Any], study: Study, judged: Judgement, bare: Judgement | None
) -> None:
    from headstart.evaluate.predictions import prediction_file
    from headstart.prompts.files import to_json, write_whole

    parts = dict(zip(study.seeds, judged.rows, strict=True))
    if len(study.seeds) > 1:
        parts["ensemble"] = judged.ensemble_rows
    if bare is not None:
        parts["zero-shot"] = bare.ensemble_rows
    for name, rows in parts.items():
        with prediction_file(folder / f"{name}.jsonl") as sink:
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
