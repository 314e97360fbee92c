"""SemEval-2016 Task 5, subtask 1 (restaurants, laptops): one row per opinion, streamed from its XML.

XML from strangers can hold entities that grow to gigabytes or name other files. All of them must be
declared in a DTD, and a DTD is refused at its first character, before anything in it is read: this is
what defusedxml's ``forbid_dtd`` does, here by the same hook of the standard library's expat, which
never opens a file or an address by itself. Markup that does not end within ``FIELD_LIMIT`` bytes is
refused too: older versions of expat read such a piece again and again.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.parsers import expat

from headstart.errors import DataError, did_you_mean
from headstart.tasks.tables import FIELD_LIMIT, Row, Rows, opened

POLARITIES = ("negative", "neutral", "positive")
"""The labels of SemEval-2016; other years of the task have others too."""

_ROOT = "Reviews"
_CHUNK = 2**16
_log = logging.getLogger(__name__)


def semeval_rows(path: Path) -> Rows:
    """Read one row per opinion: ``text``, ``category``, ``target`` (restaurants) and ``label``.

    The text is the opinion's sentence, so a sentence with two opinions gives two rows, maybe with
    two labels; the second one is called ``SENTENCE-ID#2``. ``target`` is ``NULL`` where the sentence
    does not name it; laptops have none. Sentences without opinions are left out, and counted in the
    log.

    Raises:
        DataError: The file is no such XML, ends too early, has a DTD, or an opinion lacks its
            category or has an unknown polarity.

    Example:
        >>> import tempfile
        >>> opinion = '<Opinion category="FOOD#QUALITY" target="sushi" polarity="positive"/>'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.xml")
        ...     _ = path.write_text(
        ...         '<Reviews><Review rid="a"><sentences><sentence id="a:0"><text>Good sushi.</text>'
        ...         f"<Opinions>{opinion}</Opinions></sentence></sentences></Review></Reviews>"
        ...     )
        ...     [(row.name, row.values["label"], row.values["target"]) for row in semeval_rows(path)]
        [('a:0#1', 'positive', 'sushi')]
    """
    reader = _Reader(path)
    with opened(path) as file:
        while chunk := file.read(_CHUNK):
            reader.feed(chunk)
            yield from reader.taken()
    reader.feed(b"", final=True)
    yield from reader.taken()
    _log.info("%s: left out %d sentences without an opinion", path.name, reader.without_opinion)


class _Reader:
    """Follows the XML's elements and collects the rows of each sentence that ends."""

    def __init__(self, path: Path) -> None:
        self.path, self.fed, self.without_opinion = path, 0, 0
        self._rows: deque[Row] = deque()
        self._seen: Counter[str] = Counter()
        self._open: list[str] = []
        self._sentence = ""
        self._text: list[str] = []
        self._opinions: list[tuple[int, Mapping[str, str]]] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse_dtd
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data

    def feed(self, chunk: bytes, final: bool = False) -> None:
        self.fed += len(chunk)
        try:
            self._parser.Parse(chunk, final)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise self._error(error.lineno, f"is not valid XML ({reason})") from None
        except DataError:
            raise
        except (LookupError, ValueError) as error:  # an encoding that Python does not know
            raise self._error(1, f"cannot be decoded ({error}); save the file as UTF-8") from None
        if self.fed - self._parser.CurrentByteIndex > FIELD_LIMIT:
            line = self._parser.CurrentLineNumber
            raise self._error(line, f"holds markup of over {FIELD_LIMIT:,} bytes; is it damaged?")

    def taken(self) -> Iterator[Row]:
        while self._rows:
            yield self._rows.popleft()

    def _error(self, line: int, what: str) -> DataError:
        return DataError(f"{self.path} line {line}: {what}")

    def _here(self, what: str) -> DataError:
        return self._error(self._parser.CurrentLineNumber, what)

    def _refuse_dtd(self, *_: object) -> None:
        raise self._here("has a DTD (<!DOCTYPE ...>), which is refused; remove it from the file")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._open and tag != _ROOT:
            raise self._here(
                f"the root is <{tag}>, not <{_ROOT}>; this reads SemEval-2016 Task 5, subtask 1"
            )
        if tag == "sentence":
            self._sentence = attributes.get("id", "").strip()
            if not self._sentence:
                raise self._here("a <sentence> has no id; restore the original file")
            self._text, self._opinions = [], []
        elif tag == "Opinion":
            if "sentence" not in self._open:
                raise self._here(
                    "an <Opinion> stands outside a sentence; take the files of subtask 1 (SB1)"
                )
            self._opinions.append((self._parser.CurrentLineNumber, attributes))
        self._open.append(tag)

    def _data(self, text: str) -> None:
        if self._open[-2:] == ["sentence", "text"]:
            self._text.append(text)

    def _end(self, tag: str) -> None:
        self._open.pop()
        if tag != "sentence":
            return
        text = "".join(self._text).strip()
        self.without_opinion += not self._opinions
        for line, attributes in self._opinions:
            self._seen[self._sentence] += 1  # goes on where two sentences share an id
            name = f"{self._sentence}#{self._seen[self._sentence]}"
            values = {"text": text, **self._checked(line, attributes)}
            self._rows.append(Row(f"{self.path} line {line}", name, values))

    def _checked(self, line: int, opinion: Mapping[str, str]) -> dict[str, str]:
        for needed in ("category", "polarity"):
            if not opinion.get(needed, "").strip():
                raise self._error(
                    line, f"the opinion has no {needed}; take the training or the gold file"
                )
        polarity = opinion["polarity"]
        if polarity not in POLARITIES:
            raise self._error(
                line,
                f"the polarity '{polarity}' is not one of {', '.join(POLARITIES)}"
                f"{did_you_mean(polarity, POLARITIES)}",
            )
        target = {"target": opinion["target"]} if opinion.get("target") else {}
        return {"category": opinion["category"], **target, "label": polarity}
