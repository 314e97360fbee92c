"""Measure what a learned start is worth in labels, on validation rows, never on test rows.

    python -m benchmarks.start_worth [--datasets sst5,sst2] [--init headstart:sentiment] [--labels 10,40,160]

Tunes from the start, then judges prompts that keep a part of the way: ``start + part x (tuned - start)``.
Appends one JSON line a (data set, init, labels, seed) to docs/results/start-worth.jsonl; lines that are
there are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks.defaults import validation_rows
from benchmarks.few_shot_tasks import DATA, SOURCES
from headstart.config import FewShot, Scoring
from headstart.evaluate.metrics import classification_metrics
from headstart.evaluate.rank import scores_under
from headstart.learn.fewshot import Run, blend, tune
from headstart.models.base import Limits
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.prompts.bank import PromptBank
from headstart.recipes.downstream_stage import encoder
from headstart.tasks.fewshot import draw_shots
from headstart.tasks.readers import read_all

RESULTS = Path("docs/results/start-worth.jsonl")
PARTS = (0.0, 0.1, 0.2, 0.33, 0.5, 0.75, 1.0)
SEEDS = (11, 12, 13)
STEPS = {10: 40, 40: 40, 160: 120, 640: 240}
KEYS = ("dataset", "init", "labels", "seed")


def measure(model, name: str, init: str, labels: int, data: Path) -> list[dict[str, object]]:
    task = SOURCES[name].task
    start_PH = initialiser(init, model, task.words)(20, torch.Generator().manual_seed(1))
    encode = encoder(model, task, Limits(max_length=104, reserve=20))
    pool = read_all(data / SOURCES[name].train, columns={"text": "text"})
    drawn = {seed: draw_shots([str(r.label) for r in pool], labels, seed).train for seed in SEEDS}
    runs = [
        Run(str(seed), start_PH, encode([pool[i] for i in rows]), seed=seed)
        for seed, rows in drawn.items()
    ]
    tuned = tune(model, runs, FewShot(num_steps=STEPS[labels]))
    examples = validation_rows(name, data)
    prompts = [start_PH, *(blend(start_PH, t.prompt_PH, part) for t in tuned for part in PARTS[1:])]
    scores_NRC = scores_under(model, encode(examples), PromptBank.stack(prompts), Scoring())
    gold = [str(example.label) for example in examples]
    accuracy = [
        classification_metrics(gold, [task.labels[c] for c in scores.argmax(-1).tolist()])[
            "accuracy"
        ]
        for scores in scores_NRC
    ]
    width = len(PARTS) - 1
    return [
        {
            "dataset": name, "split": "validation", "rows": len(gold), "init": init,
            "labels": labels, "seed": seed, "num_steps": STEPS[labels],
            "accuracy": dict(
                zip(
                    map(str, PARTS),
                    [accuracy[0], *accuracy[1 + n * width : 1 + (n + 1) * width]],
                    strict=True,
                )
            ),
        }
        for n, seed in enumerate(SEEDS)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=lambda s: s.split(","), default=["sst5", "sst2"])
    parser.add_argument("--init", default="headstart:sentiment")
    parser.add_argument(
        "--labels", type=lambda s: [int(x) for x in s.split(",")], default=[10, 40, 160]
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {tuple(json.loads(line)[key] for key in KEYS) for line in lines}
    model = load_model("smollm2-135m")
    for name in given.datasets:
        for labels in given.labels:
            if all((name, given.init, labels, seed) in done for seed in SEEDS):
                continue
            found = measure(model, name, given.init, labels, given.data)
            with given.out.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in found)
            for part in PARTS:
                mean = sum(line["accuracy"][str(part)] for line in found) / len(found)
                print(f"{name} {labels} labels, part {part}: {mean:.3f}", flush=True)


if __name__ == "__main__":
    main()
