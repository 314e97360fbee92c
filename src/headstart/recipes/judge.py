"""Judge a study on labelled rows: every member, and all members together as one ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.errors import DataError
from headstart.evaluate.metrics import classification_metrics, over_seeds
from headstart.recipes.predict import content_free_for, predictions, score_examples
from headstart.recipes.study import Study
from headstart.tasks.example import Example


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was measured, and the predictions it was measured on.

    Attributes:
        members: Metrics of each member, in the study's order.
        ensemble: Metrics of the averaged probabilities; the member's own where there is one only.
        rows: Prediction rows of each member.
        ensemble_rows: Prediction rows of the ensemble.

    Example:
        >>> Judgement([{"accuracy": 0.5}], {"accuracy": 0.5}, [[]], []).ensemble
        {'accuracy': 0.5}
    """

    members: list[dict[str, float]]
    ensemble: dict[str, float]
    rows: list[list[dict[str, Any]]]
    ensemble_rows: list[dict[str, Any]]

    @property
    def over_seeds(self) -> dict[str, dict[str, float]]:
        """Mean and standard deviation of each metric over the members.

        Example:
            >>> Judgement([], {}, [], []).over_seeds
            {}
        """
        return over_seeds(self.members)


def judge(
    study: Study, examples: Sequence[Example], progress: Callable[[int], None] = lambda done: None
) -> Judgement:
    """Score examples once and measure every member and the ensemble.

    Args:
        study: Prompts to judge; one without prompts is judged as the bare model.
        examples: Labelled rows.
        progress: Called with the number of scores just made (rows x members in all).

    Raises:
        DataError: No label, or one the task does not know, or a row longer than the model.
        TemplateError: A row has more candidates than the task has labels.

    Example:
        >>> from headstart.models.load import load_model
        >>> from headstart.tasks.task import Task
        >>> from headstart.tasks.template import Template
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> rows = [Example("a:1", {"text": "Well?"}, "0"), Example("a:2", {"text": "So?"}, "1")]
        >>> judge(Study(load_model("tiny-causal"), task), rows).members[0]["accuracy"]
        0.5
    """
    unlabelled = next((example for example in examples if example.label is None), None)
    if unlabelled is not None:
        raise DataError(f"{unlabelled.id}: no label to measure against; give labelled rows")
    scored = score_examples(study, examples, content_free_for(study), progress)

    def measured(rows: list[dict[str, Any]]) -> dict[str, float]:
        return classification_metrics(
            [row["label"] for row in rows], [row["predicted"] for row in rows]
        )

    members = [
        predictions(study, examples, scored.member(n)) for n in range(len(scored.scores_NRC))
    ]
    together = predictions(study, examples, scored)
    return Judgement([measured(rows) for rows in members], measured(together), members, together)


def fixed_rows(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Take ``limit`` rows that are the same in every run: drawn with seed 0, in the data's order.

    Example:
        >>> [e.id for e in fixed_rows([Example(str(i), {}) for i in range(9)], 3)]
        ['2', '4', '5']
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    chosen = np.random.default_rng(0).permutation(len(examples))[:limit]
    return [examples[row] for row in sorted(chosen)]
