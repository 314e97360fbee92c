"""Meta-training tasks from source rows: each cluster of rows is one task to adapt to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.errors import DataError, UsageError, did_you_mean
from headstart.seeds import derive_seed
from headstart.sources.embed import embed
from headstart.tasks.example import Example

log = logging.getLogger(__name__)

MINI_BATCH_FROM = 100_000
"""Above this many rows k-means and LDA learn from mini-batches."""

WORD = r"(?u)\b[^\W\d_]{3,}\b(?!['’])"
"""What counts as a word: letters, three at least; not the halves of "don't"."""

Clusterer = Callable[["SourceRows", int, int], "Clusters"]
"""From rows, a number of clusters and a seed to clusters."""


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows to cluster; texts and embeddings are made when first asked for, and once.

    Attributes:
        examples: The R rows.
        text_field: The field that is embedded, counted and shown.
        embedder: From the R texts to unit vectors of shape RD. Default: the packaged MiniLM.

    Example:
        >>> SourceRows([Example("a:1", {"text": "Lovely."}, "good")]).texts
        ['Lovely.']
    """

    examples: Sequence[Example]
    text_field: str = "text"
    embedder: Callable[[Sequence[str]], np.ndarray] = embed

    @cached_property
    def texts(self) -> list[str]:
        """The text of each row.

        Raises:
            DataError: A row lacks the field.

        Example:
            >>> SourceRows([Example("a:1", {"review": "Lovely."})], "review").texts
            ['Lovely.']
        """
        return self.column(self.text_field)

    @cached_property
    def embeddings_RD(self) -> np.ndarray:
        """The embedding of each row's text.

        Example:
            >>> rows = SourceRows([Example("a:1", {"text": "x"})], embedder=lambda _: np.eye(1))
            >>> rows.embeddings_RD
            array([[1.]])
        """
        return self.embedder(self.texts)

    def column(self, name: str) -> list[str]:
        """Return one field of every row, as text.

        Raises:
            DataError: A row has no value there.

        Example:
            >>> SourceRows([Example("a:1", {"text": "Lovely.", "stars": 5})]).column("stars")
            ['5']
        """
        for row in self.examples:
            if row.fields.get(name) in (None, ""):
                known = ", ".join(map(str, row.fields))
                raise DataError(
                    f"{row.id}: no value in column '{name}'"
                    f"{did_you_mean(name, set(row.fields) - {name}) or ';'} the row has: {known}"
                )
        return [str(row.fields[name]) for row in self.examples]

    def labels(self) -> list[str]:
        """Return the label of every row.

        Raises:
            DataError: A row has none.

        Example:
            >>> SourceRows([Example("a:1", {}, "good")]).labels()
            ['good']
        """
        for row in self.examples:
            if row.label is None:
                raise DataError(f"{row.id}: the row has no label; pseudo-label the rows first")
        return [str(row.label) for row in self.examples]


@dataclass(frozen=True)
class Change:
    """What became of a cluster that was too small.

    Attributes:
        name: The cluster.
        rows: How many it had.
        into: The cluster it was merged into; None: it was dropped.

    Example:
        >>> Change("kmeans-9", 3, into="kmeans-0").into
        'kmeans-0'
    """

    name: str
    rows: int
    into: str | None


