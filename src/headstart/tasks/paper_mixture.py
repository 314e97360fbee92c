"""The mixture of paper A: which sets, under which templates, train a model and judge it; a data file.

Templates have the names of promptsource; P3 on the Hub has a configuration for each, under a name of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from headstart.errors import DataError, did_you_mean

Part = Literal["train", "held_out", "development"]
"""``train``: ``d4_train`` of the code; ``held_out``: ``green``; ``development``: ``d4_dev``, which is in the
code alone."""

P3 = "bigscience/P3"
"""Where the Hub has them, rendered."""


@dataclass(frozen=True, slots=True)
class MixtureTask:
    """One set under one template.

    Attributes:
        set: The set, with its part: ``adversarial_qa/dbert``.
        template: The template's name in promptsource.
        config: The configuration of P3 on the Hub.

    Example:
        >>> MixtureTask("imdb", "Movie Expressed Sentiment", "imdb_Movie_Expressed_Sentiment").name
        'imdb/Movie Expressed Sentiment'
    """

    set: str
    template: str
    config: str

    @property
    def name(self) -> str:
        """Set and template."""
        return f"{self.set}/{self.template}"


def mixture_tasks(
    part: Part, sets: Sequence[str] = (), without: Sequence[str] = ()
) -> list[MixtureTask]:
    """List the tasks of a part of paper A's mixture.

    Args:
        part: Which.
        sets: Take these alone, by the name of a set or of a kind of task (``Sentiment``). Default: all.
        without: Leave these out, likewise.

    Raises:
        DataError: No such set or kind, with a suggestion.

    Example:
        >>> len(mixture_tasks("train")), len(mixture_tasks("held_out"))
        (313, 116)
        >>> sorted({task.set for task in mixture_tasks("train", ["Structure-To-Text"])})
        ['common_gen', 'wiki_bio']
    """
    table: Mapping[str, Mapping[str, str]] = _mixture()[part]
    kinds: Mapping[str, Sequence[str]] = _mixture()["kinds"]
    known = {*table, *(kind for kind, members in kinds.items() if set(members) & set(table))}

    def named(names: Sequence[str]) -> set[str]:
        for name in names:
            if name not in known:
                raise DataError(
                    f"paper A's mixture has no set or kind of task '{name}' to {part.replace('_', ' ')}"
                    f"{did_you_mean(name, known)}"
                )
        return {member for name in names for member in kinds.get(name, [name])}

    chosen, dropped = named(sets) or set(table), named(without)
    return [
        MixtureTask(name, template, config)
        for name, templates in table.items()
        if name in chosen - dropped
        for template, config in templates.items()
    ]


@cache
def _mixture() -> dict[str, Any]:
    text = files("headstart").joinpath("mixtures/paper_a.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
