"""A task: a template, its labels and the words that stand for them, kept as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headstart.errors import DataError, TemplateError, did_you_mean
from headstart.tasks.example import Example, Rendered
from headstart.tasks.template import Template


@dataclass(frozen=True)
class Task:
    """How examples become questions, and labels become answers.

    Attributes:
        template: Asks the question.
        labels: The label names; a label's index is its class everywhere. Empty when the template
            brings its own candidates and labels are their indices, or play no part.
        words: The answer that stands for each label. Empty when the template brings its own.

    Raises:
        TemplateError: Labels and words do not pair up, repeat, or there are no answers at all.

    Example:
        >>> task = Task(Template("{{ text }} It was {{ answer }}"), ("0", "1"), ("bad", "good"))
        >>> task.render(Example("a:1", {"text": "Lovely!"}, "1")).target
        1
    """

    template: Template
    labels: tuple[str, ...]
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every label has its one word, or that the template needs none."""
        if self.words and len(self.words) != len(self.labels):
            raise TemplateError(
                f"{len(self.labels)} labels and {len(self.words)} words do not pair up; "
                "give one word per label"
            )
        for kind, values in (("label", self.labels), ("word", self.words)):
            if len(set(values)) < len(values):
                raise TemplateError(f"the {kind}s {list(values)} repeat; each must differ")
        if not self.words and self.template.answer_choices is None and not self.template.has_target:
            raise TemplateError(
                f"template '{self.template.name}' brings no answer choices, so every label needs a "
                "word; give label words"
            )

    def render(self, example: Example) -> Rendered:
        """Ask about one example; its label, where it has one, becomes the target.

        Raises:
            DataError: The example's label is not one of the task's.
            TemplateError: The template cannot be rendered on the example.

        Example:
            >>> task = Task(Template("{{ text }} It was {{ answer }}"), ("0", "1"), ("bad", "good"))
            >>> task.render(Example("a:1", {"text": "Lovely!"})).candidates
            ('bad', 'good')
        """
        return self.template.render(example, self.words or None, self._target(example))

    def _target(self, example: Example) -> int | None:
        label = example.label
        if label is None:
            return None
        if label in self.labels:
            return self.labels.index(label)
        if self.labels:
            raise DataError(
                f"{example.id}: label '{label}' is not one of {list(self.labels)}"
                f"{did_you_mean(label, self.labels)}"
            )
        if label.isdecimal():
            return int(label)
        if self.template.has_target and not self.template.uses_label:
            return None
        raise DataError(
            f"{example.id}: label '{label}' is not the index of an answer choice; give the task "
            "its labels, in the order of the answer choices"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the task as JSON-able values, which ``from_dict`` turns back into an equal task.

        Example:
            >>> task = Task(Template("{{ text }} {{ answer }}"), ("0", "1"), ("bad", "good"))
            >>> Task.from_dict(task.to_dict()) == task
            True
        """
        values = asdict(self.template)
        return {"template": values, "labels": list(self.labels), "words": list(self.words)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Make a task from what ``to_dict`` returned.

        Raises:
            TemplateError: A key is missing or unknown, a value has the wrong type, or the task that
                they describe is not valid.

        Example:
            >>> template = {"text": "{{ text }} {{ answer }}", "answer_choices": "no ||| yes"}
            >>> Task.from_dict({"template": template, "labels": [], "words": []}).labels
            ()
        """
        _check_keys("task", values, required={"template", "labels", "words"})
        template, labels, words = values["template"], values["labels"], values["words"]
        _check_keys("template", template, required={"text"}, optional={"answer_choices", "name"})
        for name, items in (("labels", labels), ("words", words)):
            if not isinstance(items, (list, tuple)) or not all(isinstance(i, str) for i in items):
                raise TemplateError(f"task: '{name}' must be a list of texts, not {items!r}")
        for name, value in template.items():
            if not isinstance(value, str) and not (name == "answer_choices" and value is None):
                raise TemplateError(f"template: '{name}' must be a text, not {value!r}")
        return cls(Template(**template), tuple(labels), tuple(words))


def _check_keys(
    what: str, values: object, required: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> None:
    if not isinstance(values, Mapping):
        raise TemplateError(f"{what}: expected a mapping of names to values, not {values!r}")
    for key in sorted(required - set(values)):
        raise TemplateError(f"{what}: the key '{key}' is missing")
    for key in values:
        if key not in required | optional:
            hint = did_you_mean(str(key), required | optional)
            raise TemplateError(f"{what}: unknown key '{key}'{hint}")
