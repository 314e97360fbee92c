"""The stage that draws clusters: paper B's Figure 4."""

from __future__ import annotations

from typing import Annotated

import pydantic

from headstart.config import Settings
from headstart.recipes.source_stages import embedder, read_source_rows
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.report.cluster_map import project, save_cluster_map
from headstart.sources.cluster import SourceRows, make_clusters
from headstart.sources.cluster_cards import top_terms


class MapStage(Settings):
    """What the stage ``cluster-map`` may be told.

    Attributes:
        rows: The stage that made the rows.
        numbers: Clusters of each panel; paper B: 3, 6 and 10.
        method: The clusterer.
        encoder: The sentence encoder.

    Example:
        >>> MapStage(rows="pseudo").numbers
        (3, 6, 10)
    """

    rows: Annotated[StageRef, of_kind("pseudo-label", "labelled")]
    numbers: tuple[int, ...] = pydantic.Field((3, 6, 10), min_length=1)
    method: str = "kmeans"
    encoder: str = "minilm"


def run_map(context: Context[MapStage]) -> None:
    """Draw ``map.png`` and ``map.svg``: one t-SNE of the rows, coloured by each clustering."""
    settings = context.settings
    rows = SourceRows(
        read_source_rows(context.inputs[settings.rows]),
        embedder=embedder(settings.encoder, context.folder / "embeddings"),
    )
    panels = [make_clusters(rows, settings.method, k, context.seed) for k in settings.numbers]
    terms = [top_terms(rows, panel, 10, context.seed) for panel in panels]
    projection = project(rows.embeddings_RD, context.seed)
    save_cluster_map(context.folder / "map", projection, panels, terms)


CLUSTER_MAP = StageKind("cluster-map", 1, MapStage, run_map, uses_model=False)
