"""Settings as frozen, checked values; a typo in a name or a value is one clear line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
import yaml

from headstart.errors import UsageError, did_you_mean


class Settings(pydantic.BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Base of all settings: frozen, no unknown names.

    Example:
        >>> Settings().model_dump()
        {}
    """


class Scoring(Settings):
    """How candidates are scored.

    Attributes:
        rule: ``sum``, ``mean`` or ``length`` (``sum / length^gamma``) of token log-probabilities.
        gamma: The power of ``length``.
        eos: Whether each candidate ends with the end-of-sequence token.
        calibrate: Whether the scores for a content-free text are subtracted when candidates are
            ranked; the loss and the dev accuracy of tuning are of the scores themselves.

    Example:
        >>> Scoring().rule
        'sum'
    """

    rule: Literal["sum", "mean", "length"] = "sum"
    gamma: float = pydantic.Field(1.0, ge=0, le=4)
    eos: bool = False
    calibrate: bool = False


class FewShot(Settings):
    """How a prompt is tuned from a few labels. Defaults are measured: ``docs/results/defaults.md``.

    Attributes:
        optimizer: ``adamw`` or ``adafactor`` (update clipped per prompt, no relative step).
        lr: Step size; ``None``: ``lr_scale`` times the root mean square of the model's embeddings.
        lr_scale: See ``lr``; a step moves each coordinate by about this part of an embedding's.
        schedule: ``linear`` to 0, or ``constant``; both after the warm-up.
        warmup_steps: Steps of linear warm-up.
        num_steps: Updates, unless early stopping ends a run before.
        batch_size: Rows of one run in one update.
        clip_norm: Largest gradient norm of one prompt; longer ones are scaled to it.
        weight_decay: Decoupled weight decay.
        loss: ``candidates`` (cross-entropy among the candidates) or ``tokens`` (of the gold answer).
        eval_every: Updates between looks at the dev rows, where there are any.
        patience: Looks without a better dev accuracy before a run ends; the best prompt is kept.

    Example:
        >>> FewShot(num_steps=10).num_steps
        10
    """

    optimizer: Literal["adamw", "adafactor"] = "adamw"
    lr: float | None = pydantic.Field(None, gt=0)
    lr_scale: float = pydantic.Field(0.1, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: int = pydantic.Field(5, ge=0)
    num_steps: int = pydantic.Field(60, ge=0)
    batch_size: int = pydantic.Field(8, ge=1)
    clip_norm: float = pydantic.Field(1.0, gt=0)
    weight_decay: float = pydantic.Field(0.0, ge=0)
    loss: Literal["candidates", "tokens"] = "candidates"
    eval_every: int = pydantic.Field(10, ge=1)
    patience: int = pydantic.Field(6, ge=1)


class FineTune(Settings):
    """How the whole model is fine-tuned (paper B's FT): AdamW, linear schedule with warm-up.

    Attributes:
        lr: Step size; paper B: 3e-5.
        num_steps: Updates.
        warmup_steps: Steps of linear warm-up; paper B: 20.
        batch_size: Rows in one update.
        clip_norm: Largest gradient norm.
        weight_decay: Decoupled weight decay.
        loss: ``candidates`` or ``tokens``.

    Example:
        >>> FineTune().lr
        3e-05
    """

    lr: float = pydantic.Field(3e-5, gt=0)
    num_steps: int = pydantic.Field(60, ge=0)
    warmup_steps: int = pydantic.Field(5, ge=0)
    batch_size: int = pydantic.Field(8, ge=1)
    clip_norm: float = pydantic.Field(1.0, gt=0)
    weight_decay: float = pydantic.Field(0.0, ge=0)
    loss: Literal["candidates", "tokens"] = "candidates"


class TuneSettings(Settings):
    """All settings of a tuning study; dotted overrides reach each of them.

    Attributes:
        init: The initialiser: ``vocab``, ``class-words``, ``text:...``, ``normal``, ``file:...``, ...
        prompt_length: Vectors of the prompt, P.
        num_shots: Training labels drawn, over all classes; ``None``: every row given.
        dev_shots: Further labels drawn for early stopping; 0: a fixed number of steps.
        stratified: Draw as equally per class as the rows allow; the papers draw plainly.
        seeds: One run each: its draw of labels, its initial prompt, its order of rows.
        max_length: Truncate longer rows to this many tokens, prompt included; ``None``: they are errors.
        train: How the prompt is tuned.
        scoring: How candidates are scored.

    Example:
        >>> TuneSettings().seeds
        (1,)
    """

    init: str = "vocab"
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    num_shots: int | None = pydantic.Field(None, ge=2)
    dev_shots: int = pydantic.Field(0, ge=0)
    stratified: bool = False
    seeds: tuple[int, ...] = pydantic.Field((1,), min_length=1)
    max_length: int | None = pydantic.Field(None, ge=8)
    train: FewShot = FewShot()
    scoring: Scoring = Scoring()


def override(settings: TuneSettings, assignments: Sequence[str]) -> TuneSettings:
    """Apply dotted overrides such as ``train.lr=0.01``; values are read as YAML.

    Raises:
        UsageError: No ``=``, an unknown name (with a suggestion), or a value of the wrong kind.

    Example:
        >>> override(TuneSettings(), ["train.num_steps=7"]).train.num_steps
        7
    """
    values = settings.model_dump()
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"'{assignment}' is no override; write name=value, e.g. train.lr=0.01")
        *path, last = name.strip().split(".")
        place: Any = values
        for key in path:
            place = place.get(key) if isinstance(place, Mapping) else None
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            known = dotted_names(values)
            raise UsageError(
                f"unknown setting '{name.strip()}'"
                f"{did_you_mean(name, known) or '; known: ' + ', '.join(known)}"
            )
        place[last] = _read(text, name)
    return check_settings(values)


def check_settings(values: Mapping[str, Any]) -> TuneSettings:
    """Turn nested values into settings.

    Raises:
        UsageError: The first unknown name or wrong value, in one line.

    Example:
        >>> check_settings({"train": {"num_steps": -1}})
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: train.num_steps=-1: input should be greater than or equal to 0
    """
    try:
        return TuneSettings.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}={first['input']}: {first['msg'].lower()}") from error


def dotted_names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List every leaf of nested settings by its dotted name.

    Example:
        >>> dotted_names({"a": {"b": 1}, "c": 2})
        ['a.b', 'c']
    """
    names: list[str] = []
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        names += dotted_names(value, f"{prefix}{key}.") if inner else [prefix + key]
    return names


def _read(text: str, name: str) -> Any:
    # YAML 1.1 reads 1e-3 as a word
    try:
        return (
            float(text)
            if "e" in text.lower() and text[:1] in "+-.0123456789"
            else yaml.safe_load(text)
        )
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{name}={text}: not a value ({str(error).splitlines()[0]})") from error
