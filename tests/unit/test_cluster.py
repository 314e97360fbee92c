from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import DataError, HeadstartError, UsageError
from headstart.report import cluster_map
from headstart.report.cluster_map import project, save_cluster_map
from headstart.sources import cluster as module
from headstart.sources.cluster import CLUSTERERS, Clusters, SourceRows, make_clusters, ordered
from headstart.sources.cluster_cards import cluster_report, to_markdown, top_terms
from headstart.sources.small_clusters import merge_small
from headstart.tasks.episodes import draw_episodes
from headstart.tasks.example import Example

TOPICS = {
    "food": "pizza pasta sauce dinner table waiter",
    "cars": "engine wheel brake garage driver motor",
    "hair": "salon colour stylist curls shampoo cut",
}
SIZES = {"food": 12, "cars": 8, "hair": 20}


def no_embeddings(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("nothing here needs embeddings")


def one_corner_a_topic(texts: Sequence[str]) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(scale=0.05, size=(len(texts), 8))
    for row, text in enumerate(texts):
        topic = next(i for i, words in enumerate(TOPICS.values()) if text.split()[0] in words)
        vectors[row, topic] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def source(embedder: module.Callable[..., np.ndarray] = one_corner_a_topic) -> SourceRows:
    """40 rows about three things, in mixed order, each with its topic as domain."""
    generator = np.random.default_rng(1)
    domains = generator.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    examples = []
    for i, domain in enumerate(domains.tolist()):
        words = generator.choice(TOPICS[domain].split(), 4)
        label = "good" if i % 3 else "bad"
        examples.append(
            Example(f"a:{i}", {"text": " ".join(words.tolist()), "domain": domain}, label)
        )
    return SourceRows(examples, embedder=embedder)


def check_order(clusters: Clusters) -> None:
    """Every row is in one cluster; the larger come first, of equals the one that begins first."""
    tasks = clusters.tasks()
    assert sorted(chain(*tasks)) == list(range(len(clusters.cluster_of_row_R)))
    assert all(rows == sorted(rows) for rows in tasks)
    assert len(clusters.names) == len(set(clusters.names)) == len(tasks)
    keys = [(-len(rows), rows[0]) for rows in tasks]
    assert keys == sorted(keys)


SPECS = ("kmeans", "lda", "random", "label", "column:domain")


def test_every_clusterer_is_tested() -> None:
    assert {spec.partition(":")[0] for spec in SPECS} == set(CLUSTERERS)


@pytest.mark.parametrize("spec", SPECS)
def test_every_clusterer(spec: str) -> None:
    rows = source(one_corner_a_topic if spec == "kmeans" else no_embeddings)
    clusters = make_clusters(rows, spec, 3, seed=5)
    check_order(clusters)
    assert clusters.clusterer == spec
    again = make_clusters(rows, spec, 3, seed=5)
    assert again.names == clusters.names
    assert np.array_equal(again.cluster_of_row_R, clusters.cluster_of_row_R)
    assert len(draw_episodes(clusters.tasks(), 2, 2, seed=1, step=0)) == len(clusters.names)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("spec", ["kmeans", "lda"])
def test_topics_are_found(spec: str, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(module, "MINI_BATCH_FROM", 10)
    rows = source()
    found = make_clusters(rows, spec, 3)
    assert found.sizes == (20, 12, 8)
    assert found.names == (f"{spec}-0", f"{spec}-1", f"{spec}-2")
    by_domain = make_clusters(rows, "column:domain")
    assert by_domain.names == ("hair", "food", "cars")
    assert np.array_equal(found.cluster_of_row_R, by_domain.cluster_of_row_R)


def test_all_seeds_agree_where_the_rows_do() -> None:
    rows = source()
    first, second = (make_clusters(rows, "kmeans", 3, seed).cluster_of_row_R for seed in (1, 2))
    assert np.array_equal(first, second)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 3))
def test_random_clusters_are_of_equal_size(num_clusters: int, seed: int) -> None:
    clusters = make_clusters(source(no_embeddings), "random", num_clusters, seed)
    check_order(clusters)
    assert len(clusters.names) == num_clusters
    assert max(clusters.sizes) - min(clusters.sizes) <= 1


