"""Templates: an example in, one question to the model out. They know nothing of models or tokens.

Two ways of writing one:

    {{ text }}                                  ``answer`` is the slot where the candidates are
    Sentiment: {{ answer }}                     scored; label words or answer choices give them.

    {{ premise }} Is {{ hypothesis }} true?     promptsource: source ``|||`` target. The choices
    ||| {{ answer_choices[label] }}             are a second template, ``Yes ||| No``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import jinja2

from headstart.errors import DataError, TemplateError, did_you_mean
from headstart.seeds import derive_seed
from headstart.tasks.example import ANSWER_SLOT, Example, Rendered
from headstart.tasks.sandbox import Program, parse, run

TEMPLATE_LIMIT = 20_000
"""Characters a template may have."""

_BAR = "|||"
# ``|||`` in a template becomes this private character, so that a field's value never splits it.
_SPLIT = "\ue001"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
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
        >>> rendered.source.replace(ANSWER_SLOT, "[answer]"), rendered.cuts
        ('Lovely! It was[answer].', ((0, 7),))
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
            >>> template = Template("{% if ask %}{{ text }} Why?{% endif %} ||| {{ why }}")
            >>> template.applies_to(Example("a:1", {"ask": False, "text": "Rain.", "why": "Low."}))
            False
        """
        random = _random(example)
        choices = self._choices(example, random)
        variables = self._variables(example, choices, None)
        source = self._fill(self.text, variables, example, random, until=_SPLIT)
        return bool(source.replace(ANSWER_SLOT, "").strip())

    def render(
        self, example: Example, candidates: Sequence[str] | None = None, target: int | None = None
    ) -> Rendered:
        """Ask the template's question about one example.

        Args:
            example: The row to ask about.
            candidates: The answers to score, in the order of the labels. Default None: the
                template's ``answer_choices``, or else the target text as the only candidate.
            target: The index of the gold answer, where it is known. Default None. The target text
                of a promptsource template overrules it.

        Raises:
            TemplateError: The template fails on the example, renders to nothing, holds more than
                one answer slot, has no candidates, or its target is not among the candidates.
            DataError: A field holds a private-use character that marks places in templates.

        Example:
            >>> template = Template("{{ text }} ||| {{ answer_choices[label] }}", "bad ||| good")
            >>> template.render(Example("a:1", {"text": "Lovely!"}), target=1)
            Rendered(id='a:1', source='Lovely!', candidates=('bad', 'good'), target=1, cuts=((0, 7),))
        """
        random = _random(example)
        choices = self._choices(example, random) if candidates is None else tuple(candidates)
        variables = self._variables(example, choices, target)
        known = target is not None or example.label is not None
        if self.has_target and choices is not None and not known:
            source = self._fill(self.text, variables, example, random, until=_SPLIT).strip()
        elif self.has_target:
            text = self._fill(self.text, variables, example, random)
            source, answer = self._split(text, example)
            choices = (answer,) if choices is None else choices
            target = self._index(answer, choices, target, example)
        else:
            source = self._at_slot(self._fill(self.text, variables, example, random), example)
        self._check_rendered(source, choices, target, example)
        return Rendered(example.id, source, choices or (), target, self._cuts(source, example))

    def _parse(self, text: str) -> Program:
        try:
            return parse(text.replace(_BAR, _SPLIT))
        except jinja2.TemplateSyntaxError as error:
            message = f"line {error.lineno}: {error.message}"
        except (RecursionError, MemoryError, SyntaxError):
            message = "it is nested too deeply"
        raise TemplateError(f"template '{self.name}' cannot be read: {message}")

    def _fill(
        self,
        text: str,
        variables: Mapping[str, Any],
        example: Example,
        random: Random,
        until: str | None = None,
    ) -> str:
        try:
            return run(self._parse(text), variables, random, until)
        except jinja2.UndefinedError as error:
            what = str(error.message)
            hint = did_you_mean(what.split("'")[1], example.fields) if "'" in what else ""
            raise self._error(example, f"{what}{hint}") from None
        except Exception as error:  # Jinja's functions raise whatever Python does
            raise self._error(example, f"{error}" or type(error).__name__) from error

    def _variables(
        self, example: Example, choices: Sequence[str] | None, target: int | None
    ) -> dict[str, Any]:
        for name, value in example.fields.items():
            if isinstance(value, str) and (ANSWER_SLOT in value or _SPLIT in value):
                raise DataError(
                    f"{example.id}: field '{name}' holds a private-use character (U+E000 or "
                    "U+E001), which marks places in templates; remove it from the data"
                )
        ours: dict[str, Any] = {} if choices is None else {"answer_choices": list(choices)}
        if not self.has_target:
            return {**example.fields, **ours, "answer": ANSWER_SLOT}
        label = {} if target is None else {"label": target}
        return {**label, **example.fields, **ours}

    def _choices(self, example: Example, random: Random) -> tuple[str, ...] | None:
        if self.answer_choices is None:
            return None
        variables = self._variables(example, None, None)
        text = self._fill(self.answer_choices, variables, example, random)
        return tuple(choice.strip() for choice in text.split(_SPLIT))

    def _split(self, text: str, example: Example) -> tuple[str, str]:
        parts = [part.strip() for part in text.split(_SPLIT)]
        if len(parts) == 1 and not parts[0]:
            parts.append("")
        if len(parts) != 2:
            raise self._error(example, f"renders '|||' {len(parts) - 1} times; once is expected")
        return parts[0], parts[1]

    def _index(
        self, answer: str, choices: Sequence[str], target: int | None, example: Example
    ) -> int:
        """Find the target text; where two candidates read alike, the given target decides."""
        stripped = [choice.strip() for choice in choices]
        if target is not None and stripped[target : target + 1] == [answer]:
            return target
        if answer not in stripped:
            raise self._error(
                example, f"renders the target {answer!r}, which is not among its choices {stripped}"
            )
        return stripped.index(answer)

    def _at_slot(self, text: str, example: Example) -> str:
        """Drop the spaces before the slot: the model adds the separator itself."""
        before, slot, after = text.partition(ANSWER_SLOT)
        if ANSWER_SLOT in after:
            raise self._error(example, "renders `answer` more than once; keep one")
        return before.rstrip(" ") + slot + after

    def _check_rendered(
        self, source: str, choices: Sequence[str] | None, target: int | None, example: Example
    ) -> None:
        if not source.replace(ANSWER_SLOT, "").strip():
            raise self._error(example, "renders to nothing")
        if not choices:
            raise self._error(example, "has no candidates; give label words or answer_choices")
        if not all(choice.strip() for choice in choices):
            raise self._error(example, f"has an empty candidate among {list(choices)}")
        for text in (source, *choices):
            if _HALF_CHARACTER.search(text):
                raise DataError(
                    f"{example.id}: holds half of a character (a lone surrogate such as \\ud83d), which is "
                    "no text; mend the row where the text was cut"
                )
        if target is not None and not 0 <= target < len(choices):
            raise self._error(
                example, f"has {len(choices)} candidates, so there is no target {target}"
            )

    def _cuts(self, source: str, example: Example) -> tuple[tuple[int, int], ...]:
        """Find the fields that stand in the source as they are, none inside another."""
        values = (example.fields.get(name) for name in self.fields)
        texts = {value.strip() for value in values if isinstance(value, str)} - {""}
        spans: list[tuple[int, int]] = []
        for text in sorted(texts, key=lambda text: (-len(text), text)):
            start = source.find(text)
            end = start + len(text)
            if start >= 0 and all(end <= a or b <= start for a, b in spans):
                spans.append((start, end))
        return tuple(sorted(spans))

    def _error(self, example: Example, what: str) -> TemplateError:
        line = " ".join(what.split())
        return TemplateError(f"template '{self.name}' on {example.id}: {line}")


def _random(example: Example) -> Random:
    """The random numbers of promptsource's ``choice``: the same for an example in every run."""
    return Random(derive_seed(0, "choice", example.id))
