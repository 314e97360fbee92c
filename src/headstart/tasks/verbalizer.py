"""The words that stand for labels, and the template that asks for them when none is given."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence

from headstart.errors import TemplateError, did_you_mean
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

_SINGLE_FIELD = "{{{{ {name} }}}}\nLabel: {{{{ answer }}}}"
_FIELD_LINE = "{name}: {{{{ {name} }}}}\n"
_LAST_LINE = "Answer: {{ answer }}"

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# A hyphen beside a letter joins words; "-1" and "2-3" are numbers and stay as they are.
_JOINER = re.compile(r"_|(?<=[^\W\d_])-|(?<=\w)-(?=[^\W\d_])")


def parse_label_words(text: str) -> dict[str, str]:
    r"""Read ``label=word`` pairs from one line, as a command line gives them.

    Pairs are separated by commas. A word may hold spaces; a comma in it is written ``\,``, or the
    whole pair is put in double quotes.

    Raises:
        TemplateError: A pair has no ``=``, a label or a word is empty, or a label comes twice.

    Example:
        >>> parse_label_words("0=terrible,1=very good")
        {'0': 'terrible', '1': 'very good'}
        >>> parse_label_words(r'"0=well, no",1=yes\, of course')
        {'0': 'well, no', '1': 'yes, of course'}
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, escapechar="\\", strict=True))
    except csv.Error as error:
        raise TemplateError(f"label words {text!r} cannot be read: {error}") from None
    words: dict[str, str] = {}
    for pair in rows[0] if rows else []:
        label, equals, word = (part.strip() for part in pair.partition("="))
        if not (label and equals and word):
            raise TemplateError(
                f"label words {text!r}: {pair!r} is not of the form label=word; "
                "write e.g. 0=terrible,1=great"
            )
        if label in words:
            raise TemplateError(f"label words {text!r}: the label '{label}' comes twice; keep one")
        words[label] = word
    if not words:
        raise TemplateError("label words are empty; write e.g. 0=terrible,1=great")
    return words


def label_words(labels: Sequence[str], given: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the word of each label, in the labels' order.

    Args:
        labels: The label names.
        given: A word for every label. Default None: words made from the names themselves.

    Raises:
        TemplateError: A label has no word, a key is no label, or two labels share one word.

    Example:
        >>> label_words(["shipping_delay", "Sci/Tech", "notFound"])
        ('shipping delay', 'sci/tech', 'not found')
        >>> label_words(["0", "1"], {"1": "great", "0": "terrible"})
        ('terrible', 'great')
    """
    if given is None:
        given = {label: _spell_out(label) for label in labels}
    known = ", ".join(labels)
    for key in given:
        if key not in labels:
            raise TemplateError(
                f"label words name '{key}', which is not a label (labels: {known})"
                f"{did_you_mean(key, labels)}"
            )
    missing = [label for label in labels if not given.get(label, "").strip()]
    if missing:
        raise TemplateError(f"no word for the label(s) {', '.join(missing)}; give one to each")
    label_of: dict[str, str] = {}
    for label in labels:
        other = label_of.setdefault(given[label], label)
        if other != label:
            raise TemplateError(
                f"labels '{other}' and '{label}' share the word '{given[label]}'; "
                "give each a word of its own"
            )
    return tuple(given[label] for label in labels)


def default_template(field_names: Sequence[str]) -> Template:
    """Make a template from the field names alone.

    Raises:
        TemplateError: There are no fields, or a field's name cannot stand in a template.

    Example:
        >>> print(default_template(["question", "passage"]).text)
        question: {{ question }}
        passage: {{ passage }}
        Answer: {{ answer }}
    """
    if not field_names:
        raise TemplateError("the data has no field to ask about besides its label")
    for name in field_names:
        if not _can_stand(name):
            raise TemplateError(
                f"the field '{name}' cannot stand in a template under this name; read it under "
                f"another: --columns text='{name}', or in Python columns={{'text': '{name}'}}"
            )
    if len(field_names) == 1:
        text = _SINGLE_FIELD.format(name=field_names[0])
    else:
        text = "".join(_FIELD_LINE.format(name=name) for name in field_names) + _LAST_LINE
    return Template(text, name="default")


def task_for(
    example: Example,
    labels: Sequence[str],
    template: Template | None = None,
    words: Mapping[str, str] | None = None,
) -> Task:
    """Make the task that asks about examples like this one.

    Args:
        example: A row of the data.
        labels: The label names, in the order of their classes.
        template: Asks the question. Default None: made from the names of the example's fields.
        words: The word of each label. Default None: the template's answer choices, or else words
            made from the labels.

    Raises:
        TemplateError: The template, the words, the labels and the example do not fit together.

    Example:
        >>> task_for(Example("a:1", {"text": "Lovely!"}), ["bad", "veryGood"]).words
        ('bad', 'very good')
    """
    names = list(example.fields)
    template = template or default_template(names)
    template.check(names)
    brings_answers = words is None and template.answer_choices is not None
    task = Task(template, tuple(labels), () if brings_answers else label_words(labels, words))
    found = len(task.render(Example(example.id, example.fields)).candidates)
    if found != len(labels):
        raise TemplateError(
            f"template '{template.name}' brings {found} answers for {len(labels)} labels"
        )
    return task


def _can_stand(name: str) -> bool:
    try:
        return name.isidentifier() and Template(f"{{{{ {name} }}}}").fields == {name}
    except TemplateError:
        return False


def _spell_out(label: str) -> str:
    """Turn a label's name into words: ``"shipping_delay"`` into ``"shipping delay"``."""
    words = _JOINER.sub(" ", _CAMEL.sub(" ", label))
    return " ".join(words.split()).lower()
