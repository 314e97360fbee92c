from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import TemplateError
from headstart.tasks.promptsource import SIZE_LIMIT, read_promptsource
from headstart.tasks.readers import read_examples
from headstart.tasks.task import Task

ENTRY = "templates:\n  some-id: !Template\n    name: ask\n    jinja: '{{ a }} ||| {{ b }}'\n"

# Labels stand in the order of the templates' answer choices, which is SuperGLUE's.
HELD_OUT = {
    "rte": ("super_glue/rte", ("entailment", "not_entailment")),
    "cb": ("super_glue/cb", ("entailment", "contradiction", "neutral")),
    "copa": ("super_glue/copa", ("0", "1")),
    "wic": ("super_glue/wic", ("false", "true")),
    "wsc": ("super_glue/wsc.fixed", ("false", "true")),
    "winogrande": ("winogrande/winogrande_xl", ("1", "2")),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "templates.yaml"


def test_every_promptsource_file_loads(shared_data: Path) -> None:
    paths = sorted((shared_data / "promptsource_templates").rglob("templates.yaml"))
    templates = [template for path in paths for template in read_promptsource(path).values()]
    assert len(paths) == 279
    assert len(templates) == 2085
    assert all(template.has_target for template in templates)


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_tasks_render_on_real_rows(shared_data: Path, name: str) -> None:
    folder, labels = HELD_OUT[name]
    path = shared_data / "promptsource_templates" / folder / "templates.yaml"
    rows = list(read_examples(shared_data / name / "validation.jsonl"))[:40]
    if name == "winogrande":  # promptsource reads the label as the field `answer`
        columns = {c: c for c in rows[0].fields} | {"answer": "label"}
        source = shared_data / name / "validation.jsonl"
        rows = list(read_examples(source, columns=columns))[:40]
    templates, rendered_rows = read_promptsource(path), 0
    for template in templates.values():
        task = Task(template, labels, ())
        for example in rows:
            if not template.applies_to(example):
                assert name == "copa"
                continue
            rendered = task.render(example)
            rendered_rows += 1
            assert rendered.source
            assert rendered.target is not None
            if template.answer_choices is None:
                assert len(rendered.candidates) == 1
            elif "label" in template.text and template.uses_label:
                assert rendered.target == labels.index(example.label or "")
    counts = {"rte": 10, "cb": 15, "copa": 12, "wic": 10, "wsc": 10, "winogrande": 6}
    assert len(templates) == counts[name]
    assert rendered_rows >= 40 * len(templates) * 0.6


def test_one_template_by_name(file: Path) -> None:
    file.write_text(ENTRY)
    assert read_promptsource(file, "ask") == read_promptsource(file)
    with pytest.raises(TemplateError, match="did you mean 'ask'"):
        read_promptsource(file, "asks")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("templates: !!python/object/apply:os.system ['true']", "is not a YAML file"),
        ("templates:\n  a: !Other {name: x}", "is not a YAML file"),
        ("templates: [", "is not a YAML file"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b]", "an alias inside an anchor"),
        ("- 1", "expected a key 'templates'"),
        ("templates: {}", "expected a key 'templates'"),
        ("templates: {a: 1}", "template 'a' is not a mapping"),
        ("templates: {a: !Template {name: x}}", "needs a 'name' and a 'jinja' text"),
        ("templates: {a: !Template {name: x, jinja: y, answer_choices: [z]}}", "is not a text"),
        ("templates: {a: !Template {name: x, jinja: '{{ a'}}", "template 'x' cannot be read"),
        (ENTRY + ENTRY.partition("\n")[2].replace("some", "other"), "'ask' comes twice"),
        ("#" * (SIZE_LIMIT + 1), "more than"),
        ("templates: " + "[" * 5000, "is not a YAML file"),
        ("\udc80", "is not a YAML file"),
    ],
)
def test_files_that_cannot_be_read(file: Path, content: str, message: str) -> None:
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(TemplateError, match=message) as caught:
        read_promptsource(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alias_is_allowed_where_nothing_multiplies(file: Path) -> None:
    file.write_text("m: &m {x: 1}\n" + ENTRY + "    metadata: *m\n")
    assert list(read_promptsource(file)) == ["ask"]


def test_no_file(file: Path) -> None:
    with pytest.raises(TemplateError, match="No such file"):
        read_promptsource(file)
