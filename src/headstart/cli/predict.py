"""``headstart predict``: label new rows, however many there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli import options
from headstart.cli.output import Output
from headstart.errors import UsageError

if TYPE_CHECKING:
    from headstart.evaluate.predictions import Sink


def predict(
    folder: options.Folder,
    source: options.InputArgument,
    out: options.PredictionsFlag,
    seed: options.SeedFlag = None,
    text: options.TextFlag = None,
    columns: options.ColumnsFlag = None,
    max_length: options.SameMaxLengthFlag = None,
    model: options.SameModelFlag = None,
    dtype: options.DtypeFlag = options.Dtype.auto,
    attention: options.AttentionFlag = options.Attention.auto,
    overwrite: options.OverwriteFlag = False,
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Label new rows, however many there are."""
    from headstart.evaluate.predictions import prediction_file
    from headstart.recipes.predict import predict_stream
    from headstart.recipes.study import load_study
    from headstart.tasks.readers import read_examples

    output = Output(as_json, quiet)
    _check_place(out, source, overwrite)
    as_tuned, _ = options.studied_columns(folder, seed)
    chosen = options.read_columns(text, columns) or as_tuned
    with prediction_file(out) as sink:
        examples = read_examples(source, label=None, columns=chosen)
        examples = chain([next(examples)], examples)  # a wrong file fails before the model loads
        study = load_study(folder, options.loader(dtype, attention), model, seed)
        study = replace(study, max_length=max_length or study.max_length)
        started, counts = time.perf_counter(), _Counts(sink)
        with output.progress("rows labelled") as progress:
            rows = predict_stream(study, examples, counts, progress.add)
        seconds = time.perf_counter() - started
    found = {label: counts.of[label] for label in study.task.labels}
    output.table(["label", "rows"], list(found.items()))
    output.say(
        "", f"{rows} rows in {seconds:.1f} s, by {len(study.seeds)} prompt(s); written to {out}"
    )
    output.say_cut(counts.cut, rows)
    output.result(
        {
            "out": str(out),
            "rows": rows,
            "counts": found,
            "cut_rows": counts.cut,
            "members": list(study.seeds),
            "seconds": round(seconds, 2),
        }
    )


class _Counts:
    """Counts the labels that pass through to a sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.of, self.cut = sink, Counter[str](), 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.of.update(row["predicted"] for row in rows)
        self.cut += sum(row["cut_tokens"] > 0 for row in rows)
        self.sink.write(rows)


def _check_place(out: Path, source: str, overwrite: bool) -> None:
    from headstart.prompts.files import storage_errors

    with storage_errors(out):
        if out.is_dir():
            raise UsageError(f"{out}: is a folder; --out names a .jsonl or .parquet file")
        if out.exists() and Path(source).exists() and out.samefile(source):
            raise UsageError(f"{out}: is the input itself; choose another --out")
        if out.exists() and not overwrite:
            raise UsageError(f"{out}: exists already; choose another --out, or pass --overwrite")
