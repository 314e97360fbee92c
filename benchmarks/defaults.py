"""Measure what the few-shot defaults rest on, on validation rows, never on test rows.

    python -m benchmarks.defaults [--datasets sst2] [--scales 0.03,0.1,0.3] [--seeds 1,2]
                                  [--inits vocab] [--length 20] [--steps 60]

All scales and seeds of one data set and initialiser are one stack. Appends one JSON line a
(data set, init, length, steps, scale, seed) to docs/results/defaults.jsonl; lines that are there
are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.few_shot_tasks import DATA, SOURCES, shots
from headstart.config import Scoring, TuneSettings, override
from headstart.evaluate.metrics import classification_metrics
from headstart.evaluate.rank import scores_under
from headstart.learn.fewshot import Run, tune
from headstart.models.base import Limits
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.ops.initialise import root_mean_square
from headstart.prompts.bank import PromptBank
from headstart.seeds import derive_seed
from headstart.tasks.readers import read_all

RESULTS = Path("docs/results/defaults.jsonl")
VALIDATION = {"sst2": "sst2/validation.jsonl", "sst5": "sst5/validation.jsonl"}
VALIDATION["ag_news"] = "ag_news_10k/validation.jsonl"
NUM_ROWS = 300
KEYS = ("dataset", "init", "prompt_length", "num_steps", "lr_scale", "seed")


def validation_rows(name: str, data: Path) -> list:
    rows = read_all(data / VALIDATION[name], columns={"text": "text"})
    return [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:NUM_ROWS])]


def measure(given: argparse.Namespace, model, name: str, init: str, missing: list) -> None:
    settings = override(
        TuneSettings(), [f"prompt_length={given.length}", f"train.num_steps={given.steps}"]
    )
    task = SOURCES[name].task
    limits = Limits(max_length=256, reserve=settings.prompt_length)
    start = initialiser(init, model, task.words)
    unit = root_mean_square(model.embedding_VH)
    runs = []
    for scale, seed in missing:
        generator = torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        rows = model.encode([task.render(row) for row in shots(name, seed, given.data)], limits)
        prompt = start(settings.prompt_length, generator)
        runs.append(Run(f"{scale}/{seed}", prompt, rows, seed=seed, lr=scale * unit))
    tuned = tune(model, runs, settings.train)
    examples = validation_rows(name, given.data)
    rows = model.encode([task.render(row) for row in examples], limits)
    scores_NRC = scores_under(
        model, rows, PromptBank.stack([result.prompt_PH for result in tuned]), Scoring()
    )
    gold = [str(example.label) for example in examples]
    for (scale, seed), result, scores in zip(missing, tuned, scores_NRC, strict=True):
        predicted = [task.labels[c] for c in scores.argmax(-1).tolist()]
        line = {
            "dataset": name, "split": "validation", "rows": len(rows), "init": init,
            "lr_scale": scale, "seed": seed, **classification_metrics(gold, predicted),
            "final_loss": float(np.mean(result.vitals.losses[-5:])), "drift": result.vitals.drift,
            "num_steps": given.steps, "prompt_length": given.length,
            "settings": settings.train.model_dump(),
        }  # fmt: skip
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name} {init} scale {scale} seed {seed}: {line['accuracy']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=lambda s: s.split(","), default=["sst2"])
    parser.add_argument("--inits", type=lambda s: s.split(","), default=["vocab"])
    parser.add_argument(
        "--scales", type=lambda s: [float(x) for x in s.split(",")], default=[0.03, 0.1, 0.3, 1.0]
    )
    parser.add_argument("--seeds", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2])
    parser.add_argument("--length", type=int, default=TuneSettings().prompt_length)
    parser.add_argument("--steps", type=int, default=TuneSettings().train.num_steps)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    model = load_model("smollm2-135m")
    for name in given.datasets:
        for init in given.inits:
            lines = given.out.read_text().splitlines() if given.out.exists() else []
            done = {tuple(json.loads(line)[key] for key in KEYS) for line in lines}
            wanted = [(scale, seed) for scale in given.scales for seed in given.seeds]
            known = (name, init, given.length, given.steps)
            missing = [pair for pair in wanted if (*known, *pair) not in done]
            if missing:
                measure(given, model, name, init, missing)


if __name__ == "__main__":
    main()
