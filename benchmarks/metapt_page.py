"""Write docs/results/metapt.md from docs/results/metapt.jsonl, which gathers what recipes measured.

python -m benchmarks.metapt_page                    # the page and its curves, from the lines there
python -m benchmarks.metapt_page runs/metapt-small  # gather that run's results first
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from headstart.recipes.results import Result, read_results
from headstart.recipes.table_stage import right_answers
from headstart.report.curves import save_curves
from headstart.report.results_table import accuracy_table, comparison_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results/metapt.jsonl"
PAGE = ROOT / "docs/results/metapt.md"
PICTURES = ROOT / "docs/results/pictures"
TARGETS = ("SST-2", "SST-5", "SemEval-r", "Amazon-5", "Amazon-2")
TABLE_1 = (
    *("vocabulary", "class words", "PPT", "multi-task", "Reptile", "FOMAML", "MAML", "MetaPT(Y)"),
    *("headstart", "headstart, untuned", "fine-tuning", "SetFit", "teacher"),
)
TABLE_2 = ("k-means", "LDA", "random", "label")
FIGURE_3A = {300: "300 rows", 1000: "1k rows", 4000: "k-means"}
FIGURE_3B = {3: "3 clusters", 10: "k-means", 30: "30 clusters"}
FIGURE_2 = (10, 40, 160, 640, 2560)

Studies = Mapping[tuple[str, str], Sequence[Result]]
"""Results by study and stage."""


def packed(result: Result) -> dict[str, Any]:
    """Make a result's values, its marks as a row of 0 and 1."""
    return result.model_dump() | {"right": "".join(str(int(mark)) for mark in result.right)}


def unpacked(values: Mapping[str, Any]) -> Result:
    return Result.model_validate(
        {**values, "right": tuple(mark == "1" for mark in values["right"])}
    )


def gather(run: Path) -> dict[str, str]:
    """Read a run's results: a line for each, by what it is a result of."""
    study = yaml.safe_load((run / "recipe.yaml").read_text())["name"]
    lines = {}
    for part in sorted(run.glob("*/parts/*.jsonl")):
        stage = part.parent.parent.name
        for result in read_results(part):
            key = json.dumps([study, stage, result.target, result.method, result.seed])
            lines[key] = json.dumps({"study": study, "stage": stage, **packed(result)})
    return lines


def read() -> dict[str, str]:
    lines = RESULTS.read_text().splitlines() if RESULTS.is_file() else []
    names = ("study", "stage", "target", "method", "seed")
    return {json.dumps([json.loads(line)[name] for name in names]): line for line in lines}


def studies(lines: Iterator[str]) -> Studies:
    found: dict[tuple[str, str], list[Result]] = {}
    for line in lines:
        values = json.loads(line)
        key = values.pop("study"), values.pop("stage")
        found.setdefault(key, []).append(unpacked(values))
    return found


def tables(
    results: Sequence[Result], targets: Sequence[str], methods: Sequence[str], baseline: str
) -> str:
    marks = right_answers(results)
    there = [method for method in methods if any((t, method) in marks for t in targets)]
    parts = [
        accuracy_table(marks, targets, there),
        comparison_table(marks, targets, there, baseline),
    ]
    return "\n\n".join(parts)


def against(results: Sequence[Result], methods: Sequence[str]) -> str:
    return comparison_table(right_answers(results), TARGETS, methods, "fine-tuning")


def curve(name: str, series: Mapping[str, Mapping[float, Sequence[Result]]], x_label: str) -> str:
    """Draw what is there, and write its numbers in a table under it."""
    lines = {
        line: [(x, [r.accuracy for r in found]) for x, found in points.items() if found]
        for line, points in series.items()
    }
    lines = {line: points for line, points in lines.items() if points}
    if not lines:
        return "Not run."
    save_curves(lines, PICTURES / name, x_label, "SST-5")
    xs = sorted({x for points in lines.values() for x, _ in points})
    marks = {
        (f"{x:g}", line): [list(result.right) for result in series[line][x]]
        for line, points in lines.items()
        for x, _ in points
    }
    numbers = accuracy_table(marks, [f"{x:g}" for x in xs], list(lines))
    return f"![Accuracy on SST-5 against {x_label}](pictures/{name}.png)\n\n{numbers}"


