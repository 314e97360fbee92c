"""Clusters too small for one draw of support and query rows: merged into their neighbour, or dropped."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from headstart.errors import DataError, UsageError
from headstart.sources.cluster import Change, Clusters, ordered

log = logging.getLogger(__name__)


def merge_small(
    clusters: Clusters,
    at_least: int,
    *,
    labels: Sequence[str | None] | None = None,
    min_labels: int = 2,
) -> Clusters:
    """Leave no cluster that is too small to adapt on and be judged by.

    The smallest goes first, until all are large enough. A k-means cluster is merged into the one
    with the nearest centre; other clusters have no centre, and are dropped, rows and all.

    Args:
        clusters: The K clusters.
        at_least: Rows a cluster needs: support and query together, paper B's 2m.
        labels: Each row's label, where a cluster needs several classes too. Default: any will do,
            as it must when the clusters are the labels.
        min_labels: How many different labels it needs where ``labels`` are given.

    Returns:
        The clusters that remain; their ``changes`` say what became of the others.

    Raises:
        UsageError: ``at_least`` is below 1, or there are not as many labels as rows.
        DataError: No cluster would remain.

    Example:
        >>> clusters = Clusters("random", ("a", "b"), np.array([0, 0, 0, 1]))
        >>> merged = merge_small(clusters, at_least=2)
        >>> merged.names, merged.changes
        (('a',), (Change(name='b', rows=1, into=None),))
    """
    num_rows = len(clusters.cluster_of_row_R)
    if at_least < 1:
        raise UsageError(f"at_least={at_least}: a cluster needs 1 row at least")
    if labels is not None and len(labels) != num_rows:
        raise UsageError(f"{len(labels)} labels for {num_rows} rows; give one for each row")

    def enough(rows: Sequence[int]) -> bool:
        classes = set() if labels is None else {labels[row] for row in rows} - {None}
        return len(rows) >= at_least and (labels is None or len(classes) >= min_labels)

    names, tasks = clusters.names, dict(enumerate(clusters.tasks()))
    centroids_KD = None if clusters.centroids_KD is None else clusters.centroids_KD.copy()
    changes: list[Change] = []
    while small := [task for task, rows in tasks.items() if not enough(rows)]:
        if len(tasks) == 1:
            raise DataError(_none_left(clusters, at_least, labels is not None, min_labels))
        task = min(small, key=lambda task: (len(tasks[task]), -task))
        rows, into = tasks.pop(task), None
        if centroids_KD is not None:
            into = _nearest(centroids_KD, task, list(tasks))
            share = len(rows) / (len(rows) + len(tasks[into]))
            centroids_KD[into] += share * (centroids_KD[task] - centroids_KD[into])
            tasks[into] = tasks[into] + rows
        changes.append(Change(names[task], len(rows), None if into is None else names[into]))
    if not changes:
        return clusters
    done, moved = "dropped" if centroids_KD is None else "merged", sum(c.rows for c in changes)
    log.warning(
        "%s: %d of %d clusters were too small and were %s, with %d of %d rows",
        *(clusters.clusterer, len(changes), len(names), done, moved, num_rows),
    )
    cluster_of_row_R = np.full(num_rows, -1)
    for task, rows in tasks.items():
        cluster_of_row_R[rows] = task
    return ordered(
        clusters.clusterer, names, cluster_of_row_R, centroids_KD, (*clusters.changes, *changes)
    )


def _nearest(centroids_KD: np.ndarray, task: int, others: Sequence[int]) -> int:
    distance_K = np.linalg.norm(centroids_KD[list(others)] - centroids_KD[task], axis=1)
    return others[int(distance_K.argmin())]


def _none_left(clusters: Clusters, at_least: int, with_labels: bool, min_labels: int) -> str:
    wanted = f"{at_least} rows" + (f" of {min_labels} labels" if with_labels else "")
    return (
        f"{clusters.clusterer}: none of the {len(clusters.names)} clusters has the {wanted} that a "
        f"task needs, the largest has {clusters.sizes[0]}; make fewer clusters, or draw fewer rows"
    )
