"""The stage that shows prompted results in the layout of paper A's Table 1, and what the layout hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, get_args

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import DataError, did_you_mean
from headstart.evaluate.relative_gain import Reading, average_relative_gain, resampled
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
        reading: Which average of relative gains the first table shows; the last shows all.
        baseline: The row that others are compared with, column by column. Default: no comparison.
        title: The page's title.
        note: A paragraph below it.

    Example:
        >>> cell = {"results": "prompted", "row": "T0", "column": "Deep"}
        >>> PromptedTableStage(cells=[cell]).reading
        'groups'
    """

    cells: tuple[Cell, ...] = pydantic.Field(min_length=1)
    reading: Reading = "groups"
    baseline: str | None = None
    title: str = "Promptability"
    note: str = ""

    @pydantic.model_validator(mode="after")
    def _each_place_once(self) -> PromptedTableStage:
        places = [(cell.row, cell.column) for cell in self.cells]
        twice = [place for place in places if places.count(place) > 1]
        if twice:
            raise ValueError(f"cells: row '{twice[0][0]}' comes twice in column '{twice[0][1]}'")
        rows = [row for row, _ in places]
        if self.baseline is not None and self.baseline not in rows:
            raise ValueError(
                f"baseline: no row '{self.baseline}'{did_you_mean(self.baseline, rows)}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Summary:
    """What one stage reached with so many shots, mean over its seeds.

    Attributes:
        gains: Average relative gain x 100, by reading.
        accuracy: Mean over sets of the mean over templates, in per cent.
        sets: Accuracy of each set, in per cent.
        drawn: Gain (of the reading asked for) and accuracy of each draw of other test rows [draws, 2].

    Example:
        >>> Summary({"sets": 1.0}, 50.0, {"rte": 50.0}, np.ones((2, 2))).accuracy
        50.0
    """

    gains: Mapping[Reading, float]
    accuracy: float
    sets: Mapping[str, float]
    drawn: np.ndarray


def summarise(results: Sequence[Result], reading: Reading = "groups") -> Summary:
    """Average the results of one method with one number of shots.

    Example:
        >>> told = {"chance": 0.5, "group": "nli", "set": "rte", "template": "a"}
        >>> judged = {"accuracy": 0.6, "macro_f1": 0.6, "right": (1, 1, 1, 0, 0), "details": told}
        >>> found = summarise([Result(target="rte/a", method="m", seed=1, **judged)])
        >>> round(found.gains["groups"], 6), found.accuracy
        (20.0, 60.0)
    """
    by_template: dict[tuple[str, str], list[float]] = {}
    rights: dict[tuple[str, str], list[Sequence[bool]]] = {}
    chances: dict[tuple[str, str], float] = {}
    groups: dict[str, str] = {}
    for result in results:
        key = (result.details["set"], result.details["template"])
        by_template.setdefault(key, []).append(result.accuracy)
        rights.setdefault(key, []).append(result.right)
        chances[key] = result.details["chance"]
        groups[key[0]] = result.details["group"]
    accuracies = {key: fmean(values) for key, values in by_template.items()}

    def of_sets(found: Mapping[tuple[str, str], float]) -> dict[str, float]:
        by_set: dict[str, list[float]] = {}
        for (name, _), value in found.items():
            by_set.setdefault(name, []).append(value)
        return {name: 100 * fmean(values) for name, values in by_set.items()}

    gains = {
        each: 100 * average_relative_gain(accuracies, chances, each, groups) for each in READINGS
    }
    drawn = [
        (
            100 * average_relative_gain(found, chances, reading, groups),
            fmean(of_sets(found).values()),
        )
        for found in resampled({key: np.mean(each, axis=0) for key, each in rights.items()})
    ]
    sets = of_sets(accuracies)
    return Summary(gains, fmean(sets.values()), sets, np.array(drawn))


def summaries(
    settings: PromptedTableStage, results: Mapping[str, Sequence[Result]]
) -> dict[tuple[str, str], Summary]:
    """Summarise the cells that have results, by row and column: a column for each number of shots.

    Args:
        settings: The table's.
        results: Of the stages, by name.

    Example:
        >>> cell = {"results": "prompted", "row": "T0", "column": "Deep"}
        >>> summaries(PromptedTableStage(cells=[cell]), {})
        {}
    """
    found = {}
    for cell in settings.cells:
        every = results.get(cell.results, ())
        for shots in dict.fromkeys(result.labels.get("train", 0) for result in every):
            mine = [result for result in every if result.labels.get("train", 0) == shots]
            found[cell.row, f"{cell.column}, {shots}-shot"] = summarise(mine, settings.reading)
    return found


def run_prompted_table(context: Context[PromptedTableStage]) -> None:
    """Write ``table.md``: gains and accuracies in Table 1's layout, then every reading and every set."""
    settings = context.settings
    stages = {str(cell.results) for cell in settings.cells}
    results = {stage: read_results(context.inputs[stage] / "results.jsonl") for stage in stages}
    found = summaries(settings, results)
    if not found:
        raise DataError("no result to show; run the stages that make them")
    write_whole(context.folder / "table.md", page(found, settings))


def page(found: Mapping[tuple[str, str], Summary], settings: PromptedTableStage) -> str:
    """Lay the summaries out, by row and column.

    Example:
        >>> told = {"chance": 0.5, "group": "nli", "set": "rte", "template": "a"}
        >>> judged = {"accuracy": 0.75, "macro_f1": 0.6, "right": (1, 1, 1, 0), "details": told}
        >>> summary = summarise([Result(target="rte/a", method="m", seed=1, **judged)])
        >>> cell = {"results": "prompted", "row": "T0", "column": "Deep"}
        >>> shown = page({("T0", "Deep, 0-shot"): summary}, PromptedTableStage(cells=[cell]))
        >>> [line for line in shown.splitlines() if line.startswith("| T0")][1]
        '| T0 | 75.0 [25.0, 100.0] |'
    """
    rows = list(dict.fromkeys(row for row, _ in found))
    columns = list(dict.fromkeys(column for _, column in found))
    sets = list(dict.fromkeys(name for summary in found.values() for name in summary.sets))

    def layout(value: Callable[[tuple[str, str]], str], shown: Sequence[str] = rows) -> str:
        cells = [
            [row, *(value((row, c)) if (row, c) in found else "–" for c in columns)]
            for row in shown
        ]
        return markdown_table(["method", *columns], cells)

    def gain(place: tuple[str, str]) -> str:
        return f"{found[place].gains[settings.reading]:.1f} {_between(found[place].drawn[:, 0])}"

    def accuracy(place: tuple[str, str]) -> str:
        return f"{found[place].accuracy:.1f} {_between(found[place].drawn[:, 1])}"

    def gained(place: tuple[str, str]) -> str:
        base = found.get((str(settings.baseline), place[1]))
        if base is None:
            return "–"
        mine, reading = found[place], settings.reading
        more = mine.gains[reading] - base.gains[reading]
        return f"{more:+.1f} {_between((mine.drawn - base.drawn)[:, 0], '+')}"

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
        f"Average relative gain x 100 (over {settings.reading}), with the 95 % interval over test rows "
        "(bootstrap, 1,000 draws; it speaks of other rows, not of other seeds or templates).",
        layout(gain),
        "Accuracy in per cent, mean over sets of the mean over templates.",
        layout(accuracy),
        "Gain in its three readings, accuracy, and each set's.",
        markdown_table(
            ["", *(f"gain over {reading}" for reading in READINGS), "accuracy", *sets], every
        ),
    ]
    if settings.baseline is not None:
        others = [row for row in rows if row != settings.baseline]
        said = f"Gain above '{settings.baseline}', on the same draws of rows."
        parts[4:4] = [said, layout(gained, others)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _between(drawn_D: np.ndarray, sign: str = "") -> str:
    low, high = np.percentile(drawn_D, [2.5, 97.5])
    return f"[{low:{sign}.1f}, {high:{sign}.1f}]"


PROMPTED_TABLE = StageKind(
    "prompted-table", 2, PromptedTableStage, run_prompted_table, uses_model=False
)
