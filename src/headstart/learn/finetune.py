"""Full fine-tuning of the base model, in the same harness: paper B's baseline FT.

The weights are kept in float32 and the products run in the probed dtype (autocast), so that small
updates are not rounded away. The model is changed in place: load a fresh one for the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from headstart.config import FineTune, Scoring
from headstart.learn.fewshot import Run, batches, schedule_factor
from headstart.learn.gradient import PLAIN, row_losses, scored
from headstart.learn.loop import Event, run_loop
from headstart.models.base import BaseModel, Encoded
from headstart.models.batches import by_length


@dataclass(slots=True)
class FineTuned:
    """How a fine-tuning run went.

    Attributes:
        losses: The loss of each update, in nats.
        dev_accuracy: The best seen; ``None`` without dev rows.

    Example:
        >>> FineTuned().dev_accuracy
    """

    losses: list[float] = field(default_factory=list)
    dev_accuracy: float | None = None


def finetune(
    model: BaseModel,
    run: Run,
    settings: FineTune,
    scoring: Scoring = PLAIN,
    progress: Callable[[int, float], None] = lambda done, loss: None,
) -> FineTuned:
    """Train every weight of the model on a run's rows, without a prompt.

    Args:
        model: The base model; changed in place, and frozen again at the end.
        run: Rows and seed; its prompt is not used.
        settings: AdamW's settings.
        scoring: The rule the loss uses.
        progress: Called after each update with the number done and its loss.

    Returns:
        How the run went; the model's weights are the last ones, or the best on the run's dev rows.

    Example:
        >>> from headstart.models.base import Encoded
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded("a", (5, 6), ((7,), (8,)), target=0)]
        >>> model = load_model("tiny-causal")
        >>> found = finetune(model, Run("r", torch.zeros(0, 16), rows), FineTune(num_steps=3, lr=1e-2))
        >>> found.losses[2] < found.losses[0]
        True
    """
    network, kernel_dtype = model.network, model.embedding_VH.dtype
    network.float().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: schedule_factor(done, settings.num_steps, settings.warmup_steps)
    )
    stream = batches(run, settings.batch_size)
    found = FineTuned()
    losses, stale = found.losses, 0
    best: dict[str, torch.Tensor] = {}

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

    def look_at_dev(done: int) -> bool:
        nonlocal stale, best
        accuracy = dev_accuracy(model, run.dev, scoring)
        stale += 1
        if found.dev_accuracy is None or accuracy > found.dev_accuracy:
            found.dev_accuracy, stale = accuracy, 0
            best = {name: value.clone() for name, value in network.state_dict().items()}
        return stale >= settings.patience

    events: list[tuple[int, Event]] = [(1, report)]
    if run.dev:
        events.insert(0, (settings.eval_every, look_at_dev))
    run_loop(step, settings.num_steps, events)
    if best:
        network.load_state_dict(best)
    network.requires_grad_(False).to(kernel_dtype)
    return found


def dev_accuracy(model: BaseModel, rows: Sequence[Encoded], scoring: Scoring = PLAIN) -> float:
    """Return the share of rows whose gold candidate scores highest, without a prompt.

    Example:
        >>> from headstart.models.load import load_model
        >>> dev_accuracy(load_model("tiny-causal"), [Encoded("a", (5, 6), ((7,),), target=0)])
        1.0
    """
    scores_RC, gold_R = scored(model, rows, scoring=scoring)
    return float((scores_RC.argmax(-1) == gold_R).float().mean())
