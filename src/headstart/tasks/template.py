"""Templates: an example in, one question to the model out. They know nothing of models or tokens.

Two ways of writing one:

    {{ text }}                                  Text below the slot is text; ``answer`` is the place
    Sentiment: {{ answer }}                     where the candidates are scored.

    {{ premise }} Is {{ hypothesis }} true?     promptsource: source ``|||`` target. The answer choices
    ||| {{ answer_choices[label] }}             are a second template, ``Yes ||| No``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import jinja2
from jinja2 import meta

from headstart.errors import DataError, TemplateError, did_you_mean
from headstart.seeds import derive_seed
from headstart.tasks.example import ANSWER_SLOT, Example, Rendered
from headstart.tasks.sandbox import RENDERED_LIMIT, Budget, Sandbox

TEMPLATE_LIMIT = 20_000
"""Characters a template may have."""

_BAR = "|||"
# ``|||`` in a template is swapped for one private character, so that a field's value never splits it.
_SPLIT = "\ue001"
_ANSWERS = frozenset({"answer", "answer_choices", "label"})


@dataclass(frozen=True)
class Template:
    """A Jinja text that asks about an example; parsed at birth, and rendered in a sandbox.

    Besides the example's fields a template sees ``answer`` (the place of the answer) and
    ``answer_choices`` (the candidates). With ``|||`` it is a promptsource template: the text before
    is the source, the text after it the target; it sees ``label`` (the target's index) in place of
    ``answer``, and a field called ``answer`` or ``label`` stands for itself.

    Attributes:
        text: The Jinja text, at most ``TEMPLATE_LIMIT`` characters.
        answer_choices: A second Jinja text, the candidates separated by ``|||``. Default None.
        name: What errors call it. Default ``"template"``.

    Raises:
        TemplateError: The text is too long, is not valid Jinja or uses what the sandbox refuses.

    Example:
        >>> template = Template("{{ text }} It was {{ answer }}.")
        >>> rendered = template.render(Example("a:1", {"text": "Lovely!"}), ["bad", "good"], 1)
        >>> rendered.source.replace(ANSWER_SLOT, "[answer]"), rendered.cut
        ('Lovely! It was[answer].', (0, 7))
    """

    text: str
    answer_choices: str | None = None
    name: str = "template"

    def __post_init__(self) -> None:
        """Parse both texts, so that a broken template fails here and not at some row."""
        for text in (self.text, self.answer_choices or ""):
            if len(text) > TEMPLATE_LIMIT:
                raise TemplateError(
                    f"template '{self.name}' has {len(text):,} characters; at most "
                    f"{TEMPLATE_LIMIT:,} are allowed"
                )
            self._parse(text)
        if not self.has_target and "label" in self._parse(self.text).variables:
            raise TemplateError(
                f"template '{self.name}' uses `label`, which would give the answer away; put "
                "`{{ answer }}` where the answer goes, or `|||` before the target"
            )

    @property
    def has_target(self) -> bool:
        """Whether the text holds ``|||``, so that the target is the template's own.

        Example:
            >>> Template("{{ text }} ||| {{ summary }}").has_target
            True
        """
        return _BAR in self.text

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields the template needs.

        Example:
            >>> sorted(Template("{{ a }} {{ b.c }} {{ answer }}", "{{ d }} ||| no").fields)
            ['a', 'b', 'd']
        """
        given = _ANSWERS - {"answer"} if self.has_target else _ANSWERS
        needed = self._parse(self.text).variables | self._parse(self.answer_choices or "").variables
        return needed - given

    @property
    def uses_label(self) -> bool:
        """Whether a promptsource template asks for ``label``, the index of the gold answer.

        Example:
            >>> Template("{{ text }} ||| {{ answer_choices[label] }}", "no ||| yes").uses_label
            True
        """
        return "label" in self._parse(self.text).variables

    def check(self, field_names: Collection[str]) -> None:
        """Make sure that data with these fields can be rendered.

        Raises:
            TemplateError: The template needs a field that is not among ``field_names``.

        Example:
            >>> Template("{{ text }} {{ answer }}").check(["text", "title"])
        """
        for name in sorted(self.fields - set(field_names)):
            raise TemplateError(
                f"template '{self.name}' needs the field '{name}', which the data does not have "
                f"(its fields: {', '.join(sorted(field_names))}){did_you_mean(name, field_names)}"
            )

    def applies_to(self, example: Example) -> bool:
        """Whether the template says anything about this example.

        promptsource keeps templates for some rows alone, e.g. COPA's for rows that ask for a cause;
        on the others they render to nothing, and ``render`` refuses them.

        Raises:
            TemplateError: The template cannot be rendered on the example.

        Example:
            >>> template = Template("{% if question == 'cause' %}{{ premise }} Why?{% endif %}")
            >>> template.applies_to(Example("a:1", {"question": "effect", "premise": "Rain."}))
            False
        """
        work = _Work(self.name, example)
        choices = self._choices(work)
        return bool(work.fill(self._parse(self.text), self._variables(example, choices, None)))

    def render(
        self, example: Example, candidates: Sequence[str] | None = None, target: int | None = None
    ) -> Rendered:
        """Ask the template's question about one example.

        Args:
            example: The row to ask about.
            candidates: The answers to score, in the order of the labels. Default None: the template's
                ``answer_choices``, or else the target text as the only candidate.
            target: The index of the gold answer, where it is known. Default None. A promptsource
                template's own target text decides where it is rendered.

        Raises:
            TemplateError: The template fails on the example, renders to nothing, holds more than one
                answer slot, has no candidates, or its target is not among the candidates.
            DataError: A field holds a private-use character that marks places in templates.

        Example:
            >>> template = Template("{{ text }} ||| {{ answer_choices[label] }}", "bad ||| good")
            >>> template.render(Example("a:1", {"text": "Lovely!"}), target=1)
            Rendered(id='a:1', source='Lovely!', candidates=('bad', 'good'), target=1, cut=(0, 7))
        """
        work = _Work(self.name, example)
        choices = candidates if candidates is not None else self._choices(work)
        variables = self._variables(example, choices, target)
        gold_known = target is not None or example.label is not None
        if not self.has_target:
            source = _at_slot(work.fill(self._parse(self.text), variables), work)
        elif choices is not None and not gold_known:
            source = work.fill(self._parse(self.text), variables, until=_SPLIT).strip()
        else:
            text = work.fill(self._parse(self.text), variables, parts=2)
            source, _, answer = (part.strip() for part in text.partition(_SPLIT))
            choices = (answer,) if choices is None else choices
            target = work.find(answer, choices, target)
        if not source.replace(ANSWER_SLOT, "").strip():
            raise work.error("renders to nothing")
        return Rendered(
            example.id, source, work.checked(choices, target), target, self._cut(example, source)
        )
