"""The stage that runs what prompts are compared with, on the same rows: fine-tuning, SetFit, the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import pydantic
import torch

from headstart.config import FineTune, Scoring, Settings
from headstart.errors import HeadstartError, did_you_mean
from headstart.evaluate.rank import scores_under
from headstart.learn.fewshot import Run
from headstart.learn.finetune import finetune
from headstart.models.base import Limits
from headstart.models.load import load_model
from headstart.models.packaged_encoder import encoder_source
from headstart.recipes.downstream_stage import Name, encoder
from headstart.recipes.results import Result, collect, judged
from headstart.recipes.stages import Context, StageKind, StageRef, of_kind
from headstart.recipes.targets import Protocol, Rows, Target, rows_reader
from headstart.sources.judge import target_probabilities
from headstart.sources.teacher import Teacher

Rival = Literal["fine-tuning", "SetFit", "teacher"]


class RivalsStage(Settings):
    """What the stage ``rivals`` may be told.

    Attributes:
        targets: The target tasks, by name.
        methods: Which rivals are run.
        protocol: Labels, seeds, test rows.
        rates: Fine-tuning's step sizes; with dev rows the best on them is kept, without there is one.
            Paper B's grid: 3e-3, 3e-4, 8e-5, 3e-5, 3e-6.
        finetune: Its other settings; its ``lr`` is not used.
        max_length: Truncate longer rows to this many tokens.
        encoder: SetFit's sentence encoder.
        teacher: The stage that trained the teacher, for ``teacher``.
        label_maps: For each target, teacher label to target label or null. Default: they are the same.

    Example:
        >>> target = {"train": "a.jsonl", "test": "b.jsonl", "words": {"0": "bad", "1": "good"}}
        >>> RivalsStage(targets={"sst2": target}, methods=["fine-tuning"]).rates
        (3e-05,)
    """

    targets: dict[Name, Target] = pydantic.Field(min_length=1)
    methods: tuple[Rival, ...] = pydantic.Field(min_length=1)
    protocol: Protocol = Protocol()
    rates: tuple[float, ...] = pydantic.Field((3e-5,), min_length=1)
    finetune: FineTune = FineTune()
    max_length: int = pydantic.Field(256, ge=8)
    encoder: str = "minilm"
    teacher: Annotated[StageRef, of_kind("teacher")] | None = None
    label_maps: dict[str, dict[str, str | None]] = pydantic.Field({})

    @pydantic.model_validator(mode="after")
    def _what_methods_need(self) -> RivalsStage:
        if "teacher" in self.methods and self.teacher is None:
            raise ValueError("the method teacher needs the key teacher: a stage that trained one")
        for name in self.label_maps:
            if name not in self.targets:
                raise ValueError(
                    f"label_maps: '{name}' is no target{did_you_mean(name, self.targets)}"
                )
            words = self.targets[name].words
            for label in filter(None, self.label_maps[name].values()):
                if label not in words:
                    raise ValueError(
                        f"label_maps.{name}: '{label}' is no class of it ({', '.join(words)})"
                        f"{did_you_mean(label, words)}"
                    )
        if len(self.rates) > 1 and not self.protocol.dev_shots:
            raise ValueError("several rates need dev rows to choose by; set protocol.dev_shots")
        return self


def run_rivals(context: Context[RivalsStage]) -> None:
    """Run every rival on every target; a pair that is done is not done again."""
    settings = context.settings
    pairs = [(target, method) for target in settings.targets for method in settings.methods]

    read = rows_reader(settings.targets, context.data, settings.protocol)

    def work(position: int, name: str, method: str) -> Iterator[Result]:
        def note(text: str) -> None:
            context.progress(f"{method} on {name}", position, len(pairs), text)

        yield from RIVALS[method](context, name, read(name), note)

    collect(context.folder, pairs, work)


def _fine_tuning(
    context: Context[RivalsStage], name: str, rows: Rows, note: Callable[[str], None]
) -> Iterator[Result]:
    settings, task = context.settings, context.settings.targets[name].task
    limits, gold = Limits(settings.max_length), [str(row.label) for row in rows.test]
    for seed in settings.protocol.seeds:
        best: tuple[float, float, list[str], int] | None = None
        for rate in settings.rates:
            model = load_model(context.base_model)
            encode = encoder(model, task, limits)
            none_PH = torch.zeros(0, model.hidden_size)
            run = Run(str(seed), none_PH, encode(rows.train[seed]), encode(rows.dev[seed]), seed)
            plan = settings.finetune.model_copy(update={"lr": rate})
            found = finetune(
                model, run, plan, progress=lambda step, loss: note(f"step {step}, loss {loss:.3f}")
            )
            if best is None or (found.dev_accuracy or 0.0) > best[0]:
                scores_RC = scores_under(model, encode(rows.test), None, Scoring())[0]
                guess = [task.labels[c] for c in scores_RC.argmax(-1).tolist()]
                best = (found.dev_accuracy or 0.0, rate, guess, len(found.losses))
        assert best is not None
        details = {"dev_accuracy": best[0] if rows.dev[seed] else None, "lr": best[1]}
        details["steps"] = best[3]
        yield judged(gold, best[2], name, "fine-tuning", seed, settings.protocol.labels, details)


def _setfit(
    context: Context[RivalsStage], name: str, rows: Rows, note: Callable[[str], None]
) -> Iterator[Result]:
    try:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ImportError as error:
        raise HeadstartError("SetFit is not installed; pip install 'headstart[bench]'") from error
    settings, gold = context.settings, [str(row.label) for row in rows.test]
    texts = [str(row.fields["text"]) for row in rows.test]
    for count, seed in enumerate(settings.protocol.seeds, 1):
        note(f"seed {count} of {len(settings.protocol.seeds)}")
        names = sorted({str(row.label) for row in rows.train[seed]})
        train = Dataset.from_dict(
            {
                "text": [str(row.fields["text"]) for row in rows.train[seed]],
                "label": [names.index(str(row.label)) for row in rows.train[seed]],
            }
        )
        model = SetFitModel.from_pretrained(encoder_source(settings.encoder))
        folder = str(context.folder / "setfit")
        quiet = {"save_strategy": "no", "report_to": "none", "show_progress_bar": False}
        arguments = TrainingArguments(**quiet, num_epochs=1, output_dir=folder, seed=seed)
        Trainer(model, arguments, train_dataset=train).train()
        chosen = model.predict(texts, as_numpy=True, show_progress_bar=False)
        guess = [names[i] for i in chosen.tolist()]
        labels = {"train": settings.protocol.num_shots, "dev": 0}
        yield judged(gold, guess, name, "SetFit", seed, labels, {})


def _teacher(
    context: Context[RivalsStage], name: str, rows: Rows, note: Callable[[str], None]
) -> Iterator[Result]:
    settings = context.settings
    teacher = Teacher.load(context.inputs[settings.teacher or ""] / "teacher")
    labels = list(settings.targets[name].words)
    merged_RC, _ = target_probabilities(teacher, rows.test, labels, settings.label_maps.get(name))
    guess = [labels[c] for c in merged_RC.argmax(1).tolist()]
    gold = [str(row.label) for row in rows.test]
    yield judged(gold, guess, name, "teacher", 0, {}, {})


RIVALS = {"fine-tuning": _fine_tuning, "SetFit": _setfit, "teacher": _teacher}

RIVALS_KIND = StageKind("rivals", 1, RivalsStage, run_rivals)
