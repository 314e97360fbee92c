"""`--dry-run`, `--set`, columns under other names and notes, in the commands that score."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headstart.cli.main import app

SPEED = ["--model", "tiny-causal", "--prompt-length", "4", "--set", "train.num_steps=2"]
TEXTS = ["Lovely food.", "Awful, cold food.", "Great!", "Never again."]


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def answer(*words: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run(*words, "--json").stdout)
    return value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tuned seeds, labelled rows, and unlabelled rows under another column's name."""
    folder = tmp_path_factory.mktemp("place")
    lines = [json.dumps({"text": t, "label": "ba"[n % 2]}) for n, t in enumerate(TEXTS)]
    (folder / "train.jsonl").write_text("\n".join(lines * 2))
    (folder / "test.jsonl").write_text("\n".join(lines))
    (folder / "new.csv").write_text("review\n" + "".join(f'"{text}"\n' for text in TEXTS))
    run("tune", folder / "train.jsonl", *SPEED, "--seeds", "1,2", "--out", folder / "study")
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_dry_run_of_evaluate(place: Path) -> None:
    before, words = files(place), ["evaluate", place / "study", place / "test.jsonl", "--dry-run"]
    plan = answer(*words, "--out", place / "scores", "--limit", 3, "--set", "scoring.rule=mean")
    assert plan["dry_run"] and plan["members"] == ["seed-1", "seed-2"]
    assert (plan["data"]["rows"], plan["data"]["of"]) == (3, 4)
    assert plan["scoring"]["rule"] == "mean" and plan["base_model"] == "tiny-causal"
    assert plan["example"]["reads"].startswith(tuple(TEXTS)) and set(plan["answers"]) == {"a", "b"}
    assert plan["estimated_seconds"]["scoring"] >= 0
    shown = run(*words).stdout
    for said in ("prompts: seed-1, seed-2", "test.jsonl, 4 rows", "the model reads", "dry run:"):
        assert said in shown
    assert files(place) == before


def test_a_dry_run_of_predict(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(place)
    words = ["predict", place / "study", place / "new.csv", "--text", "review", "--dry-run"]
    plan = answer(*words, "--out", place / "p.jsonl")
    assert plan["data"] | {"sha256": ""} == {
        "source": "new.csv", "sha256": "", "columns": {"text": "review"},
        "rows": 4, "more_rows": False,
    }  # fmt: skip
    assert plan["example"]["id"] == "new.csv:1" and plan["example"]["then"] is None
    monkeypatch.setattr("headstart.recipes.predict.CHUNK", 2)  # a file larger than memory
    assert "2 rows and more" in run(*words, "--out", place / "p.jsonl").stdout
    assert files(place) == before


def test_a_dry_run_of_the_demo(tmp_path: Path) -> None:
    words = ["demo", "--model", "tiny-causal", "--out", tmp_path / "demo", "--dry-run"]
    plan = answer(*words, "--set", "train.num_steps=7", "--set", "prompt_length=3")
    assert [task["task"] for task in plan["tasks"]][:1] == ["support_tickets"]
    assert {task["settings"]["train"]["num_steps"] for task in plan["tasks"]} == {7}
    assert {task["labels_used"]["train"] for task in plan["tasks"]} == {40}
    assert "== message_intent" in run(*words).stdout and files(tmp_path) == []


def test_the_rule_can_be_set(place: Path, tmp_path: Path) -> None:
    words = ["evaluate", place / "study", place / "test.jsonl"]
    judged = answer(*words, "--set", "scoring.calibrate=true", "--out", tmp_path / "set")
    assert judged["calibrated"] and judged["scoring"]["calibrate"]
    answer(*words, "--calibrate", "--out", tmp_path / "flag")
    one, other = ((tmp_path / name / "seed-1.jsonl").read_text() for name in ("set", "flag"))
    assert one == other
    answer(*words, "--out", tmp_path / "plain")
    assert one != (tmp_path / "plain" / "seed-1.jsonl").read_text()
    source, out = place / "test.jsonl", tmp_path / "p.jsonl"
    answer("predict", place / "study", source, "--set", "scoring.eos=true", "--out", out)
    plain = (tmp_path / "plain" / "ensemble.jsonl").read_text()
    assert (
        json.loads(out.read_text().splitlines()[0])["scores"]
        != (json.loads(plain.splitlines()[0])["scores"])
    )


def test_predictions_as_parquet(place: Path, tmp_path: Path) -> None:
    words = ["evaluate", place / "study", place / "test.jsonl", "--out"]
    answer(*words, tmp_path / "a", "--format", "parquet", "--zero-shot")
    answer(*words, tmp_path / "b")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {f"{n}.parquet" for n in ("seed-1", "seed-2", "ensemble", "zero-shot")} | {
        "metrics.json"
    }
    lines = (tmp_path / "b" / "seed-2.jsonl").read_text().splitlines()
    kept = pq.read_table(tmp_path / "a" / "seed-2.parquet").column("predicted").to_pylist()
    assert kept == [json.loads(line)["predicted"] for line in lines]
    answer(*words, tmp_path / "a", "--format", "parquet", "--overwrite")


def test_the_one_text_may_have_another_name(place: Path, tmp_path: Path) -> None:
    words = ["predict", place / "study", place / "new.csv"]
    one = answer(*words, "--text", "review", "--out", tmp_path / "a.jsonl")
    other = answer(*words, "--columns", "text=review", "--out", tmp_path / "b.jsonl")
    assert one["rows"] == other["rows"] == 4
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def test_labels_that_are_hardly_classes_are_noted(place: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"text": t, "score": f"0.{n}"}) for n, t in enumerate(TEXTS)]
    (tmp_path / "scores.jsonl").write_text("\n".join(rows))
    words = ["tune", tmp_path / "scores.jsonl", *SPEED, "--label", "score", "--dry-run"]
    noted = run(*words, "--out", tmp_path / "out").stderr
    assert "4 classes in 4 rows" in noted and "--label" in noted
    plain = run("tune", place / "train.jsonl", *SPEED, "--dry-run", "--out", tmp_path / "out")
    assert "classes in" not in plain.stderr
