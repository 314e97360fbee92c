"""How good a teacher is on labelled rows, its own or a target task's: accuracy and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.errors import DataError, UsageError, did_you_mean
from headstart.evaluate.metrics import classification_metrics
from headstart.sources.corpus import text_of
from headstart.sources.teacher import Labeller, label_indices
from headstart.tasks.example import Example

BINS = 15


def judge_teacher(
    teacher: Labeller,
    examples: Sequence[Example],
    label_map: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Measure a teacher on rows whose labels are its own, or coarser.

    Args:
        teacher: Gives probabilities.
        examples: Labelled rows with a ``text``.
        label_map: Each label of the teacher to a label of the rows, or to None: the probabilities of
            labels with one name are summed, those of None are left out, and the rest is scaled to 1.
            Default None: the rows have the teacher's labels.

    Returns:
        ``rows``, ``labels``, ``left_out`` (mean probability of what was mapped to None), accuracy,
        macro-F1 and Matthews, and what ``calibration`` gives. JSON-able.

    Raises:
        UsageError: The map does not have exactly the teacher's labels.
        DataError: No rows, or a row whose label the map does not lead to.

    Example:
        >>> class Stars:
        ...     labels, mark = ("1", "2", "3"), "stars"
        ...     def probabilities(self, texts):
        ...         good, bad = [0.1, 0.6, 0.3], [0.6, 0.2, 0.2]
        ...         return np.array([good if "good" in text else bad for text in texts])
        >>> rows = [Example("a", {"text": "good"}, "pos"), Example("b", {"text": "bad"}, "neg")]
        >>> judged = judge_teacher(Stars(), rows, {"1": "neg", "2": None, "3": "pos"})
        >>> judged["accuracy"], round(judged["left_out"], 3), round(judged["nll"], 3)
        (1.0, 0.4, 0.288)
    """
    if not examples:
        raise DataError("there are no rows to judge the teacher on")
    label_map = label_map or {label: label for label in teacher.labels}
    check_label_map(label_map, teacher.labels)
    targets = list(dict.fromkeys(t for c in teacher.labels if (t := label_map[c]) is not None))
    gold = label_indices(examples, targets)
    merged_RC, left_out = target_probabilities(teacher, examples, targets, label_map)
    predicted = [targets[c] for c in merged_RC.argmax(1)]
    return {
        "rows": len(examples),
        "labels": targets,
        "left_out": left_out,
        **classification_metrics([targets[c] for c in gold], predicted),
        **calibration(merged_RC, gold),
    }


def target_probabilities(
    teacher: Labeller,
    examples: Sequence[Example],
    targets: Sequence[str],
    label_map: Mapping[str, str | None] | None = None,
) -> tuple[np.ndarray, float]:
    """Say what a teacher thinks of rows in a target's classes.

    Args:
        teacher: Gives probabilities.
        examples: Rows with a ``text``.
        targets: The target's K classes.
        label_map: As of :func:`judge_teacher`.

    Returns:
        Probabilities [R, K], and the mean mass that was mapped to None.

    Raises:
        UsageError: The map does not have exactly the teacher's labels, or leads to no target.

    Example:
        >>> class Stars:
        ...     labels, mark = ("1", "2"), "stars"
        ...     def probabilities(self, texts):
        ...         return np.array([[0.25, 0.75]] * len(texts))
        >>> rows = [Example("a", {"text": "good"})]
        >>> target_probabilities(Stars(), rows, ["pos", "neg"], {"1": "neg", "2": "pos"})[0].tolist()
        [[0.75, 0.25]]
    """
    label_map = label_map or {label: label for label in teacher.labels}
    check_label_map(label_map, teacher.labels)
    for label in filter(None, label_map.values()):
        if label not in targets:
            raise UsageError(
                f"label_map: leads to '{label}', which is no class of the target ({', '.join(targets)})"
                f"{did_you_mean(label, targets)}"
            )
    given_RC = teacher.probabilities([text_of(example) for example in examples])
    return merge_labels(given_RC, [label_map[c] for c in teacher.labels], targets)


