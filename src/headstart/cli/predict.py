"""``headstart predict``: label new rows, however many there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli import options
from headstart.cli.output import Output
from headstart.cli.rows import TEST_SPLIT, record, split_of
from headstart.cli.studied import scoring_from, studied
from headstart.errors import UsageError

if TYPE_CHECKING:
    from headstart.evaluate.predictions import Sink
    from headstart.recipes.study import Study
    from headstart.tasks.example import Example


def predict(
    folder: options.Folder,
    source: options.InputArgument,
    out: options.PredictionsFlag,
    seed: options.SeedFlag = None,
    split: options.SplitFlag = None,
    text: options.TextFlag = None,
    columns: options.ColumnsFlag = None,
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
    """Label new rows, however many there are."""
    from headstart.evaluate.predictions import prediction_file
    from headstart.recipes.predict import predict_stream
    from headstart.tasks.readers import read_examples

    output = Output(as_json, quiet)
    _check_place(out, source, overwrite)
    tuned = studied(folder, seed)
    chosen = tuned.columns_for(text, columns)
    scoring = scoring_from(tuned.scoring, assignments or [])
    split = split_of(source, split, TEST_SPLIT)
    load = options.loader(dtype, attention)
    examples = read_examples(source, label=None, columns=chosen, split=split)
    if dry_run:
        data = record(source, split, None, chosen)
        _plan(output, examples, data, lambda: tuned.open(load, model, scoring, max_length))
        return
    with prediction_file(out) as sink:
        examples = chain([next(examples)], examples)  # a wrong file fails before the model loads
        study = tuned.open(load, model, scoring, max_length)
        started, counts = time.perf_counter(), _Counts(sink)
        with output.progress("rows labelled") as progress:
            rows = predict_stream(study, examples, counts, progress.add)
        seconds = time.perf_counter() - started
    _report(output, out, rows, counts, study, seconds)


def _plan(
    output: Output, examples: Iterator[Example], data: dict[str, Any], study: Callable[[], Study]
) -> None:
    """Look at the first rows only: the file may be larger than memory."""
    from headstart.cli.scoring_plan import show_scoring_plan
    from headstart.recipes.predict import CHUNK

    rows = list(islice(examples, CHUNK))
    more = next(examples, None) is not None
    data |= {"rows": len(rows), "more_rows": more}
    show_scoring_plan(output, study(), rows, data)


def _report(
    output: Output, out: Path, rows: int, counts: _Counts, study: Study, seconds: float
) -> None:
    found = {label: counts.of[label] for label in dict.fromkeys([*study.task.labels, *counts.of])}
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
    from headstart.evaluate.predictions import SUFFIXES
    from headstart.prompts.files import storage_errors

    if out.suffix not in SUFFIXES:
        raise UsageError(f"{out}: predictions are written as {' or '.join(SUFFIXES)}")
    with storage_errors(out):
        if out.is_dir():
            raise UsageError(f"{out}: is a folder; --out names a .jsonl or .parquet file")
        if out.exists() and Path(source).exists() and out.samefile(source):
            raise UsageError(f"{out}: is the input itself; choose another --out")
        if out.exists() and not overwrite:
            raise UsageError(f"{out}: exists already; choose another --out, or pass --overwrite")
