"""The starts that come with the package: learned once, for one base model, each with a card."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from headstart.errors import UsageError, did_you_mean
from headstart.prompts.files import Fingerprint, PromptCard, read_card


def shipped_folder() -> Path:
    """Return where the shipped starts are: a folder each, named as in ``headstart:NAME``.

    Example:
        >>> shipped_folder().name
        'inits'
    """
    return Path(str(files("headstart"))) / "inits"


def shipped_cards() -> dict[str, PromptCard]:
    """Read the card of every shipped start, by its name.

    Example:
        >>> all(card.length > 0 for card in shipped_cards().values())
        True
    """
    folders = sorted(path.parent for path in shipped_folder().glob("*/card.json"))
    return {folder.name: read_card(folder) for folder in folders}


def shipped_start(name: str) -> Path:
    """Return the folder of a shipped start.

    Raises:
        UsageError: There is none of this name.

    Example:
        >>> shipped_start("nowhere")
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: no shipped start 'nowhere'...
    """
    known = list(shipped_cards())
    if name not in known:
        rest = f"; shipped: {', '.join(known)}" if known else "; none is shipped"
        raise UsageError(f"no shipped start '{name}'{did_you_mean(name, known) or rest}")
    return shipped_folder() / name


def fitting_starts(model: Fingerprint, prompt_length: int) -> list[str]:
    """Name the shipped starts that a model can take, of this length.

    A start fits the model it was learned on and other copies of it (in another precision, or
    quantised), told by their kind, hidden size and tokenizer. It is trained further anyway.

    Example:
        >>> mark = Fingerprint(model_type="none", hidden_size=2, weights="w", tokenizer="t")
        >>> fitting_starts(mark, 20)
        []
    """

    def fits(card: PromptCard) -> bool:
        kept = card.fingerprint
        same = (kept.model_type, kept.hidden_size, kept.tokenizer)
        own = (model.model_type, model.hidden_size, model.tokenizer)
        return same == own and card.length == prompt_length

    return [name for name, card in shipped_cards().items() if fits(card)]
