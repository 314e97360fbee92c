"""Tune soft prompts from a few labels: one run or many, stacked in one batch stream.

Each run has its own prompt, rows, seed and learning rate. A step takes each run's next rows,
scores them all in one batch, each row under its own run's prompt, and sums the losses; since a row
depends on its own prompt alone, each prompt gets exactly the gradient it would get alone. Optimiser,
clipping, schedule and early stopping work per prompt, so N stacked runs are N runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from headstart.config import GROUPS, FewShot, Group, PromptKind, Scoring
from headstart.learn.doctor import Vitals
from headstart.learn.folded import Direct, Reparameterised
from headstart.learn.gradient import PLAIN, StackedLoss, scored
from headstart.learn.loop import Event, run_loop
from headstart.learn.optimizers import optimizer_of
from headstart.learn.space import space_of, usual_size
from headstart.models.base import BaseModel, Encoded
from headstart.prompts.bank import PromptBank
from headstart.seeds import derive_seed


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One few-shot run: where it starts and what it learns from.

    Attributes:
        name: Names the run in reports.
        start_PH: The initial prompt [P, H].
        train: Labelled rows.
        dev: Labelled rows for early stopping; empty: a fixed number of steps.
        seed: Orders the rows.
        lr: Step size; ``None``: the settings'.
        learned: Whether the start was itself learned; then the settings' ``start_worth`` holds.
        kind: Of the prompt.
        groups: Where a deep or gated prompt speaks.

    Example:
        >>> Run("r", torch.zeros(2, 4), [], seed=1).dev
        ()
    """

    name: str
    start_PH: Tensor
    train: Sequence[Encoded]
    dev: Sequence[Encoded] = ()
    seed: int = 0
    lr: float | None = None
    learned: bool = False
    kind: PromptKind = "shallow"
    groups: tuple[Group, ...] = GROUPS


@dataclass(slots=True, eq=False)
class Tuned:
    """A tuned prompt and how its run went.

    Attributes:
        name: The run's name.
        prompt_PH: The tuned prompt [P, H]: the last one, or the best on the dev rows; of a learned
            start, blended with it.
        steps: Updates done.
        dev_accuracy: The best seen; ``None`` without dev rows.
        vitals: Loss, gradient norm and drift of every update, for the doctor.
        seconds: Wall time of the stack the run was in.

    Example:
        >>> Tuned("r", torch.zeros(2, 4)).steps
        0
    """

    name: str
    prompt_PH: Tensor
    steps: int = 0
    dev_accuracy: float | None = None
    vitals: Vitals = field(default_factory=Vitals)
    seconds: float = 0.0


def tune(
    model: BaseModel,
    runs: Sequence[Run],
    settings: FewShot,
    scoring: Scoring = PLAIN,
    progress: Callable[[int, float], None] = lambda done, loss: None,
) -> list[Tuned]:
    """Tune all runs together; each result equals that of the run alone.

    Args:
        model: The frozen base model.
        runs: N runs of one kind of prompt; prompts may differ in length.
        settings: Optimiser, schedule, steps.
        scoring: The rule the losses and dev accuracy use.
        progress: Called after each update with the number done and the mean loss.

    Returns:
        One result a run, in order.

    Raises:
        ValueError: A run without rows, rows without a target, or runs of several kinds of prompts.

    Example:
        >>> from headstart.models.load import load_model
        >>> row = Encoded("a", (5, 6), ((7,), (8,)), target=0)
        >>> run = Run("r", torch.zeros(2, 16), [row])
        >>> tune(load_model("tiny-causal"), [run], FewShot(num_steps=1))[0].steps
        1
    """
    for run in runs:
        if not run.train or any(row.target is None for row in [*run.train, *run.dev]):
            raise ValueError(f"run '{run.name}' needs labelled rows to learn from")
    if len({(run.kind, run.groups) for run in runs}) != 1:
        raise ValueError("runs that are tuned together have one kind of prompt")
    started = time.perf_counter()
    stack = _Stack(model, runs, settings, scoring)

    def report(done: int) -> bool:
        progress(done, stack.mean_loss())
        return not any(stack.active)

    events: list[tuple[int, Event]] = [(1, report)]
    if any(run.dev for run in runs):
        events.insert(0, (settings.eval_every, stack.look_at_dev))
        stack.look_at_dev(0)  # a learned start may be the best there is
    run_loop(stack.step, settings.num_steps, events)
    seconds = time.perf_counter() - started
    for result, blended_PH in zip(stack.results, stack.blended(), strict=True):
        if result.dev_accuracy is None:
            result.prompt_PH = blended_PH.cpu()
        result.seconds = seconds
    return stack.results


