"""Settings of continued pretraining, and the places where paper A's text and its released code differ."""

from __future__ import annotations

from typing import Literal

import pydantic

from headstart.config import Settings
from headstart.tasks.mixture import Mixing

InnerState = Literal["fresh", "carried"]
Support = Literal["new", "same"]
MicroBatches = Literal["mean", "mean-of-means", "sum"]
Displacement = Literal["divided", "plain"]
Clip = Literal["after", "before"]


class Reading(Settings):
    """One reading of paper A, where its text and its code say different things; all of it is set.

    Attributes:
        inner_state: ``fresh`` for every task, or ``carried`` from task to task, and from update to update:
            the result then hangs on the order of the tasks (code: ``reuse_inner_opt_state``).
        support: ``new`` rows in every inner step (appendix B), or the ``same``.
        micro_batches: ``mean``: the true mean over all rows of an update. ``mean-of-means``: the mean of
            the micro-batches' means, so that short targets in a small batch weigh more. ``sum``: their
            sum, so that a gradient is as many times too long as there are micro-batches.
        displacement: Of ``reptile``: ``divided`` by the inner step size (Algorithm 2), or ``plain``.
        clip: The outer gradient is clipped ``after`` the division, or ``before`` it.
        least_factored: Least rows and columns for Adafactor's second moments, of inner and outer steps, to be
            kept by row and column; the code has 128, so a prompt's are kept whole.

    Example:
        >>> READINGS["paper-text"].support
        'new'
    """

    inner_state: InnerState
    support: Support
    micro_batches: MicroBatches
    displacement: Displacement
    clip: Clip
    least_factored: int = pydantic.Field(ge=0)


READINGS = {
    "paper-text": Reading(
        inner_state="fresh",
        support="new",
        micro_batches="mean",
        displacement="divided",
        clip="after",
        least_factored=0,
    ),
    "released-code": Reading(
        inner_state="carried",
        support="same",
        micro_batches="sum",
        displacement="plain",
        clip="after",
        least_factored=128,
    ),
}
"""The two, of FOMAML. In the code Reptile draws new support rows, and multi-task training takes the
mean of its micro-batches' means."""


