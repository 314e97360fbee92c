"""Paper B's Figure 4: one t-SNE picture of the source rows, coloured by their clusters for several k."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import UsageError
from headstart.report.pictures import drawing, save_pictures
from headstart.seeds import derive_seed
from headstart.sources.cluster import Clusters

COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59",
    "#92dadd", "#e76300", "#b9ac70", "#94a4a2", "#717581",
)  # fmt: skip
"""Petroff's ten, which colour-blind readers tell apart too, the greys last; numbers say the same."""

MARKERS = "o^sDv"
"""Past ten clusters the colours come again with the next marker."""

MOST_POINTS = 3_000

PAGE, TITLE, LINE = 7.2, 0.25, 0.135
"""Inches: the width of three panels, the height of a title and of a legend's line."""

WIDEST = 36
"""Characters of a legend's text that fit under a panel."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Some of the rows on a plane.

    Attributes:
        rows_S: Which rows, in order.
        points_S2: Where each lies.

    Example:
        >>> Projection(np.array([3]), np.zeros((1, 2))).rows_S.tolist()
        [3]
    """

    rows_S: np.ndarray
    points_S2: np.ndarray


def project(embeddings_RD: np.ndarray, seed: int = 1, most: int = MOST_POINTS) -> Projection:
    """Lay rows out on a plane by t-SNE, started from their principal components.

    Args:
        embeddings_RD: The embeddings of R rows.
        seed: Of the sample and of t-SNE.
        most: Rows that are shown; of more rows this many are drawn.

    Raises:
        UsageError: Fewer than 4 rows.

    Example:
        >>> project(np.random.default_rng(0).normal(size=(30, 5)), most=20).points_S2.shape
        (20, 2)
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(embeddings_RD) < 4 or most < 4:
        raise UsageError(f"a map of {min(len(embeddings_RD), most)} rows; at least 4 are needed")
    rows_S = np.arange(len(embeddings_RD))
    if len(rows_S) > most:
        generator = np.random.default_rng(derive_seed(seed, "map sample"))
        rows_S = np.sort(generator.choice(rows_S, most, replace=False))
    random_state = derive_seed(seed, "t-sne") % 2**32
    shown_SD = embeddings_RD[rows_S]
    components = min(50, *shown_SD.shape)
    with threadpool_limits(1):  # several threads would not give the same picture again
        reduced = PCA(components, random_state=random_state).fit_transform(shown_SD)
        method = TSNE(
            init="pca", perplexity=min(30, (len(rows_S) - 1) / 3), random_state=random_state
        )
        points_S2: np.ndarray = method.fit_transform(reduced)
    return Projection(rows_S, points_S2)


def save_cluster_map(
    stem: Path,
    projection: Projection,
    panels: Sequence[Clusters],
    terms: Sequence[Sequence[Sequence[str]]],
    num_terms: int = 4,
) -> tuple[Path, Path]:
    """Draw the map as ``stem.png`` and ``stem.svg``, a panel for each clustering.

    A cluster has the colour of the cluster of the panel before that most of its points were in.

    Args:
        stem: The pictures' path without a suffix.
        projection: Where the points lie; the same in each panel.
        panels: The clusterings, such as k-means for k = 3, 6 and 10.
        terms: Of each panel the top terms of each cluster, for the legend.
        num_terms: Terms the legend shows.

    Raises:
        HeadstartError: matplotlib is not installed.
        StorageError: The pictures cannot be written.

    Example:
        >>> import tempfile
        >>> seen = Projection(np.arange(4), np.array([[0, 0], [0, 1], [5, 5], [5, 6.0]]))
        >>> panel = Clusters("kmeans", ("kmeans-0", "kmeans-1"), np.array([0, 0, 1, 1]))
        >>> stem = Path(tempfile.mkdtemp()) / "map"
        >>> [path.name for path in save_cluster_map(stem, seen, [panel], [[["tea"], ["rent"]]])]
        ['map.png', 'map.svg']
    """
    groups = [panel.cluster_of_row_R[projection.rows_S] for panel in panels]
    legends = [_legend(panel, words, num_terms) for panel, words in zip(panels, terms, strict=True)]
    with drawing():
        return save_pictures(_figure(projection.points_S2, panels, groups, legends), stem)


def _figure(
    points_S2: np.ndarray,
    panels: Sequence[Clusters],
    groups: Sequence[np.ndarray],
    legends: Sequence[Sequence[tuple[str, str, str]]],
) -> Any:
    from matplotlib.figure import Figure

    below = LINE * (max(map(len, legends)) + 1)
    width = PAGE / max(3, len(panels))
    figure = Figure(figsize=(width * len(panels), below + width * 0.94 + TITLE))
    tall = figure.get_figheight()
    slots = _slots(groups, [len(panel.names) for panel in panels])
    for i, (panel, group_S, slot_K) in enumerate(zip(panels, groups, slots, strict=True)):
        left, side = (i + 0.03) / len(panels), 0.94 / len(panels)
        axes = figure.add_axes((left, below / tall, side, width * 0.94 / tall))
        _scatter(axes, points_S2, group_S, slot_K)
        axes.set_title(f"{panel.clusterer}, k = {len(panel.names)}", fontsize=8, pad=4)
        for k, text in enumerate(legends[i]):
            y = (below - LINE * (k + 1)) / tall
            mark = {"marker": _marker(slot_K[k]), "color": _colour(slot_K[k])}
            figure.add_artist(_dot(left + 0.03 * side, y, mark))
            for x, words, align in zip(
                (0.1, 0.22, 0.25), text, ("right", "right", "left"), strict=True
            ):
                figure.text(left + x * side, y, words, fontsize=6.5, va="center", ha=align)
    return figure


def _scatter(axes: Any, points_S2: np.ndarray, group_S: np.ndarray, slot_K: Sequence[int]) -> None:
    from matplotlib.patheffects import withStroke

    look = {"s": 4.5, "linewidths": 0, "rasterized": True}  # thousands of vector dots load slowly
    axes.scatter(*points_S2[group_S < 0].T, color="#dddddd", **look)
    for marker in dict.fromkeys(map(_marker, slot_K)):
        drawn = [k for k, slot in enumerate(slot_K) if _marker(slot) == marker]
        chosen = np.isin(group_S, drawn)  # together, in the order of the rows: none covers another
        colours = [_colour(slot_K[k]) for k in group_S[chosen]]
        axes.scatter(*points_S2[chosen].T, c=colours, marker=marker, **look)
    outline = [withStroke(linewidth=2.2, foreground="white")]
    for k in range(len(slot_K)):
        members = points_S2[group_S == k]
        if len(members):
            distance = np.linalg.norm(members - np.median(members, axis=0), axis=1)
            x, y = members[distance.argmin()]
            style = {"ha": "center", "va": "center", "path_effects": outline}
            axes.text(x, y, str(k), fontsize=8, weight="bold", **style)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.03)
    axes.spines[:].set(color="#bbbbbb", linewidth=0.5)


def _dot(x: float, y: float, mark: dict[str, Any]) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([x], [y], linestyle="", markersize=4.5, markeredgewidth=0, **mark)


def _legend(
    panel: Clusters, words: Sequence[Sequence[str]], num_terms: int
) -> list[tuple[str, str, str]]:
    """Say what each cluster is: its number, its share of the rows, its name where it tells, words."""
    lines = []
    for k, name in enumerate(panel.names):
        given = "" if name.startswith(f"{panel.clusterer}-") else f"{name}: "
        fitting = itertools.accumulate(words[k][:num_terms], lambda text, word: f"{text}, {word}")
        texts = [given.rstrip(": ")[:WIDEST], *(given + text for text in fitting)]
        text = max((text for text in texts if len(text) <= WIDEST), key=len)
        lines.append((str(k), f"{panel.sizes[k] / len(panel.cluster_of_row_R):.0%}", text))
    return lines


def _slots(groups: Sequence[np.ndarray], sizes: Sequence[int]) -> list[list[int]]:
    """Give each panel's clusters their colours: that of the cluster before they share most with."""
    from scipy.optimize import linear_sum_assignment

    slots = [list(range(sizes[0]))]
    for before_S, group_S, size in zip(groups, groups[1:], sizes[1:], strict=False):
        shared_KJ = np.zeros((size, len(slots[-1])))
        both = (before_S >= 0) & (group_S >= 0)
        np.add.at(shared_KJ, (group_S[both], before_S[both]), 1)
        matched = {
            int(k): slots[-1][j]
            for k, j in zip(*linear_sum_assignment(shared_KJ, maximize=True), strict=True)
            if shared_KJ[k, j]
        }
        free = (slot for slot in itertools.count() if slot not in matched.values())
        slots.append([matched[k] if k in matched else next(free) for k in range(size)])
    return slots


def _colour(slot: int) -> str:
    return COLOURS[slot % len(COLOURS)]


def _marker(slot: int) -> str:
    return MARKERS[slot // len(COLOURS) % len(MARKERS)]
