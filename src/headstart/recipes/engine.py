"""Runs a recipe stage by stage: what is done and unchanged is skipped, what was stopped is continued."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, UsageError, did_you_mean
from headstart.models.processes import own_processes
from headstart.recipes.manifest import (
    MANIFEST,
    STARTED,
    Manifest,
    Work,
    data_hash,
    leaves,
    read_record,
)
from headstart.recipes.recipe import Recipe, Stage
from headstart.recipes.run_dir import (
    Found,
    State,
    begin,
    finish,
    locked,
    look,
    save_recipe,
    tidy,
)
from headstart.recipes.stages import Context, DataFile, Progress, marked, silent
from headstart.tasks.readers import file_of

Watch = Callable[[Stage, Found], AbstractContextManager[Progress]]
"""Around each stage that runs: shows that it began, how far it is, and that it ended."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stage.

    Attributes:
        stage: The stage.
        found: How it stood before; ``done``: it was skipped.
        seconds: What it took now.

    Example:
        >>> from headstart.config import Settings
        >>> from headstart.recipes.stages import StageKind
        >>> kind = StageKind("note", 1, Settings, lambda context: None)
        >>> Outcome(Stage("a", kind, Settings(), "", 1), Found(State.new), 0.5).to_dict()
        {'stage': 'a', 'kind': 'note', 'found': 'new', 'because': [], 'seconds': 0.5}
    """

    stage: Stage
    found: Found
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return it as plain values."""
        return {
            "stage": self.stage.name,
            "kind": self.stage.kind.name,
            "found": self.found.state.value,
            "because": list(self.found.because),
            "seconds": round(self.seconds, 2),
        }


@contextmanager
def unwatched(stage: Stage, found: Found) -> Iterator[Progress]:
    """Show nothing.

    Example:
        >>> from headstart.config import Settings
        >>> from headstart.recipes.stages import StageKind
        >>> kind = StageKind("note", 1, Settings, lambda context: None)
        >>> with unwatched(Stage("a", kind, Settings(), "", 1), Found(State.new)) as progress:
        ...     progress("writing", 1, 2)
    """
    yield silent


