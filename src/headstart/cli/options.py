"""Flags that several commands share, and the small readings that turn their words into values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.errors import UsageError


class Dtype(StrEnum):
    """The dtypes of weights.

    Example:
        >>> Dtype("float32").value
        'float32'
    """

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class PromptKind(StrEnum):
    """The kinds of prompts.

    Example:
        >>> PromptKind("deep").value
        'deep'
    """

    shallow = "shallow"
    deep = "deep"
    gated = "gated"


class Attention(StrEnum):
    """The attention kernels.

    Example:
        >>> Attention("sdpa").value
        'sdpa'
    """

    auto = "auto"
    eager = "eager"
    sdpa = "sdpa"


class Format(StrEnum):
    """The kinds of prediction files.

    Example:
        >>> Format("parquet").value
        'parquet'
    """

    jsonl = "jsonl"
    parquet = "parquet"


Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder that `headstart tune --out` wrote.")
]
TrainArgument = Annotated[
    str, typer.Argument(metavar="TRAIN", help="Labelled rows: a file or a Hub data set.")
]
TestArgument = Annotated[
    str, typer.Argument(metavar="TEST", help="Labelled rows: a file or a Hub data set.")
]
InputArgument = Annotated[
    str, typer.Argument(metavar="INPUT", help="Rows to label: a file or a Hub data set.")
]

# rows
TextFlag = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="COLUMN", help="Holds the text; repeat it for several fields."),
]
LabelFlag = Annotated[str, typer.Option("--label", metavar="COLUMN", help="Holds the label.")]
SameLabelFlag = Annotated[
    str | None,
    typer.Option("--label", metavar="COLUMN", help="Holds the label. Default: as tuned."),
]
ColumnsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--columns", metavar="FIELD=COLUMN", help="Read a column under another name; repeatable."
    ),
]
TrainSplitFlag = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="Split of a Hub data set. Default: train."),
]
TestSplitFlag = Annotated[
    str | None,
    typer.Option("--test-split", metavar="NAME", help="Split of a Hub TEST. Default: test."),
]
SplitFlag = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="Split of a Hub data set. Default: test."),
]
ShotsFlag = Annotated[
    int | None, typer.Option("--shots", help="Labels to draw, over all classes. Default: all.")
]
DevShotsFlag = Annotated[
    int | None, typer.Option("--dev-shots", help="Further labels, to stop early. Default: 0.")
]
StratifiedFlag = Annotated[
    bool | None,
    typer.Option("--stratified", help="Draw as equally per class as the rows allow."),
]
TestFlag = Annotated[
    str | None, typer.Option("--test", metavar="TEST", help="Labelled rows to measure on.")
]
LimitTestFlag = Annotated[
    int | None, typer.Option("--limit-test", min=1, help="Measure on this many fixed rows.")
]
LimitFlag = Annotated[
    int | None, typer.Option("--limit", min=1, help="Measure on this many fixed rows.")
]

# the question
TemplateFlag = Annotated[
    str | None,
    typer.Option("--template", help="The question, e.g. '{{text}} It was'; \\n breaks a line."),
]
TemplatesFlag = Annotated[
    Path | None,
    typer.Option("--templates", metavar="FILE.yaml", help="A promptsource file of templates."),
]
TemplateNameFlag = Annotated[
    str | None, typer.Option("--template-name", help="Which template of that file.")
]
LabelWordsFlag = Annotated[
    str | None,
    typer.Option("--label-words", help='What stands for each label: "0=terrible,1=great".'),
]

# the model and the prompt
ModelFlag = Annotated[
    str,
    typer.Option(
        "--model", help="smollm2-135m, tiny-causal, tiny-seq2seq, a local folder, or a hub id."
    ),
]
SameModelFlag = Annotated[
    str | None, typer.Option("--model", help="Another name or folder of the same base model.")
]
DtypeFlag = Annotated[Dtype, typer.Option("--dtype", help="Of the weights; auto: the faster here.")]
AttentionFlag = Annotated[
    Attention, typer.Option("--attention", help="Attention kernel; auto: the faster here.")
]
InitFlag = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="headstart (default), vocab, class-words, 'text:...', normal, uniform, zero, file:DIR.",
    ),
]
PromptKindFlag = Annotated[
    PromptKind | None,
    typer.Option(
        "--prompt-kind",
        help="Where the prompt speaks: beside the text, or in every layer. Default: shallow.",
    ),
]
PromptLengthFlag = Annotated[
    int | None, typer.Option("--prompt-length", help="Vectors of the prompt. Default: 20.")
]
MaxLengthFlag = Annotated[
    int | None,
    typer.Option("--max-length", help="Cut longer rows to this many tokens, prompt included."),
]
SameMaxLengthFlag = Annotated[
    int | None,
    typer.Option("--max-length", min=8, help="Cut longer rows to this many. Default: as tuned."),
]
SeedsFlag = Annotated[
    str | None, typer.Option("--seeds", help="One prompt each, e.g. 1,2,3. Default: 1.")
]
SeedFlag = Annotated[
    int | None, typer.Option("--seed", help="Use this seed's prompt only. Default: all.")
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting, e.g. train.lr=0.01."),
]
SetScoringFlag = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="How to score, e.g. scoring.rule=mean."),
]

# what is written and shown
NewFolderFlag = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="The new folder to write.")
]
PredictionsFlag = Annotated[
    Path,
    typer.Option("--out", metavar="PREDICTIONS", help="The .jsonl or .parquet file to write."),
]
ScoresFlag = Annotated[
    Path | None,
    typer.Option("--out", metavar="NEW", help="Also write each prediction, into this new folder."),
]
FormatFlag = Annotated[Format, typer.Option("--format", help="Of the files in --out.")]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")
]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="No notes, no progress.")]


def read_columns(text: Sequence[str] | None, columns: Sequence[str] | None) -> dict[str, str]:
    """Turn ``--text`` and ``--columns`` into field name -> column; empty where neither was given.

    Raises:
        UsageError: No ``=`` in ``--columns``, or a field named twice.

    Example:
        >>> read_columns(["premise"], ["hypothesis=Sentence 2"])
        {'premise': 'premise', 'hypothesis': 'Sentence 2'}
    """
    pairs = [(column, column) for column in text or ()]
    for entry in columns or ():
        field, equals, column = (part.strip() for part in entry.partition("="))
        if not (field and equals and column):
            raise UsageError(f"--columns '{entry}': write FIELD=COLUMN, e.g. --columns text=review")
        pairs.append((field, column))
    mapping: dict[str, str] = {}
    for field, column in pairs:
        if field in mapping:
            raise UsageError(f"the field '{field}' is named twice; name each once")
        mapping[field] = column
    return mapping


def read_seeds(text: str) -> tuple[int, ...]:
    """Read ``1,2,3``.

    Raises:
        UsageError: Not whole numbers from 0 on, or one twice.

    Example:
        >>> read_seeds("1,2,3")
        (1, 2, 3)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--seeds '{text}': write whole numbers with commas, e.g. --seeds 1,2,3")
    return tuple(int(part) for part in parts)


def loader(dtype: Dtype, attention: Attention) -> Any:
    """Return a function that loads a base model by its name with these choices.

    Example:
        >>> loader(Dtype.auto, Attention.auto)("tiny-causal").kind
        'causal'
    """
    from functools import partial

    from headstart.models.load import load_model

    return partial(load_model, dtype=dtype.value, attention=attention.value)
