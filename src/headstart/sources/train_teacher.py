"""Train a teacher with transformers' Trainer; killed and started again, it goes on.

The order of rows over all epochs is drawn here, from the seed, and read in sequence: a run that goes
on from a checkpoint meets the rows, and the dropout, that it would have met.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.errors import DataError, UsageError
from headstart.models.processes import own_device
from headstart.prompts.files import storage_errors
from headstart.seeds import derive_seed
from headstart.sources.corpus import text_of
from headstart.sources.encoders import (
    encode,
    in_bfloat16,
    load_classifier,
    padded,
    quiet,
)
from headstart.sources.judge import judge_teacher
from headstart.sources.plan import begin, check
from headstart.sources.teacher import (
    Teacher,
    TeacherCard,
    TeacherSettings,
    describe_rows,
    label_indices,
    save_teacher,
)
from headstart.tasks.example import Example

WINDOW = 50
"""Batches whose rows are sorted by length among themselves: little padding, and still shuffled."""

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called after an update with the number done and the number of all."""


def train_teacher(
    train: Sequence[Example],
    dev: Sequence[Example],
    labels: Sequence[str],
    settings: TeacherSettings,
    folder: str | Path,
    progress: Progress = lambda done, total: None,
) -> Teacher:
    """Train a teacher into a folder; where it is there already, load it.

    A run that was killed goes on from its last whole checkpoint and ends with the same weights.
    Python's, numpy's and torch's global generators are seeded by the Trainer.

    Args:
        train: Labelled rows with a ``text``.
        dev: Rows that choose the checkpoint, on which the teacher is also judged.
        labels: The classes, in the order of the probabilities.
        settings: How it is trained.
        folder: Where the teacher is saved.
        progress: Called after every update.

    Raises:
        DataError: No rows, or a row without a text or with an unknown label.
        UsageError: The folder holds a teacher, or a begun one, of other rows or settings.
        ModelError: The encoder cannot be found or read.
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> rows = [Example(f"a:{i}", {"text": "good" if i % 2 else "bad"}, str(i % 2)) for i in range(8)]
        >>> settings = TeacherSettings(encoder="tiny", epochs=1, batch_size=4)
        >>> teacher = train_teacher(rows, rows[:2], ["0", "1"], settings, tempfile.mkdtemp())
        >>> teacher.card.data["train"]["labels"], teacher.card.metrics["dev"]["rows"]
        ({'0': 4, '1': 4}, 2)
    """
    folder = Path(folder).absolute()  # the Trainer keeps paths in its checkpoints
    data = _check_rows(train, dev, labels)
    plan = {"labels": list(labels), "settings": settings.model_dump(), "data": data}
    if (folder / "teacher.json").is_file():
        check(folder / "teacher.json", plan)
        return Teacher.load(folder)
    begin(folder / "training" / "plan.json", plan)
    network, tokenizer = load_classifier(
        settings.encoder, labels, derive_seed(settings.seed, "head")
    )
    steps = _fit(network, tokenizer, train, dev, labels, settings, folder / "training", progress)
    card = TeacherCard(labels=tuple(labels), settings=settings, data=data)
    frozen = network.to(own_device()).eval().requires_grad_(False)
    metrics = {"steps": steps, "dev": judge_teacher(Teacher(frozen, tokenizer, card), dev)}
    card = save_teacher(folder, frozen, tokenizer, card.model_copy(update={"metrics": metrics}))
    shutil.rmtree(folder / "training")
    return Teacher(frozen, tokenizer, card)


