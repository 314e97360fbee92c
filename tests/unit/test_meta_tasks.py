"""Clusters and views become meta-training tasks."""

import pytest

from headstart.errors import DataError
from headstart.recipes.meta_stage import IT_WAS, meta_tasks
from headstart.tasks.example import Example

VIEW = {"0": "bad", "1": "good"}


def rows(*labels):
    return [Example(str(i), {"text": f"text {i}"}, label) for i, label in enumerate(labels)]


def test_a_cluster_of_one_label_is_a_task_only_with_all_words():
    clusters = {"sad": rows("0", "0", "0"), "mixed": rows("0", "1", "1")}
    made, left_out = meta_tasks(clusters, IT_WAS, [VIEW], 2)
    assert [task.name for task in made] == ["mixed/2"]
    assert left_out == ["sad/1"]
    made, left_out = meta_tasks(clusters, IT_WAS, [VIEW], 2, all_words=True)
    assert [task.name for task in made] == ["sad/2", "mixed/2"]
    assert not left_out
    assert {task.task.words for task in made} == {("bad", "good")}


def test_without_views_labels_are_their_own_words_and_each_task_has_its_own():
    clusters = {"asked": rows("yes", "no", "yes"), "starred": rows("1 star", "5 stars", "1 star")}
    made, _ = meta_tasks(clusters, IT_WAS, (), 2)
    assert [set(task.task.words) for task in made] == [{"yes", "no"}, {"1 star", "5 stars"}]
    assert [row.label for row in made[0].examples] == ["yes", "no", "yes"]


def test_no_task_at_all_is_told():
    with pytest.raises(DataError, match="no task has 9 rows"):
        meta_tasks({"small": rows("0", "1")}, IT_WAS, (), 9)


def test_views_with_the_same_words_of_other_rows_are_tasks_of_their_own():
    clusters = {"mixed": rows("0", "1", "3", "4", "0", "4")}
    ends, halves = {"0": "bad", "4": "good"}, {"0": "bad", "1": "bad", "3": "good", "4": "good"}
    made, _ = meta_tasks(clusters, IT_WAS, [ends, halves, ends], 2)
    assert [(task.name, len(task.examples)) for task in made] == [("mixed/2", 4), ("mixed/2-2", 6)]
