"""A run directory: one folder a stage, and in each a manifest that is written last.

    OUT/recipe.yaml              the recipe with every default in place
    OUT/.lock, .holder.json      who is at work here
    OUT/teacher/...              what the stage wrote
    OUT/teacher/started.json     while it is at work: what this is the partial work of
    OUT/teacher/manifest.json    when it is done: what it was made from, and the hash of each file

A stage's *identity* is the hash of all that its files depend on: kind and version, settings, base model,
seed, and the content of its inputs and of its data files. A folder with a manifest of that identity and
with its files intact is done; partial work of that identity is continued; anything else that headstart
wrote is taken away when the stage runs. What it did not write is never touched.

An input counts by the content of its files: a teacher that is trained again and comes out the same, byte
for byte, leaves everything after it done.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from headstart.errors import StorageError, UsageError
from headstart.prompts.files import storage_errors, to_json, write_whole
from headstart.recipes.manifest import (
    MANIFEST,
    PENDING,
    STARTED,
    Manifest,
    Started,
    Times,
    Work,
    damage,
    differences,
    read_record,
    tree_hashes,
)

log = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
MARK = "# Written by `headstart run`: every setting, defaults included.\n"
LOCK, HOLDER, OLD = ".lock", ".holder.json", ".headstart-old-"


class State(StrEnum):
    """How a stage stands.

    Example:
        >>> State.again.value
        'again'
    """

    done = "done"
    new = "new"
    resume = "resume"
    again = "again"
    maybe = "maybe"  # in plans only: it hangs on what an input comes out as


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a stage's folder.

    Attributes:
        state: How the stage stands.
        because: For ``again`` and ``maybe``: what differs.
        content: For ``done``: the hash of its files.

    Example:
        >>> Found(State.again, ("seed: 1 -> 2",)).because
        ('seed: 1 -> 2',)
    """

    state: State
    because: tuple[str, ...] = ()
    content: str = PENDING


def look(folder: Path, work: Work) -> Found:
    """Find out how a stage stands; every file of a finished one is hashed.

    Raises:
        UsageError: The folder holds what headstart did not write.
        StorageError: It cannot be read, or its manifest is damaged.

    Example:
        >>> import tempfile
        >>> work = Work(kind="note", version=1, settings={}, base_model="", seed=1)
        >>> folder = Path(tempfile.mkdtemp()) / "a"
        >>> look(folder, work).state
        <State.new: 'new'>
        >>> begin(folder, work, look(folder, work))
        >>> look(folder, work).state, look(folder, work.model_copy(update={"seed": 2})).because
        (<State.resume: 'resume'>, ('seed: 1 -> 2',))
        >>> _ = (folder / "a.txt").write_text("result")
        >>> manifest = finish(folder, work, 0.5, {})
        >>> look(folder, work).content == manifest.content
        True
    """
    with storage_errors(folder):
        if not folder.is_dir():
            if folder.exists():
                raise UsageError(f"{folder}: is a file; a stage's folder is to be there")
            return Found(State.new)
        manifest = read_record(folder / MANIFEST, Manifest)
        if manifest is not None:
            because = differences(manifest.work, work) or damage(folder, manifest)
            return _standing(because, work, Found(State.done, (), manifest.content))
        started = read_record(folder / STARTED, Started)
        if started is not None:
            return _standing(differences(started.work, work), work, Found(State.resume))
        strange = [path.name for path in folder.iterdir() if not path.name.startswith(".tmp-")]
    if strange:
        raise UsageError(
            f"{folder}: holds '{min(strange)}', which is not of a headstart run; "
            "move it away, or choose another folder with --out"
        )
    return Found(State.new)