def test_fewer_different_rows_than_clusters(caplog: pytest.LogCaptureFixture) -> None:
    rows = SourceRows(
        [Example(f"a:{i}", {"text": "so good"}) for i in range(6)],
        embedder=lambda texts: np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 0]],
    )
    with caplog.at_level(logging.WARNING):
        assert make_clusters(rows, "kmeans", 4).sizes == (4, 2)
    assert "only 2 of the 4 clusters asked for have rows" in caplog.text


@pytest.mark.parametrize(
    ("spec", "number", "said"),
    [
        ("kmean", 3, "did you mean 'kmeans'"),
        ("", 3, "known: kmeans, lda, random, label, column"),
        ("kmeans:5", 3, "kmeans takes no argument"),
        ("column", 3, "e.g. column:domain"),
        ("column:domian", 3, "did you mean 'domain'"),
        ("column:stars", 3, "a:0: no value in column 'stars'; the row has: text, domain"),
        ("kmeans", 41, "41 clusters of 40 rows"),
        ("lda", 41, "41 clusters of 40 rows"),
        ("random", 0, "num_clusters=0"),
    ],
)
def test_what_cannot_be_clustered(spec: str, number: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        make_clusters(source(no_embeddings), spec, number)
    assert "\n" not in str(caught.value)


def test_rows_without_what_is_needed() -> None:
    rows = SourceRows([Example("a:1", {"text": "x"}, "good"), Example("a:2", {"review": "y"})])
    with pytest.raises(DataError, match="a:2: the row has no label"):
        make_clusters(rows, "label")
    with pytest.raises(DataError, match="a:2: no value in column 'text'"):
        make_clusters(rows, "kmeans", 2)
    one_word_each = SourceRows([Example(f"a:{i}", {"text": c * 4}) for i, c in enumerate("xyz")])
    with pytest.raises(DataError, match="lda: no word is in at least 2"):
        make_clusters(one_word_each, "lda", 2)


clusterings = st.lists(st.integers(-1, 6), min_size=1, max_size=40).filter(lambda c: max(c) >= 0)


@settings(deadline=None)
@given(clusterings, st.integers(1, 6), st.booleans(), st.booleans())
def test_merging_loses_no_row_and_dropping_tells(
    groups: list[int], at_least: int, with_centres: bool, with_labels: bool
) -> None:
    centres = np.random.default_rng(0).normal(size=(7, 3)) if with_centres else None
    before = ordered("mine", list("abcdefg"), np.array(groups), centres)
    labels = [str(row % 3) for row in range(len(groups))] if with_labels else None
    try:
        after = merge_small(before, at_least, labels=labels)
    except DataError:
        return
    lost = sum(change.rows for change in after.changes if change.into is None)
    assert sum(after.sizes) + lost == sum(before.sizes)
    assert lost == 0 or not with_centres
    assert len(after.names) + len(after.changes) == len(before.names)
    for rows in after.tasks():
        assert len(rows) >= at_least
        assert labels is None or len({labels[row] for row in rows}) >= 2
    again = merge_small(after, at_least, labels=labels)
    assert again is after


def test_a_small_cluster_goes_to_its_nearest_neighbour() -> None:
    centres = np.array([[0.0, 0], [9, 0], [8, 1]])
    before = ordered("kmeans", ["a", "b", "c"], np.array([0] * 5 + [1] * 4 + [2]), centres)
    after = merge_small(before, 4)
    assert after.names == ("a", "b"), "five rows each: first the one that begins first"
    assert after.sizes == (5, 5)
    (change,) = after.changes
    assert (change.name, change.rows, change.into) == ("c", 1, "b")
    assert after.centroids_KD is not None
    assert np.allclose(after.centroids_KD[1], [8.8, 0.2])


def test_a_cluster_of_one_label_is_too_small_where_two_are_needed() -> None:
    before = Clusters("column:x", ("a", "b"), np.array([0, 0, 0, 1, 1]))
    after = merge_small(before, 2, labels=["good", "good", "good", "good", "bad"])
    assert after.names == ("b",)
    assert after.num_dropped == 3
    with pytest.raises(DataError, match="none of the 2 clusters has the 2 rows of 2 labels"):
        merge_small(before, 2, labels=["good"] * 5)
    with pytest.raises(DataError, match="none of the 2 clusters has the 9 rows that a task needs"):
        merge_small(before, 9)
    with pytest.raises(UsageError, match="1 labels for 5 rows"):
        merge_small(before, 2, labels=["good"])


def test_cards_say_what_clusters_are_about() -> None:
    rows = source()
    report = cluster_report(rows, make_clusters(rows, "kmeans", 3), columns=["domain"])
    assert report.rand_columns == {"domain": 1.0}
    assert report.rand_labels is not None and abs(report.rand_labels) < 0.2
    assert report.silhouette is not None and report.silhouette > 0.5
    for card, domain in zip(report.cards, ("hair", "food", "cars"), strict=True):
        assert card.columns == {"domain": {domain: card.size}}
        assert sum(card.labels.values()) == card.size
        assert set(card.terms) <= set(TOPICS[domain].split())
        assert len(card.nearest) == 3
    assert json.loads(json.dumps(report.to_dict()))["num_clusters"] == 3


def test_a_report_with_everything_missing() -> None:
    rows = SourceRows(
        [Example(f"a:{i}", {"text": "the *|* \n 1"}) for i in range(3)],
        embedder=lambda texts: np.eye(3),
    )
    clusters = merge_small(Clusters("mine", ("a|b", "c"), np.array([0, 0, 1])), 2)
    report = cluster_report(rows, clusters)
    assert (report.silhouette, report.rand_labels, report.cards[0].terms) == (None, None, ())
    text = to_markdown(report)
    assert r"| a\|b | 2 |  |  |" in text
    assert r"the \*\|\* 1 (`a:0`)" in text
    assert "too small and dropped: 1 (1 rows)" in text


def test_words_that_all_clusters_share_say_nothing() -> None:
    rows = SourceRows(
        [
            Example(f"a:{i}", {"text": f"place place {word}"})
            for i, word in enumerate(["tea", "rent"])
        ]
    )
    terms = top_terms(rows, Clusters("mine", ("a", "b"), np.array([0, 1])))
    assert terms == [("tea",), ("rent",)]


def test_a_map_is_drawn_the_same_twice(tmp_path: Path) -> None:
    rows = source()
    panels = [make_clusters(rows, "kmeans", k) for k in (2, 3)]
    terms = [top_terms(rows, panel) for panel in panels]
    drawn = []
    for name in ("one.a", "two.a"):
        seen = project(rows.embeddings_RD, most=30)
        assert seen.points_S2.shape == (30, 2)
        pictures = save_cluster_map(tmp_path / name, seen, panels, terms)
        assert [picture.name for picture in pictures] == [f"{name}.png", f"{name}.svg"]
        drawn.append([picture.read_bytes() for picture in pictures])
    assert drawn[0] == drawn[1]
    assert drawn[0][0].startswith(b"\x89PNG")


def test_a_cluster_keeps_its_colour_from_panel_to_panel() -> None:
    before, after = np.array([0, 0, 0, 1, 1, -1]), np.array([2, 2, 1, 0, 0, 3])
    assert cluster_map._slots([before, after], [2, 4]) == [[0, 1], [1, 2, 0, 3]]


def test_a_map_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HeadstartError, match=r"pip install 'headstart\[plots\]'"):
        save_cluster_map(tmp_path / "map", project(np.eye(4)), [], [])


def test_a_legend_is_cut_between_words() -> None:
    panel = Clusters("column:x", ("Restaurants", "y" * 50), np.array([0, 0, 0, 1]))
    words = ("delicious", "ordered", "chicken")
    assert cluster_map._legend(panel, [words, words], 3) == [
        ("0", "75%", "Restaurants: delicious, ordered"),
        ("1", "25%", "y" * 36),
    ]


def test_a_map_of_too_few_rows() -> None:
    with pytest.raises(HeadstartError, match="a map of 3 rows"):
        project(np.eye(3))
