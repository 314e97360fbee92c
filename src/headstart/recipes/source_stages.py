"""The stages that make meta-training data: pseudo-labels, labelled sources, clusters."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from headstart.config import Settings
from headstart.errors import DataError, UsageError, did_you_mean
from headstart.learn.processes import is_first
from headstart.prompts.files import to_json, write_whole
from headstart.recipes.stages import Context, DataFile, StageKind, StageRef, of_kind
from headstart.recipes.targets import stream_rows
from headstart.sources.cluster import SourceRows, clusterer, make_clusters
from headstart.sources.cluster_cards import cluster_report, to_markdown
from headstart.sources.corpus import PassageSettings, passages
from headstart.sources.embed import embed
from headstart.sources.labels_file import PseudoLabel, read_labels
from headstart.sources.pseudo_label import pseudo_label
from headstart.sources.selection import SelectionReport, SelectionSettings, select
from headstart.sources.small_clusters import merge_small
from headstart.sources.teacher import Teacher
from headstart.tasks.example import Example
from headstart.tasks.readers import read_all
from headstart.tasks.relabel import relabel

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
        lambda: read_labels(folder / "labels.jsonl"), teacher.labels, plan, _held_out(context)
    )
    _write_rows(context.folder, (_row(row.id, row.text, row.label) for row in kept), report)


class LabelledSource(Settings):
    """One labelled file.

    Attributes:
        file: The rows.
        text: Their column of the text.
        label: Their column of the label.
        bins: Cuts of a numeric label: below the first is ``0``, up to the second ``1``, and so on.
        relabel: Label, or bin, to the label it gets; null leaves its rows out. Default: as they are.
        keep: Columns that rows keep, e.g. a domain to cluster by (``column:domain``).
        by: Columns whose values make sources of their own, called ``NAME/value/value``, e.g. data set and
            template of P3.
        only: Of those, the ones that are kept, by their values (``glue_mrpc/equivalent``). Default: all.
        size: Rows of each source to keep, as equally per label as it divides; ``None``: all.
        max_words: Longer texts are cut to so many words; ``None``: as the stage says.
        cut: Which part of a longer text is kept: its ``start``, its ``end``, where long reviews come to
            their verdict, or none of it (``drop``), where the question stands in the text.
        question: What follows every text, e.g. a line that asks for the label.

    Example:
        >>> LabelledSource(file="tweets.jsonl", label="score", bins=(-1, 1)).size is None
        True
    """

    file: DataFile
    text: str = "text"
    label: str = "label"
    bins: tuple[float, ...] = ()
    relabel: dict[str, str | None] | None = None
    keep: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    size: int | None = pydantic.Field(None, ge=1)
    max_words: int | None = pydantic.Field(None, ge=1)
    cut: Literal["start", "end", "drop"] = "start"
    question: str = ""

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> LabelledSource:
        if list(self.bins) != sorted(set(self.bins)):
            raise ValueError(
                f"bins={list(self.bins)}: write the cuts from the lowest to the highest"
            )
        if self.file.startswith("set:") and (self.by or self.bins or self.keep):
            raise ValueError(f"{self.file} knows its own columns; by, bins and keep are for files")
        if self.only and not self.by:
            raise ValueError("only chooses among the sources that by makes; give by too")
        return self


class LabelledStage(Settings):
    """What the stage ``labelled`` may be told: labelled sources used as they are, paper B's MetaPT(Y).

    Attributes:
        sources: Files by name; the name becomes the column ``source``.
        text: The column of the text in the held-out files.
        min_words: Shorter texts are dropped.
        max_words: Longer texts are cut to so many words; ``None``: whole.
        leak_words: A row that has this many words in a row in common with a held-out text is dropped.
        held_out: Files whose texts no kept row may share: the targets' test rows.

    Example:
        >>> LabelledStage(sources={"yelp": {"file": "yelp5/train.jsonl"}}).leak_words
        8
    """

    sources: dict[str, LabelledSource] = pydantic.Field(min_length=1)
    text: str = "text"
    min_words: int = pydantic.Field(1, ge=0)
    max_words: int | None = pydantic.Field(None, ge=1)
    leak_words: int = pydantic.Field(8, ge=1)
    held_out: tuple[DataFile, ...] = ()


def run_labelled(context: Context[LabelledStage]) -> None:
    """Gather labelled sources: de-duplicated, balanced, without leaks."""
    settings, held_out = context.settings, _held_out(context)
    rows: list[dict[str, Any]] = []
    reports: dict[str, Any] = {}
    for name, source in settings.sources.items():
        left_out: Counter[str] = Counter()
        read = read_labelled(source, context.data[source.file], left_out)
        for values, found in by_values(read, source).items():
            full = "/".join((name, *values))
            fields = {row.id: row.fields for row in found}
            longest = source.max_words or settings.max_words
            given = list(filter(None, (_sure(row, longest, source.cut) for row in found)))
            plan = SelectionSettings(
                min_words=settings.min_words,
                leak_words=settings.leak_words,
                size=source.size,
                seed=context.seed,
            )
            labels = sorted({row.label for row in given})
            kept, report = select(partial(iter, given), labels, plan, held_out)
            reports[full] = report.model_dump()
            rows += [
                _row(
                    f"{name}/{row.id}",
                    row.text + source.question,
                    row.label,
                    **{column: str(fields[row.id][column]) for column in source.keep},
                    source=full,
                )
                for row in kept
            ]
        reports[name] = reports.get(name, {}) | {"left_out_labels": dict(left_out)}
    _write_rows(context.folder, rows, reports)


def by_values(
    rows: Iterable[Example], source: LabelledSource
) -> dict[tuple[str, ...], list[Example]]:
    """Sort rows by the values of the columns ``by``; without any, all rows are one source.

    Raises:
        DataError: A name in ``only`` that no row has, with a suggestion.

    Example:
        >>> rows = [Example(str(i), {"text": "t", "set": "ab"[i % 2]}, "x") for i in range(3)]
        >>> source = LabelledSource(file="a.jsonl", by=["set"], only=["b"])
        >>> {values: len(found) for values, found in by_values(rows, source).items()}
        {('b',): 1}
    """
    groups: dict[tuple[str, ...], list[Example]] = {}
    for row in rows:
        values = tuple(str(row.fields[column]) for column in source.by)
        groups.setdefault(values, []).append(row)
    if not source.only:
        return groups
    names = {"/".join(values): values for values in groups}
    for name in source.only:
        if name not in names:
            raise DataError(
                f"{source.file}: only: no row has '{name}' in {', '.join(source.by)}"
                f"{did_you_mean(name, names)}"
            )
    return {names[name]: groups[names[name]] for name in source.only}


def read_labelled(source: LabelledSource, path: str, left_out: Counter[str]) -> list[Example]:
    r"""Read one labelled file, its labels binned and renamed.

    Args:
        source: How it is read.
        path: Where it is.
        left_out: Is counted into: rows left out, by their label.

    Raises:
        DataError: A label that is no number where it is to be binned, or that is not mapped.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.csv")
        >>> _ = path.write_text("text,score\nHm.,0.2\nLovely!,2.5\n")
        >>> source = LabelledSource(file="a.csv", label="score", bins=(1,))
        >>> [row.label for row in read_labelled(source, str(path), Counter())]
        ['0', '1']
    """
    columns = {"text": source.text, **{column: column for column in (*source.by, *source.keep)}}
    if source.bins:
        columns["number"] = source.label
        rows = [_binned(row, source.bins) for row in read_all(path, label=None, columns=columns)]
    elif len(columns) > 1:
        rows = read_all(path, label=source.label, columns=columns)
    else:
        rows = list(stream_rows(path, source.text, source.label))
    return rows if source.relabel is None else list(relabel(rows, source.relabel, left_out))


def _binned(row: Example, bins: Sequence[float]) -> Example:
    number = row.fields["number"]
    try:
        return Example(row.id, row.fields, str(bisect_right(bins, float(number))))
    except (TypeError, ValueError):
        raise DataError(
            f"{row.id}: the label {number!r} is no number, and bins were given; take bins away"
        ) from None


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
        try:
            clusterer(method)
        except UsageError as error:
            raise ValueError(str(error)) from error
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
        _row(row.id, row.fields["text"], str(row.label), cluster=clusters.names[k])
        for row, k in zip(examples, clusters.cluster_of_row_R.tolist(), strict=True)
        if k >= 0
    )
    _write_rows(context.folder, kept)


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


def _held_out(context: Context[Any]) -> dict[str, list[str]]:
    files = context.settings.held_out
    text = context.settings.text
    return {
        file: [str(row.fields["text"]) for row in stream_rows(context.data[file], text, None)]
        for file in files
    }


def _sure(row: Example, max_words: int | None, cut: str) -> PseudoLabel | None:
    text = str(row.fields["text"])
    words = text.split()
    if cut == "drop":  # what is kept keeps its lines too
        if max_words is not None and len(words) > max_words:
            return None
    else:
        text = " ".join(words[:max_words] if cut == "start" else words[-(max_words or 0) :])
    return PseudoLabel(row.id, text, str(row.label), 1.0, ())


def _row(id: str, text: str, label: str, **more: str) -> dict[str, Any]:
    return {"id": id, "text": text, "label": label, **more}


def _write_rows(folder: Path, rows: Iterable[dict[str, Any]], report: Any = None) -> None:
    if isinstance(report, SelectionReport):
        report = report.model_dump()
    if report is not None:
        write_whole(folder / "report.json", to_json(report))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(folder / ROWS, "".join(lines))


PSEUDO_LABEL = StageKind(
    "pseudo-label", 1, PseudoLabelStage, run_pseudo_label, uses_model=False, shared=True
)
LABELLED = StageKind("labelled", 1, LabelledStage, run_labelled, uses_model=False)
CLUSTER = StageKind("cluster", 1, ClusterStage, run_cluster, uses_model=False)