def page(found: Studies, words: str) -> str:
    def of(study: str, *stages: str) -> list[Result]:
        return [r for stage in stages for r in found.get((study, stage), ())]

    def chosen(results: Sequence[Result], method: str) -> list[Result]:
        return [r for r in results if r.method == method]

    small = of(
        "metapt-small", "tuned-plain", "tuned", "tuned-maml", "tuned-yelp", "rivals", "setfit"
    )
    first = [r for r in small if not r.method.endswith(", untuned")] + of("sentiment", "tuned")
    second = of("metapt-small", "tuned-2")
    pairs = {"tuned": "{}", "untuned": "{}, untuned"}

    def sweep(points: Mapping[int, str]) -> dict[str, dict[float, list[Result]]]:
        return {
            line: {x: chosen(second, shape.format(name)) for x, name in points.items()}
            for line, shape in pairs.items()
        }

    table_1 = [r for r in of("metapt-small", "rivals") if r.target == "SST-5" and r.seed <= 3]
    labels = {
        method: {n: chosen(of("metapt-small", f"labels-{n}", f"ft-{n}"), method) for n in FIGURE_2}
        for method in ("PPT", "MetaPT", "fine-tuning")
    }
    labels["fine-tuning"][40] = chosen(table_1, "fine-tuning")
    fresh = of("sentiment", "fresh", "fresh-rivals")
    filled = {
        "fresh": tables(
            fresh,
            TARGETS,
            ["vocabulary", "headstart", "headstart, untuned", "fine-tuning"],
            "vocabulary",
        )
        + "\n\n"
        + against(fresh, ["headstart"]),
        "against_fine_tuning": against(first, ["PPT", "multi-task", "FOMAML", "MAML", "headstart"]),
        "table_1": tables(first, TARGETS, TABLE_1, "vocabulary"),
        "untuned": tables(
            [r for r in small if r.method.endswith(", untuned")] + of("sentiment", "tuned"),
            TARGETS,
            [f"{name}, untuned" for name in TABLE_1],
            "PPT, untuned",
        ),
        "table_2": tables(second, ["SST-5"], TABLE_2, "random"),
        "table_2_untuned": tables(
            second, ["SST-5"], [f"{name}, untuned" for name in TABLE_2], "random, untuned"
        ),
        "figure_2": curve("labels", labels, "training labels"),
        "figure_3a": curve("source-rows", sweep(FIGURE_3A), "source rows"),
        "figure_3b": curve("clusters", sweep(FIGURE_3B), "clusters"),
        "general": tables(
            of("general", "tuned"),
            ["AG News", "SST-5"],
            ["vocabulary", "headstart", "headstart, untuned"],
            "vocabulary",
        ),
        "grid": grid(of("metapt-small", "fine-tuning-grid")),
        "whole": ", ".join(f"{100 * r.accuracy:.1f} %" for r in of("metapt-small", "whole"))
        or "not run",
    }
    asked = set(re.findall(r"{(\w+)}", words))
    if asked != set(filled):
        raise SystemExit(f"placeholders of template and page differ: {asked ^ set(filled)}")
    for name, text in filled.items():
        words = words.replace("{" + name + "}", text)
    return words


def grid(results: Sequence[Result]) -> str:
    chosen = [
        f"seed {r.seed}: {r.details['lr']:g} ({r.details['dev_accuracy']:.3f} there, "
        f"{r.accuracy:.3f} on the test rows)"
        for r in results
    ]
    return "; ".join(chosen) or "not run"


def main(runs: Sequence[str]) -> None:
    lines = read()
    for run in map(Path, runs):
        lines |= gather(run)
        for drawn in run.glob("map/map.png"):
            shutil.copy(drawn, PICTURES / "clusters-pseudo.png")
    RESULTS.write_text("".join(line + "\n" for line in lines.values()))
    template = PAGE.parent / "metapt.template.md"
    PAGE.write_text(page(studies(iter(lines.values())), template.read_text()))
    print(PAGE.relative_to(ROOT), f"from {len(lines)} results")


if __name__ == "__main__":
    main(sys.argv[1:])
