"""Five stacked seeds against one: 40 labels, SmolLM2-135M; prints the ratio of tuning times.

The rows are SST-2's where the data folder is there, and else those of a data set that ships.

    python benchmarks/stacked_seeds.py [--repeats 3] [--steps 20] [--json]

Both are timed in turn, in the same process, on the same rows, and the medians are compared. The
time counted is tuning alone: the model is loaded and the rows are tokens already.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.few_shot_tasks import DATA, NUM_SHOTS, SEEDS, SOURCES, shots
from headstart.cli.demo import TASKS, demo_file
from headstart.config import TuneSettings
from headstart.errors import HeadstartError
from headstart.learn.fewshot import Run, tune
from headstart.models.base import Limits
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.seeds import derive_seed
from headstart.tasks.example import Example
from headstart.tasks.fewshot import draw_shots
from headstart.tasks.readers import label_names, read_all
from headstart.tasks.task import Task
from headstart.tasks.template import Template


def demo_task() -> Task:
    labels = label_names(read_all(demo_file("product_feedback", "train")))
    return Task(Template(TASKS["product_feedback"].template), labels, labels)


def demo_shots(seed: int) -> list[Example]:
    rows = read_all(demo_file("product_feedback", "train"))
    return [rows[i] for i in draw_shots([str(row.label) for row in rows], NUM_SHOTS, seed).train]


def seconds(model, runs, settings) -> float:
    started = time.perf_counter()
    tune(model, runs, settings)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=20, help="updates a run; the ratio does not depend on it"
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    settings = TuneSettings()
    train = settings.train.model_copy(update={"num_steps": given.steps})
    model = load_model("smollm2-135m")
    name = "sst2" if (given.data / SOURCES["sst2"].train).is_file() else "product_feedback"
    task = SOURCES["sst2"].task if name == "sst2" else demo_task()
    start = initialiser("vocab", model, task.words)
    runs = []
    for seed in SEEDS:
        drawn = shots(name, seed, given.data) if name == "sst2" else demo_shots(seed)
        rows = [task.render(row) for row in drawn]
        generator = torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        encoded = model.encode(rows, Limits(reserve=settings.prompt_length))
        runs.append(Run(str(seed), start(settings.prompt_length, generator), encoded, seed=seed))

    seconds(model, runs[:1], train.model_copy(update={"num_steps": 2}))
    one, five, ratios = [], [], []
    for repeat in range(given.repeats):
        # each seed in turn stands for "one", as rows differ in length between seeds
        one.append(statistics.fmean(seconds(model, [run], train) for run in runs))
        five.append(seconds(model, runs, train))
        ratios.append(five[-1] / one[-1])
        print(f"repeat {repeat + 1}: one {one[-1]:.1f} s, five stacked {five[-1]:.1f} s, "
              f"ratio {ratios[-1]:.2f}", file=sys.stderr, flush=True)  # fmt: skip
    result = {
        "benchmark": "stacked_seeds",
        "rows": name,
        "steps": given.steps,
        "one_seed_s": round(statistics.median(one), 2),
        "five_stacked_s": round(statistics.median(five), 2),
        "ratio": round(statistics.median(ratios), 2),
        "threads": torch.get_num_threads(),
        "choices": {key: model.choices[key] for key in ("dtype", "attention", "gflop_per_s")},
    }
    print(json.dumps(result) if given.json else
          f"five stacked seeds take {result['ratio']} times one seed's tuning time "
          f"({result['five_stacked_s']} s against {result['one_seed_s']} s, {given.steps} steps, "
          f"medians of {given.repeats})")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except HeadstartError as error:
        sys.exit(f"error: {error}")
