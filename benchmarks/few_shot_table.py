"""Write docs/results/few-shot.md from docs/results/few-shot.jsonl: a pure function of its lines.

python -m benchmarks.few_shot_table
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results/few-shot.jsonl"
PAGE = ROOT / "docs/results/few-shot.md"
DATASETS = {"sst2": "SST-2", "sst5": "SST-5", "semeval_r": "SemEval-16 rest.", "ag_news": "AG News"}
METHODS = {
    "zero_shot": ("zero-shot", "SmolLM2-135M"),
    "zero_shot_calibrated": ("zero-shot, calibrated", "SmolLM2-135M"),
    "in_context": ("in-context examples", "SmolLM2-135M"),
    "vocab": ("**prompt tuning, vocabulary**", "SmolLM2-135M"),
    "class_words": ("**prompt tuning, class words**", "SmolLM2-135M"),
    "normal": ("**prompt tuning, normal**", "SmolLM2-135M"),
    "finetune": ("full fine-tuning", "SmolLM2-135M"),
    "tfidf_lr": ("TF-IDF + logistic regression", "–"),
    "minilm_lr": ("MiniLM embedding + logistic regression", "all-MiniLM-L6-v2"),
    "setfit": ("SetFit", "all-MiniLM-L6-v2"),
}
Line = Mapping[str, Any]


def cell(lines: Iterable[Line], key: str) -> str:
    values = [100 * line[key] for line in lines]
    if not values:
        return "not run"
    if len(set(values)) == 1:
        return f"{values[0]:.1f}"
    spread = f" ± {statistics.stdev(values):.1f}"
    return f"{statistics.fmean(values):.1f}{spread}" + (
        "" if len(values) == 5 else f" (n={len(values)})"
    )


def table(lines: list[Line], key: str) -> str:
    rows = [
        "| method | model | " + " | ".join(DATASETS.values()) + " |",
        "|---" * (2 + len(DATASETS)) + "|",
    ]
    for method, (title, model) in METHODS.items():
        cells = [
            cell([x for x in lines if (x["method"], x["dataset"]) == (method, dataset)], key)
            for dataset in DATASETS
        ]
        rows.append(f"| {title} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def seconds(lines: list[Line]) -> str:
    rows = [
        "| method | " + " | ".join(DATASETS.values()) + " |",
        "|---" * (1 + len(DATASETS)) + "|",
    ]
    for method, (title, _) in METHODS.items():
        if method.startswith("zero") or method == "in_context":
            continue
        cells = []
        for dataset in DATASETS:
            times = [
                x["train_seconds"]
                for x in lines
                if (x["method"], x["dataset"]) == (method, dataset)
            ]
            cells.append(f"{statistics.median(times):.1f}" if times else "not run")
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def page(lines: list[Line], words: str) -> str:
    return words.format(
        accuracy=table(lines, "accuracy"), macro_f1=table(lines, "macro_f1"), seconds=seconds(lines)
    )


if __name__ == "__main__":
    read = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    PAGE.write_text(page(read, (PAGE.parent / "few-shot.template.md").read_text()))
    print(PAGE.relative_to(ROOT))