def begin(folder: Path, work: Work, found: Found) -> None:
    """Make a stage's folder ready: partial work of the same identity stays, all else goes.

    Raises:
        StorageError: It cannot be written to.
    """
    with storage_errors(folder):
        if found.state is State.again:  # away in one step, then at leisure
            aside = folder.with_name(f"{OLD}{uuid4().hex}")
            folder.replace(aside)
            shutil.rmtree(aside, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        before = read_record(folder / STARTED, Started)
    sessions = 1 if before is None else before.sessions + 1
    write_whole(
        folder / STARTED, to_json(Started(work=work, sessions=sessions).model_dump(mode="json"))
    )


def finish(folder: Path, work: Work, seconds: float, versions: Mapping[str, str]) -> Manifest:
    """Hash what a stage wrote and write its manifest: from now on the stage is done.

    Raises:
        StorageError: The folder cannot be read or written to.
    """
    with storage_errors(folder):
        files = {name: sha256 for name, sha256 in tree_hashes(folder).items() if name != STARTED}
        started = read_record(folder / STARTED, Started)
    assert files, f"{folder}: a stage of kind '{work.kind}' wrote no file"
    assert MANIFEST not in files, f"{folder}: {MANIFEST} is not for stages to write"
    manifest = Manifest(
        stage=folder.name,
        work=work,
        identity=work.identity,
        files=files,
        versions=dict(versions),
        times=Times(
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            sessions=1 if started is None else started.sessions,
        ),
    )
    write_whole(folder / MANIFEST, to_json(manifest.model_dump(mode="json")))
    (folder / STARTED).unlink(missing_ok=True)
    return manifest


def save_recipe(out: Path, values: Mapping[str, Any]) -> None:
    """Write the resolved recipe into a run directory; one that a person put there is not replaced.

    Raises:
        UsageError: There is a ``recipe.yaml`` that headstart did not write.
        StorageError: The folder cannot be written to.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> save_recipe(out, {"name": "tiny"})
        >>> (out / "recipe.yaml").read_text().splitlines()[1]
        'name: tiny'
    """
    path = out / RECIPE
    with storage_errors(path):
        if path.exists() and not path.read_bytes().startswith(MARK.encode()):
            raise UsageError(
                f"{path}: was not written by a headstart run; choose another folder with --out"
            )
    write_whole(path, MARK + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def tidy(out: Path) -> None:
    """Take away what a killed run was about to take away; for the holder of the lock.

    Raises:
        StorageError: The folder cannot be read.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> (out / ".headstart-old-1").mkdir()
        >>> tidy(out)
        >>> list(out.iterdir())
        []
    """
    with storage_errors(out):
        for path in out.glob(f"{OLD}*"):
            shutil.rmtree(path, ignore_errors=True)
        for name in (RECIPE, HOLDER):
            for path in out.glob(f".tmp-*-{name}"):
                path.unlink(missing_ok=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a run directory alone; the system frees the lock of a process that died.

    Raises:
        StorageError: Another process holds it (it is named), or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> with locked(out):
        ...     sorted(path.name for path in out.iterdir())
        ['.holder.json', '.lock']
        >>> (out / ".holder.json").exists()
        False
    """
    from filelock import FileLock, Timeout

    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StorageError(
                f"{out}: in use by {_holder(out) or 'another process'}; "
                "wait until it has ended, or choose another folder with --out"
            ) from error
    try:
        dead = _holder(out)
        if dead:
            log.warning("%s: %s ended without tidying up; its work is continued", out, dead)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        write_whole(out / HOLDER, to_json(mine))
        try:
            yield
        finally:
            (out / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _standing(because: list[str], work: Work, otherwise: Found) -> Found:
    if because:
        return Found(State.again, tuple(because))
    waits = [name for name, content in work.inputs.items() if content == PENDING]
    if waits:
        return Found(State.maybe, tuple(f"input '{name}' is still to be made" for name in waits))
    return otherwise


def _sweep(folder: Path) -> None:
    """Remove what a kill left of files that were being written."""
    for path in list(folder.rglob(".tmp-*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _holder(out: Path) -> str:
    try:
        found = json.loads((out / HOLDER).read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
