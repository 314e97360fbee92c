"""Hub data sets on the command line: which split is read, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headstart.cli.main import app
from headstart.tasks import readers

SPEED = ["--model", "tiny-causal", "--prompt-length", "4", "--set", "train.num_steps=2"]
MEMORY = "note: the test rows are the training rows"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A data set with the splits train, test and validation; returns the splits that were read."""
    import datasets

    sizes, asked = {"train": 8, "test": 5, "validation": 3}, []

    def load(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
        asked.append(split)
        if split not in sizes:
            raise ValueError(f"Bad split: {split}. Available splits: {list(sizes)}")
        rows = range(sizes[split])
        return datasets.Dataset.from_dict(
            {"text": [f"row {n}" for n in rows], "label": ["ab"[n % 2] for n in rows]}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(readers, "_hub_answers", lambda name: True)
    return asked


@pytest.fixture
def study(hub: list[str], tmp_path: Path) -> Path:
    result = run("tune", "owner/name", *SPEED, "--test", "owner/name", "--out", tmp_path / "study")
    assert result.exit_code == 0 and MEMORY not in result.stderr, result.output
    assert hub == ["train", "test"]
    hub.clear()
    return tmp_path / "study"


def test_tune_learns_from_train_and_measures_on_test(study: Path) -> None:
    data = json.loads((study / "study.json").read_text())["data"]
    assert (data["train"]["split"], data["train"]["rows"]) == ("train", 8)
    assert (data["test"]["split"], data["test"]["rows"]) == ("test", 5)


def test_tune_reads_the_splits_asked_for(hub: list[str], tmp_path: Path) -> None:
    words = ["tune", "owner/name", *SPEED, "--split", "test", "--test", "hub:owner/name"]
    result = run(*words, "--test-split", "validation", "--out", tmp_path / "a")
    assert result.exit_code == 0 and hub == ["test", "validation"], result.output
    assert "owner/name --split validation" in result.stdout
    same = run(*words, "--out", tmp_path / "b")  # both are `test`, by two spellings of one name
    assert same.exit_code == 0 and MEMORY in same.stderr


def test_evaluate_and_predict(study: Path, hub: list[str], tmp_path: Path) -> None:
    judged = run("evaluate", study, "owner/name", "--json")
    assert json.loads(judged.stdout)["rows"] == 5 and MEMORY not in judged.stderr
    judged = run("evaluate", study, "hub:owner/name", "--split", "train")
    assert judged.exit_code == 0 and MEMORY in judged.stderr
    other = run(
        "predict", study, "owner/name", "--split", "validation", "--out", tmp_path / "p.jsonl"
    )
    assert other.exit_code == 0 and len((tmp_path / "p.jsonl").read_text().splitlines()) == 3
    assert run("predict", study, "owner/name", "--out", tmp_path / "q.jsonl").exit_code == 0
    assert hub == ["test", "train", "validation", "test"]


@pytest.mark.parametrize("flag", [["--split", "dev"], []])
def test_a_split_that_is_not_there(
    flag: list[str], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flag:
        monkeypatch.setattr("headstart.cli.rows.TEST_SPLIT", "dev")
        monkeypatch.setattr("headstart.cli.evaluate.TEST_SPLIT", "dev")
    result = run("evaluate", study, "owner/name", *flag)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    for said in ("no split 'dev'", "'train', 'test', 'validation'", "--split"):
        assert said in result.stderr
