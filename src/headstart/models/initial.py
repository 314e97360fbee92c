"""From an initialiser's name to the closure that makes prompts, fed with what the model knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from headstart.config import GROUPS, Group, PromptKind
from headstart.errors import UsageError, did_you_mean, told_by_settings
from headstart.models.base import BaseModel
from headstart.ops import initialise
from headstart.ops.initialise import Initialiser, root_mean_square
from headstart.prompts.files import load_prompt
from headstart.prompts.shipped import fitting_starts, shipped_start

Maker = Callable[[BaseModel, str, Sequence[str]], Initialiser]
Drawn = Callable[[int, "float | Tensor"], Initialiser]


def initialiser(
    spec: str,
    model: BaseModel,
    label_words: Sequence[str] = (),
    kind: PromptKind = "shallow",
    groups: Sequence[Group] = GROUPS,
) -> Initialiser:
    """Make the initialiser a spec names.

    A deep or gated prompt begins with the keys and values that the shallow start has in every layer, or with
    drawn ones at their size (``normal``, ``uniform``); the values of a gated one begin at zero, so that it
    changes nothing before it is trained.

    Args:
        spec: ``vocab`` or ``vocab:5000`` (sampled tokens, of all or of the most frequent), ``text:...``
            (an embedded text, repeated), ``class-words`` (the label words, filled up from the
            vocabulary), ``normal`` and ``uniform`` (at the scale of the embeddings), ``zero``,
            ``file:FOLDER`` (a tuned prompt's folder), or ``headstart:NAME`` (a shipped start; without
            a name one is chosen by the labelled rows, which only tuning has).
        model: The base model: its embeddings, and its fingerprint for a file.
        label_words: The label words, for ``class-words``.
        kind: Of the prompt.
        groups: Of a deep or gated prompt, where it speaks.

    Raises:
        UsageError: An unknown name (with a suggestion), a missing or wrong argument, a file with a
            prompt of another kind or other groups, or groups that the model has none of.
        PromptFileError: The file is damaged or made for another model.

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> initialiser("vocab", load_model("tiny-causal"))(3, torch.Generator()).shape
        torch.Size([3, 16])
    """
    check_spec(spec)
    name, _, argument = spec.partition(":")
    if kind != "shallow":
        _check_groups(model, groups)
    if name == "file":
        return _file_of(model, argument, kind, groups)
    if name in DRAWN:
        made = _drawn(DRAWN[name], model, argument, kind)
    else:
        made = INITIALISERS[name](model, argument, label_words)
        if kind != "shallow":
            made = initialise.in_every_layer(made, model.deepen)
    return initialise.behind_a_gate(made, model.is_key_X) if kind == "gated" else made


def _check_groups(model: BaseModel, groups: Sequence[Group]) -> None:
    there = [group for group in GROUPS if group in model.groups]
    if not set(groups) & set(there):
        raise UsageError(
            f"prompt groups {', '.join(groups)}: {model.name} has {', '.join(there)} alone, so a prompt "
            "would speak nowhere; take one of these"
        )


def check_spec(spec: str) -> None:
    """Make sure that an initialiser has this name, before a model is loaded.

    Raises:
        UsageError: An unknown name, with a suggestion.

    Example:
        >>> check_spec("vocab:5000")
    """
    name = spec.partition(":")[0]
    if name not in NAMES:
        raise UsageError(
            f"unknown init '{spec}'{did_you_mean(name, NAMES) or ';'} known: {', '.join(NAMES)}"
        )
    if name == "zero" and ":" in spec:
        raise UsageError(f"init '{spec}': zero takes no argument")


def named_start(spec: str | None) -> str | None:
    """Check the start that a recipe names; the settings of stages call it.

    Raises:
        ValueError: An unknown initialiser, or ``headstart`` alone, which only labelled rows can choose for.

    Example:
        >>> named_start("vocab"), named_start(None)
        ('vocab', None)
    """
    if spec is not None:
        with told_by_settings():
            check_spec(spec)
        if spec == "headstart":
            raise ValueError("name a shipped start, e.g. headstart:sentiment")
    return spec


def wordless_start(spec: str) -> str:
    """Check the start of a prompt that is for many tasks, and so knows no label words.

    Raises:
        ValueError: As :func:`named_start`, or a start from label words.

    Example:
        >>> wordless_start("vocab:5000")
        'vocab:5000'
    """
    if spec.partition(":")[0] == "class-words":
        raise ValueError("class-words needs one task's label words; take vocab, or text:...")
    named_start(spec)
    return spec


def is_learned(spec: str) -> bool:
    """Say whether a start comes from a learned prompt rather than from the model's embeddings.

    Example:
        >>> is_learned("headstart:sentiment"), is_learned("vocab")
        (True, False)
    """
    return spec.partition(":")[0] in ("file", "headstart")


def _vocabulary(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    if argument and not (argument.isdigit() and int(argument) > 0):
        raise UsageError(
            f"init 'vocab:{argument}': a number of tokens was expected, e.g. vocab:5000"
        )
    table_VH = model.embedding_VH.detach()
    if argument and int(argument) > len(table_VH):
        raise UsageError(f"init 'vocab:{argument}': the model has {len(table_VH)} tokens")
    return initialise.from_vocabulary(table_VH, int(argument) if argument else None)


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


def _drawn(make: Drawn, model: BaseModel, argument: str, kind: PromptKind) -> Initialiser:
    if kind == "shallow":
        return make(
            model.hidden_size, _scale(argument, root_mean_square(model.embedding_VH.detach()))
        )
    return make(model.deep_size, _scale(argument, model.deep_unit_X.cpu()))


def _zero(size: int, scale: float | Tensor) -> Initialiser:
    return initialise.zero(size)


def _file_of(
    model: BaseModel, argument: str, kind: PromptKind, groups: Sequence[Group]
) -> Initialiser:
    prompt, _ = load_prompt(_prompt_folder(Path(argument)), model.fingerprint())
    made = _of_length(
        initialise.from_prompt(prompt.vectors_PH), prompt.spec.length, f"file:{argument}"
    )
    if prompt.spec.kind == kind:
        if kind != "shallow" and set(prompt.spec.groups) != set(groups):
            raise UsageError(
                f"init 'file:{argument}': that prompt speaks in {', '.join(prompt.spec.groups)}, and "
                f"{', '.join(groups)} was asked for; take prompt_groups=[{','.join(prompt.spec.groups)}]"
            )
        return made
    if prompt.spec.kind != "shallow":
        raise UsageError(
            f"init 'file:{argument}': a {prompt.spec.kind} prompt, and a {kind} one was asked for; "
            f"take prompt kind {prompt.spec.kind} (--prompt-kind {prompt.spec.kind}), or another init"
        )
    made = initialise.in_every_layer(made, model.deepen)
    return initialise.behind_a_gate(made, model.is_key_X) if kind == "gated" else made


def _shipped(model: BaseModel, argument: str, label_words: Sequence[str]) -> Initialiser:
    if not argument:
        raise UsageError(
            "init 'headstart' chooses by labelled rows, which there are none of here; name a start, e.g. "
            "headstart:sentiment (`headstart inits` lists them)"
        )
    folder = shipped_start(argument)
    prompt, card = load_prompt(folder)
    if argument not in fitting_starts(model.fingerprint(), card.length):
        raise UsageError(
            f"init 'headstart:{argument}': made for base model '{card.base_model}', not for '{model.name}'; "
            "take vocab, or the model it was made for"
        )
    return _of_length(
        initialise.from_prompt(prompt.vectors_PH), card.length, f"headstart:{argument}"
    )


def _of_length(taken: Initialiser, length: int, spec: str) -> Initialiser:
    def initialise_from_prompt(prompt_length: int, generator: torch.Generator) -> Tensor:
        if prompt_length != length:
            raise UsageError(
                f"init '{spec}': that prompt has {length} vectors, and {prompt_length} were "
                f"asked for; set the prompt length to {length}"
            )
        return taken(prompt_length, generator)

    return initialise_from_prompt


def _prompt_folder(folder: Path) -> Path:
    """Return a prompt's folder; a study of one seed stands for its prompt."""
    members = sorted(path.parent for path in folder.glob("seed-*/card.json"))
    if (folder / "card.json").is_file() or not members:
        return folder
    if len(members) > 1:
        raise UsageError(
            f"init 'file:{folder}': a study of {len(members)} prompts; name one, e.g. file:{members[0]}"
        )
    return members[0]


def _scale(argument: str, usual: float | Tensor) -> float | Tensor:
    """Return the standard deviation given, or the usual one."""
    if not argument:
        return usual
    try:
        scale = float(argument)
    except ValueError:
        scale = math.nan
    if not 0 < scale < 1e6:
        raise UsageError(f"init scale '{argument}': a number above 0 was expected, e.g. normal:0.5")
    return scale


INITIALISERS: dict[str, Maker] = {
    "vocab": _vocabulary,
    "text": _text,
    "class-words": _class_words,
    "headstart": _shipped,
}
"""Starts beside the text; other kinds of prompts begin with what these are in every layer."""

DRAWN: dict[str, Drawn] = {
    "normal": initialise.normal,
    "uniform": initialise.uniform,
    "zero": _zero,
}
"""Starts that are drawn at the size of what they stand beside."""

NAMES = (*INITIALISERS, *DRAWN, "file")
"""The first words of specs."""
