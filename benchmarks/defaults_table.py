"""Write docs/results/defaults.md from docs/results/defaults.jsonl: a pure function of its lines.

python -m benchmarks.defaults_table
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/results"
SETTING = ("init", "prompt_length", "num_steps", "lr_scale")
DATASETS = {"sst2": "SST-2", "sst5": "SST-5", "ag_news": "AG News"}


def table(lines: list[dict]) -> str:
    rows = [
        "| init | vectors | steps | lr_scale | " + " | ".join(DATASETS.values()) + " |",
        "|---" * (4 + len(DATASETS)) + "|",
    ]
    for setting in sorted({tuple(line[key] for key in SETTING) for line in lines}, key=str):
        cells = []
        for name in DATASETS:
            same = [
                line
                for line in lines
                if line["dataset"] == name and tuple(line[key] for key in SETTING) == setting
            ]
            if not same:
                cells.append("not run")
                continue
            accuracy = statistics.fmean(100 * line["accuracy"] for line in same)
            loss = statistics.fmean(line["final_loss"] for line in same)
            cells.append(f"{accuracy:.1f} ({loss:.2f})")
        rows.append(f"| {' | '.join(map(str, setting))} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    read = [json.loads(line) for line in (FOLDER / "defaults.jsonl").read_text().splitlines()]
    words = (FOLDER / "defaults.template.md").read_text()
    (FOLDER / "defaults.md").write_text(words.format(table=table(read)))
    print("docs/results/defaults.md")