@dataclass(frozen=True, eq=False)
class Clusters:
    """K clusters of R rows, the largest first; of equals, the one whose first row comes first.

    Attributes:
        clusterer: The spec they were made by.
        names: Of the K clusters; a merge keeps the names of what remains.
        cluster_of_row_R: Each row's cluster, from 0; -1 for a row of a dropped cluster.
        centroids_KD: The centres, where the clusterer has any.
        changes: What was merged or dropped since.

    Example:
        >>> make_clusters(SourceRows([Example(f"a:{i}", {}) for i in range(5)]), "random", 2).sizes
        (3, 2)
    """

    clusterer: str
    names: tuple[str, ...]
    cluster_of_row_R: np.ndarray
    centroids_KD: np.ndarray | None = None
    changes: tuple[Change, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each cluster.

        Example:
            >>> Clusters("random", ("a", "b"), np.array([0, 1, 0, -1])).sizes
            (2, 1)
        """
        kept = self.cluster_of_row_R[self.cluster_of_row_R >= 0]
        return tuple(np.bincount(kept, minlength=len(self.names)).tolist())

    @property
    def num_dropped(self) -> int:
        """Rows that are in no cluster.

        Example:
            >>> Clusters("random", ("a",), np.array([0, -1, -1])).num_dropped
            2
        """
        return int((self.cluster_of_row_R < 0).sum())

    def tasks(self) -> list[list[int]]:
        """Return the rows of each cluster in order, as ``draw_episodes`` takes them.

        Example:
            >>> Clusters("random", ("a", "b"), np.array([0, 1, 0, -1])).tasks()
            [[0, 2], [1]]
        """
        order = np.argsort(self.cluster_of_row_R, kind="stable")
        ends = np.cumsum([self.num_dropped, *self.sizes])
        return [order[a:b].tolist() for a, b in pairwise(ends)]


def make_clusters(
    rows: SourceRows, spec: str = "kmeans", num_clusters: int = 10, seed: int = 1
) -> Clusters:
    """Cluster rows.

    Args:
        rows: The R rows.
        spec: ``kmeans`` (of the embeddings), ``lda`` (a row goes to its strongest topic), ``random``
            (equal sizes), ``label`` (one cluster a label), or ``column:NAME`` (one a value, such
            as a domain).
        num_clusters: How many; paper B's choice is 10. Clusters that stay empty are left out.
            ``label`` and ``column`` find their own number.
        seed: Of whatever is drawn.

    Raises:
        UsageError: An unknown clusterer (with a suggestion), or fewer than one cluster.
        DataError: More clusters than rows, or a row without the label, the column or the text.

    Example:
        >>> rows = [Example(f"a:{i}", {"domain": d}) for i, d in enumerate(["bars", "spas", "spas"])]
        >>> clusters = make_clusters(SourceRows(rows), "column:domain")
        >>> clusters.names, clusters.cluster_of_row_R.tolist()
        (('spas', 'bars'), [1, 0, 0])
    """
    made = clusterer(spec)(rows, num_clusters, seed)
    log.info("%s: %d rows in %d clusters", spec, len(rows.examples), len(made.names))
    return made


def clusterer(spec: str) -> Clusterer:
    """Make the clusterer a spec names; see ``make_clusters``.

    Raises:
        UsageError: An unknown name (with a suggestion), or a missing or unwanted argument.

    Example:
        >>> clusterer("k-means")
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: unknown clusterer 'k-means'; did you mean 'kmeans'? known: ...
    """
    name, _, argument = spec.partition(":")
    if name not in CLUSTERERS:
        raise UsageError(
            f"unknown clusterer '{spec}'{did_you_mean(name, CLUSTERERS) or ';'} "
            f"known: {', '.join(CLUSTERERS)}"
        )
    return CLUSTERERS[name](argument)


def _kmeans(rows: SourceRows, num_clusters: int, seed: int) -> Clusters:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    _check_number(num_clusters, rows)
    many = len(rows.examples) > MINI_BATCH_FROM
    settings: dict[str, Any] = {"batch_size": 4096} if many else {}
    method = (MiniBatchKMeans if many else KMeans)(
        num_clusters, init="k-means++", n_init=10, random_state=_seed(seed, "kmeans"), **settings
    )
    _fit(method, rows.embeddings_RD)
    return _numbered("kmeans", num_clusters, method.labels_, method.cluster_centers_)


def _lda(rows: SourceRows, num_clusters: int, seed: int) -> Clusters:
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer

    _check_number(num_clusters, rows)
    many = len(rows.examples) > MINI_BATCH_FROM
    # words of one row alone say nothing about topics, words of more than half say little
    limits: dict[str, Any] = {"min_df": 2, "max_df": 0.5, "max_features": 50_000}
    counter = CountVectorizer(stop_words="english", token_pattern=WORD, **limits)
    try:
        counts_RV = counter.fit_transform(rows.texts)
    except ValueError as error:  # scikit-learn's word for an empty vocabulary
        raise DataError(
            f"lda: no word is in at least 2 and at most half of the {len(rows.texts)} texts; "
            "take more rows, or another clusterer"
        ) from error
    method = LatentDirichletAllocation(
        num_clusters,
        max_iter=20,
        learning_method="online" if many else "batch",
        batch_size=4096,
        random_state=_seed(seed, "lda"),
    )
    return _numbered("lda", num_clusters, method.fit_transform(counts_RV).argmax(axis=1))


def _random(rows: SourceRows, num_clusters: int, seed: int) -> Clusters:
    _check_number(num_clusters, rows)
    generator = np.random.default_rng(derive_seed(seed, "random clusters"))
    return _numbered(
        "random", num_clusters, generator.permutation(len(rows.examples)) % num_clusters
    )


def _label(rows: SourceRows, num_clusters: int, seed: int) -> Clusters:
    return _named("label", rows.labels())


def _column(name: str) -> Clusterer:
    if not name:
        raise UsageError("clusterer 'column' needs a column's name, e.g. column:domain")

    def by_column(rows: SourceRows, num_clusters: int, seed: int) -> Clusters:
        return _named(f"column:{name}", rows.column(name))

    return by_column


def _plain(method: Clusterer, name: str) -> Callable[[str], Clusterer]:
    def without_argument(argument: str) -> Clusterer:
        if argument:
            raise UsageError(f"clusterer '{name}:{argument}': {name} takes no argument")
        return method

    return without_argument


CLUSTERERS: dict[str, Callable[[str], Clusterer]] = {
    "kmeans": _plain(_kmeans, "kmeans"),
    "lda": _plain(_lda, "lda"),
    "random": _plain(_random, "random"),
    "label": _plain(_label, "label"),
    "column": _column,
}


def ordered(
    spec: str,
    names: Sequence[str],
    cluster_of_row_R: np.ndarray,
    centroids_KD: np.ndarray | None = None,
    changes: tuple[Change, ...] = (),
) -> Clusters:
    """Number clusters by size, then by first row; leave out the empty ones.

    Args:
        spec: What they were made by.
        names: The clusters' names, in the numbering given.
        cluster_of_row_R: Each row's cluster in that numbering, -1 for none.
        centroids_KD: Their centres. Default: none.
        changes: What was merged or dropped. Default: nothing.

    Example:
        >>> clusters = ordered("mine", ["a", "b", "c"], np.array([2, 0, 0, -1]))
        >>> clusters.names, clusters.cluster_of_row_R.tolist()
        (('a', 'c'), [1, 0, 0, -1])
    """
    found, first, size = np.unique(cluster_of_row_R, return_index=True, return_counts=True)
    order = [i for i in np.lexsort((first, -size)) if found[i] >= 0]
    kept = found[order]
    place = np.full(len(names) + 1, -1)  # its last entry is where -1 leads
    place[kept] = np.arange(len(kept))
    return Clusters(
        spec,
        tuple(names[i] for i in kept),
        place[cluster_of_row_R],
        None if centroids_KD is None else centroids_KD[kept],
        changes,
    )


def _numbered(
    spec: str, asked: int, cluster_of_row_R: np.ndarray, centroids_KD: np.ndarray | None = None
) -> Clusters:
    """Name clusters after their place in the order."""
    made = ordered(spec, [""] * asked, cluster_of_row_R, centroids_KD)
    found = len(made.names)
    if found < asked:
        log.warning("%s: only %d of the %d clusters asked for have rows", spec, found, asked)
    return replace(made, names=tuple(f"{spec}-{i}" for i in range(found)))


def _named(spec: str, values: Sequence[Hashable]) -> Clusters:
    """Make one cluster of each value."""
    index = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return ordered(spec, [str(v) for v in index], np.array([index[v] for v in values], int))


def _check_number(num_clusters: int, rows: SourceRows) -> None:
    if num_clusters < 1:
        raise UsageError(f"num_clusters={num_clusters}: at least 1 is needed")
    if num_clusters > len(rows.examples):
        raise DataError(
            f"{num_clusters} clusters of {len(rows.examples)} rows cannot be made; "
            "ask for fewer clusters, or give more rows"
        )


def _fit(method: Any, embeddings_RD: np.ndarray) -> None:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # one thread: several add up their sums in an order that changes from run to run. Fewer
    # different rows than clusters leave some empty, as the log says.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(embeddings_RD)


def _seed(seed: int, name: str) -> int:
    return derive_seed(seed, name) % 2**32  # as much as scikit-learn takes
