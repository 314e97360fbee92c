"""What clusters are about: a card for each, and how well they hang together, as JSON and Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headstart.seeds import derive_seed
from headstart.sources.cluster import WORD, Change, Clusters, SourceRows

MOST_COUNTED = 100_000
"""Rows whose words are counted for the top terms; of more rows this many are drawn."""

MOST_COMPARED = 3_000
"""Rows whose distances make the silhouette; it takes the square of this many."""


@dataclass(frozen=True)
class ClusterCard:
    """What one cluster is about.

    Attributes:
        name: The cluster.
        size: Its rows.
        labels: Rows of each label, the most frequent first; rows without a label are not counted.
        columns: The same for each column asked for.
        terms: The words that set it apart, the strongest first.
        nearest: Its rows nearest to its centre, as (id, text).

    Example:
        >>> ClusterCard("kmeans-0", 2, {"good": 2}, {}, ("pizza",), (("a:1", "Pizza!"),)).size
        2
    """

    name: str
    size: int
    labels: Mapping[str, int]
    columns: Mapping[str, Mapping[str, int]]
    terms: tuple[str, ...]
    nearest: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClusterReport:
    """The cards of a clustering, and what holds for the whole.

    Attributes:
        clusterer: The spec the clusters were made by.
        num_rows: Rows, those of dropped clusters included.
        num_dropped: Rows that are in no cluster.
        changes: What was merged or dropped.
        silhouette: From -1 to 1, of a sample: how much nearer rows are to their own cluster than to
            the next; None for a single cluster.
        rand_labels: Adjusted Rand index with the labels: 1 for the same partition, 0 for chance;
            None where a row has no label.
        rand_columns: The same for each column asked for.
        cards: Of the clusters, in order.

    Example:
        >>> ClusterReport("random", 4, 0, (), 0.0, None, {}, ()).to_dict()["num_clusters"]
        0
    """

    clusterer: str
    num_rows: int
    num_dropped: int
    changes: tuple[Change, ...]
    silhouette: float | None
    rand_labels: float | None
    rand_columns: Mapping[str, float]
    cards: tuple[ClusterCard, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values.

        Example:
            >>> sorted(ClusterReport("random", 4, 0, (), 0.0, None, {}, ()).to_dict())[:3]
            ['cards', 'changes', 'clusterer']
        """
        return {**asdict(self), "num_clusters": len(self.cards)}


def cluster_report(
    rows: SourceRows,
    clusters: Clusters,
    *,
    columns: Sequence[str] = (),
    num_terms: int = 10,
    num_nearest: int = 3,
    seed: int = 1,
) -> ClusterReport:
    """Describe clusters.

    Args:
        rows: The R rows that were clustered.
        clusters: Their K clusters.
        columns: Columns, such as a domain, to compare the clusters with. Default: none.
        num_terms: Top terms of each cluster.
        num_nearest: Examples of each cluster.
        seed: Of the samples, where there are many rows.

    Raises:
        DataError: A row has no value in one of the columns.

    Example:
        >>> from headstart.tasks.example import Example
        >>> examples = [Example(f"a:{i}", {"text": t}) for i, t in enumerate(["tea", "tea", "rent"])]
        >>> rows = SourceRows(examples, embedder=lambda texts: np.eye(2)[[0, 0, 1]])
        >>> clusters = Clusters("mine", ("drinks", "flats"), np.array([0, 0, 1]))
        >>> [(card.name, card.terms) for card in cluster_report(rows, clusters).cards]
        [('drinks', ('tea',)), ('flats', ('rent',))]
    """
    labels = [row.label for row in rows.examples]
    values = {name: rows.column(name) for name in columns}
    terms = top_terms(rows, clusters, num_terms, seed)
    cards = tuple(
        ClusterCard(
            name=clusters.names[k],
            size=len(members),
            labels=_mix(labels, members),
            columns={name: _mix(values[name], members) for name in columns},
            terms=terms[k],
            nearest=_nearest(rows, members, num_nearest),
        )
        for k, members in enumerate(clusters.tasks())
    )
    return ClusterReport(
        clusterer=clusters.clusterer,
        num_rows=len(rows.examples),
        num_dropped=clusters.num_dropped,
        changes=clusters.changes,
        silhouette=silhouette(rows, clusters, seed),
        rand_labels=None if None in labels else _rand_index(labels, clusters),
        rand_columns={name: _rand_index(values[name], clusters) for name in columns},
        cards=cards,
    )


