"""Accuracy against one quantity (labels, source rows, clusters), a line a method (paper B, Figures 2, 3)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.report.pictures import drawing, save_pictures

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which the colour-blind tell apart."""
MARKERS = "osD^vPX"

Series = Mapping[str, Sequence[tuple[float, Sequence[float]]]]
"""For each line: pairs (x, accuracies of the seeds, from 0 to 1)."""


def save_curves(
    series: Series, stem: Path, x_label: str, title: str, log_x: bool = True
) -> tuple[Path, Path]:
    """Draw mean accuracy with a band of one standard deviation over seeds, as ``stem.png`` and ``.svg``.

    Args:
        series: The lines, in the order of the legend.
        stem: The pictures' path without a suffix.
        x_label: What grows to the right.
        title: One line above.
        log_x: Whether x is drawn in logarithms, with the values themselves as ticks. Default: True.

    Raises:
        HeadstartError: matplotlib is not installed.
        StorageError: The pictures cannot be written.

    Example:
        >>> import tempfile
        >>> stem = Path(tempfile.mkdtemp()) / "curve"
        >>> series = {"vocabulary": [(10, [0.5, 0.6]), (40, [0.7, 0.8])]}
        >>> [path.name for path in save_curves(series, stem, "labels", "SST-5")]
        ['curve.png', 'curve.svg']
    """
    with drawing():
        return save_pictures(_figure(series, x_label, title, log_x), stem)


def _figure(series: Series, x_label: str, title: str, log_x: bool) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour, marker in zip(
        series.items(), COLOURS * len(series), MARKERS * len(series), strict=False
    ):
        xs = [x for x, _ in points]
        means = [100 * statistics.fmean(values) for _, values in points]
        spreads = [
            100 * statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points
        ]
        axes.plot(xs, means, color=colour, marker=marker, markersize=5, label=name)
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        if len(xs) == 1:  # a band of no width shows nothing
            axes.errorbar(xs, means, yerr=spreads, color=colour, capsize=3)
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    ticks = sorted({x for points in series.values() for x, _ in points})
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set(xlabel=x_label, ylabel="accuracy (%)")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure
