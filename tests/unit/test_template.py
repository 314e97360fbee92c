from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import DataError, TemplateError
from headstart.tasks.example import ANSWER_SLOT, Example
from headstart.tasks.template import TEMPLATE_LIMIT, Template

S = ANSWER_SLOT
values = st.text().filter(
    lambda text: text.strip() and "\ue000" not in text and "\ue001" not in text
)


def example(**fields: object) -> Example:
    return Example("a:1", fields)


def render(text: str, /, **fields: object) -> str:
    return Template(text).render(example(**fields), ["bad", "good"]).source


@given(values)
def test_a_field_comes_through_unchanged(value: str) -> None:
    assert (
        render("Text: {{ text }}\nLabel: {{ answer }}", text=value) == f"Text: {value}\nLabel:{S}"
    )


@given(values, values)
def test_a_value_never_splits_a_promptsource_template(value: str, other: str) -> None:
    rendered = Template("{{ text }} ||| {{ other }}").render(example(text=value, other=other))
    assert rendered.source == value.strip()
    assert rendered.candidates == (other.strip(),)
    assert rendered.target == 0


@given(values, values)
def test_the_cuts_are_the_fields_where_they_stand(one: str, two: str) -> None:
    rendered = Template("Q: {{ a }} {{ answer }} {{ b }}.").render(example(a=one, b=two), ["x"])
    shown = [rendered.source[start:end] for start, end in rendered.cuts]
    assert max(one.strip(), two.strip(), key=len) in shown
    assert set(shown) <= {one.strip(), two.strip()}
    ends = [place for span in rendered.cuts for place in span]
    assert ends == sorted(ends)


def test_the_cut_is_none_where_no_field_stands_verbatim() -> None:
    rendered = Template("{{ text | upper }} {{ answer }}").render(example(text="ab", id="A"), ["x"])
    assert rendered.cuts == ()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("{{ text }}\nLabel:  {{ answer }}", f"Hm\nLabel:{S}"),
        ("{{ answer }}: {{ text }}", f"{S}: Hm"),
        ("{{ text }}\n{{ answer }}", f"Hm\n{S}"),
        ("{{ text }} It was", "Hm It was"),
    ],
)
def test_only_the_spaces_before_the_slot_go(text: str, source: str) -> None:
    assert render(text, text="Hm") == source


def test_fields_and_check() -> None:
    template = Template(
        "{% for x in range(2) %}{{ a.b }}{% endfor %} {{ answer }}", "{{ c }} ||| no"
    )
    assert template.fields == {"a", "c"}
    template.check(["a", "c", "d"])
    with pytest.raises(TemplateError, match=r"'text', .* did you mean 'texts'"):
        Template("{{ text }} {{ answer }}").check(["texts", "title"])


def test_answer_is_a_field_of_a_promptsource_template() -> None:
    template = Template("{{ q }} ||| {{ [a, b][answer | int - 1] }}", "{{ a }} ||| {{ b }}")
    assert "answer" in template.fields
    rendered = template.render(Example("a:1", {"q": "?", "a": "x", "b": "y", "answer": "2"}, "2"))
    assert (rendered.candidates, rendered.target) == (("x", "y"), 1)


def test_without_a_label_the_target_is_not_rendered() -> None:
    template = Template("{{ q }} ||| {{ answer_choices[label] }}", "no ||| yes")
    assert template.render(example(q="?")).target is None
    assert template.render(example(q="?"), target=0).target == 0


def test_given_candidates_replace_the_choices() -> None:
    template = Template("{{ q }} ||| {{ answer_choices[label] }}", "no ||| yes")
    rendered = template.render(example(q="?"), ["nein", "ja"], 1)
    assert (rendered.candidates, rendered.target) == (("nein", "ja"), 1)


def test_of_equal_candidates_the_given_target_counts() -> None:
    template = Template("{{ q }} ||| {{ answer_choices[label] }}", "{{ a }} ||| {{ a }}")
    assert template.render(example(q="?", a="x"), target=1).target == 1


def test_choice_is_the_same_for_an_example_and_differs_between_examples() -> None:
    template = Template("{{ range(1000) | choice }} {{ answer }}")
    rows = [Example(f"a:{i}", {}) for i in range(20)]
    first, second = ([template.render(row, ["x"]).source for row in rows] for _ in range(2))
    assert first == second
    assert len(set(first)) > 10


def test_promptsource_filters() -> None:
    assert render("{{ x | most_frequent | join }} {{ answer }}", x=list("abbca")) == f"ab{S}"
    assert render("{% for a, b in zip(x, y) %}{{ a }}{{ b }}{% endfor %}", x="ab", y="cd") == "acbd"
    assert (
        render("{{ 'a' ~ 1 ~ 'b' }}{{ '%s!' | format('x') }}{{ 7 % 4 }}{{ 2**9 * 3 }}")
        == "a1bx!31536"
    )
    assert render("{{ 'a-b'.replace('-', '+') }}{{ ','.join(x) }}", x=["c", "d"]) == "a+bc,d"


