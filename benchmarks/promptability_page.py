"""Write docs/results/promptability.md from docs/results/promptability.jsonl, gathered from a run.

python -m benchmarks.promptability_page                           # the page and its pictures
python -m benchmarks.promptability_page runs/promptability-small  # gather that run first
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.metapt_page import packed, unpacked
from headstart.recipes.kinds import KINDS
from headstart.recipes.prompted_table_stage import PromptedTableStage, page, summaries
from headstart.recipes.recipe import load_recipe
from headstart.recipes.results import Result, read_results
from headstart.report.curves import COLOURS
from headstart.report.pictures import drawing, save_pictures
from headstart.report.results_table import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results/promptability.jsonl"
PAGE = ROOT / "docs/results/promptability.md"
PICTURES = ROOT / "docs/results/pictures"
RECIPE = ROOT / "recipes/promptability/small.yaml"
POINTS = 16
"""Points of a learning curve, each the mean of as many updates."""


def gather(run: Path) -> dict[str, str]:
    """Read a run: a line for each result, and one for each continued pretraining."""
    lines = {}
    for path in sorted(run.glob("*/results.jsonl")):
        for result in read_results(path):
            key = json.dumps([path.parent.name, result.target, result.method, result.seed])
            lines[key] = json.dumps({"stage": path.parent.name, "result": packed(result)})
    for path in sorted(run.glob("*/pretrain.json")):
        told, name = json.loads(path.read_text()), path.parent.name
        manifest = json.loads((path.parent / "manifest.json").read_text())
        log = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
        cost = {"rows": told["rows_seen"], "tokens": told["tokens_seen"], "updates": told["steps"]}
        seconds = {"seconds": manifest["times"]["seconds"]}
        points = [{k: record[k] for k in ("rows", "tokens", "loss")} for record in log]
        lines[json.dumps([name])] = json.dumps(
            {"stage": name, "pretrained": {**cost, **seconds, "log": points}}
        )
    return lines


def read() -> dict[str, str]:
    found = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.is_file() else ():
        values = json.loads(line)
        key = [values["stage"]]
        if "result" in values:
            key += [values["result"][name] for name in ("target", "method", "seed")]
        found[json.dumps(key)] = line
    return found


def results_of(lines: Iterator[str]) -> tuple[dict[str, list[Result]], dict[str, Any]]:
    """Sort lines into the results of stages, and what pretraining told."""
    results: dict[str, list[Result]] = {}
    pretrained: dict[str, Any] = {}
    for line in lines:
        values = json.loads(line)
        if "pretrained" in values:
            pretrained[values["stage"]] = values["pretrained"]
            continue
        results.setdefault(values["stage"], []).append(unpacked(values["result"]))
    return results, pretrained


def table(settings: PromptedTableStage, results: Mapping[str, Sequence[Result]]) -> str:
    """Lay out the cells that have results, as the stage does."""
    found = summaries(settings, results)
    if not found:
        return "Not run."
    body = page(found, settings).split("\n\n")
    return "\n\n".join(body[2 if settings.note else 1 :]).strip()


def learning_curves(pretrained: Mapping[str, Any]) -> str:
    """Draw every pretraining's loss against rows and against tokens seen."""
    if not pretrained:
        return "Not run."
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for n, (name, told) in enumerate(sorted(pretrained.items())):
            style = ("-", "--")[n // len(COLOURS) % 2]
            for axis, x in zip(axes, ("rows", "tokens"), strict=True):
                size = max(1, len(told["log"]) // POINTS)
                chunks = [told["log"][i : i + size] for i in range(0, len(told["log"]), size)]
                xs = [chunk[-1][x] for chunk in chunks]
                ys = [statistics.fmean(record["loss"] for record in chunk) for chunk in chunks]
                axis.plot(xs, ys, style, color=COLOURS[n % len(COLOURS)], label=name, linewidth=1.2)
                axis.set_xlabel(f"{x} seen")
                axis.grid(axis="y", alpha=0.3)
                axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("loss of the outer rows (nats a token)")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right", frameon=False, fontsize=8
        )
        save_pictures(figure, PICTURES / "pretraining")
    return "![Loss against rows and tokens seen](pictures/pretraining.png)"


def costs(pretrained: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            *(f"{told[k]:,}" for k in ("updates", "rows", "tokens")),
            f"{told['seconds'] / 60:.1f}",
        ]
        for name, told in pretrained.items()
    ]
    header = ["continued pretraining", "updates", "rows", "tokens", "minutes"]
    return markdown_table(header, rows) if rows else "Not run."


def main(runs: Sequence[str]) -> None:
    lines = read()
    for run in map(Path, runs):
        lines |= gather(run)
    RESULTS.write_text("".join(line + "\n" for line in lines.values()))
    results, pretrained = results_of(iter(lines.values()))
    study = load_recipe(RECIPE, KINDS)
    words = (PAGE.parent / "promptability.template.md").read_text()
    for name, text in {
        "table_1": table(study.stage("table-1").settings, results),  # type: ignore[arg-type]
        "step_sizes": table(study.stage("step-sizes").settings, results),  # type: ignore[arg-type]
        "learning_curves": learning_curves(pretrained),
        "costs": costs(pretrained),
    }.items():
        words = words.replace("{" + name + "}", text)
    PAGE.write_text(words)
    print(PAGE.relative_to(ROOT), f"from {len(lines)} lines")


if __name__ == "__main__":
    main(sys.argv[1:])
