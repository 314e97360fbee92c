"""A teacher: a sequence classifier that labels text, in a folder of its own.

FOLDER/model.safetensors, config.json, tokenizer files    what transformers loads
FOLDER/teacher.json      labels, settings, data hashes, metrics; written last: it means done
FOLDER/training/         plan.json and checkpoints, while it is being trained
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pydantic
import torch

from headstart.config import Settings
from headstart.errors import DataError, ModelError, did_you_mean
from headstart.models.batches import by_length
from headstart.models.parallel import map_groups
from headstart.models.processes import find_device
from headstart.prompts.files import storage_errors, to_json, write_whole
from headstart.sources.corpus import text_of
from headstart.sources.encoders import encode, in_bfloat16, padded, quiet, read_classifier
from headstart.tasks.example import Example

FORMAT = 1
TOKENS = {"cpu": 512, "cuda": 65_536}
"""Tokens (rows x longest row) in one forward, by kind of device. On a processor, MiniLM labels 83 rows
a second at 512 and 56 at 8192: rows of one length meet, and little is padding."""


class TeacherSettings(Settings):
    """How a teacher is trained: AdamW, linear schedule with warm-up, the best look at dev is kept.

    Attributes:
        encoder: A hub id (paper B: ``roberta-base``), a local folder, ``minilm`` or ``tiny``.
        max_length: Longer texts are truncated to this many tokens; PPT: 256.
        epochs: Passes over the training rows; PPT: 10.
        lr: Step size. PPT: 1e-4; RoBERTa's own grid: 1e-5 to 3e-5.
        batch_size: Rows in one update; PPT: 16.
        warmup: Share of the updates that warm up; PPT: .01.
        weight_decay: Decoupled weight decay.
        looks: How often, evenly spread, the loss on dev is measured and a checkpoint saved. The loss,
            not the accuracy, chooses: pseudo-labels are filtered by their probabilities.
        precision: Of products: ``bfloat16``, ``float32``, or ``auto``: bfloat16 on a GPU that has it.
            Weights are float32.
        seed: Of the head, the order of rows, and dropout.

    Example:
        >>> TeacherSettings(encoder="minilm").max_length
        256
    """

    encoder: str = "roberta-base"
    max_length: int = pydantic.Field(256, ge=8)
    epochs: int = pydantic.Field(2, ge=1)
    lr: float = pydantic.Field(3e-5, gt=0)
    batch_size: int = pydantic.Field(32, ge=1)
    warmup: float = pydantic.Field(0.06, ge=0, lt=1)
    weight_decay: float = pydantic.Field(0.01, ge=0)
    looks: int = pydantic.Field(10, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 1


class TeacherCard(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Everything about a teacher but its numbers; ``teacher.json`` on disk.

    Attributes:
        labels: The classes, in the order of its probabilities.
        settings: How it was trained.
        data: ``train`` and ``dev``: rows, rows per label, and a hash of texts and labels.
        sha256: Hash of ``model.safetensors``.
        metrics: ``dev``: what ``judge_teacher`` gives; ``steps``: updates until the best look.
        versions: Library versions.
        created: UTC time, ISO 8601.
        format: The version of this layout.

    Example:
        >>> TeacherCard(labels=("bad", "good"), settings=TeacherSettings()).format
        1
    """

    labels: tuple[str, ...]
    settings: TeacherSettings
    data: dict[str, Any] = {}
    sha256: str = ""
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    created: str = ""
    format: int = FORMAT


