"""`headstart run`: plans, progress, overrides, Ctrl-C, and a kill at any point."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import headstart.recipes.kinds
from headstart.cli.main import app
from headstart.recipes.engine import run_recipe
from headstart.recipes.recipe import load_recipe
from tests.house.source import ROOT
from tests.tiny_stages import KINDS, write_recipe

STAGES = ["lines", "slow", "words", "table"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tiny recipe, which is the current one."""
    monkeypatch.setattr(headstart.recipes.kinds, "KINDS", KINDS)
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["run", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def files(folder: Path) -> dict[str, Any]:
    """All that a run made: bytes, and manifests without their times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.name == "manifest.json":
                manifest = json.loads(path.read_bytes())
                del manifest["times"]
                found[str(path.relative_to(folder))] = manifest
    return found


def test_plan_run_and_run_again(place: Path) -> None:
    before = sorted(place.rglob("*"))
    plan = json.loads(run("tiny.yaml", "--dry-run", "--json").stdout)
    assert [stage["stage"] for stage in plan["stages"]] == STAGES
    assert {stage["found"] for stage in plan["stages"]} == {"new"} and plan["dry_run"]
    assert plan["recipe"]["stages"]["words"]["limits"] == {"at_least": 2, "at_most": 1000}
    shown = run("tiny.yaml", "--dry-run").stdout
    assert "tiny: Counts words." in shown and "words  words  will run" in shown
    assert "run directory: runs/tiny" in shown and sorted(place.rglob("*")) == before

    first = run("tiny.yaml")
    assert "lines: runs\nlines: done in" in first.stderr
    assert [line.split()[:3] for line in first.stdout.splitlines()[1:5]] == [
        ["lines", "lines", "ran"],
        ["slow", "lines", "ran"],
        ["words", "words", "ran"],
        ["table", "table", "ran"],
    ]
    assert "written to runs/tiny in" in first.stdout
    table = place / "runs" / "tiny" / "table" / "table.md"
    assert "words: the 4" in table.read_text()

    again = json.loads(run("runs/tiny/recipe.yaml", "--out", "runs/tiny", "--json").stdout)
    assert {stage["found"] for stage in again["stages"]} == {"done"}
    changed = run("tiny.yaml", "--set", "stages.words.limits.at_least=3", "--dry-run").stdout
    assert "will run again                  limits.at_least: 2 -> 3" in changed
    assert "runs again if an input changes  input 'words' is still to be made" in changed
    rerun = run("tiny.yaml", "--set", "stages.words.limits.at_least=3")
    assert "words: runs again (limits.at_least: 2 -> 3)" in rerun.stderr
    assert "lines  lines  unchanged  -" in rerun.stdout
    assert "words: cat" not in table.read_text()


def test_parts_of_a_run(place: Path, tmp_path: Path) -> None:
    shutil.move(place / "data", place / "moved")
    done = json.loads(
        run("tiny.yaml", "--data", "moved", "--until", "lines", "--out", "o", "--json").stdout
    )
    assert [stage["stage"] for stage in done["stages"]] == ["lines"] and done["out"] == "o"
    words = ["tiny.yaml", "--data", "moved", "--out", "o", "--only", "words"]
    assert "lines: " not in run(*words).stderr and (place / "o" / "words").is_dir()
    assert not (place / "o" / "slow").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny.yml"], "tiny.yml: no such recipe; did you mean 'tiny.yaml'?"),
        (["tiny.yaml", "--set", "stages.word.x=1"], "there is no stage 'word'; did you mean"),
        (["tiny.yaml", "--set", "stages.table.titel=x"], "tiny.yaml: stages.table: unknown setting"),
        (["tiny.yaml", "--data", "gone"], "stages.lines: source=text.txt: no such file in"),
        (["tiny.yaml", "--only", "a", "--until", "b"], "give one"),
        (["tiny.yaml", "--only", "tabel"], "there is no stage 'tabel'; did you mean 'table'?"),
        (["tiny.yaml", "--only", "words"], "stage 'words' needs 'lines', which is not done"),
        ([], "Missing argument 'RECIPE'"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_and_exit_2(place: Path, words: list[str], said: str) -> None:
    assert said in run(*words, code=2).stderr
    assert json.loads(run(*words, "--json", code=2).stdout)["exit_code"] == 2


def test_a_stage_that_fails_is_named(place: Path) -> None:
    (place / "blocked").write_text("a file")
    assert "blocked" in run("tiny.yaml", "--out", "blocked", code=1).stderr


def test_ctrl_c_says_how_to_go_on(place: Path) -> None:
    main = "import headstart.recipes.kinds as k, tests.tiny_stages as t; k.KINDS = t.KINDS; "
    main += "from headstart.cli.main import main; main()"
    words = ["run", "tiny.yaml", "--set", "stages.slow.pause=0.4"]
    process = subprocess.Popen(
        [sys.executable, "-c", main, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    partial, until = place / "runs" / "tiny" / "slow" / "lines.jsonl", time.monotonic() + 60
    while not (partial.exists() and partial.read_text()) and process.poll() is None:
        assert time.monotonic() < until, "the stage did not begin"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    way_on = "error: interrupted; what is done is kept; to continue: headstart run tiny.yaml --set"
    assert err.splitlines()[-1].startswith(way_on) and "Traceback" not in err
    kept = partial.read_text()
    plan = run(*words[1:], "--dry-run").stdout
    assert "lines  lines  done" in plan and "slow   lines  will resume" in plan
    run(*words[1:], "--quiet")
    assert partial.read_text().startswith(kept) and len(partial.read_text().splitlines()) == 5
    assert not (place / "runs" / "tiny" / ".holder.json").exists()


def in_a_process(work: Callable[[], object]) -> int | None:
    """Do it in a fork, which may die of it; return how it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks beside a test runner's threads
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
    process.join(60)
    return process.exitcode


def killed_before(out: Path, event: int, run: Callable[[], object]) -> Callable[[], None]:
    """Run, and die by SIGKILL right before the n-th time a file of the run directory is touched."""

    def work() -> None:
        seen = 0

        def hook(name: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            removes = name in ("os.remove", "os.rmdir")  # which name no folder in a tree's removal
            if removes or (name in ("open", "os.mkdir", "os.rename") and str(out) in str(args[0])):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        run()

    return work


@pytest.mark.parametrize("start", ["in a new folder", "over a run with another seed"])
def test_killed_at_any_point_it_ends_the_same(place: Path, start: str) -> None:
    def whole(out: Path, *assignments: str) -> Callable[[], object]:
        return lambda: run_recipe(load_recipe(place / "tiny.yaml", KINDS, assignments), out)

    whole(place / "reference")()
    expected = files(place / "reference")
    whole(place / "other", "seed=8")()
    draw, kills = random.Random(start), 0
    out = place / "out"
    while kills < 30:
        shutil.rmtree(out, ignore_errors=True)
        if "over" in start:
            shutil.copytree(place / "other", out)
        code: int | None = -signal.SIGKILL
        while code == -signal.SIGKILL:  # again and again, until it gets through
            code = in_a_process(killed_before(out, draw.randint(1, 80), whole(out)))
            kills += code == -signal.SIGKILL
        assert code == 0 and files(out) == expected
        assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".lock"]