def row_order(lengths: Sequence[int], settings: TeacherSettings) -> list[int]:
    """Draw the rows of every batch of every epoch, one after the other.

    Each epoch is a new shuffle. Its batches hold rows of like length and come in random order; rows
    that fill no batch are left to the next epoch.

    Args:
        lengths: Any measure of each row's length.
        settings: ``batch_size``, ``epochs`` and ``seed``.

    Example:
        >>> order = row_order([3, 1, 2, 9], TeacherSettings(epochs=2, batch_size=2))
        >>> sorted(order[:4]), sorted(order[4:])
        ([0, 1, 2, 3], [0, 1, 2, 3])
    """
    generator = np.random.Generator(np.random.PCG64(derive_seed(settings.seed, "order")))
    size = settings.batch_size
    order: list[int] = []
    rest: list[int] = []
    for _ in range(settings.epochs):
        rows = rest + generator.permutation(len(lengths)).tolist()
        whole = len(rows) // size * size
        rows, rest = rows[:whole], rows[whole:]
        batches: list[list[int]] = []
        for start in range(0, whole, WINDOW * size):
            window = sorted(rows[start : start + WINDOW * size], key=lambda row: lengths[row])
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        order += [row for i in generator.permutation(len(batches)) for row in batches[i]]
    return order + rest


def _check_rows(
    train: Sequence[Example], dev: Sequence[Example], labels: Sequence[str]
) -> dict[str, Any]:
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise UsageError(f"labels {list(labels)}: at least two are needed, all different")
    for name, rows in (("train", train), ("dev", dev)):
        if not rows:
            raise DataError(f"the teacher's {name} rows are empty; give at least one")
        label_indices(rows, labels)
    return {"train": describe_rows(train), "dev": describe_rows(dev)}


def _fit(
    network: Any,
    tokenizer: Any,
    train: Sequence[Example],
    dev: Sequence[Example],
    labels: Sequence[str],
    settings: TeacherSettings,
    folder: Path,
    progress: Progress,
) -> int:
    """Train ``network`` in place; leave the best look's weights in it; return that look's step."""
    from torch.utils.data import Subset
    from transformers import PrinterCallback, Trainer

    rows, looks = (
        list(zip(map(text_of, part), label_indices(part, labels), strict=True))
        for part in (train, dev)
    )
    order = row_order([len(text) for text, _ in rows], settings)
    looks.sort(key=lambda row: len(row[0]))

    def collate(batch: Sequence[tuple[str, int]]) -> dict[str, torch.Tensor]:
        tokens = encode(tokenizer, [text for text, _ in batch], settings.max_length)
        gold_B = torch.tensor([label for _, label in batch])
        return {**padded(tokens, tokenizer.pad_token_id), "labels": gold_B}

    arguments = _arguments(settings, math.ceil(len(order) / settings.batch_size), folder)
    with storage_errors(folder), quiet():
        trainer = Trainer(
            model=network,
            args=arguments,
            data_collator=collate,
            train_dataset=Subset(rows, order),  # type: ignore[arg-type]
            eval_dataset=looks,
            callbacks=[_reporter(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    return int(trainer.state.best_global_step or trainer.state.global_step)


def _arguments(settings: TeacherSettings, steps: int, folder: Path) -> Any:
    from transformers import TrainingArguments

    every = math.ceil(steps / settings.looks)
    device = own_device()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # the order of rows holds all epochs
        train_sampling_strategy="sequential",
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.lr,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        bf16=in_bfloat16(settings.precision, device.type),
        use_cpu=device.type == "cpu",
        seed=derive_seed(settings.seed, "dropout") % 2**32,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=every,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        report_to="none",
        disable_tqdm=True,
    )


def last_checkpoint(folder: Path) -> str | None:
    """Find the last whole checkpoint; remove those that a kill left half written.

    The Trainer writes ``trainer_state.json`` last: a checkpoint that has one, and in one piece, is
    whole.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for step, state in ((8, "{}"), (16, '{"torn')):
        ...     (folder / f"checkpoint-{step}").mkdir()
        ...     _ = (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
        >>> last_checkpoint(folder).endswith("checkpoint-8"), len(list(folder.iterdir()))
        (True, 1)
    """
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            log.warning("%s is not whole: removed", path)
            shutil.rmtree(path)
        else:
            whole.append(path)
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _reporter(progress: Progress) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        """Tells the caller of updates, and the log of looks."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress(state.global_step, state.max_steps)

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            loss = kwargs["metrics"]["eval_loss"]
            log.info("step %d of %d: dev loss %.4f", state.global_step, state.max_steps, loss)

    return Reporter()