class Labeller(Protocol):
    """Whatever gives texts probabilities over labels: a ``Teacher``, or a stand-in.

    Example:
        >>> class Coin:
        ...     labels, mark = ("heads", "tails"), "fair"
        ...     def probabilities(self, texts):
        ...         return np.full((len(texts), 2), 0.5)
        >>> coin: Labeller = Coin()
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities' columns."""
        ...

    @property
    def mark(self) -> str:
        """What tells this labeller from another."""
        ...

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Classify R texts: probabilities [R, C]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A trained sequence classifier, frozen.

    Attributes:
        network: The transformers model, in evaluation mode.
        tokenizer: Its tokenizer.
        card: Labels, settings and where it comes from.

    Example:
        >>> from headstart.sources.encoders import load_classifier
        >>> card = TeacherCard(labels=("bad", "good"), settings=TeacherSettings(encoder="tiny"))
        >>> teacher = Teacher(*load_classifier("tiny", card.labels, seed=1), card)
        >>> teacher.probabilities(["Lovely.", "A long and dreary evening."]).shape
        (2, 2)
    """

    network: Any
    tokenizer: Any
    card: TeacherCard

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Teacher:
        """Load a teacher that ``train_teacher`` saved.

        Args:
            folder: Where ``teacher.json`` stands.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` (default): this process's own GPU
                where there is one.

        Raises:
            ModelError: No teacher there, an unfinished one, or damaged files.
            UsageError: No such device.

        Example:
            >>> Teacher.load("nowhere")
            Traceback (most recent call last):
            ...
            headstart.errors.ModelError: nowhere: no teacher.json here; train a teacher into it first
        """
        folder = Path(folder)
        card = read_teacher_card(folder)
        if _sha256(folder / "model.safetensors") != card.sha256:
            raise ModelError(
                f"{folder}: the hash of model.safetensors is not teacher.json's; the file was changed "
                "after it was saved, train again"
            )
        network, tokenizer = read_classifier(str(folder))
        return cls(network.to(find_device(device)).eval().requires_grad_(False), tokenizer, card)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities' columns.

        Example:
            >>> card = TeacherCard(labels=("bad", "good"), settings=TeacherSettings())
            >>> Teacher(None, None, card).labels
            ('bad', 'good')
        """
        return self.card.labels

    @property
    def mark(self) -> str:
        """What tells this teacher from another: the hash of its weights.

        Example:
            >>> card = TeacherCard(labels=("0", "1"), settings=TeacherSettings(), sha256="ab12")
            >>> Teacher(None, None, card).mark
            'ab12'
        """
        return self.card.sha256

    def probabilities(self, texts: Sequence[str], budget: int | None = None) -> np.ndarray:
        """Classify texts, batched by length; rows come back in order.

        Args:
            texts: R texts; what is over the teacher's ``max_length`` is cut off.
            budget: Tokens (rows x longest row) in one forward. Default None: by kind of device.

        Returns:
            Probabilities [R, C], float64; each row sums to 1.

        Example:
            >>> from headstart.sources.encoders import load_classifier
            >>> card = TeacherCard(labels=("bad", "good"), settings=TeacherSettings(encoder="tiny"))
            >>> teacher = Teacher(*load_classifier("tiny", card.labels, seed=1), card)
            >>> round(float(teacher.probabilities(["Lovely."]).sum()), 6)
            1.0
        """
        result_RC = np.zeros((len(texts), len(self.labels)))
        if not texts:
            return result_RC
        device = self.network.device
        tokens = encode(self.tokenizer, texts, self.card.settings.max_length)
        kind = "cpu" if device.type == "cpu" else "cuda"
        groups = list(by_length([len(row) for row in tokens], budget or TOKENS[kind]))

        def classify(group: list[int]) -> np.ndarray:
            inputs = padded([tokens[i] for i in group], self.tokenizer.pad_token_id)
            bf16 = in_bfloat16(self.card.settings.precision, device.type)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
                logits_BC = self.network(**inputs).logits
            probabilities: np.ndarray = logits_BC.cpu().double().softmax(-1).numpy()
            return probabilities

        for group, found in zip(groups, map_groups(classify, groups, device), strict=True):
            result_RC[group] = found
        return result_RC


def read_teacher_card(folder: Path) -> TeacherCard:
    """Read what is known about a trained teacher.

    Raises:
        ModelError: No teacher, an unfinished one, or a damaged or newer ``teacher.json``.

    Example:
        >>> read_teacher_card(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.ModelError: nowhere: no teacher.json here; train a teacher into it first
    """
    path = folder / "teacher.json"
    if not path.is_file():
        begun = (folder / "training").is_dir()
        state = "its training is not finished; run it again" if begun else "train a teacher into it"
        raise ModelError(f"{folder}: no teacher.json here; {state}{'' if begun else ' first'}")
    try:
        with storage_errors(path):
            card = TeacherCard.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"{path}: {where}: {first['msg'].lower()}") from error
    if card.format > FORMAT:
        raise ModelError(f"{path}: format {card.format} is newer than {FORMAT}; update headstart")
    return card


def save_teacher(
    folder: Path,
    network: Any,
    tokenizer: Any,
    card: TeacherCard,
) -> TeacherCard:
    """Save a classifier as a teacher, ``teacher.json`` last; return the card as written.

    Raises:
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from headstart.sources.encoders import load_classifier
        >>> card = TeacherCard(labels=("bad", "good"), settings=TeacherSettings(encoder="tiny"))
        >>> folder = Path(tempfile.mkdtemp())
        >>> card = save_teacher(folder, *load_classifier("tiny", card.labels, seed=1), card)
        >>> Teacher.load(folder).card == card
        True
    """
    from importlib.metadata import version

    with storage_errors(folder), quiet():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    card = card.model_copy(
        update={
            "sha256": _sha256(folder / "model.safetensors"),
            "versions": {name: version(name) for name in ("torch", "transformers")},
            "created": card.created or datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_whole(folder / "teacher.json", to_json(card.model_dump(mode="json")))
    return card


def describe_rows(rows: Iterable[Example]) -> dict[str, Any]:
    """Say what labelled rows are: how many, how many of each label, and a hash of all of them.

    Example:
        >>> describe_rows([Example("a:1", {"text": "Lovely."}, "good")])["labels"]
        {'good': 1}
    """
    digest, labels = hashlib.sha256(), Counter[str]()
    for row in rows:
        labels[str(row.label)] += 1
        digest.update(f"{row.label}\x1f{text_of(row)}\x1e".encode("utf-8", "surrogatepass"))
    return {
        "rows": labels.total(),
        "labels": dict(sorted(labels.items())),
        "sha256": digest.hexdigest(),
    }


def label_indices(rows: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """Return the position of every row's label.

    Raises:
        DataError: A row has no label, or one that is not among ``labels``.

    Example:
        >>> label_indices([Example("a:1", {}, "good")], ["bad", "good"])
        [1]
    """
    index = {label: i for i, label in enumerate(labels)}
    for row in rows:
        if row.label is None or row.label not in index:
            found = "no label" if row.label is None else f"the label '{row.label}'"
            raise DataError(
                f"{row.id}: has {found}, expected one of {', '.join(labels)}"
                f"{did_you_mean(str(row.label), labels)}"
            )
    return [index[str(row.label)] for row in rows]


def _sha256(path: Path) -> str:
    with storage_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
