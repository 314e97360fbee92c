"""Results of a study, one JSON line a (target, method, seed), kept as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from headstart.errors import StorageError
from headstart.evaluate.metrics import classification_metrics
from headstart.prompts.files import storage_errors, write_whole


class Result(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What one method did on one target with one seed.

    Attributes:
        target: The target task.
        method: The method, e.g. a start's name.
        seed: The draw of labels.
        labels: How many labels it learned from (``train``) and chose with (``dev``).
        accuracy: On the test rows.
        macro_f1: The same.
        right: Of every test row, whether it was right.
        details: Whatever else the method reports.

    Example:
        >>> Result(target="a", method="b", seed=1, accuracy=0.5, macro_f1=0.4).labels
        {}
    """

    target: str
    method: str
    seed: int
    labels: dict[str, int] = {}
    accuracy: float
    macro_f1: float
    right: tuple[bool, ...] = ()
    details: dict[str, Any] = {}


def judged(
    gold: Sequence[str],
    predicted: Sequence[str],
    target: str,
    method: str,
    seed: int,
    labels: Mapping[str, int],
    details: Mapping[str, Any],
) -> Result:
    """Measure predictions and make their line.

    Example:
        >>> judged(["a", "b"], ["a", "a"], "t", "m", 1, {}, {}).accuracy
        0.5
    """
    found = classification_metrics(gold, predicted)
    return Result(
        target=target,
        method=method,
        seed=seed,
        labels=dict(labels),
        accuracy=found["accuracy"],
        macro_f1=found["macro_f1"],
        right=tuple(a == b for a, b in zip(gold, predicted, strict=True)),
        details=dict(details),
    )


def collect(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    work: Callable[[int, str, str], Iterable[Result]],
) -> list[Result]:
    """Work on every (target, method) pair that is not done yet, and gather all in ``results.jsonl``.

    A pair's results are one file, whole or absent, so a killed study goes on with the pair it was at.

    Args:
        folder: Where the files are.
        pairs: All pairs, in the order of the results.
        work: Given a pair's position, target and method, makes its results.

    Raises:
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> def work(position, target, method):
        ...     yield Result(target=target, method=method, seed=1, accuracy=1, macro_f1=1)
        >>> folder = Path(tempfile.mkdtemp())
        >>> [result.method for result in collect(folder, [("a", "x"), ("a", "y")], work)]
        ['x', 'y']
        >>> len(read_results(folder / "results.jsonl"))
        2
    """
    found: list[Result] = []
    for position, (target, method) in enumerate(pairs):
        part = folder / "parts" / f"{target}--{method}.jsonl"
        if not part.is_file():
            write_results(part, work(position, target, method))
        found += read_results(part)
    write_results(folder / "results.jsonl", found)
    return found


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write a results file, whole or not at all.

    Raises:
        StorageError: The file cannot be written to.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.jsonl"
        >>> write_results(path, [Result(target="a", method="b", seed=1, accuracy=1, macro_f1=1)])
        >>> read_results(path)[0].method
        'b'
    """
    write_whole(path, "".join(json.dumps(result.model_dump()) + "\n" for result in results))


def read_results(path: Path) -> list[Result]:
    """Read a results file.

    Raises:
        StorageError: It cannot be read, or is no results file.

    Example:
        >>> read_results(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.StorageError: nowhere: No such file or directory; choose a folder you may ...
    """
    with storage_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Result.model_validate_json(line) for line in lines]
    except pydantic.ValidationError as error:
        raise StorageError(f"{path}: not a results file ({error.errors()[0]['msg']})") from error
