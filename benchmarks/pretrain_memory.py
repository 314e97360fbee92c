"""Peak memory of one update of continued pretraining, by method, on the same rows, a process each.

python -m benchmarks.pretrain_memory                 # a T5 of T5-small's shape with random weights
python -m benchmarks.pretrain_memory --model smollm2-135m

The meta-learning methods see the rows of the multi-task batch as tasks. What is reported is the largest
resident size, beside that of the loaded model before its first update.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from headstart.learn.pretrain import pretrain
from headstart.learn.pretrain_settings import Pretrain
from headstart.models.base import BaseModel, Encoded
from headstart.models.load import load_model, wrap
from headstart.models.tiny import byte_tokenizer

METHODS = ("multitask", "fomaml", "reptile")
TASKS, ROWS, STEPS = 2, 8, 3  # tasks of 8 rows for the outer gradient, and three inner steps
SOURCE, TARGET = 48, 8
UNCACHED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Freed memory goes back at once, so that the peak is of what was in use, not of what malloc kept."""


def model_of(name: str) -> BaseModel:
    if name != "t5-small-shape":
        return load_model(name)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    return wrap(T5ForConditionalGeneration(config), byte_tokenizer(True), name, {})


def rows(count: int) -> list[Encoded]:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 1000, (count, SOURCE + TARGET), generator=draw).tolist()
    return [
        Encoded(str(i), tuple(row[:SOURCE]), (tuple(row[SOURCE:]),), target=0)
        for i, row in enumerate(tokens)
    ]


def measure(method: str, name: str) -> dict[str, float]:
    """Run two updates here; the process's own peak is the answer."""
    model = model_of(name)
    tasks = [rows(ROWS * (STEPS + 1)) for _ in range(TASKS)]
    settings = Pretrain(
        method=method, batch_size=TASKS * ROWS * (STEPS + 1), meta_batch_size=TASKS,
        task_batch_size=ROWS, inner_steps=STEPS, num_steps=2, optimizer="sgd",
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = pretrain(model, tasks, torch.zeros(20, model.hidden_size), settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = sum(w.numel() for w in model.network.parameters()) * 4 / 1024
    return {"method": method, "rows": found.rows_seen, "loaded_mib": before / 1024,
            "peak_mib": peak / 1024, "weights_mib": weights / 1024}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="t5-small-shape")
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--out", type=Path, help="add the lines to this JSONL file")
    given = parser.parse_args()
    if given.method:
        print(json.dumps(measure(given.method, given.model)))
        return
    found = []
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks.pretrain_memory", "--model", given.model]
        told = subprocess.run(
            [*command, "--method", method],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | UNCACHED,
        )
        found.append(json.loads(told.stdout.splitlines()[-1]) | {"model": given.model})
        ratio = found[-1]["peak_mib"] / found[0]["peak_mib"]
        print(
            f"{method:10} peak {found[-1]['peak_mib']:7.0f} MiB, loaded {found[-1]['loaded_mib']:6.0f} MiB, "
            f"weights {found[-1]['weights_mib']:5.0f} MiB: {ratio:.2f} x multi-task"
        )
    if given.out:
        with given.out.open("a") as lines:
            lines.writelines(json.dumps(line) + "\n" for line in found)


if __name__ == "__main__":
    main()
