"""The stages that show a study: a page of tables over the results of others, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import pydantic

from headstart.config import Settings
from headstart.errors import DataError, did_you_mean
from headstart.prompts.files import write_whole
from headstart.recipes.results import Result, read_results
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.report.curves import save_curves
from headstart.report.results_table import accuracy_table, comparison_table

Results = Annotated[StageRef, of_kind("few-shot", "rivals")]


class TableStage(Settings):
    """What the stage ``table`` may be told.

    Attributes:
        results: The stages whose results are shown, in order.
        baseline: The method that all are compared with.
        title: The page's title.
        note: A paragraph below it.

    Example:
        >>> TableStage(results=["tuned"], baseline="vocabulary").title
        'Results'
    """

    results: tuple[Results, ...] = pydantic.Field(min_length=1)
    baseline: str
    title: str = "Results"
    note: str = ""


def run_table(context: Context[TableStage]) -> None:
    """Write ``table.md``: accuracy over seeds, macro-F1, and paired intervals against the baseline."""
    settings = context.settings
    results = [
        result
        for stage in settings.results
        for result in read_results(context.inputs[stage] / "results.jsonl")
    ]
    methods = list(dict.fromkeys(result.method for result in results))
    targets = list(dict.fromkeys(result.target for result in results))
    if settings.baseline not in methods:
        raise DataError(
            f"baseline '{settings.baseline}' is no method of the results"
            f"{did_you_mean(settings.baseline, methods) or '; there are: ' + ', '.join(methods)}"
        )
    marks = right_answers(results)
    parts = [
        f"# {settings.title}",
        settings.note,
        "Accuracy in per cent; mean ± standard deviation over seeds.",
        accuracy_table(marks, targets, methods),
        "Difference to the baseline in points, with the 95 % interval over test rows (paired bootstrap, the "
        "seeds' mean on every row).",
        comparison_table(marks, targets, methods, settings.baseline),
    ]
    write_whole(context.folder / "table.md", "\n\n".join(part for part in parts if part) + "\n")


def right_answers(results: Sequence[Result]) -> dict[tuple[str, str], list[list[bool]]]:
    """Say of each (target, method) and seed which test rows were right.

    Raises:
        DataError: Two results of one target were judged on different rows.

    Example:
        >>> one = Result(target="a", method="b", seed=1, accuracy=0.5, macro_f1=0.5, right=(True, False))
        >>> right_answers([one])
        {('a', 'b'): [[True, False]]}
    """
    marks: dict[tuple[str, str], list[list[bool]]] = {}
    rows: dict[str, int] = {}
    for result in results:
        if rows.setdefault(result.target, len(result.right)) != len(result.right):
            raise DataError(
                f"'{result.target}' was judged on {rows[result.target]} and on {len(result.right)} test "
                "rows; give the stages the same num_test"
            )
        marks.setdefault((result.target, result.method), []).append(list(result.right))
    return marks


class CurvePoint(Settings):
    """One point of a curve.

    Attributes:
        x: Where it stands.
        results: The stage that measured it.
        method: Which method of that stage.
        line: The curve it belongs to. Default: the method's name.

    Example:
        >>> CurvePoint(x=40, results="tuned-40", method="vocabulary").line
    """

    x: float
    results: Results
    method: str
    line: str | None = None


class CurveStage(Settings):
    """What the stage ``curve`` may be told: paper B's Figures 2, 3a and 3b.

    Attributes:
        target: The target task shown.
        points: What is drawn.
        x_label: What grows to the right.
        title: One line above.
        log_x: Whether x is drawn in logarithms.

    Example:
        >>> point = {"x": 40, "results": "tuned", "method": "vocabulary"}
        >>> CurveStage(target="sst5", points=[point], x_label="labels").log_x
        True
    """

    target: str
    points: tuple[CurvePoint, ...] = pydantic.Field(min_length=1)
    x_label: str
    title: str = ""
    log_x: bool = True


def run_curve(context: Context[CurveStage]) -> None:
    """Draw ``curve.png`` and ``curve.svg``."""
    settings = context.settings
    series: dict[str, list[tuple[float, list[float]]]] = {}
    for point in settings.points:
        results = read_results(context.inputs[point.results] / "results.jsonl")
        found = [
            result.accuracy
            for result in results
            if (result.target, result.method) == (settings.target, point.method)
        ]
        if not found:
            raise DataError(
                f"stage '{point.results}' has no result of '{point.method}' on '{settings.target}'"
            )
        series.setdefault(point.line or point.method, []).append((point.x, found))
    lines: Mapping[str, Sequence[tuple[float, Sequence[float]]]] = series
    save_curves(lines, context.folder / "curve", settings.x_label, settings.title, settings.log_x)


TABLE = StageKind("table", 1, TableStage, run_table, uses_model=False)
CURVE = StageKind("curve", 1, CurveStage, run_curve, uses_model=False)
