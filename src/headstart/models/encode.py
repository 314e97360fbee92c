"""From rendered text to tokens: where the answer goes, and what is cut when a row is too long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from headstart.errors import DataError, TemplateError
from headstart.models.base import Limits
from headstart.tasks.example import ANSWER_SLOT, Rendered

OPENING = "([{\u201c\u2018"


def text_before_answer(rendered: Rendered) -> str:
    """Return the text a causal model reads: what stands before the answer slot.

    Raises:
        TemplateError: Words follow the slot, which a causal model would never see.

    Example:
        >>> text_before_answer(Rendered("a", f"It was {ANSWER_SLOT}.", ("bad",)))
        'It was'
    """
    before, _, after = rendered.source.partition(ANSWER_SLOT)
    if any(character.isalnum() for character in after):
        raise TemplateError(
            f"{rendered.id}: the template goes on after the answer ({after.strip()[:40]!r}); a causal model "
            "answers at the end: put {{ answer }} last, or use an encoder-decoder model"
        )
    return before.rstrip(" ") or before


def answer_tokens(tokenizer: Any, source: str, candidate: str) -> tuple[int, ...]:
    """Tokenize a candidate as it follows a source: after a space, unless one is there already.

    The tokens are those of ``anchor + candidate`` less those of ``anchor``, so that every tokenizer
    marks the word's start its own way.

    Raises:
        TemplateError: The candidate has no tokens.
    """
    separator = "" if source and (source[-1].isspace() or source[-1] in OPENING) else " "
    anchor = source[-1] if source and not separator else "a"
    return _tokens_after(tokenizer, anchor, separator + candidate.strip())


@lru_cache(maxsize=65536)
def _tokens_after(tokenizer: Any, anchor: str, text: str) -> tuple[int, ...]:
    before = tokenizer(anchor, add_special_tokens=False)["input_ids"]
    whole = tokenizer(anchor + text, add_special_tokens=False)["input_ids"]
    tokens = tuple(whole[len(before) :])
    if not tokens or whole[: len(before)] != before:
        tokens = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not text.strip() or not tokens:
        raise TemplateError(
            f"the label word {text.strip()!r} has no tokens; give it a word with letters"
        )
    return tokens


def source_tokens(
    tokenizer: Any,
    model_name: str,
    model_limit: int | None,
    rows: Sequence[Rendered],
    texts: Sequence[str],
    inner: Sequence[int],
    limits: Limits,
) -> list[tuple[tuple[int, ...], int]]:
    """Tokenize each text; shorten the longest field, never the template, where a limit is given.

    Args:
        tokenizer: A fast tokenizer.
        model_name: For the error.
        model_limit: Positions the model has; ``None``: no limit of its own.
        rows: The rendered rows the texts came from (their ``cut`` spans are of ``rows[i].source``).
        texts: What the model reads.
        inner: Positions each row's candidates take beside the text.
        limits: The length asked for and the slots kept for the soft prompt.

    Returns:
        For each row its tokens and how many were cut.

    Raises:
        DataError: A row is longer than the model and no ``max_length`` was asked for.
    """
    # the tokenizer's own limit is a hint for warnings only: rows are measured against the model's
    batch = tokenizer(list(texts), return_offsets_mapping=True, truncation=False, verbose=False)
    result = []
    for index, row in enumerate(rows):
        tokens: list[int] = batch["input_ids"][index]
        taken = limits.reserve + inner[index]
        bounds = [n for n in (model_limit, limits.max_length) if n is not None]
        room = min(bounds) - taken if bounds else len(tokens)
        if len(tokens) > room and limits.max_length is None:
            raise DataError(
                f"{row.id}: {len(tokens)} tokens and {taken} for prompt and answers, "
                f"but {model_name} takes {model_limit}; shorten the text, or pass --max-length "
                f"{model_limit} to cut its longest field"
            )
        kept = _shorten(tokens, batch["offset_mapping"][index], _span(row, texts[index]), room)
        if not kept:
            raise DataError(
                f"{row.id}: no room for text: a limit of {limits.max_length} tokens leaves {room} beside "
                f"{taken} for prompt and answers; raise --max-length or shorten the prompt"
            )
        result.append((tuple(kept), len(tokens) - len(kept)))
    return result


def _span(row: Rendered, text: str) -> tuple[int, int]:
    """Find the cut span in the text the model reads, whose slot may be a word or gone."""
    if row.cut is None:
        return 0, len(text)
    start, end = row.cut
    slot = row.source.find(ANSWER_SLOT)
    shift = len(text) - len(row.source) if 0 <= slot < start else 0
    return start + shift, end + shift


def _shorten(
    tokens: list[int], offsets: Sequence[tuple[int, int]], span: tuple[int, int], room: int
) -> list[int]:
    excess = len(tokens) - max(room, 0)
    if excess <= 0:
        return tokens
    start, end = span
    inside = [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end and a < b]
    dropped = set(inside[-excess:])
    kept = [token for i, token in enumerate(tokens) if i not in dropped]
    return kept[: max(room, 0)]
