"""A prompt on disk: ``prompt.safetensors`` (the vectors) beside ``card.json`` (everything about them).

Both are written to a temporary name first and renamed, the card last: a folder with a card is whole.
A file from a stranger is checked before it is believed: size, tensor name, shape, dtype, finite
values, hash, and the base model it was made for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from headstart.config import GROUPS, Group, PromptKind
from headstart.errors import PromptFileError, StorageError
from headstart.prompts.prompt import PromptSpec, SoftPrompt

FORMAT = 1
TENSOR = "prompt_PH"
MAX_BYTES = 256 * 2**20


class Fingerprint(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What tells one base model from another: a prompt works with its own only.

    Example:
        >>> Fingerprint(model_type="llama", hidden_size=8, weights="ab", tokenizer="cd").weights
        'ab'
    """

    model_type: str
    hidden_size: int
    weights: str
    tokenizer: str


class PromptCard(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Everything about a prompt but its numbers; JSON on disk.

    Attributes:
        base_model: The name the model was loaded by.
        fingerprint: The model's and the tokenizer's hashes.
        length: Vectors, P.
        hidden_size: H; of a deep or gated prompt X, the keys and values of all layers.
        kind: ``shallow``, ``deep`` or ``gated``.
        groups: Where a deep or gated prompt speaks.
        init: The initialiser.
        sha256: Hash of the vectors' bytes.
        task: Template, labels, label words and scoring rule.
        training: Settings, seed, data hashes, label ledger, time.
        metrics: What was measured on it.
        versions: Library versions.
        created: UTC time, ISO 8601.
        format: The version of this layout.

    Example:
        >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
        >>> PromptCard(base_model="m", fingerprint=mark, length=1, hidden_size=2).kind
        'shallow'
    """

    base_model: str
    fingerprint: Fingerprint
    length: int
    hidden_size: int
    kind: PromptKind = "shallow"
    groups: tuple[Group, ...] = GROUPS
    init: str = "unknown"
    sha256: str = ""
    task: dict[str, Any] = {}
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    created: str = ""
    format: int = FORMAT

    @classmethod
    def of(cls, prompt: SoftPrompt, **told: Any) -> PromptCard:
        """Make the card of a prompt: what its spec says, and what else is told.

        Example:
            >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
            >>> prompt = SoftPrompt.of(torch.zeros(3, 2))
            >>> PromptCard.of(prompt, base_model="m", fingerprint=mark).length
            3
        """
        spec = prompt.spec
        return cls(
            length=spec.length,
            hidden_size=spec.hidden_size,
            kind=spec.kind,
            groups=spec.groups,
            init=spec.init,
            **told,
        )


def prompt_hash(prompt: SoftPrompt) -> str:
    """Hash a prompt's vectors, byte for byte.

    Example:
        >>> prompt_hash(SoftPrompt.of(torch.zeros(1, 2)))[:8]
        'af5570f5'
    """
    return hashlib.sha256(prompt.vectors_PH.numpy().tobytes()).hexdigest()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error about ``path`` into one clear line.

    Raises:
        StorageError: The place cannot be written to or read.

    Example:
        >>> with storage_errors(Path("x")):
        ...     pass
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        place = path if ".tmp-" in str(error.filename) else error.filename or path
        raise StorageError(
            f"{place}: {reason}; choose a folder you may write to, with room left"
        ) from error


@contextmanager
def made_parents(path: Path) -> Iterator[None]:
    """Make the folders above ``path``; take the new ones away again when the block fails.

    Raises:
        StorageError: They cannot be made.

    Example:
        >>> import tempfile
        >>> top = Path(tempfile.mkdtemp())
        >>> with suppress(ValueError), made_parents(top / "a" / "b" / "file"):
        ...     raise ValueError((top / "a" / "b").is_dir())
        >>> list(top.iterdir())
        []
    """
    with storage_errors(path):
        missing = [parent for parent in path.absolute().parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for parent in missing:  # the nearest first
            with suppress(OSError):
                parent.rmdir()
        raise


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that it is whole or absent: temporary name, flush to disk, rename.

    Raises:
        StorageError: The place cannot be written to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> write_whole(target, "done")
        >>> target.read_text()
        'done'
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".tmp-{uuid4().hex}-{path.name}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def to_json(value: object) -> str:
    r"""Write a value as readable JSON with a stable order and a final newline.

    Raises:
        ValueError: It holds NaN or an infinity, which JSON has not.

    Example:
        >>> to_json({"b": 1, "a": 2})
        '{\n  "a": 2,\n  "b": 1\n}\n'
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def save_prompt(folder: Path, prompt: SoftPrompt, card: PromptCard) -> PromptCard:
    """Save a prompt and its card into ``folder``; return the card as written.

    Raises:
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
        >>> card = PromptCard(base_model="m", fingerprint=mark, length=1, hidden_size=2)
        >>> save_prompt(Path(tempfile.mkdtemp()), SoftPrompt.of(torch.zeros(1, 2)), card).sha256[:4]
        'af55'
    """
    card = card.model_copy(
        update={
            "sha256": prompt_hash(prompt),
            "created": card.created or datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_whole(folder / "prompt.safetensors", to_safetensors({TENSOR: prompt.vectors_PH}))
    write_whole(folder / "card.json", to_json(card.model_dump()))
    return card


def read_card(folder: Path) -> PromptCard:
    """Read a prompt's card.

    Raises:
        PromptFileError: No card, not JSON, a key missing or unknown, or a newer format.

    Example:
        >>> read_card(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no card.json here; a tuned prompt is a folder ...
    """
    path = folder / "card.json"
    if not path.is_file():
        raise PromptFileError(
            f"{folder}: no card.json here; a tuned prompt is a folder that `headstart tune --out` wrote"
        )
    with storage_errors(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        card = PromptCard.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PromptFileError(f"{path}: {where}: {first['msg'].lower()}") from error
    if card.format > FORMAT:
        raise PromptFileError(
            f"{path}: format {card.format} is newer than this headstart reads ({FORMAT}); update it"
        )
    return card


def load_prompt(
    folder: Path, fingerprint: Fingerprint | None = None
) -> tuple[SoftPrompt, PromptCard]:
    """Load a prompt and its card, and check that it fits the base model.

    Args:
        folder: Where ``prompt.safetensors`` and ``card.json`` stand.
        fingerprint: The loaded base model's; ``None`` skips that check.

    Raises:
        PromptFileError: Damaged, wrong shape, not finite, or made for another model.

    Example:
        >>> load_prompt(Path("nowhere"))
        Traceback (most recent call last):
        ...
        headstart.errors.PromptFileError: nowhere: no card.json here; a tuned prompt is a folder ...
    """
    card = read_card(folder)
    path = folder / "prompt.safetensors"
    vectors_PH = _read_tensor(path, (card.length, card.hidden_size))
    try:
        spec = PromptSpec(card.length, card.hidden_size, card.kind, card.init, card.groups)
        prompt = SoftPrompt(vectors_PH, spec)
    except PromptFileError as error:
        raise PromptFileError(f"{path}: {error}") from error
    if prompt_hash(prompt) != card.sha256:
        raise PromptFileError(
            f"{path}: its hash is not the card's; the file was changed after it was saved, take another copy"
        )
    if fingerprint is not None:
        check_fingerprint(folder, card, fingerprint)
    return prompt, card


def check_fingerprint(folder: Path, card: PromptCard, fingerprint: Fingerprint) -> None:
    """Refuse a prompt that was made for another base model or tokenizer.

    Raises:
        PromptFileError: Names what differs.

    Example:
        >>> mark = Fingerprint(model_type="llama", hidden_size=2, weights="w", tokenizer="t")
        >>> card = PromptCard(base_model="m", fingerprint=mark, length=1, hidden_size=2)
        >>> check_fingerprint(Path("p"), card, mark)
    """
    made_for: Mapping[str, Any] = card.fingerprint.model_dump()
    loaded = fingerprint.model_dump()
    differ = [key for key in made_for if made_for[key] != loaded[key]]
    if differ:
        key = differ[0]
        raise PromptFileError(
            f"{folder}: made for base model '{card.base_model}', not for the one loaded "
            f"({key}: {str(made_for[key])[:12]} there, {str(loaded[key])[:12]} here); "
            f"load '{card.base_model}' or tune again"
        )


def _read_tensor(path: Path, shape: tuple[int, int]) -> torch.Tensor:
    if not path.is_file():
        raise PromptFileError(
            f"{path}: missing; the folder's card is there but its vectors are not"
        )
    if path.stat().st_size > MAX_BYTES:
        raise PromptFileError(
            f"{path}: {path.stat().st_size} bytes; a prompt has at most {MAX_BYTES}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if names != [TENSOR]:
                raise PromptFileError(
                    f"{path}: tensors {names[:3]} where ['{TENSOR}'] was expected"
                )
            found = file.get_slice(TENSOR)
            if tuple(found.get_shape()) != shape or found.get_dtype() != "F32":
                raise PromptFileError(
                    f"{path}: {found.get_dtype()} {found.get_shape()} where F32 {list(shape)} "
                    "was expected from the card"
                )
            vectors: torch.Tensor = file.get_tensor(TENSOR)
            return vectors
    except (SafetensorError, OSError) as error:
        raise PromptFileError(f"{path}: not a readable safetensors file ({error})") from error
