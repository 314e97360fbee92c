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


def ended(
    answers: Sequence[tuple[int, ...]], eos: int, limits: Limits
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """End answers and cut them, as the limits say, and count the tokens cut; what is cut has no end.

    Example:
        >>> ended([(5,), (6, 7, 8)], 2, Limits(eos=True, max_target=3))
        (((5, 2), (6, 7, 8)), 1)
    """
    end = (eos,) if limits.eos else ()
    whole = [answer + end for answer in answers]
    kept = tuple(answer[: limits.max_target] for answer in whole)
    return kept, sum(map(len, whole)) - sum(map(len, kept))


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
    special: bool = True,
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
        special: Whether the tokenizer adds its special tokens.

    Returns:
        For each row its tokens and how many were cut.

    Raises:
        DataError: A row is longer than the model and no ``max_length`` was asked for.
    """
    # the tokenizer's own limit is a hint for warnings only: rows are measured against the model's
    batch = tokenizer(
        list(texts),
        add_special_tokens=special,
        return_offsets_mapping=True,
        truncation=False,
        verbose=False,
    )
    bounds = [n for n in (model_limit, limits.max_length) if n is not None]
    result = []
    for index, row in enumerate(rows):
        tokens: list[int] = batch["input_ids"][index]
        taken = limits.reserve + inner[index]
        room = min(bounds) - taken if bounds else len(tokens)
        if len(tokens) <= room:
            result.append((tuple(tokens), 0))
            continue
        if room < 1:
            raise DataError(
                f"{row.id}: prompt and answers alone take {taken} of {min(bounds)} positions; "
                "take a shorter prompt or shorter label words"
            )
        if limits.max_length is None:
            raise DataError(
                f"{row.id}: {len(tokens)} tokens and {taken} for prompt and answers, but {model_name} "
                f"takes {model_limit}; shorten the text, or pass --max-length {model_limit} to cut "
                "its longest field"
            )
        spans = _spans(row, texts[index])
        kept = shorten(tokens, batch["offset_mapping"][index], spans, room)
        if len(kept) > room or len(kept) == len(tokens):
            raise DataError(
                f"{row.id}: no room for text: the template alone has {len(kept)} tokens, and a limit of "
                f"{min(bounds)} leaves {room} beside {taken} for prompt and answers; raise --max-length"
            )
        result.append((tuple(kept), len(tokens) - len(kept)))
    return result


def _spans(row: Rendered, text: str) -> list[tuple[int, int]]:
    """Find what may be cut in the text the model reads, whose slot may be a word or gone."""
    slot = row.source.find(ANSWER_SLOT)
    longer = len(text) - len(row.source)
    if not row.cuts:
        end = len(text) if slot < 0 else min(slot, len(text))
        return [(0, end), (end + longer + 1, len(text))] if end < len(text) else [(0, end)]
    moved = [longer if 0 <= slot < start else 0 for start, _ in row.cuts]
    return [(a + move, b + move) for (a, b), move in zip(row.cuts, moved, strict=True)]


def shorten(
    tokens: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int]],
    room: int,
) -> list[int]:
    """Drop tokens from the end of the longest span, again and again, until ``room`` are left.

    Tokens outside the spans always stay, so the result may be longer than ``room``; and each span
    keeps its first token.

    Example:
        >>> shorten([1, 2, 3, 4, 5], [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 3), (4, 5)], 3)
        [1, 4, 5]
    """
    inside = [
        [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end and a < b]
        for start, end in spans
    ]
    dropped: set[int] = set()
    while len(tokens) - len(dropped) > room:
        longest = max(inside, key=len)
        if len(longest) <= 1:
            break
        dropped.add(longest.pop())
    return [token for i, token in enumerate(tokens) if i not in dropped]
