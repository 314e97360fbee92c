"""What continued pretraining trains, and the losses of rows and tasks; what a row counts is the reading's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headstart.learn.gradient import StackedLoss
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.space import SHALLOW, Space
from headstart.models.base import BaseModel, Encoded


@dataclass(slots=True, eq=False)
class Trainee:
    """What is trained, and what its inner steps remember.

    Attributes:
        model: The base model.
        weights: The weights that are trained; none: the model is frozen.
        prompt_PX: The prompt's coordinates; ``None``: there is no prompt.
        space: The kind of the prompt and its units.
        prompt_state: Of the inner optimiser, where it is carried from task to task.
        weight_states: The same of every weight, of Reptile's one step of the whole model.

    Example:
        >>> from headstart.models.load import load_model
        >>> Trainee(load_model("tiny-causal"), [], torch.zeros(2, 16)).space.kind
        'shallow'
    """

    model: BaseModel
    weights: Sequence[torch.nn.Parameter]
    prompt_PX: Tensor | None
    space: Space = SHALLOW
    prompt_state: Any = None
    weight_states: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskRows:
    """What one task gives to a meta-update: rows for each inner step, and rows for the outer gradient.

    Example:
        >>> TaskRows([[]] * 7, []).query
        []
    """

    support: Sequence[Sequence[Encoded]]
    query: Sequence[Encoded]


def row_weights(rows: Sequence[Encoded], settings: Pretrain) -> Tensor:
    """Return what each row's own mean loss counts in the loss of a batch [B], as the reading has it.

    Example:
        >>> rows = [Encoded("a", (5,), ((7, 8, 9),), target=0), Encoded("b", (5,), ((7,),), target=0)]
        >>> row_weights(rows, Pretrain()).tolist()
        [0.75, 0.25]
        >>> row_weights(rows, Pretrain(variant="released-code", micro_batch_size=1)).tolist()
        [0.5, 0.5]
    """
    by_token = settings.mean_over == "tokens"
    counts = [len(row.candidates[row.target or 0]) if by_token else 1 for row in rows]
    counted_B = torch.tensor(counts, dtype=torch.float64)
    how = settings.reading.micro_batches
    size = len(rows) if how == "mean" else settings.micro_batch
    micros = counted_B.split(size)
    weight_B = torch.cat([micro / micro.sum() for micro in micros])
    return weight_B / len(micros) if how == "mean-of-means" else weight_B


def stacked_loss(
    trainee: Trainee,
    rows_of_tasks: Sequence[Sequence[Encoded]],
    settings: Pretrain,
    weights: Sequence[torch.nn.Parameter],
    without: Sequence[Sequence[bool]] = (),
) -> StackedLoss:
    """Give the k-th of K prompts the rows of the k-th task, each task's weighed as a batch.

    Example:
        >>> from headstart.models.load import load_model
        >>> row = Encoded("a", (5, 6), ((7, 8),), target=0)
        >>> trainee = Trainee(load_model("tiny-causal"), [], torch.zeros(2, 16))
        >>> stacked_loss(trainee, [[row], [row, row]], Pretrain(), []).weight_B.tolist()
        [1.0, 0.5, 0.5]
    """
    owner = [k for k, rows in enumerate(rows_of_tasks) for _ in rows]
    if without:
        left_out = [out for each in without for out in each]
        owner = [-1 if out else k for k, out in zip(owner, left_out, strict=True)]
    weight_B = torch.cat([row_weights(rows, settings) for rows in rows_of_tasks])
    return prompt_loss(
        trainee, [row for rows in rows_of_tasks for row in rows], owner, weight_B, weights
    )


def prompt_loss(
    trainee: Trainee,
    rows: Sequence[Encoded],
    owner: Sequence[int],
    weight_B: Tensor,
    weights: Sequence[torch.nn.Parameter],
) -> StackedLoss:
    """Make the token loss of prompts on their rows, and of weights, whose gradients it adds up."""
    return StackedLoss(
        *(trainee.model, rows, owner, "tokens"),
        space=trainee.space,
        weight_B=weight_B,
        weights=weights,
    )


def bare_gradient(trainee: Trainee, rows: Sequence[Encoded], weight_B: Tensor) -> float:
    """Add the weights' gradients of rows that have no prompt; return their loss.

    Example:
        >>> from headstart.models.load import load_model
        >>> row = Encoded("a", (5, 6), ((7, 8),), target=0)
        >>> model = load_model("tiny-causal")
        >>> weights = [weight.requires_grad_() for weight in model.network.parameters()]
        >>> bare_gradient(Trainee(model, weights, None), [row], torch.ones(1)) > 0
        True
    """
    nothing_1PH = torch.zeros(1, 1, trainee.model.hidden_size)
    loss = StackedLoss(
        *(trainee.model, rows, [-1] * len(rows), "tokens"),
        weight_B=weight_B,
        weights=trainee.weights,
    )
    return float(loss.first_order(nothing_1PH)[0])
