"""The errors a person sees: one line that says what is wrong, where, and the way out.

HeadstartError                  exit code 1: the work could not be done
  ModelError                    a base model that cannot be found, read or used
  PromptFileError               a prompt file that is damaged or made for another model
  StorageError                  a place that cannot be written to or read from
UsageError                      exit code 2: the request itself is wrong
  DataError                     a data file, a row, a column or a label
  TemplateError                 a template or its label words
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class HeadstartError(Exception):
    """Something a person can mend; its text is one line and names the way out.

    Example:
        >>> HeadstartError("nothing to do").exit_code
        1
    """

    exit_code = 1


class ModelError(HeadstartError):
    """A base model that cannot be found, read or used."""


class PromptFileError(HeadstartError):
    """A prompt file that is damaged, or made for another base model."""


class StorageError(HeadstartError):
    """A file or folder that cannot be read or written."""


class UsageError(HeadstartError, ValueError):
    """A request that is wrong in itself, whatever the machine."""

    exit_code = 2


class DataError(UsageError):
    """A data file, row, column or label that cannot be used."""


class TemplateError(UsageError):
    """A template or its label words that cannot be used."""


def did_you_mean(word: str, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or ``""``.

    Example:
        >>> did_you_mean("vocabb", ["vocab", "text"])
        "; did you mean 'vocab'?"
    """
    close = get_close_matches(word, [str(k) for k in known], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


@contextmanager
def told_by_settings(where: str = "") -> Iterator[None]:
    """Let a check of ours speak inside settings, whose validators raise ``ValueError``.

    Args:
        where: What comes before the message.

    Raises:
        ValueError: In the place of a ``UsageError`` or ``DataError``.

    Example:
        >>> with told_by_settings("init: "):
        ...     raise UsageError("unknown")
        Traceback (most recent call last):
        ...
        ValueError: init: unknown
    """
    try:
        yield
    except (UsageError, DataError) as error:
        raise ValueError(f"{where}{error}") from error
