"""From documents of any length to passages of prose: streamed, one document at a time.

A line of a document is a paragraph, and no passage runs over its end. Sentences that follow each
other are joined up to ``max_words``; whatever is no prose ends a passage and is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pydantic

from headstart.config import Settings
from headstart.errors import DataError
from headstart.tasks.example import Example

OPENERS, CLOSERS = "\"'“‘([«", "\"'”’)]»"

_END = re.compile(rf"([.!?…]+(?: [.!?…]+)*)([{re.escape(CLOSERS)}]*) ")
_NO_LETTERS = re.compile(r"[\W\d_]+")
_PUNCTUATION = re.compile(r"[\s.!?…,;:'\"’‘“”()\-–—]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_FINISHED = re.compile(rf"[.!?…][{re.escape(CLOSERS)}]*$")
_MARKUP = re.compile(
    r"[|{}<>\\_^=\t\ud800-\udfff]|://|www\.|\[\[|\]\]|^\s*[*•·#\-–—+]|^\(?\d+[.)]\s"
)
_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "sr",
        "jr",
        "vs",
        "etc",
        "cf",
        "al",
        "ca",
        "approx",
        "dept",
        "est",
        "gen",
        "col",
        "capt",
        "lt",
        "sgt",
        "rev",
        "hon",
        "sen",
        "rep",
        "gov",
        "pres",
        "mt",
        "ft",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sept",
        "sep",
        "oct",
        "nov",
        "dec",
        "inc",
        "ltd",
        "co",
        "corp",
        "bros",
    ]
)
_BEFORE_NUMBERS = frozenset(
    ["no", "nos", "vol", "p", "pp", "fig", "figs", "ch", "art", "sec", "op"]
)


class PassageSettings(Settings):
    """How documents are cut. PPT reads 366 tokens at most, about ``max_words=270``.

    Attributes:
        min_words: Shorter passages are left out.
        max_words: Longest passage; longer sentences are left out. The default is the length of a
            short review: the targets' rows are sentences, and short rows label fastest.
        min_letters: Share of a sentence's letters, digits and symbols that are letters; formulas,
            tables and box scores have fewer. Spaces and punctuation are not counted.

    Example:
        >>> PassageSettings(max_words=270).min_words
        8
    """

    min_words: int = pydantic.Field(8, ge=1)
    max_words: int = pydantic.Field(60, ge=1)
    min_letters: float = pydantic.Field(0.75, ge=0, le=1)

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> PassageSettings:
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words={self.min_words} is over max_words={self.max_words}; no passage fits"
            )
        return self


SHORT = PassageSettings()


def text_of(example: Example) -> str:
    """Return an example's text.

    Raises:
        DataError: It has no field ``text``, or that is no text.

    Example:
        >>> text_of(Example("a:1", {"text": "Lovely."}))
        'Lovely.'
    """
    text = example.fields.get("text")
    if not isinstance(text, str):
        found = ", ".join(example.fields) if "text" not in example.fields else type(text).__name__
        raise DataError(
            f"{example.id}: the field 'text' is missing or no text (found: {found}); name the column "
            "that holds it: columns={'text': 'COLUMN'}"
        )
    return text


def passages(
    documents: Iterable[Example],
    settings: PassageSettings = SHORT,
    tally: Counter[str] | None = None,
) -> Iterator[Example]:
    r"""Cut documents into passages, lazily; the k-th of a document is called ``document-id#k``.

    Args:
        documents: Examples with a ``text``.
        settings: Lengths, and what counts as prose. Default: those of a short review.
        tally: Is counted into: ``documents``, ``passages``, and what was left out: ``not_prose`` and
            ``long_sentences`` (sentences), ``short_passages``. Default None: nothing is counted.

    Example:
        >>> text = "Heading.\nThe room was clean. The staff could not have been kinder to us.\n| 1 | 2 |"
        >>> counts = Counter()
        >>> [(p.id, p.fields["text"]) for p in passages([Example("a", {"text": text})], tally=counts)]
        [('a#1', 'The room was clean. The staff could not have been kinder to us.')]
        >>> counts["short_passages"], counts["not_prose"]
        (1, 1)
    """
    counts = Counter() if tally is None else tally
    for document in documents:
        counts["documents"] += 1
        found = (
            passage
            for line in text_of(document).splitlines()
            for passage in _cut_paragraph(line, settings, counts)
        )
        for number, passage in enumerate(found, 1):
            counts["passages"] += 1
            yield Example(f"{document.id}#{number}", {"text": passage})


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph after ``. ! ? …`` and closing quotes or brackets, where a space follows.

    It does not split after an initial (``J. Smith``), letters with dots (``e.g.``, ``U.S.``), a
    common abbreviation (``Dr.``; ``No.`` before a number), and before a small letter unless a plain
    word in small letters stands before the mark, so that ``"Stop!" he said`` stays whole and a
    review without capitals is split. In doubt it does not split.

    Example:
        >>> sentences('Dr. J. Low of the U.S. Navy left. "Why?" she asked. it was late. we slept!')
        ['Dr. J. Low of the U.S. Navy left.', '"Why?" she asked.', 'it was late.', 'we slept!']
    """
    text = " ".join(paragraph.split())
    found, start = [], 0
    for match in _END.finditer(text):
        word = text[max(start, text.rfind(" ", start, match.start()) + 1) : match.start()]
        following = text[match.end() : match.end() + 4].lstrip(OPENERS)[:1]
        if _ends(word.lstrip(OPENERS), match[1], match[2], following):
            found.append(text[start : match.end() - 1])
            start = match.end()
    return [*found, text[start:]] if text else []


def is_prose(sentence: str, min_letters: float = 0.75) -> bool:
    """Say whether a text reads like a sentence: a final mark, no markup or list sign, mostly letters.

    Example:
        >>> [is_prose(text) for text in ("It rained.", "* It rained.", "x = 3.", "Goals 3 41 1.")]
        [True, False, False, False]
    """
    if not _FINISHED.search(sentence) or _MARKUP.search(sentence):
        return False
    letters = len(_NO_LETTERS.sub("", sentence))
    return letters > 0 and letters >= min_letters * len(_PUNCTUATION.sub("", sentence))


def _ends(word: str, marks: str, closers: str, following: str) -> bool:
    """Decide whether a sentence ends after ``word``, its marks and closers, before ``following``."""
    plain = word.lower()
    if marks == ".":
        if plain in _ABBREVIATIONS or _DOTTED.fullmatch(word):
            return False
        if plain in _BEFORE_NUMBERS and following.isdigit():
            return False
        if len(word) == 1 and word.isupper() and word != "I":
            return False
    if following.islower():
        whole = len(word) > 1 and word.isalpha() and word.islower()
        return whole and not closers and not marks.startswith(("..", ". .", "…"))
    return True


def _cut_paragraph(line: str, settings: PassageSettings, counts: Counter[str]) -> Iterator[str]:
    words: list[str] = []
    for sentence in [*sentences(line), ""]:  # the empty one ends the last passage
        new = sentence.split()
        unfit = bool(new) and _unfit(sentence, len(new), settings)
        if unfit:
            counts[unfit] += 1
        if not new or unfit or len(words) + len(new) > settings.max_words:
            if len(words) >= settings.min_words:
                yield " ".join(words)
            elif words:
                counts["short_passages"] += 1
            words = []
        if not unfit:
            words += new


def _unfit(sentence: str, num_words: int, settings: PassageSettings) -> str:
    if not is_prose(sentence, settings.min_letters):
        return "not_prose"
    return "long_sentences" if num_words > settings.max_words else ""
