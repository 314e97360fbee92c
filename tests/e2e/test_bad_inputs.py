"""Ten kinds of bad input: one clear line, exit code 1 or 2, and nothing left half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from headstart.cli.main import app

SPEED = ["--model", "tiny-causal", "--prompt-length", "4", "--set", "train.num_steps=2"]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def rows(path: Path, *pairs: tuple[str, str]) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good study, copied by the tests that damage it."""
    folder = tmp_path_factory.mktemp("tuned")
    train = rows(folder / "train.jsonl", ("good", "a"), ("bad", "b"), ("fine", "a"), ("no", "b"))
    words = ["tune", train, *SPEED, "--out", folder / "out"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture
def place(tmp_path: Path, tuned: Path) -> Path:
    """Good data and a good study, for each test to spoil one thing."""
    rows(tmp_path / "good.jsonl", ("good", "a"), ("bad", "b"), ("fine", "a"), ("no", "b"))
    rows(tmp_path / "one.jsonl", ("good", "a"), ("fine", "a"))
    rows(tmp_path / "long.jsonl", ("x" * 600, "a"), ("y", "b"))
    rows(tmp_path / "strange.jsonl", ("good", "a"), ("hm", "c"))
    (tmp_path / "review.csv").write_text("review\nLovely.\n")
    (tmp_path / "half.jsonl").write_text(
        '{"text": "x \\ud83d y", "label": "a"}\n{"text": "z", "label": "b"}\n'
    )
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("text,label\n")
    (tmp_path / "file.txt").touch()
    for name in ("study", "nan"):
        shutil.copytree(tuned, tmp_path / name)
    for damaged in (tmp_path / "nan").glob("seed-*/prompt.safetensors"):
        vectors = load_file(damaged)["prompt_PH"]
        vectors[0, 0] = torch.nan
        save_file({"prompt_PH": vectors}, damaged)
    return tmp_path


TUNE = [*SPEED, "--out", "new/folder"]
CASES = {
    "empty file": (["tune", "empty.csv", *TUNE], 2, "no rows"),
    "empty file to predict": (["predict", "study", "header.csv", "--out", "p.jsonl"], 2, "no rows"),
    "half a character": (
        ["tune", "half.jsonl", *TUNE],
        2,
        "half.jsonl:1: holds half of a character",
    ),
    "half a character to predict": (
        ["predict", "study", "half.jsonl", "--out", "sub/p.jsonl"],
        2,
        "half.jsonl:1: holds half of a character",
    ),
    "one class": (["tune", "one.jsonl", *TUNE], 2, "two classes"),
    "missing column": (["tune", "good.jsonl", *TUNE, "--text", "txt"], 2, "did you mean 'text'?"),
    "missing label column": (["tune", "good.jsonl", *TUNE, "--label", "lable"], 2, "'label'?"),
    "label without a word": (["tune", "good.jsonl", *TUNE, "--label-words", "a=x"], 2, "b"),
    "nan in a prompt file": (["evaluate", "nan", "good.jsonl", "--out", "p"], 1, "NaN"),
    "unknown model": (
        ["tune", "good.jsonl", *TUNE, "--model", "smolm2-135m"],
        1,
        "did you mean 'smollm2-135m'?",
    ),
    "model that is not here": (
        ["tune", "good.jsonl", *TUNE, "--model", "no/such"],
        1,
        "hf download",
    ),
    "wrong fingerprint": (
        ["predict", "study", "good.jsonl", "--model", "tiny-seq2seq", "--out", "sub/p.parquet"],
        1,
        "made for base model 'tiny-causal'",
    ),
    "broken template": (["tune", "good.jsonl", *TUNE, "--template", "{{ text"], 2, "template"),
    "template without its field": (
        ["tune", "good.jsonl", *TUNE, "--text", "text", "--template", "{{ txet }}"],
        2,
        "did you mean 'text'?",
    ),
    "text longer than the model": (["tune", "long.jsonl", *TUNE], 2, "--max-length"),
    "text to predict longer than the model": (
        ["predict", "study", "long.jsonl", "--out", "sub/p.jsonl"],
        2,
        "--max-length",
    ),
    "folder under a file": (["tune", "good.jsonl", *SPEED, "--out", "file.txt/out"], 1, "file.txt"),
    "predictions under a file": (
        ["predict", "study", "good.jsonl", "--out", "file.txt/p.jsonl"],
        1,
        "file.txt",
    ),
    "folder that nobody may write": (
        ["tune", "good.jsonl", *SPEED, "--out", "/proc/headstart/out"],
        1,
        "/proc",
    ),
    "test label the task does not know": (
        ["evaluate", "study", "strange.jsonl", "--out", "p"],
        2,
        "not one of",
    ),
    "label that is also a field": (["tune", "good.jsonl", *TUNE, "--label", "text"], 2, "both"),
    "label that is also a field of a study": (
        ["evaluate", "study", "good.jsonl", "--label", "text", "--out", "p"],
        2,
        "both",
    ),
    "file without the study's column": (
        ["predict", "study", "review.csv", "--out", "p.jsonl"],
        2,
        "--columns text=review,",
    ),
    "field that cannot stand in a template": (
        ["tune", "good.jsonl", *TUNE, "--text", "label", "--label", "text"],
        2,
        "--columns text='label'",
    ),
    "template whose field has another name": (
        ["tune", "good.jsonl", *TUNE, "--text", "text", "--template", "{{ body }}"],
        2,
        "--columns body=COLUMN",
    ),
    "no label column": (["evaluate", "study", "review.csv", "--text", "review"], 2, "--label"),
    "setting that is not of scoring": (
        ["evaluate", "study", "good.jsonl", "--set", "train.lr=1", "--out", "p"],
        2,
        "only scoring can be set here; known: scoring.rule",
    ),
    "misspelt setting": (
        ["predict", "study", "good.jsonl", "--set", "scoring.rul=sum", "--out", "p.jsonl"],
        2,
        "did you mean 'scoring.rule'?",
    ),
    "wrong value of a setting": (
        ["predict", "study", "good.jsonl", "--set", "scoring.rule=som", "--out", "p.jsonl"],
        2,
        "scoring.rule=som",
    ),
    "split of a file": (["evaluate", "study", "good.jsonl", "--split", "a"], 2, "no split 'a'"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_left(case: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, code, said = CASES[case]
    monkeypatch.chdir(place)
    before = tree(place)
    result = CliRunner().invoke(app, words)
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ") and said in result.stderr, result.stderr
    assert result.exit_code == code and result.stdout == ""
    assert tree(place) == before
    as_json = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(as_json.stdout) == {
        "error": as_json.stderr.removeprefix("error: ").strip(),
        "exit_code": code,
    }
    assert tree(place) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_leave_to_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "locked").mkdir(mode=0o500)
    result = CliRunner().invoke(app, ["tune", "good.jsonl", *SPEED, "--out", "locked/out"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1


def test_the_real_entry_point_prints_no_traceback(place: Path) -> None:
    code = "from headstart.cli.main import main; main()"
    words = [sys.executable, "-c", code, "tune", "good.jsonl", "--out", "out", "--template", "{{"]
    result = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")


USAGE = [
    ["tune"],
    ["tune", "a.csv", "--out", "b", "--shotz", "4"],
    ["tune", "a.csv", "--out", "b", "--dtype", "int3"],
    ["evaluate", "study"],
]


@pytest.mark.parametrize("words", USAGE)
def test_wrong_flags_exit_2(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "Traceback" not in result.output and result.stdout == ""
    as_json = CliRunner().invoke(app, [*words, "--json"])
    said = json.loads(as_json.stdout)
    assert as_json.exit_code == said["exit_code"] == 2 and said["error"] in result.stderr


def test_interrupted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(place)
    monkeypatch.setattr("headstart.recipes.fewshot.tune", stop)
    before = tree(place)
    result = CliRunner().invoke(app, ["tune", "good.jsonl", *TUNE])
    assert result.exit_code == 130 and result.stderr.startswith("error: interrupted")
    assert tree(place) == before
