"""The stage that makes a learned start ready to ship: its prompt, with a card people can read."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import pydantic

from headstart.config import Settings
from headstart.errors import DataError
from headstart.prompts.files import load_prompt, save_prompt, write_whole
from headstart.recipes.results import read_results
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.report.results_table import markdown_table


class ShippedSource(Settings):
    """Where a start learned from.

    Attributes:
        name: The data.
        source: Where it is from.
        licence: Of the data; the vectors are no copy of it.

    Example:
        >>> ShippedSource(name="tweets", source="VADER ground truth", licence="MIT").licence
        'MIT'
    """

    name: str
    source: str
    licence: str


class ShipStage(Settings):
    """What the stage ``ship`` may be told.

    Attributes:
        start: The ``meta-train`` stage.
        results: The ``few-shot`` stage that judged it.
        method: What it is called there.
        about: What it is for, in a sentence.
        sources: What it learned from.

    Example:
        >>> source = {"name": "tweets", "source": "VADER ground truth", "licence": "MIT"}
        >>> ShipStage(start="a", results="b", method="c", about="Sentiment.", sources=[source]).about
        'Sentiment.'
    """

    start: Annotated[StageRef, of_kind("meta-train")]
    results: Annotated[StageRef, of_kind("few-shot")]
    method: str
    about: str = pydantic.Field(min_length=10)
    sources: tuple[ShippedSource, ...] = pydantic.Field(min_length=1)


def run_ship(context: Context[ShipStage]) -> None:
    """Write the prompt, its card with sources, licences and results, and the same as a page."""
    settings = context.settings
    prompt, card = load_prompt(context.inputs[settings.start])
    results = read_results(context.inputs[settings.results] / "results.jsonl")
    values: dict[str, list[float]] = {}
    for result in results:
        if result.method in (settings.method, f"{settings.method}, untuned"):
            labels = f"{sum(result.labels.values())} labels"
            values.setdefault(f"{result.target}, {labels}", []).append(result.accuracy)
    if not values:
        raise DataError(f"stage '{settings.results}' has no results of '{settings.method}'")
    metrics = {name: round(statistics.fmean(found), 4) for name, found in values.items()}
    training: dict[str, Any] = {
        **card.training,
        "about": settings.about,
        "sources": [source.model_dump() for source in settings.sources],
    }
    shipped = card.model_copy(update={"training": training, "metrics": metrics, "sha256": ""})
    written = save_prompt(context.folder, prompt, shipped)
    page = [
        "# A start that ships with headstart",
        settings.about,
        f"{written.length} vectors for `{written.base_model}`; taken by `--init headstart:FOLDER`.",
        markdown_table(
            ["learned on", "from", "licence"],
            [[s.name, s.source, s.licence] for s in settings.sources],
        ),
        markdown_table(
            ["measured on", "accuracy", "runs"],
            [[name, f"{metrics[name]:.3f}", str(len(found))] for name, found in values.items()],
        ),
        "None of the target tasks' rows was learned from; settings and budget are in `card.json`.",
    ]
    write_whole(context.folder / "README.md", "\n\n".join(page) + "\n")


SHIP = StageKind("ship", 1, ShipStage, run_ship, uses_model=False)
