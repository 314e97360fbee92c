"""Settings as frozen, checked values; a typo in a name or a value is one clear line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, overload

import pydantic
import yaml

from headstart.errors import UsageError, did_you_mean


class Settings(
    pydantic.BaseModel, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
):
    """Base of all settings: frozen, no unknown names, defaults held to the rules of given values.

    Example:
        >>> Settings().model_dump()
        {}
    """


S = TypeVar("S", bound=Settings)

PromptKind = Literal["shallow", "deep", "gated"]
"""``shallow``: vectors beside the embedded text. ``deep``: keys and values of every layer, before those
of the text. ``gated``: the same, but attended to apart and added, so that values of zero change nothing."""

Group = Literal["encoder", "decoder", "cross"]
"""Where keys and values stand: in the encoder's own attention, the decoder's (of a causal model: all it
has), and in the decoder's attention to the encoder."""

GROUPS: tuple[Group, ...] = get_args(Group)

Groups = Annotated[tuple[Group, ...], pydantic.Field(min_length=1)]
"""Some of them, at least one."""


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
        lr: Step size; ``None``: ``lr_scale`` times the root mean square of the model's embeddings, or, of
            prompts in every layer, of that layer's own keys or values.
        lr_scale: See ``lr``; a step moves each coordinate by about this part of its usual size.
        schedule: ``linear`` to 0, or ``constant``; both after the warm-up.
        warmup_steps: Steps of linear warm-up.
        num_steps: Updates, unless early stopping ends a run before.
        batch_size: Rows of one run in one update.
        clip_norm: Largest gradient norm of one prompt; longer ones are scaled to it.
        weight_decay: Decoupled weight decay.
        loss: ``candidates`` (cross-entropy among the candidates) or ``tokens`` (of the gold answer).
        start_worth: How many labels a learned start is worth against the run's own n: of the way that tuning
            went from it, ``n / (n + start_worth)`` is kept, since a few labels are soon overfitted. 0: all
            of it, as of starts that were not learned.
        eval_every: Updates between looks at the dev rows, where there are any; the first look is at the
            start itself.
        patience: Looks without a better dev accuracy before a run ends; the best prompt is kept.
        reparameterise: Train a small network of so many units that makes the prompt (Li and Liang 2021,
            section 4.3) in place of the prompt itself; it begins at the prompt's start and is folded away
            at the end. ``None``: the prompt itself.
        least_factored: Least rows and columns of a prompt for Adafactor's second moments to be kept by row
            and column; paper A's code has 128, so that a prompt's are kept whole.

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
    start_worth: float = pydantic.Field(80.0, ge=0)
    eval_every: int = pydantic.Field(10, ge=1)
    patience: int = pydantic.Field(6, ge=1)
    reparameterise: int | None = pydantic.Field(None, ge=1, le=4096)
    least_factored: int = pydantic.Field(0, ge=0)


