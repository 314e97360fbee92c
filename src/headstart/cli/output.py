"""What a person or a script sees: tables, notes, progress, one JSON object.

results   stdout; with --json one JSON object there, and the tables on stderr
notes     stderr: one line each
progress  stderr: a bar on a terminal, else a plain line every few seconds
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

EVERY = 5.0
"""Seconds between progress lines where there is no terminal."""


class Output:
    """Where a command's words go.

    Args:
        as_json: Print one JSON object on stdout and everything else on stderr.
        quiet: Print no notes and no progress.

    Example:
        >>> Output().say("done")
        done
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet

    def say_cut(self, cut: int, rows: int) -> None:
        """Say how many rows were cut to fit, where any were.

        Example:
            >>> Output().say_cut(1, 4)
            1 of 4 rows were cut to fit --max-length
        """
        if cut:
            self.say(f"{cut} of {rows} rows were cut to fit --max-length")

    def say(self, *lines: str) -> None:
        """Print lines for people.

        Example:
            >>> Output().say("a", "b")
            a
            b
        """
        for line in lines:
            print(line, file=sys.stderr if self.as_json else sys.stdout)

    def note(self, line: str) -> None:
        """Print a line beside the results: on stderr, unless quiet.

        Example:
            >>> Output(quiet=True).note("unheard")
        """
        if not self.quiet:
            print(line, file=sys.stderr)

    def table(
        self, header: Sequence[str], rows: Sequence[Sequence[object]], title: str = ""
    ) -> None:
        """Print a table: the first column to the left, the others to the right.

        Example:
            >>> Output().table(["seed", "accuracy"], [[1, 0.5], ["mean", "-"]])
            seed  accuracy
            1        0.500
            mean         -
        """
        cells = [list(header), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        if title:
            self.say(title)
        for row in cells:
            padded = [row[0].ljust(widths[0])]
            padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            self.say("  ".join(padded).rstrip())

    def result(self, value: dict[str, Any]) -> None:
        """Print the one JSON object, where one was asked for; what is not finite becomes null.

        Example:
            >>> Output(as_json=True).result({"loss": float("nan")})
            {"loss": null}
        """
        if self.as_json:
            print(json.dumps(_finite(value), ensure_ascii=False))

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Progress]:
        """Show how far a long piece of work is.

        Example:
            >>> with Output(quiet=True).progress("tuning", 10) as progress:
            ...     progress.to(10)
        """
        if self.quiet:
            yield Progress(label, total)
        elif sys.stderr.isatty():
            with _Bar(label, total) as bar:
                yield bar
        else:
            yield _Lines(label, total)


class Progress:
    """Counts work; shows nothing.

    Example:
        >>> Progress("scoring", 4).add(2)
    """

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done = label, total, 0
        self.first: int | None = None

    def to(self, done: int, note: str = "") -> None:
        """Say how much is done in all.

        Example:
            >>> Progress("tuning", 4).to(2, "loss 0.69")
        """
        self.done = done
        if self.first is None:  # what was done before says nothing about the speed of now
            self.first = done
        self.show(note)

    def add(self, count: int) -> None:
        """Say how much was done just now.

        Example:
            >>> Progress("scoring", 4).add(1)
        """
        self.to(self.done + count)

    def show(self, note: str) -> None:
        """Show the count; here: nothing.

        Example:
            >>> Progress("scoring", 4).show("")
        """


class _Lines(Progress):
    def __init__(self, label: str, total: int | None) -> None:
        super().__init__(label, total)
        self.started = self.shown = time.monotonic()

    def show(self, note: str) -> None:
        now = time.monotonic()
        if self.done == self.first and self.first > 1:  # goes on from what was done before
            self.started = now
        if now - self.shown < EVERY:
            return
        self.shown = now
        words = [f"{self.label}: {self.done}"]
        if self.total:
            words = [f"{self.label}: {self.done}/{self.total}"]
            since = self.done - (self.first if self.first is not None and self.first > 1 else 0)
            if since > 0:
                left = (now - self.started) / since * (self.total - self.done)
                words.append(f"about {left:.0f} s left")
        print(", ".join([*words, *([note] if note else [])]), file=sys.stderr, flush=True)


class _Bar(Progress):
    def __init__(self, label: str, total: int | None) -> None:
        super().__init__(label, total)
        from rich import progress
        from rich.console import Console

        self.bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task(label, total=total, note="")

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def show(self, note: str) -> None:
        if self.done == self.first:
            self.bar.reset(self.task, total=self.total, completed=self.done, note=note)
        self.bar.update(self.task, completed=self.done, note=note)


def silence_libraries() -> None:
    """Keep transformers', datasets' and the hub's own bars and hints off the screen.

    Example:
        >>> silence_libraries()
    """
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TQDM_DISABLE", "1"),
    ):
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules:  # too late for the variables above
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()


def spread(metric: dict[str, float]) -> str:
    """Write a mean and its standard deviation.

    Example:
        >>> spread({"mean": 0.8124, "std": 0.0311})
        '0.812 ± 0.031'
    """
    return f"{metric['mean']:.3f} ± {metric['std']:.3f}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
