"""The data sets of MetaPT (Huang et al. 2022, Table 3): where they are, their classes, their question.

A recipe names one by its key, as in ``set: sst5``. Each is read from the Hub, or from a folder that
holds the files as their authors published them. The Hub's names, splits and columns are from the
Hub's own pages: no read from the Hub was run when this list was written.

The paper gives the template "It was" and no label words; ours are the terrible-to-great family of
its baseline PPT. It does not say what a row of SentiHood and SemEval is: Table 3 shows a sentence
with one polarity, so here it is one opinion with its sentence, and the question is about the sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headstart.errors import DataError, UsageError, did_you_mean
from headstart.tasks.columns import Columns
from headstart.tasks.corpora import sentihood_opinions, unescaped
from headstart.tasks.example import Example
from headstart.tasks.readers import open_rows
from headstart.tasks.relabel import FIVE_TO_TWO, relabel
from headstart.tasks.tables import Row, Rows
from headstart.tasks.task import Task
from headstart.tasks.template import Template

IT_WAS = "{{ text }} It was {{ answer }}"
"""The paper's template, the answer at the end."""

_Labels = Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a set can be read, and how its rows look there.

    Attributes:
        source: A Hub data set (``owner/name``, maybe ``@revision``), or for files the form that
            ``read_examples`` names before a path; empty where the suffix tells it.
        splits: Our split to the Hub's own, or to file names; of those the first that is there is
            read, gzipped too, and all files that it matches, in order.
        classes: Label in the data to class; None leaves its rows out. Empty: there are no labels.
        text: Columns that make the text, in order; empty ones are passed over.
        label: The column of the label.
        fields: Further columns to keep as fields.
        escaped: Whether line breaks and quotes stand as backslash-n and backslash-quote.
        opinions: Whether a row is a sentence of SentiHood with a list of opinions.

    Example:
        >>> PAPER_SETS["sst5"].hub.source
        'SetFit/sst5'
    """

    source: str
    splits: Mapping[str, tuple[str, ...]]
    classes: _Labels
    text: tuple[str, ...] = ("text",)
    label: str = "label"
    fields: tuple[str, ...] = ()
    escaped: bool = False
    opinions: bool = False


@dataclass(frozen=True, kw_only=True)
class PaperSet:
    """One data set of the paper.

    Attributes:
        title: Its name in the paper.
        domain: As in Table 3.
        words: Class to label word, in the order of the classes. Empty for unlabelled text.
        files: The original files.
        hub: The Hub's copy; None where there is none with all splits and labels.
        licence: What is known of it.
        note: What else to know.
        template: The question. Default: the paper's.

    Example:
        >>> PAPER_SETS["semeval_r"].words
        {'negative': 'terrible', 'neutral': 'okay', 'positive': 'great'}
    """

    title: str
    domain: str
    files: Place
    hub: Place | None
    licence: str
    note: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    template: str = IT_WAS

    def task(self) -> Task:
        """Return the set's question, its classes and their words.

        Raises:
            UsageError: The set has no labels.

        Example:
            >>> PAPER_SETS["sst2"].task().words
            ('terrible', 'great')
        """
        if not self.words:
            raise UsageError(f"{self.title} has no labels, so there is no question to ask about it")
        template = Template(self.template, name=self.title)
        return Task(template, tuple(self.words), tuple(self.words.values()))


def paper_set(name: str) -> PaperSet:
    """Look a set up by its key.

    Raises:
        UsageError: There is no such set.

    Example:
        >>> paper_set("amazon2").title
        'Amazon-2'
    """
    if name not in PAPER_SETS:
        raise UsageError(
            f"there is no set '{name}' of the paper{did_you_mean(name, PAPER_SETS)}; "
            f"there are {', '.join(PAPER_SETS)}"
        )
    return PAPER_SETS[name]


def read_paper_set(
    name: str,
    split: str = "train",
    folder: str | Path | None = None,
    tally: Counter[str] | None = None,
) -> Iterator[Example]:
    r"""Stream a set's rows with its classes as labels.

    Args:
        name: The set's key, e.g. ``"sst5"``.
        split: ``"train"``, ``"validation"`` or ``"test"``, where the set has it.
        folder: Where the original files are. Default None: read from the Hub.
        tally: Is counted into: rows left out, by their label in the data. Default None: nothing is.

    Raises:
        UsageError: There is no such set or split, or no copy on the Hub.
        DataError: The folder lacks the files, or rows cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "dev.txt").write_text("(3 (2 It) (4 works))\n(2 (2 Well) (2 ...))\n")
        ...     list(read_paper_set("sst2", "validation", folder))
        [Example(id='dev.txt:1', fields={'text': 'It works'}, label='1')]
    """
    entry = paper_set(name)
    place = entry.hub if folder is None else entry.files
    if place is None:
        names = " and ".join(" or ".join(files) for files in entry.files.splits.values())
        raise UsageError(
            f"{entry.title} is on the Hub in no usable form; name a folder with {names}"
        )
    if split not in place.splits:
        raise UsageError(
            f"{entry.title} has no split '{split}'{did_you_mean(split, place.splits)}; "
            f"it has {', '.join(place.splits)}"
        )
    if folder is None:
        sources: list[tuple[str, str | None]] = [(f"hub:{place.source}", place.splits[split][0])]
    else:
        prefix = f"{place.source}:" if place.source else ""
        found = _files(Path(folder), place.splits[split], entry.title)
        sources = [(f"{prefix}{path}", None) for path in found]
    for source, hub_split in sources:
        called, rows = open_rows(source, hub_split)
        examples = _examples(place, called, rows)
        yield from relabel(examples, place.classes, tally) if place.classes else examples


def _files(folder: Path, patterns: tuple[str, ...], title: str) -> list[Path]:
    for pattern in patterns:
        if found := sorted([*folder.glob(pattern), *folder.glob(f"{pattern}.gz")]):
            return found
    problem = "holds no" if folder.is_dir() else "is no folder; name the one that holds"
    raise DataError(f"{folder}: {problem} {' or '.join(patterns)}, a file of {title}")


def _examples(place: Place, called: str, rows: Rows) -> Iterator[Example]:
    if place.opinions:
        rows = sentihood_opinions(rows)
    columns = {name: name for name in ("text", *place.fields)}
    pick = Columns(called, {}, place.label if place.classes else None, columns, None)
    empty = True
    for row in rows:
        empty = False
        values = {**row.values, "text": _text(place, row)}
        yield pick.example(row.where, values, f"{called}:{row.name}")
    if empty:
        raise DataError(f"{called} has no rows")


def _text(place: Place, row: Row) -> str:
    """Join title and body as the paper's Table 3 does: "not an ultimate guide. firstly, ..."."""
    missing = [column for column in place.text if column not in row.values]
    if missing:
        known = ", ".join(map(str, row.values))
        raise DataError(f"{row.where}: there is no column '{missing[0]}' (columns: {known})")
    parts = [str(row.values[column] or "").strip() for column in place.text]
    *titles, body = [part for part in parts if part] or [""]
    text = " ".join([*(t if t[-1] in ".!?" else f"{t}." for t in titles), body])
    return unescaped(text) if place.escaped else text


