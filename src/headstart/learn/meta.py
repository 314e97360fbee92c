"""Learn a prompt's start over many tasks: MAML, FOMAML, Reptile, multi-task and plain training.

Paper B, section 4.3: in each update every task adapts the start on its support rows and is judged on its
query rows; the start moves so that the adapted prompts do better. All tasks go through the frozen
model in one batch stream, and only the prompt is ever copied.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart.config import MetaTrain
from headstart.errors import DataError, StorageError
from headstart.learn.checkpoint import check_same_run, load_state, save_state
from headstart.learn.fewshot import schedule_factor
from headstart.learn.loop import Event, run_loop
from headstart.learn.meta_look import look_at_held_out, split_tasks
from headstart.learn.meta_step import meta_gradient
from headstart.learn.processes import from_first, is_first
from headstart.learn.space import SHALLOW, Space, usual_size
from headstart.models.base import BaseModel, Encoded
from headstart.ops.initialise import root_mean_square
from headstart.ops.inner_loop import UPDATES
from headstart.prompts.files import storage_errors, write_whole
from headstart.tasks.episodes import Episode, draw_episodes

STATE, LOG = "state.safetensors", "log.jsonl"


@dataclass(slots=True, eq=False)
class MetaTrained:
    """A learned start and how it came about.

    Attributes:
        prompt_PH: The start [P, H]: the best on the held-out rows, or the last.
        steps: Updates done.
        best_step: After how many of them it was best; ``None`` without held-out rows.
        log: One record an update: losses in nats, gradient norm, how far tasks moved their prompts, and
            the distance from the first start, both relative to the start's own size; of ``maml`` and
            ``fomaml`` the inner-loop gain, the part by which query loss after is below support loss before.
        looks: One record a look at the held-out rows: query loss and accuracy before and after adapting.
        rows_seen: Rows the gradients came from, support and query.
        seconds: Wall time.

    Example:
        >>> import torch
        >>> MetaTrained(torch.zeros(2, 4)).steps
        0
    """

    prompt_PH: Tensor
    steps: int = 0
    best_step: int | None = None
    log: list[dict[str, float]] = field(default_factory=list)
    looks: list[dict[str, float]] = field(default_factory=list)
    rows_seen: int = 0
    seconds: float = 0.0


def meta_train(
    model: BaseModel,
    tasks: Sequence[Sequence[Encoded]],
    start_PH: Tensor,
    settings: MetaTrain,
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[int, dict[str, float]], None] = lambda done, record: None,
    space: Space = SHALLOW,
) -> MetaTrained:
    """Learn a start from meta-training tasks.

    Args:
        model: The frozen base model.
        tasks: Labelled rows of each of the K tasks.
        start_PH: Where the start begins [P, H].
        settings: Method, inner and outer loop.
        seed: Draws the held-out rows and every step's rows.
        folder: Where the state is kept after every update, and its record added to ``log.jsonl``, so that
            a killed run goes on where it was and ends with the same numbers. Default: nowhere.
        progress: Called after each update with the number done and its record.
        space: The kind of prompt and its units. Default: shallow.

    Raises:
        DataError: A task with too few rows, or rows without a target.
        UsageError: Held-out rows that leave none to judge by, or a saved state of other settings.
        StorageError: The folder cannot be used.

    Example:
        >>> import torch
        >>> from headstart.models.load import load_model
        >>> rows = [Encoded(str(i), (5, 6 + i), ((7,), (8,)), target=i % 2) for i in range(8)]
        >>> settings = MetaTrain(num_steps=2, num_support=2, num_query=2, num_validation=3)
        >>> found = meta_train(load_model("tiny-causal"), [rows, rows], torch.zeros(2, 16), settings)
        >>> found.steps, found.rows_seen, len(found.looks)
        (2, 16, 1)
    """
    if any(row.target is None for rows in tasks for row in rows):
        raise DataError("every row of a meta-training task needs a label")
    started = time.perf_counter()
    run = _MetaRun(model, tasks, start_PH, settings, seed, space)
    if folder is not None:
        if (folder / STATE).is_file():
            run.load(folder / STATE)
        run.found.log = read_log(folder / LOG, run.found.steps)
        if is_first():
            write_whole(folder / LOG, "".join(map(_line, run.found.log)))

    def keep(done: int) -> bool:
        record = run.found.log[-1]
        if folder is not None and is_first():
            with storage_errors(folder / LOG), (folder / LOG).open("a") as log:
                log.write(_line(record))
            run.save(folder / STATE)
        progress(done, record)
        return False

    events: list[tuple[int, Event]] = [(1, keep)]
    if settings.num_validation:
        events.insert(0, (settings.eval_every, run.look))
    if run.stale < settings.patience:
        run_loop(run.step, settings.num_steps, events, first=run.found.steps)
    run.found.seconds = time.perf_counter() - started
    return run.result()


def read_log(path: Path, steps: int) -> list[dict[str, float]]:
    """Read the records of the first updates; a run that was killed may have left one more than its state.

    Raises:
        StorageError: There are fewer, or they are no records.

    Example:
        >>> read_log(Path("nowhere"), 0)
        []
    """
    if steps == 0:
        return []
    with storage_errors(path):
        lines = path.read_text().splitlines()[:steps]
    try:
        records = [json.loads(line) for line in lines]
    except ValueError:
        records = []
    if len(records) < steps:
        raise StorageError(
            f"{path}: not the log of {steps} updates; delete its folder to start over"
        )
    return records


def _line(record: dict[str, float]) -> str:
    return json.dumps(record) + "\n"


class _MetaRun:
    """One run in motion: the start, its optimiser's state, the best so far."""

    def __init__(
        self,
        model: BaseModel,
        tasks: Sequence[Sequence[Encoded]],
        start_PH: Tensor,
        settings: MetaTrain,
        seed: int,
        space: Space,
    ) -> None:
        self.model, self.settings, self.seed, self.space = model, settings, seed, space
        self.rows = [row for rows in tasks for row in rows]
        self.train, self.held_out = split_tasks([len(rows) for rows in tasks], settings, seed)
        self.start_PH = space.coordinates(start_PH.float().to(model.device))
        self.prompt_PH = self.start_PH.clone()
        self.moments: tuple[Any, ...] | None = None
        self.best_PH, self.best = self.prompt_PH, (-float("inf"), -float("inf"))
        self.stale = 0
        self.found = MetaTrained(self.prompt_PH)
        self.meta_lr = settings.meta_lr or settings.meta_lr_scale * usual_size(model, space)

    def step(self, index: int) -> None:
        settings = self.settings
        episodes = self._episodes(index)
        gradient_PH, record = meta_gradient(
            self.model, self.prompt_PH, self.rows, episodes, settings, self.space
        )
        norm = float(gradient_PH.norm())
        gradient_PH = gradient_PH * min(1.0, settings.clip_norm / max(norm, 1e-12))
        rate = self.meta_lr * schedule_factor(
            index, settings.num_steps, settings.warmup_steps, settings.schedule
        )
        outer = UPDATES["adam" if settings.optimizer == "adamw" else "sgd"](rate)
        kept_PH = self.prompt_PH * (1 - rate * settings.weight_decay)
        moved_1PH, self.moments = outer(kept_PH[None], gradient_PH[None], self.moments)
        self.prompt_PH = moved_1PH[0]
        if settings.method in ("maml", "fomaml"):  # fresh rows before and after adapting
            record["gain"] = 1 - record["query_loss"] / max(record["support_loss"], 1e-12)
        size = root_mean_square(self.start_PH) or 1e-12
        record["moved"] /= size
        record["drift"] = root_mean_square(self.prompt_PH - self.start_PH) / size
        self.found.log.append({"step": index + 1, **record, "grad_norm": norm})
        self.found.steps = index + 1
        self.found.rows_seen += sum(len(e.support) + len(e.query) for e in episodes)

    def _episodes(self, index: int) -> list[Episode]:
        s = self.settings
        tasks, support, query = self.train, s.num_support, s.num_query
        at_once = min(s.meta_batch_size or len(tasks), len(tasks))
        if s.method == "plain":  # one heap, and as many rows as the tasks of an update have
            heap = sorted(row for rows in tasks for row in rows)
            return draw_episodes([heap], support * at_once, query * at_once, self.seed, index)
        return draw_episodes(tasks, support, query, self.seed, index, at_once)

    def look(self, done: int) -> bool:
        look = from_first(
            lambda: look_at_held_out(
                *(self.model, self.prompt_PH, self.rows, self.held_out, self.settings),
                self.space,
            )
        )
        self.found.looks.append({"step": done, **look})
        score = (look["accuracy_after"], -look["loss_after"])
        if self.settings.select == "loss":
            score = (-look["loss_after"], 0.0)
        self.stale += 1
        if score > self.best:
            self.best, self.best_PH, self.found.best_step = score, self.prompt_PH, done
            self.stale = 0
        return self.stale >= self.settings.patience

    def save(self, path: Path) -> None:
        tensors = {"start": self.start_PH, "prompt": self.prompt_PH, "best": self.best_PH}
        step, *moments = self.moments or (0,)
        tensors |= {f"moment_{i}": moment for i, moment in enumerate(moments)}
        values = {
            "settings": self.settings.model_dump(), "seed": self.seed, "rows": len(self.rows),
            "optimizer_step": step, "best": self.best, "best_step": self.found.best_step,
            "stale": self.stale, "steps": self.found.steps, "rows_seen": self.found.rows_seen,
            "looks": self.found.looks,
        }  # fmt: skip
        save_state(path, tensors, values)

    def load(self, path: Path) -> None:
        tensors, values = load_state(path)
        now = {"settings": self.settings.model_dump(), "seed": self.seed, "rows": len(self.rows)}
        check_same_run(path, values, now, (tensors["start"], self.start_PH))
        device = self.model.device
        self.prompt_PH, self.best_PH = tensors["prompt"].to(device), tensors["best"].to(device)
        moments = [tensors[f"moment_{i}"].to(device) for i in range(len(tensors) - 3)]
        self.moments = (values["optimizer_step"], *moments) if moments else None
        self.best, self.stale = tuple(values["best"]), values["stale"]
        found = self.found
        found.steps, found.best_step = values["steps"], values["best_step"]
        found.looks, found.rows_seen = values["looks"], values["rows_seen"]

    def result(self) -> MetaTrained:
        chosen_PH = self.prompt_PH if self.found.best_step is None else self.best_PH
        self.found.prompt_PH = self.space.vectors(chosen_PH.detach()).cpu()
        return self.found