def plan(
    recipe: Recipe, out: Path, *, only: str | None = None, until: str | None = None
) -> list[Outcome]:
    """Say for each stage how it stands, and so what a run would do; write nothing.

    Args:
        recipe: The study.
        out: Its run directory, which need not be there.
        only: This stage alone, whose inputs are done. Default None.
        until: The stages up to this one. Default None: all.

    Raises:
        UsageError: No such stage or data file, or a folder that headstart did not write.
        StorageError: Something cannot be read.

    Example:
        >>> import tempfile
        >>> from headstart.config import Settings
        >>> from headstart.recipes.recipe import make_recipe
        >>> from headstart.recipes.stages import StageKind
        >>> kinds = {"note": StageKind("note", 1, Settings, lambda context: None)}
        >>> recipe = make_recipe({"name": "t", "stages": {"a": {"kind": "note"}}}, Path("t"), kinds)
        >>> [outcome.found.state.value for outcome in plan(recipe, Path(tempfile.mkdtemp()))]
        ['new']
    """
    stages = _chosen(recipe, only, until)
    hashes = data_hashes(recipe, stages)
    contents: dict[str, str] = {}
    outcomes = []
    for stage in stages:
        found = look(out / stage.name, work_of(stage, contents, hashes))
        contents[stage.name] = found.content
        outcomes.append(Outcome(stage, found))
    return outcomes


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    only: str | None = None,
    until: str | None = None,
    watch: Watch = unwatched,
) -> list[Outcome]:
    """Run what is not done yet, in order.

    A run that was stopped at any point continues when it is started again: with the first stage that
    is not done, which continues from its own partial files. Of processes that were started together the
    first holds the folder; they run what can be shared, and refuse the rest.

    Args:
        recipe: The study.
        out: Its run directory.
        only: This stage alone, whose inputs are done. Default None.
        until: The stages up to this one. Default None: all.
        watch: Entered around each stage that runs. Default: shows nothing.

    Raises:
        UsageError: No such stage or data file, or a folder that headstart did not write.
        StorageError: Something cannot be read or written, or another process runs there.
        HeadstartError: A stage failed; it is named. Its partial work stays.

    Example:
        >>> import tempfile
        >>> from headstart.config import Settings
        >>> from headstart.recipes.recipe import make_recipe
        >>> from headstart.recipes.stages import StageKind
        >>> def note(context: Context[Settings]) -> None:
        ...     _ = (context.folder / "note.txt").write_text(f"seed {context.seed}")
        >>> kinds = {"note": StageKind("note", 1, Settings, note, uses_model=False)}
        >>> recipe = make_recipe({"name": "t", "stages": {"a": {"kind": "note"}}}, Path("t"), kinds)
        >>> out = Path(tempfile.mkdtemp())
        >>> [outcome.found.state.value for outcome in run_recipe(recipe, out)]
        ['new']
        >>> [outcome.found.state.value for outcome in run_recipe(recipe, out)]
        ['done']
    """
    stages = _chosen(recipe, only, until)
    hashes = data_hashes(recipe, stages)  # a file that is missing is told before hours of work
    contents: dict[str, str] = {}
    outcomes = []
    together = own_processes()
    with locked(out) if together.is_main_process else nullcontext():
        if together.is_main_process:
            tidy(out)
            save_recipe(out, recipe.resolved())
        for stage in stages:
            together.wait_for_everyone()
            work = work_of(stage, contents, hashes)
            found = look(out / stage.name, work)
            outcome, contents[stage.name] = Outcome(stage, found), found.content
            together.wait_for_everyone()  # all have looked before one writes
            if found.state is State.done:
                (out / stage.name / STARTED).unlink(missing_ok=True)  # killed after its manifest
            elif only is not None and stage.name != only:
                raise UsageError(
                    f"{out}: stage '{only}' needs '{stage.name}', which is not done; "
                    f"run --until {stage.name} before"
                )
            elif together.num_processes > 1 and not stage.kind.shared:
                raise UsageError(
                    f"stage '{stage.name}': {together.num_processes} processes cannot share a stage of kind "
                    f"'{stage.kind.name}'; run it alone first (--until {stage.name}), then these together"
                )
            else:
                begun = time.perf_counter()
                contents[stage.name] = _run_stage(recipe, stage, out, work, found, watch)
                outcome = Outcome(stage, found, time.perf_counter() - begun)
            outcomes.append(outcome)
    return outcomes


def work_of(stage: Stage, contents: Mapping[str, str], hashes: Mapping[str, str | None]) -> Work:
    """Gather all that a stage's files depend on.

    Args:
        stage: The stage.
        contents: Hash of each earlier stage's files.
        hashes: Hash of each data file; None for a data set on the Hub.

    Example:
        >>> from headstart.config import Settings
        >>> from headstart.recipes.stages import StageKind
        >>> kind = StageKind("note", 2, Settings, lambda context: None)
        >>> work_of(Stage("a", kind, Settings(), "tiny-causal", 1), {}, {}).version
        2
    """
    settings = stage.settings.model_dump(mode="json")
    given = stage.settings.model_dump(mode="json", exclude_unset=True)
    return Work(
        kind=stage.kind.name,
        version=stage.kind.version,
        settings=settings,
        base_model=stage.base_model,
        seed=stage.seed,
        inputs={name: contents[name] for name in stage.inputs},
        data={str(file): hashes[file] for _, file in marked(stage.settings, DataFile)},
        unset=frozenset(leaves(settings)) - frozenset(leaves(given)),
    )