def blend(start_PH: Tensor, tuned_PH: Tensor, part: float) -> Tensor:
    """Go part of the way from a start to what tuning made of it (Wortsman et al. 2022, for weights).

    Example:
        >>> blend(torch.zeros(1, 2), torch.ones(1, 2), 0.25).tolist()
        [[0.25, 0.25]]
    """
    return tuned_PH if part == 1 else start_PH + part * (tuned_PH - start_PH)


def kept_part(run: Run, start_worth: float) -> float:
    """Return the part of the way from its start that a run keeps: all, unless the start was learned.

    Example:
        >>> run = Run("r", torch.zeros(1, 2), [Encoded("a", (5,), ((7,),), target=0)] * 40, learned=True)
        >>> kept_part(run, 80) == 40 / 120
        True
    """
    return len(run.train) / (len(run.train) + start_worth) if run.learned and run.train else 1.0


def batches(run: Run, batch_size: int) -> Iterator[list[Encoded]]:
    """Yield a run's batches for ever: each pass over its rows in a new seeded order.

    A pass ends with a smaller batch where the rows do not divide, so that every row counts the same.

    Example:
        >>> rows = [Encoded(str(i), (5,), ((7,),), 0) for i in range(3)]
        >>> stream = batches(Run("r", torch.zeros(1, 4), rows, seed=1), 2)
        >>> [len(next(stream)) for _ in range(4)]
        [2, 1, 2, 1]
    """
    generator = torch.Generator().manual_seed(derive_seed(run.seed, "order"))
    while True:
        order = torch.randperm(len(run.train), generator=generator).tolist()
        for start in range(0, len(order), batch_size):
            yield [run.train[i] for i in order[start : start + batch_size]]


def learning_rate(settings: FewShot, model: BaseModel, kind: PromptKind = "shallow") -> float:
    """Return the step size: the one given, or ``lr_scale`` times the size of a usual coordinate.

    Example:
        >>> from headstart.models.load import load_model
        >>> learning_rate(FewShot(lr=0.3), load_model("tiny-causal"))
        0.3
    """
    return settings.lr or settings.lr_scale * usual_size(model, space_of(model, kind))