_HUB_SPLITS = {split: (split,) for split in ("train", "validation", "test")}
_NO_VALIDATION = {split: (split,) for split in ("train", "test")}
_TREES = {"train": ("train.txt",), "validation": ("dev.txt",), "test": ("test.txt",)}
_ZHANG = {"train": ("train.csv",), "test": ("test.csv",)}

_FIVE_WORDS = {"0": "terrible", "1": "bad", "2": "okay", "3": "good", "4": "great"}
_TWO_WORDS = {"0": "terrible", "1": "great"}
_FROM_0: _Labels = {str(k): str(k) for k in range(5)}
_FROM_1: _Labels = {str(k + 1): str(k) for k in range(5)}
_TWO: _Labels = {"0": "0", "1": "1"}
_POLARITY: _Labels = {"negative": "negative", "positive": "positive"}
_THREE: _Labels = {"negative": "negative", "neutral": "neutral", "positive": "positive"}

_SST_LICENCE = "none stated; distributed by Stanford for research"
_AMAZON_LICENCE = (
    "none stated by Zhang et al.; reviews of Amazon's customers, gathered by McAuley for research"
)
_SEMEVAL_LICENCE = "META-SHARE: research only, non-commercial"

PAPER_SETS: Mapping[str, PaperSet] = {
    "yelp5": PaperSet(
        title="Yelp-5",
        domain="restaurant",
        words=_FIVE_WORDS,
        files=Place(source="zhang", splits=_ZHANG, classes=_FROM_1),
        hub=Place(
            source="Yelp/yelp_review_full",
            splits=_NO_VALIDATION,
            classes={"1 star": "0", "2 star": "1", "3 stars": "2", "4 stars": "3", "5 stars": "4"},
            escaped=True,
        ),
        licence="Yelp's data set agreement: academic, non-commercial",
        note="the source, not a target; files: yelp_review_full_csv of Zhang et al. 2015",
    ),
    "sst5": PaperSet(
        title="SST-5",
        domain="movie",
        words=_FIVE_WORDS,
        files=Place(source="trees", splits=_TREES, classes=_FROM_0),
        hub=Place(source="SetFit/sst5", splits=_HUB_SPLITS, classes=_FROM_0),
        licence=_SST_LICENCE,
        note="files: trainDevTestTrees_PTB of Socher et al. 2013; 8,544, 1,101 and 2,210 sentences",
    ),
    "sst2": PaperSet(
        title="SST-2",
        domain="movie",
        words=_TWO_WORDS,
        files=Place(source="trees", splits=_TREES, classes=FIVE_TO_TWO),
        hub=Place(source="SetFit/sst2", splits=_HUB_SPLITS, classes=_TWO),
        licence=_SST_LICENCE,
        note="SST-5 without its middle class: 6,920, 872 and 1,821 sentences. GLUE's form of it "
        "(stanfordnlp/sst2) has phrases to train on and no labels to test on",
    ),
    "amazon5": PaperSet(
        title="Amazon-5",
        domain="product",
        words=_FIVE_WORDS,
        files=Place(source="zhang", splits=_ZHANG, classes=_FROM_1, text=("title", "text")),
        hub=Place(
            source="yassiracharki/Amazon_Reviews_for_Sentiment_Analysis_fine_grained_5_classes",
            splits=_NO_VALIDATION,
            classes=_FROM_1,
            text=("review_title", "review_text"),
            label="class_index",
            escaped=True,
        ),
        licence=_AMAZON_LICENCE,
        note="files: amazon_review_full_csv of Zhang et al. 2015; the Hub's copy is a private person's",
    ),
    "amazon2": PaperSet(
        title="Amazon-2",
        domain="product",
        words=_TWO_WORDS,
        files=Place(
            source="zhang",
            splits=_ZHANG,
            classes={"1": "0", "2": "1"},
            text=("title", "text"),
        ),
        hub=Place(
            source="fancyzhx/amazon_polarity",
            splits=_NO_VALIDATION,
            classes={"negative": "0", "positive": "1"},
            text=("title", "content"),
            escaped=True,
        ),
        licence=_AMAZON_LICENCE,
        note="files: amazon_review_polarity_csv of Zhang et al. 2015: one and two stars against four "
        "and five, three left out, as relabel with FIVE_TO_TWO makes it of five classes",
    ),
    "sentihood": PaperSet(
        title="Sentihood",
        domain="neighbourhood",
        words={"negative": "terrible", "positive": "great"},
        files=Place(
            source="sentihood",
            splits={
                "train": ("sentihood-train.json",),
                "validation": ("sentihood-dev.json",),
                "test": ("sentihood-test.json",),
            },
            classes=_POLARITY,
            fields=("target", "aspect"),
        ),
        hub=Place(
            source="bhavnicksm/sentihood",
            splits=_HUB_SPLITS,
            classes=_POLARITY,
            fields=("target", "aspect"),
            opinions=True,
        ),
        licence="CC BY 4.0 by the Hub's copy; the authors' files state none",
        note="sentences without opinions are left out",
    ),
    "semeval_r": PaperSet(
        title="SemEval_r",
        domain="restaurant",
        words={"negative": "terrible", "neutral": "okay", "positive": "great"},
        files=Place(
            source="semeval16",
            splits={
                "train": ("ABSA16_Restaurants_Train_SB1_v2.xml",),
                "test": ("EN_REST_SB1_TEST.xml.gold", "EN_REST_SB1_TEST_gold.xml"),
            },
            classes=_THREE,
            fields=("category", "target"),
        ),
        hub=None,
        licence=_SEMEVAL_LICENCE,
        note="2,507 and 859 opinions; the Hub's copies need a script, which its library no longer runs",
    ),
    "semeval_l": PaperSet(
        title="SemEval_l",
        domain="laptop",
        words={"negative": "terrible", "neutral": "okay", "positive": "great"},
        files=Place(
            source="semeval16",
            splits={
                "train": ("ABSA16_Laptops_Train_SB1_v2.xml",),
                "test": ("EN_LAPT_SB1_TEST_.xml.gold", "EN_LAPT_SB1_TEST_gold.xml"),
            },
            classes=_THREE,
            fields=("category",),
        ),
        hub=None,
        licence=_SEMEVAL_LICENCE,
        note="opinions on laptops name no target; Hub as for SemEval_r",
    ),
    "openwebtext": PaperSet(
        title="OpenWebText",
        domain="open",
        files=Place(source="", splits={"train": ("*.parquet", "*.jsonl", "*.txt")}, classes={}),
        hub=Place(
            source="Skylion007/openwebtext@refs/convert/parquet",
            splits={"train": ("train",)},
            classes={},
        ),
        licence="CC0 for the collection; the texts are their authors'",
        note="unlabelled. The main branch held a script in 2025, which the Hub's library no longer "
        "runs; the revision named is the Hub's own conversion, maybe of the first 5 GB alone",
    ),
}
"""Key to set, in the order of Table 3, and the unlabelled text at the end."""