def _run_stage(
    recipe: Recipe, stage: Stage, out: Path, work: Work, found: Found, watch: Watch
) -> str:
    """Run a stage, in every process its share; return the hash of its files."""
    folder, together = out / stage.name, own_processes()
    with watch(stage, found) as progress:
        if together.is_main_process:
            begin(folder, work, found)
        together.wait_for_everyone()
        begun = time.perf_counter()
        try:
            stage.kind.run(context_of(recipe, stage, out, progress))
        except HeadstartError as error:
            raise type(error)(f"stage '{stage.name}': {error}") from error
        together.wait_for_everyone()
        if together.is_main_process:
            finish(folder, work, time.perf_counter() - begun, _versions())
        together.wait_for_everyone()
        manifest = read_record(folder / MANIFEST, Manifest)
        assert manifest is not None, folder
        return manifest.content


def context_of(
    recipe: Recipe, stage: Stage, out: Path, progress: Progress = silent
) -> Context[Any]:
    """Gather all that a stage may look at.

    Example:
        >>> from headstart.config import Settings
        >>> from headstart.recipes.recipe import make_recipe
        >>> from headstart.recipes.stages import StageKind
        >>> kinds = {"note": StageKind("note", 1, Settings, lambda context: None)}
        >>> recipe = make_recipe({"name": "t", "stages": {"a": {"kind": "note"}}}, Path("t"), kinds)
        >>> context_of(recipe, recipe.stage("a"), Path("out")).folder.name
        'a'
    """
    return Context(
        settings=stage.settings,
        base_model=stage.base_model,
        seed=stage.seed,
        folder=out / stage.name,
        inputs={name: out / name for name in stage.inputs},
        data={str(f): recipe.source(f) for _, f in marked(stage.settings, DataFile)},
        progress=progress,
    )


def estimates(recipe: Recipe, out: Path, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Say what the stages that would run will take, where their kind can tell.

    Args:
        recipe: The study.
        out: Its run directory.
        outcomes: The plan.

    Example:
        >>> estimates(Recipe(Path("a"), "a", "", "m", 1, Path(), ()), Path("out"), [])
        {}
    """
    found = {}
    for outcome in outcomes:
        stage = outcome.stage
        if stage.kind.estimate is None or outcome.found.state is State.done:
            continue
        try:
            found[stage.name] = stage.kind.estimate(context_of(recipe, stage, out))
        except HeadstartError as error:
            found[stage.name] = f"not known: {error}"
    return found


def _chosen(recipe: Recipe, only: str | None, until: str | None) -> Sequence[Stage]:
    """Choose the stages up to one, or one with all that it rests on."""
    if until is not None:
        return recipe.stages[: recipe.stages.index(recipe.stage(until)) + 1]
    if only is None:
        return recipe.stages
    needed = {recipe.stage(only).name}
    for stage in reversed(recipe.stages):
        if stage.name in needed:
            needed |= set(stage.inputs)
    return [stage for stage in recipe.stages if stage.name in needed]


def data_hashes(recipe: Recipe, stages: Sequence[Stage]) -> dict[str, str | None]:
    """Hash each data file of these stages once; None for a data set on the Hub.

    Raises:
        UsageError: A file that is not there, with what may be meant.
    """
    hashes: dict[str, str | None] = {}
    for stage in stages:
        for key, file in marked(stage.settings, DataFile):
            if file not in hashes:
                hashes[str(file)] = (
                    None if file.is_on_hub else _hash_found(recipe, stage, key, file)
                )
    return hashes


def _hash_found(recipe: Recipe, stage: Stage, key: str, file: DataFile) -> str:
    path, _ = file_of(recipe.source(file))
    if path.exists():
        return data_hash(path)
    beside = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
    raise UsageError(
        f"{recipe.path}: stages.{stage.name}: {key}={file}: no such file in {recipe.data}"
        f"{did_you_mean(path.name, beside) or '; --data names the folder that data files are in'}"
    )


def _versions() -> dict[str, str]:
    from headstart.recipes.fewshot import library_versions

    return library_versions()
