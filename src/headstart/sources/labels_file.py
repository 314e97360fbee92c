"""Pseudo-labelled rows and their file: JSON lines that ``read_examples`` reads too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart.errors import DataError
from headstart.prompts.files import storage_errors, write_whole


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """A text and what a teacher says about it; one line of ``labels.jsonl``.

    Attributes:
        id: The passage's id.
        text: The passage.
        label: The teacher's most probable label.
        confidence: That label's probability.
        probs: The probabilities of all labels, in the teacher's order, rounded to 5 digits.

    Example:
        >>> PseudoLabel("a#1", "Lovely.", "good", 0.9, (0.1, 0.9)).label
        'good'
    """

    id: str
    text: str
    label: str
    confidence: float
    probs: tuple[float, ...]

    def to_line(self) -> bytes:
        r"""Write the row as a line of JSON.

        Example:
            >>> PseudoLabel("a#1", "Hm.", "good", 0.9, (0.1, 0.9)).to_line()
            b'{"id": "a#1", "text": "Hm.", "label": "good", "confidence": 0.9, "probs": [0.1, 0.9]}\n'
        """
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, where: str, line: bytes) -> PseudoLabel:
        """Read a row from a line of JSON.

        Args:
            where: What an error calls the line.
            line: The line.

        Raises:
            DataError: It is no such row.

        Example:
            >>> row = PseudoLabel("a#1", "Hm.", "good", 0.9, (0.1, 0.9))
            >>> PseudoLabel.from_line("labels.jsonl line 1", row.to_line()) == row
            True
        """
        try:
            row = json.loads(line)
            return cls(row["id"], row["text"], row["label"], row["confidence"], tuple(row["probs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where}: is no pseudo-labelled row ({error!r})") from error


def read_labels(path: Path) -> Iterator[PseudoLabel]:
    """Stream pseudo-labelled rows from a file.

    Raises:
        DataError: A line is no such row.
        StorageError: The file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "labels.jsonl")
        >>> write_labels(path, [PseudoLabel("a#1", "Hm.", "good", 0.9, (0.1, 0.9))])
        >>> [row.id for row in read_labels(path)]
        ['a#1']
    """
    with storage_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield PseudoLabel.from_line(f"{path} line {number}", line)


def write_labels(path: Path, rows: Iterable[PseudoLabel]) -> None:
    """Write pseudo-labelled rows to a file, whole or not at all.

    Raises:
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "labels.jsonl")
        >>> write_labels(path, [])
        >>> path.read_bytes()
        b''
    """
    write_whole(path, b"".join(row.to_line() for row in rows))
