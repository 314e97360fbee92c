"""What a stage's folder says about itself: what its files were made from, and their hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from headstart.config import Settings
from headstart.errors import StorageError
from headstart.prompts.files import storage_errors

FORMAT = 1
MANIFEST, STARTED = "manifest.json", "started.json"
PENDING = "pending"
"""Stands for the content of an input that is still to be made, in a plan."""

R = TypeVar("R", bound=Settings)


class Work(Settings):
    """All that a stage's files depend on.

    Attributes:
        kind: The kind's name.
        version: The kind's version.
        settings: Resolved, as JSON has them.
        base_model: The model's name; ``""``: it does not matter.
        seed: The seed.
        inputs: Stage name to the hash of its content.
        data: Data file to the hash of its content; ``hub:NAME`` has none.
        unset: Settings that the recipe leaves at their defaults; not written down. One that an older
            headstart did not know yet is no difference: a new setting's default is what was done before,
            or else its kind gets a new version.

    Example:
        >>> work = Work(kind="note", version=1, settings={}, base_model="", seed=1)
        >>> work.identity == work.model_copy(update={"seed": 2}).identity
        False
    """

    kind: str
    version: int
    settings: dict[str, Any]
    base_model: str
    seed: int
    inputs: dict[str, str] = pydantic.Field(default_factory=dict)
    data: dict[str, str | None] = pydantic.Field(default_factory=dict)
    unset: frozenset[str] = pydantic.Field(frozenset(), exclude=True)

    @property
    def identity(self) -> str:
        """Hash of all of it."""
        return _hash_of(self.model_dump(mode="json"))


class Started(Settings):
    """What a folder without a manifest is the partial work of.

    Example:
        >>> work = Work(kind="note", version=1, settings={}, base_model="", seed=1)
        >>> Started(work=work).sessions
        1
    """

    work: Work
    sessions: int = 1


class Times(Settings):
    """The one part of a manifest that two runs of the same work differ in.

    Attributes:
        finished: UTC time, ISO 8601.
        seconds: Of the session that finished it; what killed sessions took is not known.
        sessions: How often it was begun; 1: in one go.

    Example:
        >>> Times(finished="2025-01-01T00:00:00+00:00", seconds=1.5, sessions=2).seconds
        1.5
    """

    finished: str
    seconds: float
    sessions: int


class Manifest(Settings):
    """What a finished stage's folder says about itself.

    Attributes:
        stage: The stage's name.
        work: What it was made from.
        identity: Hash of that.
        files: Each file's SHA-256, by its path in the folder.
        versions: Of headstart and the libraries.
        times: When, and how long it took.
        format: The version of this layout.

    Example:
        >>> work = Work(kind="note", version=1, settings={}, base_model="", seed=1)
        >>> times = Times(finished="", seconds=0, sessions=1)
        >>> Manifest(stage="a", work=work, identity="", files={}, versions={}, times=times).format
        1
    """

    stage: str
    work: Work
    identity: str
    files: dict[str, str]
    versions: dict[str, str]
    times: Times
    format: int = FORMAT

    @property
    def content(self) -> str:
        """Hash of the files: what stages that read them depend on."""
        return _hash_of(self.files)


def differences(old: Work, new: Work) -> list[str]:
    """Say what differs, in words; an input that is still to be made does not, yet.

    Example:
        >>> old = Work(kind="a", version=1, settings={"lr": {"inner": 1}}, base_model="", seed=1)
        >>> differences(old, old.model_copy(update={"settings": {"lr": {"inner": 2}}, "version": 2}))
        ["kind 'a' now works differently: version 1 -> 2", 'lr.inner: 1 -> 2']
        >>> grown = old.model_copy(update={"settings": {"lr": {"inner": 1, "outer": 2}}})
        >>> differences(old, grown), differences(old, grown.model_copy(update={"unset": {"lr.outer"}}))
        (['lr.outer: new'], [])
    """
    found = [] if old.kind == new.kind else [f"kind: {old.kind} -> {new.kind}"]
    if old.kind == new.kind and old.version != new.version:
        found.append(
            f"kind '{new.kind}' now works differently: version {old.version} -> {new.version}"
        )
    for name in ("base_model", "seed"):
        one, other = getattr(old, name), getattr(new, name)
        found += [f"{name}: {one} -> {other}"] if one != other else []
    one, other = leaves(old.settings), leaves(new.settings)
    for key in sorted(one.keys() | other.keys()):
        if key not in one and key in new.unset:
            continue
        if key not in one or key not in other:
            found.append(f"{key}: " + ("new" if key in other else "no longer there"))
        elif one[key] != other[key]:
            found.append(f"{key}: {_short(one[key])} -> {_short(other[key])}")
    for key, content in new.data.items():
        if key in old.data and old.data[key] != content:
            found.append(f"data file '{key}' has changed")
    for key, content in new.inputs.items():
        if key in old.inputs and content not in (PENDING, old.inputs[key]):
            found.append(f"input '{key}' has changed")
    return found


def damage(folder: Path, manifest: Manifest) -> list[str]:
    """List the files of a finished stage that are missing or not as they were written.

    Raises:
        StorageError: A file cannot be read.

    Example:
        >>> work = Work(kind="note", version=1, settings={}, base_model="", seed=1)
        >>> times = Times(finished="", seconds=0, sessions=1)
        >>> files = {"gone.txt": "ab"}
        >>> made = Manifest(stage="a", work=work, identity="", files=files, versions={}, times=times)
        >>> damage(Path("nowhere"), made)
        ["file 'gone.txt' is missing"]
    """
    found = []
    for name, sha256 in manifest.files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"file '{name}' is missing")
        elif file_hash(path) != sha256:
            found.append(f"file '{name}' is not as it was written")
    return found


def read_record(path: Path, model: type[R]) -> R | None:
    """Read a manifest, or what stands for one; ``None`` where there is none.

    Raises:
        StorageError: It is damaged, or of a later headstart.
        OSError: It cannot be read.

    Example:
        >>> read_record(Path("nowhere/manifest.json"), Manifest) is None
        True
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StorageError(
            f"{path}: damaged, or not of this headstart ({where}: {first['msg'].lower()}); "
            f"delete {path.parent} to have the stage run again"
        ) from error


def file_hash(path: Path) -> str:
    """Hash a file's bytes.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> import os
        >>> file_hash(Path(os.devnull))[:8]
        'e3b0c442'
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_hashes(folder: Path) -> dict[str, str]:
    """Hash each file in a folder and below, by its path in it, in order.

    Raises:
        OSError: One cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("a")
        >>> list(tree_hashes(folder))
        ['a.txt']
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name: file_hash(folder / name) for name in sorted(names)}


def data_hash(path: Path) -> str:
    """Hash a data file, or all files of a data folder.

    Raises:
        StorageError: It cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> data_hash(folder)[:8]  # of no file at all
        '44136fa3'
    """
    with storage_errors(path):
        return _hash_of(tree_hashes(path)) if path.is_dir() else file_hash(path)


def _hash_of(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def leaves(value: object, name: str = "") -> dict[str, object]:
    """Flatten nested settings: dotted name to value.

    Example:
        >>> leaves({"lr": {"inner": 1}, "seeds": [1, 2]})
        {'lr.inner': 1, 'seeds': [1, 2]}
    """
    if not isinstance(value, dict) or not value:
        return {name: value} if name else {}
    found: dict[str, object] = {}
    for key, inner in value.items():
        found |= leaves(inner, f"{name}.{key}" if name else str(key))
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
