"""The stage that shows prompted results in the layout of paper A's Table 1, and what the layout hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, get_args

import pydantic

from headstart.config import Settings
from headstart.errors import DataError
from headstart.evaluate.relative_gain import Reading, average_relative_gain
from headstart.prompts.files import write_whole
from headstart.recipes.results import Result, read_results
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.report.results_table import markdown_table

READINGS: tuple[Reading, ...] = get_args(Reading)


class Cell(Settings):
    """One stage's place in the table.

    Attributes:
        results: The ``prompted`` stage.
        row: The method, as the table calls it.
        column: The group of columns, e.g. ``Shallow``.

    Example:
        >>> Cell(results="prompted", row="T0", column="Deep").row
        'T0'
    """

    results: Annotated[StageRef, of_kind("prompted")]
    row: str
    column: str


class PromptedTableStage(Settings):
    """What the stage ``prompted-table`` may be told.

    Attributes:
        cells: The stages and their places, row by row.
        reading: Which average of relative gains the first table shows; the second shows all.
        title: The page's title.
        note: A paragraph below it.

    Example:
        >>> cell = {"results": "prompted", "row": "T0", "column": "Deep"}
        >>> PromptedTableStage(cells=[cell]).reading
        'groups'
    """

    cells: tuple[Cell, ...] = pydantic.Field(min_length=1)
    reading: Reading = "groups"
    title: str = "Promptability"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What one stage reached with so many shots, mean over its seeds.

    Attributes:
        gains: Average relative gain x 100, by reading.
        accuracy: Mean over sets of the mean over templates, in per cent.
        sets: Accuracy of each set, in per cent.

    Example:
        >>> Summary({"sets": 1.0}, 50.0, {"rte": 50.0}).accuracy
        50.0
    """

    gains: Mapping[Reading, float]
    accuracy: float
    sets: Mapping[str, float]


def summarise(results: Sequence[Result]) -> Summary:
    """Average the results of one method with one number of shots.

    Example:
        >>> told = {"chance": 0.5, "group": "nli", "set": "rte", "template": "a"}
        >>> one = Result(target="rte/a", method="m", seed=1, accuracy=0.6, macro_f1=0.6, details=told)
        >>> found = summarise([one])
        >>> round(found.gains["groups"], 6), found.accuracy
        (20.0, 60.0)
    """
    by_template: dict[tuple[str, str], list[float]] = {}
    chances: dict[tuple[str, str], float] = {}
    groups: dict[str, str] = {}
    for result in results:
        key = (result.details["set"], result.details["template"])
        by_template.setdefault(key, []).append(result.accuracy)
        chances[key] = result.details["chance"]
        groups[key[0]] = result.details["group"]
    accuracies = {key: fmean(values) for key, values in by_template.items()}
    sets = {
        name: 100 * fmean(value for key, value in accuracies.items() if key[0] == name)
        for name in groups
    }
    gains = {
        reading: 100 * average_relative_gain(accuracies, chances, reading, groups)
        for reading in READINGS
    }
    return Summary(gains, fmean(sets.values()), sets)


def run_prompted_table(context: Context[PromptedTableStage]) -> None:
    """Write ``table.md``: gains and accuracies in Table 1's layout, then every reading and every set."""
    settings = context.settings
    found: dict[tuple[str, str], Summary] = {}
    for cell in settings.cells:
        results = read_results(context.inputs[cell.results] / "results.jsonl")
        for shots in dict.fromkeys(result.labels.get("train", 0) for result in results):
            mine = [result for result in results if result.labels.get("train", 0) == shots]
            found[cell.row, f"{cell.column}, {shots}-shot"] = summarise(mine)
    if not found:
        raise DataError("no result to show; run the stages that make them")
    rows = list(dict.fromkeys(row for row, _ in found))
    columns = list(dict.fromkeys(column for _, column in found))
    sets = list(dict.fromkeys(name for summary in found.values() for name in summary.sets))

    def layout(value: Callable[[Summary], float]) -> str:
        cells = [
            [row, *(f"{value(found[row, c]):.1f}" if (row, c) in found else "–" for c in columns)]
            for row in rows
        ]
        return markdown_table(["method", *columns], cells)

    every = [
        [
            f"{row}; {column}",
            *(f"{summary.gains[reading]:.1f}" for reading in READINGS),
            f"{summary.accuracy:.1f}",
            *(f"{summary.sets[name]:.1f}" if name in summary.sets else "–" for name in sets),
        ]
        for (row, column), summary in found.items()
    ]
    parts = [
        f"# {settings.title}",
        settings.note,
        f"Average relative gain x 100 (over {settings.reading}).",
        layout(lambda summary: summary.gains[settings.reading]),
        "Accuracy in per cent, mean over sets of the mean over templates.",
        layout(lambda summary: summary.accuracy),
        "Gain in its three readings, accuracy, and each set's.",
        markdown_table(
            ["", *(f"gain over {reading}" for reading in READINGS), "accuracy", *sets], every
        ),
    ]
    write_whole(context.folder / "table.md", "\n\n".join(part for part in parts if part) + "\n")


PROMPTED_TABLE = StageKind(
    "prompted-table", 1, PromptedTableStage, run_prompted_table, uses_model=False
)