def top_terms(
    rows: SourceRows, clusters: Clusters, num_terms: int = 10, seed: int = 1
) -> list[tuple[str, ...]]:
    """Return the words that set each cluster apart: class-based TF-IDF, each cluster one document.

    A word's weight is ``p log(p / q)``: p its share of the cluster's words, q of all words. The usual
    ``p log(1 + A / f)`` puts first what every cluster says most, such as "food" in reviews.

    Args:
        rows: The rows.
        clusters: Their clusters.
        num_terms: How many for each cluster; fewer where it has fewer words.
        seed: Of the sample, where there are many rows.

    Example:
        >>> from headstart.tasks.example import Example
        >>> examples = [Example(f"a:{i}", {"text": t}) for i, t in enumerate(["tea pot", "pot of rent"])]
        >>> top_terms(SourceRows(examples), Clusters("mine", ("a", "b"), np.array([0, 1])), 1)
        [('tea',), ('rent',)]
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    sample = _sample(clusters, MOST_COUNTED, derive_seed(seed, "terms"))
    group_S = clusters.cluster_of_row_R[sample]
    counter = CountVectorizer(
        stop_words="english",
        token_pattern=WORD,
        max_features=20_000,
        binary=True,  # once a row: what one long text repeats is not what its cluster is about
    )
    try:
        counts_SV = counter.fit_transform([rows.texts[row] for row in sample])
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return [()] * len(clusters.names)
    shape = (len(clusters.names), len(sample))
    of_group_KS = csr_matrix((np.ones(len(sample)), (group_S, np.arange(len(sample)))), shape)
    counts_KV = of_group_KS @ counts_SV
    share_KV = normalize(counts_KV, norm="l1").toarray()
    overall_V = np.asarray(counts_KV.sum(axis=0)).ravel() / counts_KV.sum()
    weight_KV = share_KV * np.log(share_KV / overall_V, where=share_KV > 0, out=0 * share_KV)
    words = counter.get_feature_names_out()
    best_KV = np.argsort(-weight_KV, axis=1, kind="stable")[:, :num_terms]
    return [
        tuple(str(words[v]) for v in best if weight_V[v] > 0)
        for best, weight_V in zip(best_KV, weight_KV, strict=True)
    ]


def silhouette(rows: SourceRows, clusters: Clusters, seed: int = 1) -> float | None:
    """Return the mean silhouette of a sample of rows; None where they are not of several clusters.

    Example:
        >>> from headstart.tasks.example import Example
        >>> rows = SourceRows([Example(f"a:{i}", {"text": "x"}) for i in range(4)],
        ...     embedder=lambda texts: np.eye(2)[[0, 0, 1, 1]])
        >>> silhouette(rows, Clusters("mine", ("a", "b"), np.array([0, 0, 1, 1])))
        1.0
    """
    from sklearn.metrics import silhouette_score

    sample = _sample(clusters, MOST_COMPARED, derive_seed(seed, "silhouette"))
    group_S = clusters.cluster_of_row_R[sample]
    if not 1 < len(np.unique(group_S)) < len(sample):
        return None
    return float(silhouette_score(rows.embeddings_RD[sample], group_S))


def to_markdown(report: ClusterReport, longest: int = 160) -> str:
    r"""Write a report as Markdown: what holds for the whole, a table, and examples.

    Args:
        report: The report.
        longest: Characters of an example that are shown.

    Example:
        >>> card = ClusterCard("kmeans-0", 2, {"good": 2}, {}, ("pizza",), (("a:1", "Pizza!"),))
        >>> text = to_markdown(ClusterReport("kmeans", 2, 0, (), None, None, {}, (card,)))
        >>> print(text.split("\n")[6])
        | kmeans-0 | 2 | good 100 % | pizza |
    """
    columns = list(report.rand_columns)
    head = ["cluster", "rows", "labels", *columns, "top terms"]
    lines = [f"# Clusters by {report.clusterer}", "", _summary(report), "", _line(head)]
    lines.append("|" + "---|" * len(head))
    for card in report.cards:
        mixes = [_percent(card.labels), *(_percent(card.columns[name]) for name in columns)]
        lines.append(_line([card.name, f"{card.size:,}", *mixes, ", ".join(card.terms)]))
    lines += ["", "Nearest to each centre:", ""]
    for card in report.cards:
        lines.append(f"- **{_cell(card.name)}**")
        lines += [f"  - {_shown(text, longest)} (`{row}`)" for row, text in card.nearest]
    return "\n".join(lines) + "\n"


def _mix(values: Sequence[str | None], members: Sequence[int]) -> dict[str, int]:
    counts = Counter(value for row in members if (value := values[row]) is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nearest(
    rows: SourceRows, members: Sequence[int], num_nearest: int
) -> tuple[tuple[str, str], ...]:
    vectors_SD = rows.embeddings_RD[members]
    order = np.argsort(-(vectors_SD @ vectors_SD.mean(axis=0)), kind="stable")[:num_nearest]
    return tuple((rows.examples[members[i]].id, rows.texts[members[i]]) for i in order)


def _rand_index(values: Sequence[str | None], clusters: Clusters) -> float:
    from sklearn.metrics import adjusted_rand_score

    kept_R = clusters.cluster_of_row_R >= 0
    return float(adjusted_rand_score(np.array(values)[kept_R], clusters.cluster_of_row_R[kept_R]))


def _sample(clusters: Clusters, most: int, seed: int) -> np.ndarray:
    kept = np.flatnonzero(clusters.cluster_of_row_R >= 0)
    if len(kept) <= most:
        return kept
    return np.sort(np.random.default_rng(seed).choice(kept, most, replace=False))


def _summary(report: ClusterReport) -> str:
    parts = [f"{report.num_rows:,} rows in {len(report.cards)} clusters"]
    merged = [change for change in report.changes if change.into is not None]
    dropped = [change for change in report.changes if change.into is None]
    for done, changes in (("merged", merged), ("dropped", dropped)):
        if changes:
            rows = sum(change.rows for change in changes)
            parts.append(f"too small and {done}: {len(changes)} ({rows:,} rows)")
    if report.silhouette is not None:
        parts.append(f"silhouette {report.silhouette:.3f}")
    indices = {"the labels": report.rand_labels, **report.rand_columns}
    parts += [
        f"adjusted Rand index with {name} {value:.3f}"
        for name, value in indices.items()
        if value is not None
    ]
    return "; ".join(parts) + "."


def _percent(mix: Mapping[str, int], most: int = 5) -> str:
    total = sum(mix.values())
    shown = [f"{name} {100 * count / total:.0f} %" for name, count in list(mix.items())[:most]]
    return ", ".join(shown) + (", …" if len(mix) > most else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Escape what Markdown would read as more than text."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _shown(text: str, longest: int) -> str:
    flat = " ".join(text.split())
    return _cell(flat if len(flat) <= longest else flat[: longest - 1].rstrip() + "…")
