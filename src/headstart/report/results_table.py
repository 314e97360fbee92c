"""Tables of results: mean ± standard deviation over seeds, and paired intervals over the test rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

Marks = Mapping[tuple[str, str], Sequence[Sequence[bool]]]
"""For each (target, method): of every seed, which test rows were right."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of texts.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [header, *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|---" * len(header) + "|", *written[1:]])


def accuracy_table(marks: Marks, targets: Sequence[str], methods: Sequence[str]) -> str:
    """Write accuracy in per cent, a row a method, a column a target, and the mean over targets last.

    Methods are compared over targets only where they were run on all of them.

    Example:
        >>> print(accuracy_table({("a", "x"): [[True, False], [True, True]]}, ["a"], ["x"]))
        | method | a | mean |
        |---|---|---|
        | x | 75.0 ± 35.4 | 75.0 |
    """
    rows = []
    for method in methods:
        found = [marks.get((target, method)) for target in targets]
        means = [100 * float(np.mean(seeds)) for seeds in found if seeds]
        whole = f"{statistics.fmean(means):.1f}" if len(means) == len(targets) else "–"
        rows.append([method, *map(cell, found), whole])
    return markdown_table(["method", *targets, "mean"], rows)


def cell(seeds: Sequence[Sequence[bool]] | None) -> str:
    """Write one method's accuracy on one target.

    Example:
        >>> cell([[True, False]]), cell(None)
        ('50.0', 'not run')
    """
    if not seeds:
        return "not run"
    values = [100 * float(np.mean(right)) for right in seeds]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def paired_interval(
    left: Sequence[Sequence[bool]], right: Sequence[Sequence[bool]], seed: int = 0
) -> tuple[float, float, float]:
    """Compare two methods on the same test rows: difference in points, and its 95 % interval.

    A row's difference is that of its shares of right answers over the seeds; rows are resampled
    (BCa bootstrap, 9,999 draws). The interval speaks of other test rows, not of other draws of labels.

    Raises:
        ValueError: The two were judged on different numbers of rows.

    Example:
        >>> same = [[True, False, True, True]]
        >>> paired_interval(same, same)
        (0.0, 0.0, 0.0)
    """
    from scipy.stats import bootstrap

    rows_left, rows_right = (np.mean(np.asarray(one, dtype=float), axis=0) for one in (left, right))
    if rows_left.shape != rows_right.shape:
        raise ValueError(f"{len(rows_left)} and {len(rows_right)} test rows cannot be paired")
    difference = 100 * (rows_left - rows_right)
    mean = float(difference.mean())
    if np.ptp(difference) == 0:
        return mean, mean, mean
    found = bootstrap(
        (difference,), np.mean, method="BCa", rng=np.random.default_rng(seed), batch=1000
    ).confidence_interval
    return mean, float(found.low), float(found.high)


def comparison_table(
    marks: Marks, targets: Sequence[str], methods: Sequence[str], baseline: str
) -> str:
    """Write each method's difference to the baseline in points, with its interval.

    Example:
        >>> marks = {("a", m): [[True, False, True, False]] for m in ("x", "y")}
        >>> print(comparison_table(marks, ["a"], ["x", "y"], "x"))
        | against x | a |
        |---|---|
        | y | +0.0 [+0.0, +0.0] |
    """
    rows = []
    for method in methods:
        if method == baseline:
            continue
        cells = []
        for target in targets:
            pair = [marks.get((target, name)) for name in (method, baseline)]
            if pair[0] and pair[1]:
                mean, low, high = paired_interval(pair[0], pair[1])
                cells.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
            else:
                cells.append("not run")
        rows.append([method, *cells])
    return markdown_table([f"against {baseline}", *targets], rows)
