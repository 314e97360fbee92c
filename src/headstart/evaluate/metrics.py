"""Accuracy, macro-F1 and Matthews correlation, and their mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def classification_metrics(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Compare predicted with gold labels.

    Matthews is 0 where it is undefined: all gold or all predicted labels alike.

    Raises:
        ValueError: No rows, or different numbers of them.

    Example:
        >>> classification_metrics(["a", "b"], ["a", "a"])["accuracy"]
        0.5
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    if not gold:
        raise ValueError("no rows to measure")
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(gold, predicted))
        if len({*gold, *predicted}) > 1
        else 0.0,
    }


def over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Give each metric's mean and sample standard deviation over seeds (0 for a single one).

    Example:
        >>> over_seeds([{"accuracy": 0.5}, {"accuracy": 1.0}])["accuracy"]["mean"]
        0.75
    """
    return {
        name: {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
        for name in (runs[0] if runs else {})
        for values in [[run[name] for run in runs]]
    }
