"""From the flags of a task to its template, its rows, its labels and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.cli.rows import TEST_SPLIT, TRAIN_SPLIT, check_label, record, split_of
from headstart.errors import DataError, TemplateError, UsageError, did_you_mean
from headstart.tasks.example import Example
from headstart.tasks.readers import label_names, read_all
from headstart.tasks.sandbox import parse
from headstart.tasks.task import Task
from headstart.tasks.template import Template
from headstart.tasks.verbalizer import default_template, label_words, parse_label_words

LOOKED_AT = 100
"""Rows that are rendered to learn which answers a template brings."""


@dataclass(frozen=True, slots=True)
class Question:
    """A task, the rows that teach it and the rows that test it.

    Attributes:
        task: Template, labels and words.
        train: Rows to draw from.
        test: Rows to measure on.
        data: Where both come from.

    Example:
        >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("no", "yes"))
        >>> Question(task, [Example("a:1", {"text": "Well?"}, "0")]).test
        []
    """

    task: Task
    train: list[Example]
    test: list[Example] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def read_question(
    train: str,
    test: str | None,
    *,
    template: Template | None,
    words: Mapping[str, str] | None,
    label: str,
    columns: Mapping[str, str],
    limit_test: int | None,
    split: str | None = None,
    test_split: str | None = None,
) -> Question:
    r"""Read all rows of a task and settle its labels and words.

    Args:
        train: File or Hub data set of the rows to draw from.
        test: Of the rows to measure on; ``None``: none.
        template: Asks the question; ``None``: one made from the fields.
        words: A word for each label; ``None``: made from the labels' names.
        label: The label's column.
        columns: Field to column; empty: the template's own fields, or else ``text``.
        limit_test: Measure on this many fixed rows; ``None``: on all.
        split: Split of a Hub ``train``; ``None``: ``"train"``.
        test_split: Split of a Hub ``test``; ``None``: ``"test"``.

    Raises:
        DataError: Rows, columns or labels that cannot be used.
        TemplateError: The template does not fit the rows, or a label has no word.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text("text,label\nLovely.,1\nAwful.,0\n")
        ...     flags = {"words": None, "label": "label", "columns": {}, "limit_test": None}
        ...     asked = read_question(str(path), None, template=None, **flags)
        >>> asked.task.labels
        ('0', '1')
    """
    from headstart.recipes.judge import fixed_rows

    chosen = columns or {name: name for name in (sorted(template.fields) if template else ["text"])}
    check_label(label, chosen)
    split = split_of(train, split, TRAIN_SPLIT)
    rows = read_all(train, label=label, columns=chosen, split=split)
    task = make_task(rows, template, words)
    data = {"train": {**record(train, split, label, chosen), "rows": len(rows)}}
    if test is None:
        return Question(task, rows, [], data)
    test_split = split_of(test, test_split, TEST_SPLIT)
    every = read_all(test, label=label, columns=chosen, split=test_split)
    tested = fixed_rows(every, limit_test)
    for example in tested:
        task.render(example)
    kept = record(test, test_split, label, chosen)
    data["test"] = {**kept, "rows": len(tested), "of": len(every)}
    return Question(task, rows, tested, data)


def read_template(text: str | None, file: Path | None, name: str | None) -> Template | None:
    r"""Make the template of ``--template``, or of ``--templates`` and ``--template-name``.

    A text without an answer slot gets one at its end; ``\n`` in it is a line break.

    Raises:
        UsageError: Both were given, or a file of several templates without a name.
        TemplateError: The template is broken.

    Example:
        >>> read_template("{{text}} It was", None, None).text
        '{{text}} It was {{ answer }}'
    """
    if file is not None:
        from headstart.tasks.promptsource import read_promptsource

        if text is not None:
            raise UsageError("--template and --templates exclude each other; give one")
        found = read_promptsource(file, name)
        if len(found) > 1:
            names = ", ".join(f"'{each}'" for each in found)
            raise UsageError(
                f"{file} holds several templates; pick one by --template-name: {names}"
            )
        return next(iter(found.values()))
    if name is not None:
        raise UsageError("--template-name picks from a file; give it with --templates FILE.yaml")
    if text is None:
        return None
    template = Template(text.replace("\\n", "\n"))
    if template.has_target or "answer" in parse(template.text).variables:
        return template
    return Template(template.text + " {{ answer }}")


def read_words(text: str | None) -> dict[str, str] | None:
    """Read ``--label-words``.

    Example:
        >>> read_words("0=bad,1=good")
        {'0': 'bad', '1': 'good'}
    """
    return None if text is None else parse_label_words(text)


def make_task(
    rows: Sequence[Example], template: Template | None, words: Mapping[str, str] | None
) -> Task:
    """Settle labels and words: given ones, the template's own answers, or the labels' names.

    Raises:
        DataError: Fewer than two classes, or labels that the template's answers do not explain.
        TemplateError: The template does not fit the rows, or a label has no word.

    Example:
        >>> rows = [Example(f"a:{x}", {"text": "..."}, x) for x in ("good", "bad")]
        >>> make_task(rows, None, None).words
        ('bad', 'good')
    """
    fields = list(rows[0].fields)
    template = template or default_template(fields)
    _check_fields(template, fields)
    seen = label_names(rows)
    own = template.has_target or template.answer_choices is not None
    if words is None and own:
        return Task(template, _own_labels(rows[:LOOKED_AT], template, seen), ())
    found = label_words(seen, words)
    if words is not None and template.has_target:  # its `label` counts in the order given
        return Task(template, tuple(words), tuple(words.values()))
    return Task(template, seen, found)


def are_bare_numbers(labels: Sequence[str]) -> bool:
    """Whether all labels are numbers, which say nothing to a language model.

    Example:
        >>> are_bare_numbers(["0", "1"]), are_bare_numbers(["bad", "good"])
        (True, False)
    """
    return all(label.lstrip("-").isdecimal() for label in labels)


def _check_fields(template: Template, fields: Sequence[str]) -> None:
    try:
        template.check(fields)
    except TemplateError as error:
        missing = min(template.fields - set(fields))
        if did_you_mean(missing, fields):
            raise
        line = f"{error}; read one under this name: --columns {missing}=COLUMN"
        raise TemplateError(line) from None


def _own_labels(
    rows: Sequence[Example], template: Template, seen: Sequence[str]
) -> tuple[str, ...]:
    """Match the labels with the answers a template brings: their texts, or their indices."""
    if not template.has_target:
        rendered = [template.render(row) for row in rows]
    elif template.answer_choices is None:
        raise TemplateError(
            f"template '{template.name}' names no answer choices; "
            "give each label a word by --label-words"
        )
    else:
        rendered = [template.render(Example(row.id, row.fields)) for row in rows]
    answers = {row.candidates for row in rendered}
    first = rendered[0].candidates
    if len(answers) == 1 and set(seen) <= set(first):
        return first
    count = max(len(candidates) for candidates in answers)
    if all(label.isdecimal() and int(label) < count for label in seen):
        return tuple(str(index) for index in range(count))
    raise DataError(
        f"the labels {', '.join(seen)} are neither the template's answers ({', '.join(first)}) nor "
        "their indices; say which is which by --label-words, in the answers' order"
    )
