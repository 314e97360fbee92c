"""Full fine-tuning of the base model, in the same harness: paper B's baseline FT.

The weights are kept in float32 and the products run in the probed dtype (autocast), so that small
updates are not rounded away. The model is changed in place: load a fresh one for the next run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from headstart.config import FewShot, FineTune, Scoring
from headstart.learn.fewshot import Run, batches, schedule_factor
from headstart.learn.gradient import PLAIN, row_losses
from headstart.learn.loop import run_loop
from headstart.models.base import BaseModel
from headstart.models.batches import by_length


def finetune(
    model: BaseModel,
    run: Run,
    settings: FineTune,
    scoring: Scoring = PLAIN,
    progress: Callable[[int, float], None] = lambda done, loss: None,
) -> list[float]:
    """Train every weight of the model on a run's rows, without a prompt.

    Args:
        model: The base model; changed in place, and frozen again at the end.
        run: Rows and seed; its prompt is not used.
        settings: AdamW's settings.
        scoring: The rule the loss uses.
        progress: Called after each update with the number done and its loss.

    Returns:
        The loss of each update, in nats.

    Example:
        >>> from headstart.models.base import Encoded
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8,)), target=0)]
        >>> model = load_model("tiny-causal")
        >>> losses = finetune(model, Run("r", torch.zeros(0, 16), rows), FineTune(num_steps=3, lr=1e-2))
        >>> losses[2] < losses[0]
        True
    """
    network, kernel_dtype = model.network, model.embedding_VH.dtype
    network.float().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    shape = FewShot(num_steps=settings.num_steps, warmup_steps=settings.warmup_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: schedule_factor(shape, done)
    )
    stream = batches(run, settings.batch_size)
    losses: list[float] = []

    def step(index: int) -> None:
        rows = next(stream)
        total = 0.0
        for group in by_length([row.size for row in rows]):
            with torch.autocast(
                model.device.type, kernel_dtype, enabled=kernel_dtype != torch.float32
            ):
                loss_B = row_losses(
                    model, [rows[i] for i in group], None, None, settings.loss, scoring
                )
            loss = loss_B.sum() / len(rows)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(total)

    def report(done: int) -> bool:
        progress(done, losses[-1])
        return False

    run_loop(step, settings.num_steps, [(1, report)])
    network.requires_grad_(False).to(kernel_dtype)
    return losses