class MetaTrain(Settings):
    """How a start is learned over many tasks. Defaults follow paper B where it says, else measurement.

    Attributes:
        method: ``maml`` (second order), ``fomaml``, ``reptile``, ``multitask`` (no inner step), or
            ``plain`` (PPT: rows of all tasks in one heap, no inner step).
        inner_optimizer: ``sgd`` (paper B's Equation 1), ``adam`` or ``adafactor``, all differentiated
            through by ``maml``.
        inner_lr: Its step size, paper B's alpha; ``None``: ``inner_lr_scale`` times the root mean
            square of the model's embeddings for ``adam`` and ``adafactor``, which step in units of the
            prompt; ``inner_lr_scale`` itself for ``sgd``, which steps in units of the gradient.
        inner_lr_scale: See ``inner_lr``.
        inner_steps: Steps on the support rows; paper B: 1.
        num_support: Rows of a task to adapt on, paper B's m; its batch size of 4 is taken for m.
        num_query: Other rows of the task for the outer loss; paper B: m again.
        meta_batch_size: Tasks in one update, sampled; ``None``: all (paper B).
        reduction: Outer loss summed (Equation 2) or averaged (``mean``) over tasks. AdamW sees the
            difference only through clipping.
        optimizer: Of the outer loop: ``adamw`` (paper B) or ``sgd``.
        meta_lr: Its step size, paper B's beta; ``None``: ``meta_lr_scale`` times the root mean square of
            the embeddings, so that one default fits prompts of any scale.
        meta_lr_scale: See ``meta_lr``.
        schedule: ``linear`` to 0, or ``constant``; both after the warm-up.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Decoupled weight decay.
        clip_norm: Largest norm of the outer gradient.
        num_steps: Updates, unless patience ends the run before; paper B: at most 20,000.
        loss: ``candidates`` or ``tokens``, of inner and outer loss.
        num_validation: Rows held out from every task for meta-validation; 0: none, the last start is kept.
        eval_every: Updates between looks at them; paper B: 500.
        patience: Looks without a better one before the run ends; paper B: 6.
        select: What "better" means on the held-out rows after adapting: ``accuracy`` (paper B; ties go to
            the lower loss) or ``loss`` (less noisy where few rows are held out).

    Example:
        >>> MetaTrain(method="fomaml").inner_steps
        1
    """

    method: Literal["maml", "fomaml", "reptile", "multitask", "plain"] = "maml"
    inner_optimizer: Literal["sgd", "adam", "adafactor"] = "sgd"
    inner_lr: float | None = pydantic.Field(None, gt=0)
    inner_lr_scale: float = pydantic.Field(0.3, gt=0)
    inner_steps: int = pydantic.Field(1, ge=0)
    num_support: int = pydantic.Field(4, ge=1)
    num_query: int = pydantic.Field(4, ge=1)
    meta_batch_size: int | None = pydantic.Field(None, ge=1)
    reduction: Literal["sum", "mean"] = "mean"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    meta_lr: float | None = pydantic.Field(None, gt=0)
    meta_lr_scale: float = pydantic.Field(0.1, gt=0)
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: int = pydantic.Field(5, ge=0)
    weight_decay: float = pydantic.Field(0.0, ge=0)
    clip_norm: float = pydantic.Field(1.0, gt=0)
    num_steps: int = pydantic.Field(100, ge=0)
    loss: Literal["candidates", "tokens"] = "candidates"
    num_validation: int = pydantic.Field(16, ge=0)
    eval_every: int = pydantic.Field(20, ge=1)
    patience: int = pydantic.Field(6, ge=1)
    select: Literal["accuracy", "loss"] = "accuracy"

    @pydantic.model_validator(mode="after")
    def _moves(self) -> MetaTrain:
        if self.method == "reptile" and not self.inner_steps:
            raise ValueError(
                "reptile needs at least one inner step: without, its start never moves"
            )
        return self

    @property
    def has_inner_loop(self) -> bool:
        """Whether the method adapts prompts to tasks at all.

        Example:
            >>> MetaTrain(method="plain").has_inner_loop
            False
        """
        return self.method not in ("multitask", "plain")


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
        eval_every: Updates between looks at the dev rows, where there are any; paper B: an epoch.
        patience: Looks without a better dev accuracy before the run ends; the best weights are kept.

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
    eval_every: int = pydantic.Field(5, ge=1)
    patience: int = pydantic.Field(5, ge=1)


