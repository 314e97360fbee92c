"""Write a tuned study: prompts, cards, test predictions, README, and ``study.json`` last."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from headstart.config import TuneSettings
from headstart.evaluate.predictions import prediction_file
from headstart.models.base import BaseModel
from headstart.models.probe import processor_name
from headstart.prompts.files import save_prompt, to_json, write_whole
from headstart.recipes.fewshot import SeedResult, card_for, final_loss, library_versions
from headstart.recipes.judge import Judgement
from headstart.recipes.study import Study
from headstart.report.results_table import markdown_table
from headstart.tasks.task import Task

FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """A finished tuning, ready to be judged and written.

    Attributes:
        model: The base model.
        task: Template, labels and label words.
        settings: How it was tuned.
        results: One a seed.
        data: Where the rows came from: ``{"train": {...}, "test": {...}}``.
        command: What a person typed to get it.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> Tuning(load_model("tiny-causal"), task, TuneSettings(), []).data
        {}
    """

    model: BaseModel
    task: Task
    settings: TuneSettings
    results: Sequence[SeedResult]
    data: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def study(self) -> Study:
        """Return the tuned prompts as a study.

        Example:
            >>> from headstart.models.load import load_model
            >>> from headstart.tasks.template import Template
            >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
            >>> Tuning(load_model("tiny-causal"), task, TuneSettings(), []).study().task == task
            True
        """
        mark = self.model.fingerprint()
        return Study(
            self.model,
            self.task,
            self.settings.scoring,
            tuple(f"seed-{result.seed}" for result in self.results),
            tuple(result.prompt for result in self.results),
            tuple(
                card_for(result, self.model, mark, self.task, self.settings, self.data)
                for result in self.results
            ),
            self.settings.max_length,
        )


def write_study(folder: Path, tuning: Tuning, judged: Judgement | None = None) -> dict[str, Any]:
    """Write everything about a tuning into ``folder``; return what ``study.json`` holds.

    Args:
        folder: An empty folder, e.g. the one ``recipes.study.new_folder`` gives.
        tuning: The prompts and where they come from.
        judged: What was measured on test rows. Default None: there were none.

    Raises:
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from headstart.config import FewShot
        >>> from headstart.models.load import load_model
        >>> from headstart.recipes.fewshot import tune_seeds
        >>> from headstart.tasks.example import Example
        >>> from headstart.tasks.template import Template
        >>> model, settings = load_model("tiny-causal"), TuneSettings(train=FewShot(num_steps=1))
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> rows = [Example(label, {"text": label * 3}, label) for label in "ab"]
        >>> tuning = Tuning(model, task, settings, tune_seeds(model, task, rows, settings))
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_study(folder, tuning)["seeds"][0]["folder"]
        'seed-1'
        >>> sorted(path.name for path in folder.iterdir())
        ['README.md', 'seed-1', 'study.json']
    """
    study = tuning.study()
    summary = summary_of(tuning, study, judged)
    for n, (name, result, card) in enumerate(
        zip(study.seeds, tuning.results, study.cards, strict=True)
    ):
        if judged is not None:
            with prediction_file(folder / name / "test.jsonl") as sink:
                sink.write(judged.rows[n])
            card = card.model_copy(update={"metrics": {**card.metrics, "test": judged.members[n]}})
        save_prompt(folder / name, result.prompt, card)
    write_whole(folder / "README.md", readme(summary))
    write_whole(folder / "study.json", to_json(summary))
    return summary


def summary_of(tuning: Tuning, study: Study, judged: Judgement | None = None) -> dict[str, Any]:
    """Return what ``study.json`` holds.

    Example:
        >>> from headstart.config import FewShot
        >>> from headstart.models.load import load_model
        >>> from headstart.recipes.fewshot import tune_seeds
        >>> from headstart.tasks.example import Example
        >>> from headstart.tasks.template import Template
        >>> model, settings = load_model("tiny-causal"), TuneSettings(train=FewShot(num_steps=1))
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("a", "b"), ("x", "y"))
        >>> rows = [Example(label, {"text": label * 3}, label) for label in "ab"]
        >>> tuning = Tuning(model, task, settings, tune_seeds(model, task, rows, settings))
        >>> summary_of(tuning, tuning.study())["seeds"][0]["labels"]["total"]
        2
    """
    metrics = {}
    if judged is not None:
        metrics = {"test": {"over_seeds": judged.over_seeds, "ensemble": judged.ensemble}}
    seeds = []
    for n, (name, result) in enumerate(zip(study.seeds, tuning.results, strict=True)):
        seeds.append(
            {
                "seed": result.seed,
                "folder": name,
                "init": result.prompt.spec.init,
                "steps": result.tuned.steps,
                "final_loss": final_loss(result),
                "dev_accuracy": result.tuned.dev_accuracy,
                "test": judged.members[n] if judged is not None else None,
                "labels": result.ledger.to_dict(),
                "advice": result.advice,
                "cut_rows": result.cut_rows,
            }
        )
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": tuning.command,
        "base_model": tuning.model.name,
        "fingerprint": tuning.model.fingerprint().model_dump(),
        "model_choices": tuning.model.choices,
        "task": {**tuning.task.to_dict(), "scoring": tuning.settings.scoring.model_dump()},
        "settings": tuning.settings.model_dump(mode="json"),
        "data": tuning.data,
        "seeds": seeds,
        "metrics": metrics,
        "prompt_bytes": tuning.results[0].prompt.spec.num_bytes,
        "seconds_of_tuning": round(tuning.results[0].tuned.seconds, 2),
        "versions": library_versions(),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Say what a result was made on.

    Example:
        >>> sorted(machine())
        ['processor', 'python', 'system', 'threads']
    """
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def readme(summary: dict[str, Any]) -> str:
    r"""Write a study's card for people, from what ``study.json`` holds.

    Example:
        >>> template = {"text": "{{ text }} {{ answer }}"}
        >>> seed = {"seed": 1, "labels": {"train": 2, "dev": 0}, "test": None}
        >>> summary = {
        ...     "task": {"template": template, "labels": ["0", "1"], "words": ["no", "yes"]},
        ...     "seeds": [seed], "data": {}, "metrics": {}, "settings": {"prompt_length": 20},
        ...     "prompt_bytes": 46080, "base_model": "smollm2-135m", "command": "",
        ...     "versions": {"headstart": "0.1"}, "created": "2025-01-01T00:00:00+00:00",
        ... }
        >>> readme(summary).splitlines()[4]
        '## Use it'
    """
    task, seeds, data = summary["task"], summary["seeds"], summary["data"]
    labels = seeds[0]["labels"]
    answers = task["words"] and [
        f"- `{label}`: scored as {word!r}"
        for label, word in zip(task["labels"], task["words"], strict=True)
    ]
    test = summary["metrics"].get("test")
    parts = [
        "# A soft prompt tuned with headstart",
        f"{len(seeds)} prompt(s) of {summary['settings']['prompt_length']} vectors "
        f"({summary['prompt_bytes'] / 1024:.0f} KB each) for the frozen model "
        f"`{summary['base_model']}`; each {_what_it_does(task['labels'])}.",
        "## Use it",
        _block(
            "headstart predict . NEW.csv --out predictions.jsonl   # label new rows\n"
            "headstart evaluate . TEST.csv                         # measure it on labelled rows\n"
            "headstart doctor                                      # is the model on this machine?"
        ),
        "The base model is named in `study.json`, with a fingerprint; another one is refused.",
        "## The question it asks",
        _block(task["template"]["text"]),
        "\n".join(answers or ["The template brings its own answers."]),
        "## Data and labels",
        "\n".join(f"- {part}: {_source(record)}" for part, record in data.items()),
        f"Labels used: {labels['train']} to train and {labels['dev']} to choose, per seed.",
        "## Measured",
        _results(seeds, test),
        "## Limits",
        "Learned from few labels, so it moves with the rows it saw: look at the spread over seeds. "
        "It knows the classes above only and always names one of them. It inherits the base "
        "model's language and biases. Measure it on your own rows before you rely on it.",
        "## Made by",
        _block(summary["command"] or "Python: see study.json"),
        f"headstart {summary['versions']['headstart']}, {summary['created']}. "
        "Settings, versions, hashes and row numbers: `study.json`, `seed-*/card.json`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_it_does(labels: list[str]) -> str:
    if not labels:
        return "chooses among the answers that a row brings"
    return f"sorts a text into one of {len(labels)} classes"


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _source(record: dict[str, Any]) -> str:
    mark = f", SHA-256 `{record['sha256'][:16]}...`" if "sha256" in record else ""
    columns = json.dumps(record.get("columns", {}), ensure_ascii=False)
    return f"`{record['source']}`, {record.get('rows', '?')} rows, columns {columns}{mark}"


def _results(seeds: list[dict[str, Any]], test: dict[str, Any] | None) -> str:
    if test is None:
        return "Not measured: no test rows were given. `headstart evaluate` does it."
    rows = [[str(seed["seed"]), *_cells(seed["test"])] for seed in seeds]
    if len(seeds) > 1:
        means = [f"{m['mean']:.3f} ± {m['std']:.3f}" for m in test["over_seeds"].values()]
        rows += [["mean ± std", *means], ["ensemble", *_cells(test["ensemble"])]]
    return markdown_table(["seed", "accuracy", "macro-F1", "Matthews"], rows)


def _cells(metrics: dict[str, float]) -> list[str]:
    return [f"{value:.3f}" for value in metrics.values()]