def schedule_factor(
    done: int, num_steps: int, warmup_steps: int, schedule: str = "linear"
) -> float:
    """Return what part of the learning rate the next update uses, after ``done`` updates.

    Example:
        >>> [schedule_factor(done, num_steps=4, warmup_steps=2) for done in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if done < warmup_steps:
        return (done + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    return (num_steps - done) / max(1, num_steps - warmup_steps)


class _Stack:
    """N runs in motion: their prompts, their optimiser with one group a prompt, their progress."""

    def __init__(
        self, model: BaseModel, runs: Sequence[Run], settings: FewShot, scoring: Scoring
    ) -> None:
        self.model, self.runs, self.settings, self.scoring = model, runs, settings, scoring
        plain = settings.lr is not None or any(run.lr is not None for run in runs)
        self.space = space_of(model, runs[0].kind, runs[0].groups, in_units=not plain)
        self.starts = [
            self.space.coordinates(run.start_PH.float().to(model.device)) for run in runs
        ]
        self.prompts = [
            _trained(start_PX, settings, run.seed)
            for run, start_PX in zip(runs, self.starts, strict=True)
        ]
        self.streams = [batches(run, settings.batch_size) for run in runs]
        self.active = [True] * len(runs)
        scale = usual_size(model, self.space)
        self.results = [Tuned(run.name, run.start_PH, vitals=Vitals(scale=scale)) for run in runs]
        self.stale = [0] * len(runs)
        base = settings.lr or settings.lr_scale * scale
        self.optimizer = _optimizer(self.prompts, [run.lr or base for run in runs], settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda done: schedule_factor(
                done, settings.num_steps, settings.warmup_steps, settings.schedule
            ),
        )

    def step(self, index: int) -> None:
        """Do one update of every run that is still active."""
        chosen = [n for n, active in enumerate(self.active) if active]
        batches = {n: next(self.streams[n]) for n in chosen}
        rows = [row for batch in batches.values() for row in batch]
        owner = [n for n, batch in batches.items() for _ in batch]
        made = [prompt() for prompt in self.prompts]
        before = [made[n].detach().clone() for n in chosen]
        stack = PromptBank.stack([coordinates_PX.detach() for coordinates_PX in made]).only
        losses = StackedLoss(
            *(self.model, rows, owner, self.settings.loss, self.scoring),
            *(self.space, stack.mask_NP),
        )
        loss_N, grad_NPX = losses.first_order(stack.vectors_NPX)
        for n in chosen:
            made[n].backward(grad_NPX[n, stack.mask_NP[n]])
        norms = [
            float(clip_grad_norm_(self.prompts[n].parameters(), self.settings.clip_norm))
            for n in chosen
        ]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        for n, norm, old in zip(chosen, norms, before, strict=True):
            result, now = self.results[n], self.prompts[n]().detach()
            result.steps = index + 1
            result.vitals.record(float(loss_N[n]), norm, self.starts[n], old, now)

    def look_at_dev(self, done: int) -> bool:
        """Score every active run's dev rows; keep the best prompt, end runs that went stale."""
        chosen = [n for n, active in enumerate(self.active) if active and self.runs[n].dev]
        if not chosen:
            return not any(self.active)
        rows = [row for n in chosen for row in self.runs[n].dev]
        owner = [n for n in chosen for _ in self.runs[n].dev]
        prompts = self.blended()
        bank = PromptBank.stack(prompts, self.space.kind, self.space.groups)
        scores_RC, gold_R = scored(self.model, rows, bank, owner, self.scoring)
        hit = scores_RC.argmax(-1) == gold_R
        for n in chosen:
            accuracy = float(hit[torch.tensor(owner) == n].float().mean())
            best = self.results[n].dev_accuracy
            if best is None or accuracy > best:
                self.results[n].dev_accuracy = accuracy
                self.results[n].prompt_PH = prompts[n].cpu().clone()
                self.stale[n] = 0
            else:
                self.stale[n] += 1
            self.active[n] = self.stale[n] < self.settings.patience
        return not any(self.active)

    def blended(self) -> list[Tensor]:
        """Return what is kept of every run's prompt [P, H] as it is now."""
        return [
            self.space.vectors(
                blend(start_PX, prompt().detach(), kept_part(run, self.settings.start_worth))
            )
            for run, start_PX, prompt in zip(self.runs, self.starts, self.prompts, strict=True)
        ]

    def mean_loss(self) -> float:
        """Return the mean of the runs' last losses."""
        last = [result.vitals.losses[-1] for result in self.results if result.vitals.losses]
        return sum(last) / max(1, len(last))


def _trained(start_PX: Tensor, settings: FewShot, seed: int) -> nn.Module:
    if settings.reparameterise is None:
        return Direct(start_PX)
    generator = torch.Generator().manual_seed(derive_seed(seed, "reparameterise"))
    return Reparameterised(start_PX, settings.reparameterise, generator)


def _optimizer(
    prompts: Sequence[nn.Module], rates: list[float], settings: FewShot
) -> torch.optim.Optimizer:
    """One parameter group a prompt: every rule that looks at a whole parameter looks at one prompt."""
    groups = [
        {"params": list(prompt.parameters()), "lr": lr}
        for prompt, lr in zip(prompts, rates, strict=True)
    ]
    return optimizer_of(settings.optimizer, groups, settings.weight_decay, settings.least_factored)