def test_templates_are_values() -> None:
    template = Template("{{ a }} {{ answer }}", "x ||| y", "n")
    assert pickle.loads(pickle.dumps(template)) == template
    assert hash(template) == hash(Template("{{ a }} {{ answer }}", "x ||| y", "n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ text", "line 2: unexpected end of template"),
        ("{{ text | bogus }}", "No filter named 'bogus'"),
        ("{% include 'x' %}", "'Include' is not allowed"),
        ("{% macro m() %}{% endmacro %}", "'Macro' is not allowed"),
        ("{% for x in y recursive %}{% endfor %}", "'recursive for' is not allowed"),
        ("{{ text }} {{ label }} {{ answer }}", "give the answer away"),
        ("x" * (TEMPLATE_LIMIT + 1), "at most 20,000"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "nested too deeply"),
    ],
)
def test_templates_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as caught:
        Template(text, name="mine")
    assert "template 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ txet }}", "'txet' is undefined; did you mean 'text'"),
        ("{{ answer }} {{ answer }}", "more than once"),
        ("{{ answer }}", "renders to nothing"),
        ("{% if false %}x{% endif %}", "renders to nothing"),
        ("{{ text }} ||| a ||| b", "2 times"),
        ("{{ text }} ||| great", r"target 'great', which is not among its choices"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_rows_that_fail(text: str, message: str) -> None:
    row = Example("train.csv:7", {"text": "Hm"}, "1")
    with pytest.raises(TemplateError, match=message) as caught:
        Template(text, name="mine").render(row, ["bad", "good"], 1)
    assert "train.csv:7" in str(caught.value)


def test_candidates_that_fail() -> None:
    template, row = Template("{{ text }} {{ answer }}"), example(text="Hm")
    for candidates, target, message in (
        (None, None, "has no candidates"),
        (["a", " "], None, "empty candidate"),
        (["a", "b"], 2, "no target 2"),
    ):
        with pytest.raises(TemplateError, match=message):
            template.render(row, candidates, target)


@pytest.mark.parametrize("mark", ["\ue000", "\ue001"])
def test_a_field_cannot_forge_a_mark(mark: str) -> None:
    with pytest.raises(DataError, match="private-use"):
        render("{{ text }} {{ answer }}", text=f"a{mark}b")


def test_a_template_for_some_rows() -> None:
    template = Template("{% if q == 'cause' %}{{ text }} ||| {{ answer }}{% endif %}", name="mine")
    row = example(q="effect", text="a", answer="b")
    assert not template.applies_to(row)
    assert template.applies_to(example(q="cause", text="a", answer="b"))
    with pytest.raises(TemplateError, match="renders to nothing"):
        template.render(row)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ x | map(attribute='__class__') | join }}",
        "{{ range.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ x.append(1) }}",
        "{{ budget.left }}",
        "{{ self.x }}",
        "{{ (1).to_bytes(9, 'big') }}",
    ],
)
def test_the_sandbox_keeps_shut(text: str) -> None:
    with pytest.raises(TemplateError):
        print(render(text, x=[1, 2]))


BIG = "{% for i in range(99999) %}"
DOUBLE = "{% set ns = namespace(x=X) %}{% for i in range(99) %}{% set ns.x = BODY %}{% endfor %}"


@pytest.mark.parametrize(
    "text",
    [
        BIG + BIG + "{% endfor %}{% endfor %}",
        BIG + BIG + "{% if i is odd %}{% endif %}{% endfor %}{% endfor %}",
        BIG + "{% if i in x %}{% endif %}{% endfor %}",
        BIG + "xxxxxxxxxx{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 9**(9**9) }}",
        "{{ [0] * 10**10 }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ 'a' | center(10**10) }}",
        "{{ 1.5 | round(10**10, 'floor') }}",
        "{{ range(10**10) | list }}",
        "{% set a = 'a' * 99999 %}{{ a.replace('a', a) }}",
        "{% set a = 'a' * 99999 %}{{ a | replace('a', a) }}",
        "{% set a = 'a' * 99999 %}{{ a | join(a) }}",
        "{% set a = 'a' * 99999 %}{{ a.join(a) }}",
        "{{ x | select('in', x) | list }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
        "{% set a = {1: 2} %}" + "{% set a = {1: a, 2: a} %}" * 60 + "{{ a == a }}",
        DOUBLE.replace("X", "'ab'").replace("BODY", "ns.x ~ ns.x"),
        DOUBLE.replace("X", "'ab'").replace("BODY", "ns.x + ns.x"),
        DOUBLE.replace("X", "99").replace("BODY", "ns.x * ns.x"),
    ],
)
def test_endless_work_ends_soon(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(TemplateError):
        render(text, x=list(range(20000)))
    assert time.thread_time() - began < 2


def test_the_rooms_below_are_light() -> None:
    source = Path(__file__).parents[2] / "src/headstart/tasks"
    files = sorted(source.glob("*.py"))
    assert len(files) >= 8
    for path in files:
        lines = path.read_text().splitlines()
        heavy = (
            "import torch",
            "import transformers",
            "import datasets",
            "import yaml",
            "import pyar",
        )
        assert not [line for line in lines if line.startswith(heavy)], path
