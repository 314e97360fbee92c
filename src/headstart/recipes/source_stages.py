"""The stages that make meta-training data: pseudo-labels, labelled sources, clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import told_by_settings
from headstart.learn.processes import is_first
from headstart.prompts.files import to_json, write_whole
from headstart.recipes.stages import Context, DataFile, StageKind, StageRef, of_kind
from headstart.recipes.targets import stream_rows
from headstart.sources.cluster import SourceRows, clusterer, make_clusters
from headstart.sources.cluster_cards import cluster_report, to_markdown
from headstart.sources.corpus import PassageSettings, passages
from headstart.sources.embed import embed
from headstart.sources.labels_file import read_labels
from headstart.sources.pseudo_label import pseudo_label
from headstart.sources.selection import SelectionReport, SelectionSettings, select
from headstart.sources.small_clusters import merge_small
from headstart.sources.teacher import Teacher
from headstart.tasks.example import Example
from headstart.tasks.readers import read_all

ROWS = "rows.jsonl"

Embedder = Callable[[Sequence[str]], np.ndarray]


class PseudoLabelStage(Settings):
    """What the stage ``pseudo-label`` may be told.

    Attributes:
        teacher: The stage that trained the teacher.
        corpora: Unlabelled documents.
        text: Their column of the text.
        max_documents: Documents to read of each corpus; ``None``: all.
        max_passages: Passages to label of each corpus; ``None``: all. Corpora of long documents then do
            not crowd out the others.
        passages: How documents are cut.
        select: Which pseudo-labelled passages are kept.
        held_out: Files whose texts no kept passage may share: the targets' test rows.

    Example:
        >>> PseudoLabelStage(teacher="stars", corpora=["wiki.jsonl"]).passages.max_words
        60
    """

    teacher: Annotated[StageRef, of_kind("teacher")]
    corpora: tuple[DataFile, ...] = pydantic.Field(min_length=1)
    text: str = "text"
    max_documents: int | None = pydantic.Field(None, ge=1)
    max_passages: int | None = pydantic.Field(None, ge=1)
    passages: PassageSettings = PassageSettings()
    select: SelectionSettings = SelectionSettings(top=0.5)
    held_out: tuple[DataFile, ...] = ()


def run_pseudo_label(context: Context[PseudoLabelStage]) -> None:
    """Label a corpus, keep what the teacher is sure of, and say what was kept and why."""
    settings = context.settings
    teacher = Teacher.load(context.inputs[settings.teacher] / "teacher")

    def cut() -> Iterator[Example]:
        for name in settings.corpora:
            rows = stream_rows(context.data[name], settings.text, None)
            documents = islice(rows, settings.max_documents)
            yield from islice(passages(documents, settings.passages), settings.max_passages)

    folder = context.folder / "labels"
    pseudo_label(
        teacher,
        cut(),
        folder,
        corpus={"corpora": list(settings.corpora), "passages": settings.passages.model_dump()},
        progress=lambda done: context.progress("labelling", done),
    )
    if not is_first():
        return
    plan = settings.select.model_copy(update={"seed": context.seed})
    kept, report = select(
        lambda: read_labels(folder / "labels.jsonl"), teacher.labels, plan, held_out_texts(context)
    )
    write_rows(context.folder, (row_of(row.id, row.text, row.label) for row in kept), report)


class ClusterStage(Settings):
    """What the stage ``cluster`` may be told.

    Attributes:
        rows: The stage that made the rows.
        method: ``kmeans``, ``lda``, ``random``, ``label`` or ``column:NAME``.
        num_clusters: How many; paper B: 10.
        at_least: Smaller clusters are merged or dropped: rows for one draw and the held-out ones.
        encoder: The sentence encoder.

    Example:
        >>> ClusterStage(rows="labelled").num_clusters
        10
    """

    rows: Annotated[StageRef, of_kind("pseudo-label", "labelled")]
    method: str = "kmeans"
    num_clusters: int = pydantic.Field(10, ge=1)
    at_least: int = pydantic.Field(24, ge=1)
    encoder: str = "minilm"

    @pydantic.field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        with told_by_settings():
            clusterer(method)
        return method


def run_cluster(context: Context[ClusterStage]) -> None:
    """Group rows into meta-training tasks; write the rows with their cluster, and a card of each cluster."""
    settings = context.settings
    examples = read_source_rows(context.inputs[settings.rows])
    folder = context.folder / "embeddings"
    rows = SourceRows(examples, embedder=embedder(settings.encoder, folder))
    made = make_clusters(rows, settings.method, settings.num_clusters, context.seed)
    clusters = merge_small(made, settings.at_least)
    columns = ["source"] if all("source" in row.fields for row in examples) else []
    report = cluster_report(rows, clusters, columns=columns, seed=context.seed)
    write_whole(context.folder / "cards.json", to_json(report.to_dict()))
    write_whole(context.folder / "cards.md", to_markdown(report))
    kept = (
        row_of(row.id, row.fields["text"], str(row.label), cluster=clusters.names[k])
        for row, k in zip(examples, clusters.cluster_of_row_R.tolist(), strict=True)
        if k >= 0
    )
    write_rows(context.folder, kept)


def read_source_rows(folder: Path) -> list[Example]:
    """Read the rows a source stage wrote.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "rows.jsonl").write_text('{"id": "a", "text": "Hi", "label": "1"}')
        >>> read_source_rows(folder)[0].fields
        {'text': 'Hi'}
    """
    return read_all(folder / ROWS, id_column="id")


def embedder(encoder: str, folder: Path) -> Embedder:
    """Make the function that embeds texts, and keeps what it made in a folder.

    Example:
        >>> embedder("minilm", Path("embeddings"))([])
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: 0 texts in shards of 4096: at least 1 of each is needed to embed
    """
    return lambda texts: embed(texts, encoder, folder=folder)


def held_out_texts(context: Context[Any]) -> dict[str, list[str]]:
    """Read the texts of a stage's ``held_out`` files, by file.

    Example:
        >>> nothing_held = Context(PseudoLabelStage(teacher="t", corpora=["a.jsonl"]), "", 1, Path("x"))
        >>> held_out_texts(nothing_held)
        {}
    """
    files = context.settings.held_out
    text = context.settings.text
    return {
        file: [str(row.fields["text"]) for row in stream_rows(context.data[file], text, None)]
        for file in files
    }


def row_of(id: str, text: str, label: str, **more: str) -> dict[str, Any]:
    """Make the line of a row that later stages read.

    Example:
        >>> row_of("a:1", "Lovely.", "4", source="yelp")
        {'id': 'a:1', 'text': 'Lovely.', 'label': '4', 'source': 'yelp'}
    """
    return {"id": id, "text": text, "label": label, **more}


def write_rows(folder: Path, rows: Iterable[dict[str, Any]], report: Any = None) -> None:
    """Write a stage's rows, and its report beside them.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_rows(folder, [row_of("a:1", "Lovely.", "4")])
        >>> read_source_rows(folder)[0].label
        '4'
    """
    if isinstance(report, SelectionReport):
        report = report.model_dump()
    if report is not None:
        write_whole(folder / "report.json", to_json(report))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(folder / ROWS, "".join(lines))


PSEUDO_LABEL = StageKind(
    "pseudo-label", 1, PseudoLabelStage, run_pseudo_label, uses_model=False, shared=True
)
CLUSTER = StageKind("cluster", 1, ClusterStage, run_cluster, uses_model=False)