class TuneSettings(Settings):
    """All settings of a tuning study; dotted overrides reach each of them.

    Attributes:
        init: The initialiser: ``headstart`` (the shipped start or the sampled vocabulary, whichever has
            the lower loss on the training rows), ``vocab``, ``class-words``, ``text:...``, ...
        prompt_kind: ``shallow`` (vectors beside the text), ``deep`` or ``gated`` (keys and values of
            every layer).
        prompt_groups: Of an encoder-decoder, where a deep or gated prompt speaks.
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

    init: str = "headstart"
    prompt_kind: PromptKind = "shallow"
    prompt_groups: Groups = GROUPS
    prompt_length: int = pydantic.Field(20, ge=1, le=1000)
    num_shots: int | None = pydantic.Field(None, ge=2)
    dev_shots: int = pydantic.Field(0, ge=0)
    stratified: bool = False
    seeds: tuple[int, ...] = pydantic.Field((1,), min_length=1)
    max_length: int | None = pydantic.Field(None, ge=8)
    train: FewShot = FewShot()
    scoring: Scoring = Scoring()


def override(settings: S, assignments: Sequence[str]) -> S:
    """Apply dotted overrides such as ``train.lr=0.01``; values are read as YAML.

    Raises:
        UsageError: No ``=``, an unknown name (with a suggestion), or a value of the wrong kind.

    Example:
        >>> override(TuneSettings(), ["train.num_steps=7"]).train.num_steps
        7
    """
    values = settings.model_dump()
    for assignment in assignments:
        path, value = read_assignment(assignment)
        place: Any = values
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, Mapping) else None
        last = path[-1]
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            name, known = ".".join(path), dotted_names(values)
            raise UsageError(
                f"unknown setting '{name}'"
                f"{did_you_mean(name, known) or '; known: ' + ', '.join(known)}"
            )
        place[last] = value
    return check_settings(values, type(settings))


def read_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """Split ``train.lr=0.01`` into its path and its value, read as YAML.

    Raises:
        UsageError: No ``=``, or what follows it is not YAML.

    Example:
        >>> read_assignment("train.lr=1e-2")
        (('train', 'lr'), 0.01)
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"'{text}' is no override; write name=value, e.g. train.lr=0.01")
    if _POWER_OF_TEN.fullmatch(value.strip()):
        return tuple(name.strip().split(".")), float(value)
    try:
        return tuple(name.strip().split(".")), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}={value}: not a value ({str(error).splitlines()[0]})") from error


_POWER_OF_TEN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
"""A number that YAML 1.1 reads as a word: ``1e-3``."""


@overload
def check_settings(values: Mapping[str, Any]) -> TuneSettings: ...


@overload
def check_settings(values: Mapping[str, Any], model: type[S], context: object = None) -> S: ...


def check_settings(
    values: Mapping[str, Any], model: type[Settings] = TuneSettings, context: object = None
) -> Settings:
    """Turn nested values into settings.

    Args:
        values: Names to values, nested as the settings are.
        model: Which settings. Default: a tuning study's.
        context: What the settings' own validators may look at. Default None.

    Raises:
        UsageError: The first unknown name (with a suggestion), missing name or wrong value, in one
            line.

    Example:
        >>> check_settings({"train": {"num_steps": -1}})
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: train.num_steps=-1: input should be greater than or equal to 0
        >>> check_settings({"num_stepz": 1}, FineTune)
        Traceback (most recent call last):
        ...
        headstart.errors.UsageError: unknown setting 'num_stepz'; did you mean 'num_steps'?
    """
    try:
        return model.model_validate(values, context=context)
    except pydantic.ValidationError as error:
        raise UsageError(_first_fault(error, model)) from error


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


def _first_fault(error: pydantic.ValidationError, model: type[Settings]) -> str:
    """Say in one line what was found first."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"'{where}' is missing"
    if first["type"] == "extra_forbidden":
        known = list(_names_at(model, first["loc"][:-1]))
        hint = did_you_mean(str(first["loc"][-1]), known)
        return f"unknown setting '{where}'{hint or '; known: ' + ', '.join(known)}"
    message = first["msg"].removeprefix("Value error, ")
    value = str(first["input"])
    shown = value if len(value) <= 80 else value[:77] + "..."
    return (f"{where}={shown}: " if where else "") + message[:1].lower() + message[1:]


def _names_at(model: type[pydantic.BaseModel], path: Sequence[str | int]) -> Iterator[str]:
    """List the names of the settings that ``path`` leads to; none where that is not one model."""
    for key in path:
        field = model.model_fields.get(str(key))
        if field is None:  # an item of a tuple or a mapping: its type came with the field's
            continue
        inner = list(_models_in(field.annotation))
        if len(inner) != 1:
            return
        model = inner[0]
    yield from model.model_fields


def _models_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
