"""Continued pretraining for promptability (paper A): train a model and a prompt together over many tasks.

The weights are kept in float32 and the products run in the probed dtype (autocast), so that small updates
are not rounded away. The model is changed in place, and frozen again at the end.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.errors import DataError, HeadstartError, UsageError
from headstart.learn.checkpoint import (
    check_same_run,
    flatten,
    load_state,
    on_device,
    save_state,
    unflatten,
)
from headstart.learn.loop import Event, run_loop
from headstart.learn.pretrain_loss import TaskRows, Trainee, row_weights
from headstart.learn.pretrain_settings import Pretrain
from headstart.learn.pretrain_step import STEPS, Outer, multitask_step
from headstart.learn.processes import is_first, my_share, sum_over_processes
from headstart.learn.shards import is_sharded, sharded, spread_as, whole
from headstart.learn.space import SHALLOW, Space
from headstart.learn.stops import held_stops
from headstart.learn.trainable import in_training, outer_optimizer
from headstart.models.base import BaseModel, Encoded
from headstart.models.processes import own_processes
from headstart.ops.initialise import root_mean_square
from headstart.prompts.files import write_whole
from headstart.seeds import derive_seed
from headstart.tasks.mixture import Mixture, Stream

log = logging.getLogger(__name__)

STATE, LOG = "state.safetensors", "log.jsonl"


@dataclass(slots=True, eq=False)
class Pretrained:
    """A run of continued pretraining; the trained weights are in the model.

    Attributes:
        prompt_PX: The trained prompt; ``None``: there was none.
        steps: Updates done.
        log: One record an update: losses in nats, gradient norm, rows and tokens seen so far, and how far the
            prompt is from its start, relative to the start's size.
        rows_seen: Rows the gradients came from, support and query.
        tokens_seen: Their tokens, source and target.
        rows_cut: Of them, those that were cut to fit.
        seconds: Wall time of this session.

    Example:
        >>> Pretrained(None).steps
        0
    """

    prompt_PX: Tensor | None
    steps: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    rows_seen: int = 0
    tokens_seen: int = 0
    rows_cut: int = 0
    seconds: float = 0.0


def pretrain(
    model: BaseModel,
    tasks: Sequence[Sequence[Encoded]],
    start_PX: Tensor | None,
    settings: Pretrain,
    seed: int = 0,
    folder: Path | None = None,
    save_every: int = 50,
    progress: Callable[[int, dict[str, float]], None] = lambda done, record: None,
    space: Space = SHALLOW,
) -> Pretrained:
    """Train model and prompt over many tasks.

    Args:
        model: The base model; changed in place, unless ``settings.trains`` is ``prompt``.
        tasks: Labelled rows of each task (paper A: a set under a template); the target is learned, by token.
        start_PX: Where the prompt begins [P, X]; ``None`` where there is none.
        settings: Method, reading, optimisers.
        seed: Orders rows and tasks.
        folder: Where the state is kept, every so many updates and at the end, so that a killed run goes on
            and ends with the same numbers. Default: nowhere.
        save_every: Updates between saves.
        progress: Called after each update with the number done and its record.
        space: The kind of prompt and its units. Default: shallow.

    Raises:
        DataError: No task, a row without a target, or tasks with too few rows for one draw.
        UsageError: A prompt where the settings want none, or the other way round, or a saved state of
            another run.
        HeadstartError: A loss or a gradient is not finite; the last saved state stays.
        StorageError: The folder cannot be used.

    A request to stop (SIGTERM) is held back to the end of the update, and its state saved.

    Example:
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded(str(i), (5, 6 + i), ((7, 8),), target=0) for i in range(4)]
        >>> settings = Pretrain(batch_size=2, num_steps=3)
        >>> found = pretrain(load_model("tiny-causal"), [rows, rows], torch.zeros(2, 16), settings)
        >>> found.steps, found.rows_seen
        (3, 6)
    """
    if (start_PX is None) != (settings.trains == "model"):
        raise UsageError("trains: model has no prompt; both and prompt begin with one")
    started = time.perf_counter()
    dtype = model.embedding_VH.dtype
    with (
        in_training(model, settings, seed),
        sharded(model, settings.shard) as own,
        held_stops() as asked_to_stop,
    ):
        weights = [weight for weight in own.network.parameters() if weight.requires_grad]
        run = _PretrainRun(own, weights, tasks, start_PX, settings, seed, space, dtype)
        if folder is not None and (folder / STATE).is_file():
            run.load(folder / STATE)

        def keep(done: int) -> bool:
            if folder is not None:
                run.save(folder / STATE)
            return False

        def report(done: int) -> bool:
            progress(done, run.found.log[-1])
            return False

        def heed(done: int) -> bool:
            asked = asked_to_stop()
            return asked and not keep(done)

        events: list[tuple[int, Event]] = [(1, report), (save_every, keep), (1, heed)]
        run_loop(run.step, settings.num_steps, events, first=run.found.steps)
        found = run.result()
    if folder is not None and is_first():
        write_whole(folder / LOG, "".join(json.dumps(record) + "\n" for record in found.log))
    found.seconds = time.perf_counter() - started
    return found


class _PretrainRun:
    """One run in motion: what is trained, its optimiser, how far it is."""

    def __init__(
        self,
        model: BaseModel,
        weights: Sequence[torch.nn.Parameter],
        tasks: Sequence[Sequence[Encoded]],
        start_PX: Tensor | None,
        settings: Pretrain,
        seed: int,
        space: Space,
        dtype: torch.dtype,
    ) -> None:
        self.dtype = dtype
        self.tasks, self.settings, self.seed = tasks, settings, seed
        mixture = Mixture(tuple(map(len, tasks)), settings.mixing, seed)
        self.stream = Stream(
            mixture, None if settings.method == "multitask" else settings.rows_a_task
        )
        self.start_PX = None
        prompt: torch.nn.Parameter | None = None
        if start_PX is not None:
            self.start_PX = space.coordinates(start_PX.float().to(model.device))
            prompt = torch.nn.Parameter(self.start_PX.clone())
        self.trainee = Trainee(model, weights, prompt, space)
        self.trained = [*weights, *([] if prompt is None else [prompt])]
        self.optimizer = outer_optimizer(weights, prompt, settings)
        self.found = Pretrained(None)

    def step(self, index: int) -> None:
        model = self.trainee.model
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(derive_seed(self.seed, "dropout", index))
        with torch.autocast(model.device.type, self.dtype, enabled=self.dtype != torch.float32):
            rows, outer = self._outer_gradient(index)
        if outer.gradient_PX is not None and self.trainee.prompt_PX is not None:
            self.trainee.prompt_PX.grad = outer.gradient_PX.to(self.trainee.prompt_PX)
        norm = self._clip()
        if not math.isfinite(norm + outer.loss):
            raise HeadstartError(
                f"update {index + 1}: loss {outer.loss:.3g}, gradient of norm {norm:.3g}: nothing changed. "
                f"Lower the step sizes ({_rates(self.settings)}), or start again from the last saved state"
            )
        self.optimizer.step()
        found = self.found
        found.steps = index + 1
        found.rows_seen += len(rows)
        found.rows_cut += sum(row.truncated > 0 for row in rows)
        found.tokens_seen += sum(len(r.source) + len(r.candidates[r.target or 0]) for r in rows)
        record = {
            "step": index + 1, "loss": outer.loss, "support_loss": outer.support_loss,
            "moved": outer.moved, "grad_norm": norm, "rows": found.rows_seen,
            "tokens": found.tokens_seen, "drift": self._drift(),
        }  # fmt: skip
        found.log.append(record)

    def _outer_gradient(self, index: int) -> tuple[list[Encoded], Outer]:
        """Take the gradient of the whole update: every process its share, and one sum over all."""
        settings, trainee = self.settings, self.trainee
        dropped = np.random.default_rng(derive_seed(self.seed, "prompt-dropout", index))

        def without(count: int) -> list[bool]:
            return [bool(out) for out in dropped.random(count) < settings.prompt_dropout]

        if settings.method == "multitask":
            rows = [
                self.tasks[task][row]
                for task, row in self.stream.update(index, settings.batch_size)
            ]
            self._check(rows)
            left_out, weight_B = without(len(rows)), row_weights(rows, settings)
            mine = self._share(len(rows))
            outer = Outer(None, 0.0)
            if mine:
                outer = multitask_step(
                    *(trainee, [rows[i] for i in mine], settings, [left_out[i] for i in mine]),
                    weight_B[mine],
                )
            return rows, self._summed(outer, 1.0)
        tasks = []
        for batch in self.stream.update(index, settings.meta_batch_size):
            rows = [self.tasks[task][row] for task, row in batch]
            size = settings.task_batch_size
            parts = [rows[i : i + size] for i in range(0, len(rows), size)]
            tasks.append(TaskRows(parts[:-1], parts[-1]))
        every = [row for task in tasks for part in (*task.support, task.query) for row in part]
        self._check(every)
        queries = [without(len(task.query)) for task in tasks]
        mine = self._share(len(tasks))
        outer = Outer(None, 0.0)
        if mine:
            outer = STEPS[settings.method](
                trainee, [tasks[k] for k in mine], settings, [queries[k] for k in mine]
            )
        return every, self._summed(outer, len(mine) / len(tasks))

    def _share(self, count: int) -> list[int]:
        """Return the rows or tasks that are this process's; a spread model shares out rows by itself."""
        if is_sharded(self.trainee.model):
            return list(range(count))
        return my_share(range(count), self.trainee.model.device)

    def _check(self, rows: Sequence[Encoded]) -> None:
        if any(row.target is None for row in rows):
            raise DataError("every row needs a target to learn")

    def _summed(self, outer: Outer, part: float) -> Outer:
        """Add the processes' gradients up, each counting as its part of the update's tasks."""
        if own_processes().num_processes == 1 or is_sharded(self.trainee.model):
            return outer
        trainee = self.trainee
        told = torch.tensor(
            [outer.loss, outer.support_loss, outer.moved], device=trainee.model.device
        )
        gradient = trainee.prompt_PX
        if gradient is not None:
            found = outer.gradient_PX
            gradient = torch.zeros_like(gradient) if found is None else found.to(gradient)
            told = torch.cat([told, gradient.flatten()])
        told = sum_over_processes(told * part)
        for weight in trainee.weights:
            mine = torch.zeros_like(weight) if weight.grad is None else weight.grad * part
            weight.grad = sum_over_processes(mine)
        loss, before, moved = told[:3].tolist()
        whole = None if gradient is None else told[3:].view_as(gradient)
        return Outer(whole, loss, before, moved)

    def _clip(self) -> float:
        """Clip the outer gradient of model and prompt together; return its norm before."""
        settings = self.settings
        before = settings.reading.clip == "before" and settings.reading.displacement == "divided"
        scale = settings.inner_lr if before and settings.method == "reptile" else 1.0
        limit = settings.clip_norm / scale  # a displacement is clipped before it is divided
        gradients = [weight.grad for weight in self.trained if weight.grad is not None]
        norms = [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        if norm > limit:
            for gradient in gradients:
                gradient.mul_(limit / (norm + 1e-6))
        return norm

    def _drift(self) -> float:
        if self.start_PX is None or self.trainee.prompt_PX is None:
            return 0.0
        moved_PX = self.trainee.prompt_PX.detach() - self.start_PX
        return root_mean_square(moved_PX) / (root_mean_square(self.start_PX) or 1e-12)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "tasks": [[len(task), *_first_row(task)] for task in self.tasks],
        }

    def save(self, path: Path) -> None:
        found, trainee = self.found, self.trainee
        values = self.identity | {
            "steps": found.steps, "rows_seen": found.rows_seen,
            "tokens_seen": found.tokens_seen, "rows_cut": found.rows_cut, "log": found.log,
        }  # fmt: skip
        state = whole(
            {
                "trained": self.trained,
                "start": self.start_PX,
                "optimizer": self.optimizer.state_dict(),
            }
        )
        inner, inner_shape = flatten(whole([trainee.prompt_state, trainee.weight_states]))
        # every process carries its own from task to task; those of the state before stay until it is replaced
        own_path = self._inner_path(path, found.steps)
        save_state(own_path, inner, {"state": inner_shape})
        own_processes().wait_for_everyone()
        if is_first():
            tensors, shape = flatten(state)
            save_state(path, tensors, values | {"state": shape})
        own_processes().wait_for_everyone()
        for older in path.parent.glob(self._inner_path(path, "*").name):
            if older != own_path:
                older.unlink()

    def _inner_path(self, path: Path, steps: int | str) -> Path:
        together = own_processes()
        mark = f"{together.process_index}-of-{together.num_processes}"
        return path.with_name(f"inner-{mark}-{steps}.safetensors")

    def load(self, path: Path) -> None:
        tensors, values = load_state(path)
        state = unflatten(tensors, values["state"])
        check_same_run(path, values, self.identity, (state["start"], self.start_PX))
        with torch.no_grad():
            for mine, saved in zip(self.trained, state["trained"], strict=True):
                mine.copy_(spread_as(saved, mine))
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, found in self.optimizer.state.items():
            self.optimizer.state[weight] = spread_as(found, weight)
        inner_path = self._inner_path(path, values["steps"])
        if inner_path.is_file():
            inner, told = load_state(inner_path)
            carried = on_device(unflatten(inner, told["state"]), self.trainee.model.device)
            self.trainee.prompt_state, states = carried
            self.trainee.weight_states = [
                spread_as(found, weight)
                for found, weight in zip(states, self.trainee.weights, strict=False)
            ]
        else:
            carried = self.settings.reading.inner_state == "carried"
            log.warning(
                "%s was made by another number of processes than %d: the run goes on, and ends with %s",
                path, own_processes().num_processes,
                "other numbers, since each process carries inner state of its own" if carried else
                "numbers that differ in their last digits",
            )  # fmt: skip
        found = self.found
        found.steps, found.log = values["steps"], values["log"]
        for name in ("rows_seen", "tokens_seen", "rows_cut"):
            setattr(found, name, values[name])

    def result(self) -> Pretrained:
        if self.trainee.prompt_PX is not None:
            self.found.prompt_PX = self.trainee.space.vectors(self.trainee.prompt_PX.detach()).cpu()
        return self.found


def _first_row(task: Sequence[Encoded]) -> tuple[list[int], list[list[int]]]:
    row = task[0]
    return list(row.source), [list(answer) for answer in row.candidates]


def _rates(settings: Pretrain) -> str:
    found = {"lr": settings.lr, "prompt_lr": settings.prompt_lr}
    if settings.method != "multitask":
        found["inner_lr"] = settings.inner_lr
    return ", ".join(f"{name} {rate:g}" for name, rate in found.items() if rate is not None)
