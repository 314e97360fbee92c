"""A tuned study as `evaluate` and `predict` meet it: how it was tuned, and what flags change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli import options
from headstart.config import Scoring, TuneSettings, dotted_names, override
from headstart.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from headstart.recipes.study import Study


@dataclass(frozen=True, slots=True)
class Studied:
    """What a study's card says about the rows it was tuned on, read before the model is loaded.

    Attributes:
        folder: The study's folder.
        seed: The only member that is meant; ``None``: all.
        columns: Field to column, as tuned.
        label: The label's column, as tuned.
        train: Where the training rows came from.
        needed: The fields that the template asks for.
        scoring: How candidates are scored.

    Example:
        >>> Studied(Path("runs/a"), None, {"text": "review"}, "stars").columns
        {'text': 'review'}
    """

    folder: Path
    seed: int | None
    columns: dict[str, str]
    label: str
    train: Mapping[str, Any] | None = None
    needed: frozenset[str] = frozenset()
    scoring: Scoring = field(default_factory=Scoring)

    def columns_for(
        self, text: Sequence[str] | None, columns: Sequence[str] | None
    ) -> dict[str, str]:
        """Return field -> column: of the flags, or as tuned.

        A single ``--text`` is the one field the study asks for, whatever the column is called.

        Raises:
            UsageError: Flags that cannot be read.

        Example:
            >>> study = Studied(Path("a"), None, {"text": "text"}, "label", {}, frozenset({"text"}))
            >>> study.columns_for(["review"], None)
            {'text': 'review'}
        """
        given = options.read_columns(text, columns)
        if len(given) == len(self.needed) == 1 and text:
            return dict(zip(self.needed, given.values(), strict=True))
        return given or self.columns

    def open(self, load: Any, model: str | None, scoring: Scoring, max_length: int | None) -> Study:
        """Load the study, to be scored this way."""
        from headstart.recipes.study import load_study

        study = load_study(self.folder, load, model, self.seed)
        return replace(study, scoring=scoring, max_length=max_length or study.max_length)


def studied(folder: Path, seed: int | None) -> Studied:
    """Read what a study was tuned on.

    Raises:
        PromptFileError: No tuned prompt in the folder.

    Example:
        >>> studied(Path("nowhere"), None)
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no such folder; ...
    """
    from headstart.prompts.files import read_card
    from headstart.recipes.from_card import card_errors, task_of
    from headstart.recipes.study import seed_folders

    member = seed_folders(folder, seed)[0]
    card = read_card(member)
    with card_errors(member):
        train = (card.training.get("data") or {}).get("train") or {}
        return Studied(
            folder,
            seed,
            dict(train.get("columns") or {"text": "text"}),
            str(train.get("label") or "label"),
            train,
            task_of(card).template.fields,
            Scoring.model_validate(card.task["scoring"]),
        )


def scoring_from(scoring: Scoring, assignments: Sequence[str]) -> Scoring:
    """Apply ``--set scoring.NAME=VALUE``; a tuned prompt has no other setting left to change.

    Raises:
        UsageError: Another setting, an unknown name, or a value of the wrong kind.

    Example:
        >>> scoring_from(Scoring(), ["scoring.rule=mean"]).rule
        'mean'
        >>> scoring_from(Scoring(), ["train.lr=1"])
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: --set train.lr: only scoring can be set here; known: scoring.rule, ...
    """
    known = dotted_names(scoring.model_dump(), "scoring.")
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        if equals and name.strip() not in known:
            hint = did_you_mean(name.strip(), known) or "; known: " + ", ".join(known)
            raise UsageError(f"--set {name.strip()}: only scoring can be set here{hint}")
    return override(TuneSettings(scoring=scoring), assignments).scoring
