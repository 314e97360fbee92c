"""``headstart run``: a recipe in, a run directory out; stopped and started again, it continues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli import options
from headstart.cli.output import Output
from headstart.errors import HeadstartError, UsageError

if TYPE_CHECKING:
    from headstart.cli.output import Progress as Shown
    from headstart.recipes.engine import Outcome
    from headstart.recipes.recipe import Recipe, Stage
    from headstart.recipes.run_dir import Found
    from headstart.recipes.stages import Progress

WORDS = {
    "done": "done",
    "new": "will run",
    "resume": "will resume",
    "again": "will run again",
    "maybe": "runs again if an input changes",
}


class _Interrupted(HeadstartError):
    exit_code = 130


def run(
    ctx: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The study: a YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run directory. Default: runs/NAME."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where data files are. Default: as it says."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting: seed=2, stages.meta.num_steps=10."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="STAGE", help="Run this stage, its inputs being done."),
    ] = None,
    dry_run: options.DryRunFlag = False,
    quiet: options.QuietFlag = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Run a study stage by stage; what is done is skipped, what was stopped is continued."""
    from headstart.recipes.kinds import KINDS
    from headstart.recipes.recipe import load_recipe

    if only is not None and until is not None:
        raise UsageError("--only and --until choose stages in two ways; give one")
    study = load_recipe(recipe, KINDS, assignments or [], data)
    from headstart.models.processes import own_processes  # torch: after what is instant
    from headstart.recipes.engine import plan, run_recipe

    speaks = bool(own_processes().is_main_process)  # of processes started together, the first
    output = Output(as_json, quiet or not speaks)
    folder = Path("runs", study.name) if out is None else out
    if dry_run:
        if speaks:
            _show_plan(output, study, folder, plan(study, folder, only=only, until=until))
        return
    begun = time.perf_counter()
    try:
        outcomes = run_recipe(study, folder, only=only, until=until, watch=partial(_shown, output))
    except KeyboardInterrupt as error:
        raise _Interrupted(f"interrupted; {_way_on(ctx.obj)}") from error
    except Exception:
        raise
    except BaseException:  # a request to stop, which says the rest itself
        output.note(_way_on(ctx.obj))
        raise
    if speaks:
        _report(output, folder, outcomes, time.perf_counter() - begun)


def _way_on(command: str) -> str:
    return f"what is done is kept; to continue: {command}"


@contextmanager
def _shown(output: Output, stage: Stage, found: Found) -> Iterator[Progress]:
    """Say that a stage begins and ends, and show how far it is: one bar for each thing it does."""
    doing = {"new": "runs", "resume": "resumes", "again": "runs again"}[found.state.value]
    why = f" ({'; '.join(found.because)})" if found.because else ""
    output.note(f"{stage.name}: {doing}{why}")
    begun = time.perf_counter()
    with ExitStack() as open_bar:
        bar: Shown | None = None

        def progress(doing: str, done: int, total: int | None = None, note: str = "") -> None:
            nonlocal bar
            label = f"{stage.name}: {doing}"
            if bar is None or (bar.label, bar.total) != (label, total):
                open_bar.close()
                bar = open_bar.enter_context(output.progress(label, total))
            bar.to(done, note)

        yield progress
    output.note(f"{stage.name}: done in {time.perf_counter() - begun:.1f} s")


def _show_plan(output: Output, study: Recipe, folder: Path, outcomes: list[Outcome]) -> None:
    from headstart.recipes.engine import estimates

    output.say(f"{study.name}: {study.description}" if study.description else study.name)
    output.say(f"base model: {study.base_model}, seed: {study.seed}, data: {study.data}")
    rows = []
    for outcome in outcomes:
        because = "; ".join(outcome.found.because)
        rows.append(
            [outcome.stage.name, outcome.stage.kind.name, WORDS[outcome.found.state], because]
        )
    _left_table(output, ["stage", "kind", "plan", "because"], rows)
    takes = estimates(study, folder, outcomes)
    for name, words in takes.items():
        output.say(f"{name}: {words}")
    output.say(f"run directory: {folder}", "dry run: nothing was written")
    told = [outcome.to_dict() for outcome in outcomes]
    for one in told:
        del one["seconds"]
        one["estimate"] = takes.get(str(one["stage"]))
    output.result({"dry_run": True, "out": str(folder), "stages": told, "recipe": study.resolved()})


def _left_table(output: Output, header: list[str], rows: list[list[str]]) -> None:
    """Print words in columns: reasons are to be read, so they stand to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        output.say("  ".join(cells).rstrip())


def _report(output: Output, folder: Path, outcomes: list[Outcome], seconds: float) -> None:
    did = {"done": "unchanged", "new": "ran", "resume": "resumed", "again": "ran again"}
    rows = [
        [
            outcome.stage.name,
            outcome.stage.kind.name,
            did[outcome.found.state.value],
            "-" if outcome.found.state.value == "done" else f"{outcome.seconds:.1f}",
        ]
        for outcome in outcomes
    ]
    _left_table(output, ["stage", "kind", "", "seconds"], rows)
    output.say(f"written to {folder} in {seconds:.1f} s")
    told = [outcome.to_dict() for outcome in outcomes]
    output.result({"out": str(folder), "stages": told, "seconds": round(seconds, 2)})
