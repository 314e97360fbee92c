"""headstart's side of the few-shot table, on SmolLM2-135M: one JSON line a (data set, method, seed).

    python -m benchmarks.few_shot [--datasets sst2,ag_news] [--methods vocab,finetune] [--seeds 1,2]

Methods: zero_shot, zero_shot_calibrated, in_context (as many of the 40 labels as fit), vocab,
class_words, normal (prompt tuning from that initialisation), finetune (the whole model). Lines
that are in the results file already are skipped, so a killed run goes on where it was. The five
seeds of a prompt-tuning method are one stacked run: ``train_seconds`` is a fifth of its time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.few_shot_tasks import DATA, NUM_SHOTS, SEEDS, SOURCES, shots, test_rows
from benchmarks.in_context import in_context_scores
from headstart.config import FineTune, Scoring, TuneSettings
from headstart.errors import did_you_mean
from headstart.evaluate.metrics import classification_metrics
from headstart.evaluate.rank import content_free_rows, scores_under
from headstart.learn.fewshot import Run, tune
from headstart.learn.finetune import finetune
from headstart.models.base import BaseModel, Encoded, Limits
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.prompts.bank import PromptBank
from headstart.recipes.fewshot import library_versions
from headstart.seeds import derive_seed

MODEL = "smollm2-135m"
RESULTS = Path("docs/results/few-shot.jsonl")
SETTINGS = TuneSettings()
FINETUNE = FineTune(num_steps=SETTINGS.train.num_steps, batch_size=SETTINGS.train.batch_size)
LIMITS = Limits(max_length=256, reserve=SETTINGS.prompt_length)
INITS = {"vocab": "vocab", "class_words": "class-words", "normal": "normal"}
Row = tuple[int, torch.Tensor, float, dict]


def zero_shot(
    model: BaseModel, name: str, seeds: list[int], test: list[Encoded], calibrate: bool
) -> Iterator[Row]:
    scoring = Scoring(calibrate=calibrate)
    blanks = content_free_rows(model, SOURCES[name].task, ["text"], LIMITS) if calibrate else []
    scores = scores_under(model, test, None, scoring, blanks)[0]
    for seed in seeds:
        yield seed, scores, 0.0, scoring.model_dump()


def in_context(model: BaseModel, name: str, seeds: list[int], test: list[Encoded]) -> Iterator[Row]:
    for seed in seeds:
        scores, used = in_context_scores(
            model, SOURCES[name].task, shots(name, seed, ARGS.data), test, seed
        )
        yield seed, scores, 0.0, {"examples_in_context": used}


def prompt_tuning(
    model: BaseModel, name: str, seeds: list[int], test: list[Encoded], init: str
) -> Iterator[Row]:
    task = SOURCES[name].task
    start = initialiser(init, model, task.words)
    runs = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, "prompt"))
        runs.append(
            Run(
                str(seed),
                start(SETTINGS.prompt_length, generator),
                labelled(model, name, seed),
                seed=seed,
            )
        )
    tuned = tune(model, runs, SETTINGS.train, progress=note)
    scores_NRC = scores_under(
        model, test, PromptBank.stack([result.prompt_PH for result in tuned]), Scoring()
    )
    for seed, result, scores in zip(seeds, tuned, scores_NRC, strict=True):
        settings = SETTINGS.train.model_dump() | {
            "init": init,
            "prompt_length": SETTINGS.prompt_length,
        }
        settings |= {"final_loss": result.vitals.losses[-1], "drift": result.vitals.drift}
        yield seed, scores, result.seconds / len(seeds), settings


def full_fine_tuning(
    model: BaseModel, name: str, seeds: list[int], test: list[Encoded]
) -> Iterator[Row]:
    for seed in seeds:
        fresh = load_model(MODEL)
        run = Run(
            str(seed), torch.zeros(0, model.hidden_size), labelled(model, name, seed), seed=seed
        )
        started = time.perf_counter()
        finetune(fresh, run, FINETUNE, progress=note)
        seconds = time.perf_counter() - started
        yield seed, scores_under(fresh, test, None, Scoring())[0], seconds, FINETUNE.model_dump()


METHODS: dict[str, Callable[..., Iterator[Row]]] = {
    "zero_shot": partial(zero_shot, calibrate=False),
    "zero_shot_calibrated": partial(zero_shot, calibrate=True),
    **{method: partial(prompt_tuning, init=init) for method, init in INITS.items()},
    "finetune": full_fine_tuning,
    "in_context": in_context,
}  # fmt: skip


def labelled(model: BaseModel, name: str, seed: int) -> list[Encoded]:
    rows = shots(name, seed, ARGS.data)
    return model.encode([SOURCES[name].task.render(row) for row in rows], LIMITS)


def note(done: int, loss: float) -> None:
    if done % 10 == 0:
        print(f"  step {done}: loss {loss:.3f}", file=sys.stderr, flush=True)


def run(model: BaseModel, name: str, method: str, seeds: list[int]) -> None:
    examples = test_rows(name, ARGS.data)
    task = SOURCES[name].task
    test = model.encode([task.render(example) for example in examples], LIMITS)
    gold = [str(example.label) for example in examples]
    for seed, scores, seconds, settings in METHODS[method](model, name, seeds, test):
        predicted = [task.labels[c] for c in scores.argmax(-1).tolist()]
        line = {
            "dataset": name, "method": method, "seed": seed,
            "num_labels": 0 if method.startswith("zero") else NUM_SHOTS, "num_test": len(test),
            **classification_metrics(gold, predicted),
            "train_seconds": round(seconds, 1), "settings": settings,
            "truncated_rows": sum(row.truncated > 0 for row in test),
            "model": model.fingerprint().weights, "dtype": model.choices["dtype"],
            "attention": model.choices["attention"],
            "threads": torch.get_num_threads(), "versions": library_versions(),
            "command": f"python -m benchmarks.few_shot --datasets {name} --methods {method}",
        }  # fmt: skip
        with ARGS.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name} {method} seed {seed}: {line['accuracy']:.3f}", flush=True)


def done_already() -> set[tuple[str, str, int]]:
    if not ARGS.out.exists():
        return set()
    lines = [json.loads(line) for line in ARGS.out.read_text().splitlines()]
    return {(line["dataset"], line["method"], line["seed"]) for line in lines}


def names(known: dict) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown '{name}'{did_you_mean(name, known)}")
        return text.split(",")

    return read


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=names(SOURCES), default=list(SOURCES))
    parser.add_argument("--methods", type=names(METHODS), default=list(METHODS))
    parser.add_argument(
        "--seeds", type=lambda s: [int(x) for x in s.split(",")], default=list(SEEDS)
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    ARGS = arguments()
    base = load_model(MODEL)
    for method in ARGS.methods:
        for dataset in ARGS.datasets:
            missing = [s for s in ARGS.seeds if (dataset, method, s) not in done_already()]
            if missing:
                run(base, dataset, method, missing)