def check_label_map(label_map: Mapping[str, str | None], labels: Sequence[str]) -> None:
    """Refuse a map that forgets a label, knows one too many, or leads to fewer than two.

    Raises:
        UsageError: Names the label.

    Example:
        >>> check_label_map({"0": "bad", "1": None, "2": "good"}, ["0", "1", "2"])
    """
    for label in label_map:
        if label not in labels:
            raise UsageError(
                f"label_map: '{label}' is no label of the teacher ({', '.join(labels)})"
                f"{did_you_mean(str(label), labels)}"
            )
    for label in labels:
        if label not in label_map:
            raise UsageError(
                f"label_map: the teacher's label '{label}' is missing; map it, or to null to leave it out"
            )
    targets = set(label_map.values()) - {None}
    if len(targets) < 2:
        raise UsageError(
            f"label_map: leads to {targets or 'nothing'}; at least two labels are needed"
        )


def merge_labels(
    given_RC: np.ndarray, to: Sequence[str | None], targets: Sequence[str]
) -> tuple[np.ndarray, float]:
    """Sum the probabilities of labels that become one, leave out the others, scale rows to 1.

    A row all of whose mass is left out becomes uniform: the teacher says nothing about it.

    Args:
        given_RC: Probabilities over the teacher's labels.
        to: The target of each column, or None.
        targets: The K targets, in the order of the result's columns.

    Returns:
        Probabilities [R, K], and the mean mass that was left out.

    Example:
        >>> merged_RK, left_out = merge_labels(np.array([[0.1, 0.5, 0.4]]), ["a", None, "b"], ["a", "b"])
        >>> merged_RK.round(3).tolist(), left_out
        ([[0.2, 0.8]], 0.5)
    """
    sums_CK = np.array([[float(name == target) for target in targets] for name in to])
    mass_RK = given_RC @ sums_CK
    mass_R1 = mass_RK.sum(1, keepdims=True)
    uniform_RK = np.full_like(mass_RK, 1 / len(targets))
    merged_RK = np.divide(mass_RK, mass_R1, out=uniform_RK, where=mass_R1 > 0)
    return merged_RK, float(1 - mass_R1.mean()) if None in to else 0.0


def calibration(
    probabilities_RC: np.ndarray, gold: Sequence[int], bins: int = BINS
) -> dict[str, Any]:
    """Measure how far probabilities can be believed.

    The expected calibration error sorts rows by the probability of their predicted class into
    ``bins`` bins of equal width, (0, 1/15], ..., (14/15, 1], and is the mean, over rows, of the gap
    between accuracy and mean confidence in the row's bin. Negative log-likelihood is in nats, Brier
    the squared distance to the gold label's unit vector, from 0 to 2.

    Args:
        probabilities_RC: Each row sums to 1.
        gold: The R gold classes.
        bins: How many bins. Default 15.

    Returns:
        ``nll``, ``brier``, ``ece``, ``confidence`` (mean), and ``reliability``: for every bin that has
        rows, its bounds, rows, mean confidence and accuracy.

    Example:
        >>> found = calibration(np.array([[0.9, 0.1], [0.7, 0.3]]), [0, 1])
        >>> round(found["ece"], 3), round(found["brier"], 3), len(found["reliability"])
        (0.4, 0.5, 2)
    """
    rows = np.arange(len(gold))
    p_R = np.maximum(probabilities_RC[rows, list(gold)], np.finfo(float).tiny)
    unit_RC = np.zeros_like(probabilities_RC)
    unit_RC[rows, list(gold)] = 1
    confidence_R = probabilities_RC.max(1)
    right_R = probabilities_RC.argmax(1) == np.array(gold)
    bin_R = np.clip(np.ceil(confidence_R * bins).astype(int) - 1, 0, bins - 1)
    table, gap = [], 0.0
    for b in np.unique(bin_R).tolist():
        inside = bin_R == b
        confidence, accuracy = float(confidence_R[inside].mean()), float(right_R[inside].mean())
        gap += int(inside.sum()) * abs(accuracy - confidence)
        table.append(
            {
                "from": round(b / bins, 4),
                "to": round((b + 1) / bins, 4),
                "rows": int(inside.sum()),
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
    return {
        "nll": float(-np.log(p_R).mean()),
        "brier": float(((probabilities_RC - unit_RC) ** 2).sum(1).mean()),
        "ece": gap / len(gold),
        "confidence": float(confidence_R.mean()),
        "reliability": table,
    }
