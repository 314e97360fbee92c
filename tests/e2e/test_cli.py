"""The commands as a person types them, on tiny models."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from headstart.cli.main import app

ROWS = [("Lovely food.", "1"), ("Awful, cold food.", "0"), ("Great!", "1"), ("Never again.", "0")]
SPEED = ["--model", "tiny-causal", "--prompt-length", "4", "--set", "train.num_steps=3"]
WORDS = ["--label-words", "0=terrible,1=great"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight training rows, four test rows, four rows without a label."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    (folder / "train.jsonl").write_text("\n".join(lines * 2))
    (folder / "test.jsonl").write_text("\n".join(lines))
    (folder / "new.csv").write_text("text\n" + "".join(f'"{text}"\n' for text, _ in ROWS))
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def ok(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def answer(*words: object) -> dict[str, Any]:
    """What ``--json`` prints on stdout: one object and nothing else."""
    value: dict[str, Any] = json.loads(ok(*words, "--json").stdout)
    return value


@pytest.fixture
def tune(data: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def tuned(*words: object) -> dict[str, Any]:
        return answer("tune", data / "train.jsonl", *SPEED, "--out", tmp_path / "out", *words)

    return tuned


def test_tune_evaluate_predict(data: Path, tmp_path: Path, tune: Callable[..., Any]) -> None:
    test = data / "test.jsonl"
    tuned = tune(
        "--text", "text", "--label", "label", "--init", "vocab", "--shots", 6, "--dev-shots", 2,
        "--seeds", "1,2", *WORDS, "--template", "{{text}} It was", "--test", test,
    )  # fmt: skip
    assert tuned["task"]["template"]["text"] == "{{text}} It was {{ answer }}"
    assert tuned["task"]["words"] == ["terrible", "great"]
    assert tuned["command"].startswith("headstart tune ")
    assert [seed["labels"] for seed in tuned["seeds"]] == [{"train": 6, "dev": 2, "total": 8}] * 2
    out = tmp_path / "out"
    assert json.loads((out / "study.json").read_text())["metrics"] == tuned["metrics"]
    card = json.loads((out / "seed-1" / "card.json").read_text())
    assert card["metrics"]["test"] == tuned["seeds"][0]["test"]
    assert len((out / "seed-1" / "test.jsonl").read_text().splitlines()) == 4
    assert "headstart predict" in (out / "README.md").read_text()

    judged = answer("evaluate", out, test, "--zero-shot", "--calibrate", "--out", tmp_path / "p")
    assert judged["calibrated"] and set(judged["members"]) == {"seed-1", "seed-2"}
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names == {f"{n}.jsonl" for n in ("seed-1", "seed-2", "ensemble", "zero-shot")} | {
        "metrics.json"
    }
    plain = answer("evaluate", out, test)
    assert plain["over_seeds"] == tuned["metrics"]["test"]["over_seeds"]
    assert plain["ensemble"] == tuned["metrics"]["test"]["ensemble"]
    one = answer("evaluate", out / "seed-2", test, "--limit", 3)
    assert one["rows"] == 3 and list(one["members"]) == ["seed-2"]

    labelled = answer("predict", out, data / "new.csv", "--out", tmp_path / "new.parquet")
    assert labelled["rows"] == sum(labelled["counts"].values()) == 4
    assert pq.read_table(tmp_path / "new.parquet").column("id")[0].as_py() == "new.csv:1"
    again = answer("predict", out, test, "--seed", 1, "--out", tmp_path / "new.jsonl")
    assert again["members"] == ["seed-1"]
    assert run("predict", out, test, "--out", tmp_path / "new.jsonl").exit_code == 2
    assert run("predict", out, test, "--out", test, "--overwrite").exit_code == 2
    answer("predict", out, test, "--out", tmp_path / "new.jsonl", "--overwrite")


def test_what_a_person_reads(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["tune", data / "train.jsonl", *SPEED, "--test", data / "test.jsonl", "--seeds", "1,2"]
    result = ok(*words, "--out", out)
    assert "--label-words" in result.stderr and "Loading weights" not in result.stderr
    for said in ("labels used: 8 train + 0 dev per seed", "mean ± std", "headstart predict"):
        assert said in result.stdout
    assert "--label-words" not in ok(*words, "--out", tmp_path / "quiet", "--quiet").stderr
    assert "ensemble" in ok("evaluate", out, data / "test.jsonl").stdout
    predicted = ok("predict", out, data / "new.csv", "--out", tmp_path / "p.jsonl").stdout
    assert predicted.splitlines()[-1].startswith("4 rows in ")


def test_dry_run_writes_nothing(data: Path, tmp_path: Path, tune: Callable[..., Any]) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan = tune("--dry-run", "--shots", 4, *WORDS)
    assert sorted(tmp_path.rglob("*")) == before
    assert plan["settings"]["num_shots"] == 4 and plan["labels"] == {"0": 4, "1": 4}
    assert plan["example"]["reads"].endswith("\nLabel:")
    assert "".join(plan["answers"]["great"]).endswith("great")
    assert plan["estimated_seconds"]["tuning"] >= 0
    assert "dry run" in ok("tune", data / "train.jsonl", *SPEED, "--out", "x", "--dry-run").stdout


def test_a_folder_in_use_is_refused(tmp_path: Path, tune: Callable[..., Any], data: Path) -> None:
    words = ["tune", data / "train.jsonl", *SPEED, *WORDS, "--out", tmp_path / "out"]
    tune(*WORDS)
    assert "--overwrite" in run(*words).stderr
    ok(*words, "--overwrite")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    refused = run(*words[:-1], mine, "--overwrite")
    assert refused.exit_code == 2 and "other files" in refused.stderr
    assert (mine / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "train.nmu_steps=2"], "did you mean 'train.num_steps'?"),
        (["--set", "prompt_length"], "name=value"),
        (["--prompt-length", "0"], "prompt_length"),
        (["--seeds", "1,one"], "--seeds"),
        (["--seeds", "1,1"], "twice"),
        (["--init", "vocabb"], "did you mean 'vocab'?"),
        (["--columns", "text"], "FIELD=COLUMN"),
        (["--template-name", "a"], "--templates"),
    ],
)
def test_wrong_words(data: Path, words: list[str], said: str, tmp_path: Path) -> None:
    result = run("tune", data / "train.jsonl", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2 and said in result.stderr


def test_several_fields_and_templates_from_a_file(data: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"premise": f"It rains {n}.", "hypo thesis": "Wet.", "label": n % 2})
        for n in range(8)
    ]
    (data / "pairs.jsonl").write_text("\n".join(lines))
    (data / "templates.yaml").write_text(
        "templates:\n"
        "  a: !Template {name: ask, answer_choices: 'no ||| yes',\n"
        "    jinja: '{{premise}} So {{hypothesis}}? ||| {{answer_choices[label]}}'}\n"
    )
    pairs = ["tune", data / "pairs.jsonl", *SPEED, "--text", "premise"]
    pairs += ["--columns", "hypothesis=hypo thesis"]
    plain = answer(*pairs, *WORDS, "--out", tmp_path / "plain")
    assert plain["data"]["train"]["columns"]["hypothesis"] == "hypo thesis"
    ask = answer(*pairs, "--templates", data / "templates.yaml", "--out", tmp_path / "ask")
    assert ask["task"]["labels"] == ["0", "1"] and ask["task"]["words"] == []
    judged = answer("evaluate", tmp_path / "ask", data / "pairs.jsonl")
    assert 0 <= judged["ensemble"]["accuracy"] <= 1


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "demo",
        "--model",
        "tiny-causal",
        "--set",
        "train.num_steps=2",
        "--task",
        "product_feedback",
    ]
    shown = ok(*words).stdout
    assert "headstart tune" in shown and "sentences that are in no file" in shown
    assert (tmp_path / "runs" / "demo" / "product_feedback" / "study.json").is_file()
    result = answer(*words, "--out", "runs/demo")  # again: the earlier result is replaced
    assert [each["test_rows"] for each in result["tasks"]] == [90]
    assert len(result["tasks"][0]["fresh"]) == 3
    assert result["tasks"][0]["headstart"] == "vocab"  # no learned start fits the tiny model
    assert 0 <= result["tasks"][0]["tuned_from_headstart"]["accuracy"] <= 1


def test_doctor() -> None:
    report = answer("doctor")
    assert report["models"]["tiny-causal"] == "built in" and "verdict" in report
    assert ok("doctor").stdout.splitlines()[-1] == report["verdict"]


def test_help_is_instant_and_needs_no_torch() -> None:
    code = (
        "import sys; from headstart.cli.main import app\n"
        "try: app(['tune', '--help'])\n"
        "finally: assert not {'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0 and "--label-words" in shown.stdout, shown.stderr
