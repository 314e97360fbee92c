from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError, TemplateError
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

ASK = Template("{{ text }} It was {{ answer }}", name="ask")
TASK = Task(ASK, ("negative", "positive"), ("bad", "good"))
CHOOSE = Template("{{ text }} ||| {{ answer_choices[label] }}", "bad ||| good", "choose")
EXAMPLE = Example("a:1", {"text": "Lovely."}, "positive")

names = st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=5)


@given(st.text("ab {}%"), names, st.booleans())
def test_a_task_survives_json(text: str, values: list[str], choices: bool) -> None:
    try:
        template = Template(text, "a ||| b" if choices else None)
    except TemplateError:
        return
    task = Task(template, tuple(values), tuple(values[::-1]))
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_the_label_is_the_target() -> None:
    for index, label in enumerate(TASK.labels):
        rendered = TASK.render(Example("a:1", {"text": "Hm"}, label))
        assert (rendered.candidates, rendered.target) == (TASK.words, index)
    assert TASK.render(Example("a:1", {"text": "Hm"})).target is None


def test_an_unlabelled_row_asks_the_same_question() -> None:
    for task in (TASK, Task(CHOOSE, TASK.labels, ())):
        labelled, bare = task.render(EXAMPLE), task.render(Example("a:1", EXAMPLE.fields))
        assert (labelled.source, labelled.candidates) == (bare.source, bare.candidates)
        assert (labelled.target, bare.target) == (1, None)


def test_an_unknown_label() -> None:
    with pytest.raises(DataError, match=r"a:9: label 'positiv' .* did you mean 'positive'"):
        TASK.render(Example("a:9", {"text": "Hm"}, "positiv"))


def test_a_template_that_brings_its_own_answers() -> None:
    by_index, by_name = Task(CHOOSE, (), ()), Task(CHOOSE, TASK.labels, ())
    assert by_index.render(Example("a:1", EXAMPLE.fields, "1")) == by_name.render(EXAMPLE)
    with pytest.raises(DataError, match="give the task its labels"):
        by_index.render(EXAMPLE)


def test_a_target_from_the_fields_needs_no_label() -> None:
    task = Task(Template("{{ text }} ||| {{ other }}", "{{ text }} ||| {{ other }}"), (), ())
    example = Example("a:1", {"text": "Lovely.", "other": "Hm"}, "whatever")
    assert task.render(example).target == 1


@pytest.mark.parametrize(
    ("template", "labels", "words", "message"),
    [
        (ASK, ("a", "b"), ("x",), "do not pair up"),
        (ASK, (), ("x",), "do not pair up"),
        (ASK, ("a", "a"), ("x", "y"), "labels .* repeat"),
        (ASK, ("a", "b"), ("x", "x"), "words .* repeat"),
        (ASK, ("a", "b"), (), "brings no answer choices"),
    ],
)
def test_tasks_that_cannot_be(
    template: Template, labels: tuple[str, ...], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TemplateError, match=message):
        Task(template, labels, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "'labels' must be a list of texts"),
        ({"words": "ab"}, "'words' must be a list of texts"),
        ({"wrods": []}, "unknown key 'wrods'; did you mean 'words'"),
        ({"template": "text"}, "expected a mapping"),
        ({"template": {"text": 3}}, "'text' must be a text"),
        ({"template": {"name": "x"}}, "'text' is missing"),
        ({"template": {"text": "{{ a", "name": "x"}}, "cannot be read"),
    ],
)
def test_damaged_records(change: dict[str, object], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        Task.from_dict(TASK.to_dict() | change)
