"""From an initialiser's name to the closure that makes prompts, fed with what the model knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.errors import UsageError, did_you_mean
from headstart.models.base import BaseModel
from headstart.ops import initialise
from headstart.ops.initialise import Initialiser, root_mean_square
from headstart.prompts.files import load_prompt

Maker = Callable[[BaseModel, str, Sequence[str]], Initialiser]


def initialiser(spec: str, model: BaseModel, label_words: Sequence[str] = ()) -> Initialiser:
    """Make the initialiser a spec names.

    Args:
        spec: ``vocab`` or ``vocab:5000`` (sampled tokens, of all or of the most frequent), ``text:...``
            (an embedded text, repeated), ``class-words`` (the label words, filled up from the
            vocabulary), ``normal`` and ``uniform`` (at the scale of the embeddings), ``zero``, or
            ``file:FOLDER`` (a tuned prompt's folder).
        model: The base model: its embeddings, and its fingerprint for a file.
        label_words: The label words, for ``class-words``.

    Raises:
        UsageError: An unknown name (with a suggestion), or a missing or wrong argument.
        PromptFileError: The file is damaged or made for another model.

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> initialiser("vocab", load_model("tiny-causal"))(3, torch.Generator()).shape
        torch.Size([3, 16])
    """
    check_spec(spec)
    name, _, argument = spec.partition(":")
    return INITIALISERS[name](model, argument, label_words)


def check_spec(spec: str) -> None:
    """Make sure that an initialiser has this name, before a model is loaded.

    Raises:
        UsageError: An unknown name, with a suggestion.

    Example:
        >>> check_spec("vocab:5000")
    """
    name = spec.partition(":")[0]
    if name not in INITIALISERS:
        raise UsageError(
            f"unknown init '{spec}'{did_you_mean(name, INITIALISERS) or ';'} "
            f"known: {', '.join(INITIALISERS)}"
        )


def _vocabulary(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    if argument and not (argument.isdigit() and int(argument) > 0):
        raise UsageError(
            f"init 'vocab:{argument}': a number of tokens was expected, e.g. vocab:5000"
        )
    return initialise.from_vocabulary(
        model.embedding_VH.detach(), int(argument) if argument else None
    )


def _text(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    if not argument.strip():
        raise UsageError("init 'text' needs a text, e.g. --init 'text:Is this review good or bad?'")
    return initialise.from_embedded(model.embed(argument))


def _class_words(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    if not label_words:
        raise UsageError(
            "init 'class-words' needs label words, and this template brings its own answers; take vocab"
        )
    words = [model.embed(" " + word) for word in label_words]
    return initialise.from_class_words(words, _vocabulary(model, argument, ()))


def _normal(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    return initialise.normal(model.hidden_size, _scale(model, argument))


def _uniform(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    return initialise.uniform(model.hidden_size, _scale(model, argument))


def _zero(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    return initialise.zero(model.hidden_size)


def _file(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    prompt, _ = load_prompt(Path(argument), model.fingerprint())
    return initialise.from_prompt(prompt.vectors_PH)


def _scale(model: BaseModel, argument: str) -> float:
    """Return the standard deviation given, or the root mean square of the model's embeddings."""
    try:
        return float(argument) if argument else root_mean_square(model.embedding_VH.detach())
    except ValueError as error:
        raise UsageError(
            f"init scale '{argument}': a number was expected, e.g. normal:0.5"
        ) from error


INITIALISERS: dict[str, Maker] = {
    "vocab": _vocabulary,
    "text": _text,
    "class-words": _class_words,
    "normal": _normal,
    "uniform": _uniform,
    "zero": _zero,
    "file": _file,
}
