"""The stage that gathers labelled sources: whole files, or one file of many tasks."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pydantic

from headstart.config import Settings
from headstart.errors import DataError, did_you_mean
from headstart.recipes.source_stages import held_out_texts, row_of, write_rows
from headstart.recipes.stages import Context, DataFile, StageKind
from headstart.recipes.targets import stream_rows
from headstart.sources.labels_file import PseudoLabel
from headstart.sources.selection import SelectionSettings, select
from headstart.tasks.example import Example
from headstart.tasks.promptsource import chosen_templates
from headstart.tasks.readers import read_all
from headstart.tasks.relabel import relabel, with_label_field
from headstart.tasks.task import Task


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
        without: Of those, the ones that are left out, by their values or by the first (``imdb``).
        templates: promptsource's ``templates.yaml``: rows are rendered under each template, which makes
            sources of its own called ``NAME/TEMPLATE``; text and target are the template's.
        use: The templates that are taken, by name. Default: all.
        label_field: The name by which the templates call the label as the file has it; digits become a
            number.
        size: Rows of each source to keep, as equally per label as it divides; ``None``: all.
        max_words: Longer texts are cut to so many words; ``None``: as the stage says.
        cut: Which part of a longer text is kept: its ``start``, its ``end``, where long reviews come to
            their verdict, or none of it (``drop``), where the question stands in the text, as under
            templates. Texts that are cut lose their line breaks, short ones too, so that all look alike.
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
    without: tuple[str, ...] = ()
    templates: DataFile | None = None
    use: tuple[str, ...] = ()
    label_field: str | None = None
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
        taken = sorted({"id", "text", "label", "source", "number"} & {*self.by, *self.keep})
        if taken:
            raise ValueError(
                f"by and keep: '{taken[0]}' is a name of headstart's own; rename the column"
            )
        if self.file.startswith("set:") and (self.by or self.bins or self.keep):
            raise ValueError(f"{self.file} knows its own columns; by, bins and keep are for files")
        if (self.only or self.without) and not self.by:
            raise ValueError("only and without choose among the sources that by makes; give by too")
        if self.templates is None and (self.use or self.label_field):
            raise ValueError("use and label_field are of templates; give templates too")
        both = sorted(set(self.only) & set(self.without))
        if both:
            raise ValueError(f"only and without both name '{both[0]}'; take it out of one")
        if self.templates is None:
            return self
        if self.by or self.question:
            raise ValueError("templates make sources and questions; give neither by nor question")
        if self.bins or self.text != "text":
            raise ValueError("templates know the columns and the labels; take text and bins away")
        if self.cut != "drop":
            raise ValueError("a template's text has its question in it; take cut: drop")
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

    @pydantic.model_validator(mode="after")
    def _one_table(self) -> LabelledStage:
        kept = {frozenset(source.keep) for source in self.sources.values()}
        if len(kept) > 1:
            column = sorted(frozenset.union(*kept) - frozenset.intersection(*kept))[0]
            raise ValueError(
                f"keep: some sources keep '{column}' and some do not; all rows are one table"
            )
        return self


def run_labelled(context: Context[LabelledStage]) -> None:
    """Gather labelled sources: de-duplicated, balanced, without leaks."""
    settings, held_out = context.settings, held_out_texts(context)
    rows: list[dict[str, Any]] = []
    reports: dict[str, Any] = {}
    for name, source in settings.sources.items():
        left_out: Counter[str] = Counter()
        read = read_labelled(source, context.data[source.file], left_out)
        if source.templates is None:
            groups = by_values(read, source)
        else:
            groups = under_templates(read, source, context.data[source.templates])
        for values, found in groups.items():
            full = "/".join((name, *values))
            fields = {row.id: row.fields for row in found}
            longest = source.max_words or settings.max_words
            given = list(filter(None, (_sure(row, longest, source.cut) for row in found)))
            if found and not given:
                raise DataError(
                    f"{source.file}: every row of '{full}' is over {longest} words, and cut: drop "
                    "leaves none; raise max_words, or cut at the start or end"
                )
            plan = SelectionSettings(
                min_words=settings.min_words,
                leak_words=settings.leak_words,
                size=source.size,
                seed=context.seed,
            )
            labels = sorted({row.label for row in given})
            kept, report = select(partial(iter, given), labels, plan, held_out)
            reports[full] = report.model_dump()
            if source.cut == "drop":
                reports[full]["dropped"]["too_long"] = len(found) - len(given)
            rows += [
                row_of(
                    # a row comes once under every template
                    f"{full if source.templates else name}/{row.id}",
                    row.text + source.question,
                    row.label,
                    **{column: str(fields[row.id][column]) for column in source.keep},
                    source=full,
                )
                for row in kept
            ]
        reports[name] = reports.get(name, {}) | {"left_out_labels": dict(left_out)}
    write_rows(context.folder, rows, reports)


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
    names = {"/".join(values): values for values in groups}
    for name in source.without:
        if name not in names and all(values[0] != name for values in groups):
            raise DataError(
                f"{source.file}: without: no row has '{name}' in {', '.join(source.by)}"
                f"{did_you_mean(name, [*names, *(values[0] for values in groups)])}"
            )
    groups = {
        values: rows
        for values, rows in groups.items()
        if not {"/".join(values), *values[:1]} & set(source.without)
    }
    if not source.only:
        return groups
    for name in source.only:
        if name not in names:
            raise DataError(
                f"{source.file}: only: no row has '{name}' in {', '.join(source.by)}"
                f"{did_you_mean(name, names)}"
            )
    return {names[name]: groups[names[name]] for name in source.only}


def under_templates(
    rows: Sequence[Example], source: LabelledSource, path: str
) -> dict[tuple[str, ...], list[Example]]:
    r"""Render rows under promptsource's templates: a group a template, its text and its target.

    Rows that a template has no question for are left out of its group.

    Raises:
        DataError: A template that there is not, or a column to keep, with a suggestion.
        TemplateError: The templates cannot be read, or one fails on a row.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "templates.yaml")
        >>> entry = "{name: ask, answer_choices: no|||yes, jinja: '{{text}}? ||| {{answer_choices[label]}}'}"
        >>> _ = path.write_text("templates:\n  some-id: !Template " + entry)
        >>> source = LabelledSource(file="a.jsonl", templates="templates.yaml", cut="drop")
        >>> (rows,) = under_templates([Example("a", {"text": "Wet"}, "1")], source, str(path)).values()
        >>> rows[0].fields["text"], rows[0].label
        ('Wet?', 'yes')
    """
    assert source.templates is not None
    templates = chosen_templates(Path(path), source.use, source.templates)
    for column in source.keep:
        if rows and column not in rows[0].fields:
            raise DataError(
                f"{source.file}: keep: no column '{column}'{did_you_mean(column, rows[0].fields)}"
            )
    if source.label_field:
        rows = [with_label_field(row, source.label_field) for row in rows]
    groups: dict[tuple[str, ...], list[Example]] = {}
    fields = {row.id: row.fields for row in rows}
    for name, template in templates.items():
        task = Task(template, (), ())
        asked = [task.render(row) for row in rows if task.template.applies_to(row)]
        groups[(name,)] = [
            Example(
                row.id,
                {**{column: fields[row.id][column] for column in source.keep}, "text": row.source},
                row.candidates[row.target],
            )
            for row in asked
            if row.target is not None
        ]
    return groups


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
        >>> from pathlib import Path
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
    elif source.templates is not None:  # which have their own names for columns
        rows = read_all(path, label=source.label)
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


def _sure(row: Example, max_words: int | None, cut: str) -> PseudoLabel | None:
    text = str(row.fields["text"])
    words = text.split()
    if cut == "drop":  # what is kept keeps its lines too
        if max_words is not None and len(words) > max_words:
            return None
    else:
        text = " ".join(words[:max_words] if cut == "start" else words[-(max_words or 0) :])
    return PseudoLabel(row.id, text, str(row.label), 1.0, ())


LABELLED = StageKind("labelled", 1, LabelledStage, run_labelled, uses_model=False)