class Pretrain(Settings):
    """How a model and a prompt are trained before the model is prompted: paper A, section 3 and appendix C.

    Attributes:
        method: ``multitask`` (MTL), ``fomaml`` (Algorithm 1), ``reptile`` (Algorithm 2), or ``maml``, exact,
            with the model in the outer update, which the paper does not have.
        trains: ``both`` (T and P trained, the paper's method), ``model`` (no prompt: T0), or ``prompt`` (the
            model frozen: Gu et al. 2022; with ``reptile`` the paper's "naive" one).
        lora_rank: Train low-rank adapters of this rank in place of all weights. ``None``: all weights.
        variant: Which reading of the paper; the following override single points of it.
        inner_state: See :class:`Reading`, like the five after it; ``None``: as the variant has it.
        support: See there.
        micro_batches: See there.
        displacement: See there.
        clip: See there.
        least_factored: See there.
        optimizer: Of the outer loop: ``adafactor`` (no relative step, no parameter scale), ``adamw`` or
            ``sgd``.
        lr: Its step size, constant.
        prompt_lr: That of the prompt, which may need a larger one (paper A: the same). ``None``: ``lr``.
        inner_optimizer: Of the inner steps, which move the prompt alone.
        inner_lr: Its step size.
        inner_steps: T.
        batch_size: Rows of a multi-task update.
        meta_batch_size: Tasks of a meta-update.
        task_batch_size: Rows of a task in one inner step, and for the outer gradient.
        micro_batch_size: Rows of a micro-batch, where the reading counts them. ``None``: as the code has it,
            2 of multi-task training, and a sixteenth of a task's rows of meta-learning.
        mean_over: Whether the mean of a batch is over target ``tokens`` or over ``examples``.
        clip_norm: Largest norm of the outer gradient, of model and prompt together.
        prompt_dropout: Part of the outer loss's rows that are read without the prompt, so that the model also
            works without one.
        dropout: Whether the model's own dropout is on (T5: 0.1; the paper: on); not of ``maml``, which reads
            its support rows twice.
        checkpointing: Keep the layers' inputs alone for the backward pass, and run each layer once more
            there: a third more time for a fraction of the memory, which long rows need.
        shard: Spread the model's weights over the processes that were started together (FSDP2), for models
            that one device cannot hold; not of ``maml``. Alone there is nothing to spread.
        mixing: How much of each task an epoch reads.
        num_steps: Updates.

    Example:
        >>> Pretrain(variant="released-code", method="fomaml").reading.support
        'same'
        >>> Pretrain(variant="released-code", support="new").reading.inner_state
        'carried'
    """

    method: Literal["multitask", "fomaml", "reptile", "maml"] = "multitask"
    trains: Literal["both", "model", "prompt"] = "both"
    lora_rank: int | None = pydantic.Field(None, ge=1)
    variant: Literal["paper-text", "released-code"] = "paper-text"
    inner_state: InnerState | None = None
    support: Support | None = None
    micro_batches: MicroBatches | None = None
    displacement: Displacement | None = None
    clip: Clip | None = None
    least_factored: int | None = pydantic.Field(None, ge=0)
    optimizer: Literal["adafactor", "adamw", "sgd"] = "adafactor"
    lr: float = pydantic.Field(1e-3, gt=0)
    prompt_lr: float | None = pydantic.Field(None, gt=0)
    inner_optimizer: Literal["adafactor", "adam", "sgd"] = "adafactor"
    inner_lr: float = pydantic.Field(1e-3, gt=0)
    inner_steps: int = pydantic.Field(7, ge=0)
    batch_size: int = pydantic.Field(4096, ge=1)
    meta_batch_size: int = pydantic.Field(128, ge=1)
    task_batch_size: int = pydantic.Field(16, ge=1)
    micro_batch_size: int | None = pydantic.Field(None, ge=1)
    mean_over: Literal["tokens", "examples"] = "tokens"
    clip_norm: float = pydantic.Field(1.0, gt=0)
    prompt_dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    dropout: bool = False
    checkpointing: bool = False
    shard: bool = False
    mixing: Mixing = Mixing(cap=500_000)
    num_steps: int = pydantic.Field(100, ge=0)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Pretrain:
        if self.trains == "model" and self.method != "multitask":
            raise ValueError(
                f"{self.method} adapts a prompt, and trains: model has none; take trains: both"
            )
        if self.trains == "prompt" and self.lora_rank is not None:
            raise ValueError("lora_rank is of the model's weights, and trains: prompt trains none")
        if self.method == "maml" and self.reading.inner_state == "carried":
            raise ValueError(
                "maml differentiates through fresh inner steps; take inner_state: fresh"
            )
        if self.method == "maml" and self.dropout:
            raise ValueError(
                "maml reads its support rows twice, and dropout would differ; take dropout: false"
            )
        if self.method == "maml" and self.shard:
            raise ValueError("weights that are spread have no second derivative; take shard: false")
        if self.trains == "prompt" and self.prompt_dropout:
            raise ValueError(
                "rows without the prompt teach the model, and trains: prompt trains none; take "
                "prompt_dropout: 0"
            )
        if self.trains == "model" and self.prompt_dropout:
            raise ValueError("trains: model has no prompt to drop; take prompt_dropout away")
        if self.clip == "before" and not (
            self.method == "reptile" and self.reading.displacement == "divided"
        ):
            raise ValueError("clip: before is of reptile's divided displacement alone")
        return self

    @property
    def micro_batch(self) -> int:
        """Rows of a micro-batch, where the reading counts them.

        Example:
            >>> Pretrain().micro_batch, Pretrain(method="fomaml").micro_batch
            (2, 1)
        """
        by_code = 2 if self.method == "multitask" else max(1, self.task_batch_size // 16)
        return self.micro_batch_size or by_code

    @property
    def reading(self) -> Reading:
        """The reading of the paper, every point of it."""
        found = READINGS[self.variant].model_dump()
        if self.variant == "released-code" and self.method == "reptile":
            found["support"] = "new"
        if self.variant == "released-code" and self.method == "multitask":
            found["micro_batches"] = "mean-of-means"
        own = {name: getattr(self, name) for name in Reading.model_fields}
        return Reading(**{**found, **{k: v for k, v in own.items() if v is not None}})

    @property
    def rows_a_task(self) -> int:
        """Rows that a task gives to one meta-update."""
        inner = self.inner_steps if self.reading.support == "new" else min(self.inner_steps, 1)
        return self.task_batch_size * (inner + 1)

    @property
    def rows_a_step(self) -> int:
        """Rows that one update sees.

        Example:
            >>> Pretrain(method="reptile").rows_a_step, Pretrain().rows_a_step
            (16384, 4096)
        """
        if self.method == "multitask":
            return self.batch_size
        return self.meta_batch_size * self.rows_a_task
