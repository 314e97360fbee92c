"""Study folders: what may be replaced and what never is; runs and cards that went wrong."""

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from headstart.config import FewShot, TuneSettings
from headstart.errors import HeadstartError, PromptFileError, UsageError
from headstart.models.load import load_model
from headstart.prompts.files import load_prompt, to_json
from headstart.recipes.fewshot import chance_loss, tune_seeds
from headstart.recipes.from_card import result_of
from headstart.recipes.judge import judge
from headstart.recipes.study import EVALUATION, STUDY, check_new, load_study, new_folder
from headstart.recipes.write_study import Tuning, write_study
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

TASK = Task(Template("{{ text }} It was {{ answer }}"), ("0", "1"), ("bad", "good"))
ROWS = [Example(f"a:{n}", {"text": "az"[n % 2] * 3}, str(n % 2)) for n in range(8)]
QUICK = TuneSettings(seeds=(1, 2), prompt_length=2, train=FewShot(num_steps=1))
REPORT = {"members": {"seed-1": {}}, "over_seeds": {}, "ensemble": {}, "zero_shot": None}


@pytest.fixture(scope="module")
def tuning() -> Tuning:
    model = load_model("tiny-causal")
    return Tuning(model, TASK, QUICK, tune_seeds(model, TASK, ROWS, QUICK))


@pytest.fixture
def study(tuning: Tuning, tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    with new_folder(folder) as scratch:
        write_study(scratch, tuning, judge(tuning.study(), ROWS))
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    folder.mkdir()
    for name in ("seed-1", "ensemble", "zero-shot"):
        (folder / f"{name}.jsonl").touch()
    (folder / "metrics.json").write_text(json.dumps(REPORT))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_earlier_result_of_the_same_kind_is_replaced(study: Path, evaluation: Path) -> None:
    for folder, kind in ((study, STUDY), (evaluation, EVALUATION)):
        with pytest.raises(UsageError, match=r"holds files already.*--overwrite.*overwrite=True"):
            check_new(folder, kind=kind)
        with new_folder(folder, overwrite=True, kind=kind) as scratch:
            (scratch / "new.txt").write_text("new")
        assert content(folder) == {"new.txt": b"new"}
    assert {path.name for path in study.parent.iterdir()} == {"study", "evaluation"}


@pytest.mark.parametrize(
    ("stray", "named"),
    [
        ("letter.txt", "letter.txt"),
        ("seed-1/notes.txt", "seed-1/notes.txt"),
        ("seed-list", "seed-list"),
        ("data/x.csv", "data"),
        ("seed-1.jsonl", "seed-1.jsonl"),
        (".git/HEAD", ".git"),
    ],
)
def test_a_file_that_is_not_ours_keeps_the_whole_folder(
    study: Path, stray: str, named: str
) -> None:
    (study / stray).parent.mkdir(exist_ok=True)
    (study / stray).write_text("dear")
    before = content(study)
    with (
        pytest.raises(UsageError, match=f"other files.*'{re.escape(named)}'"),
        new_folder(study, overwrite=True),
    ):
        pytest.fail("the work was begun")
    assert content(study) == before


@pytest.mark.parametrize("marker", ["study.json", "metrics.json", "card.json"])
@pytest.mark.parametrize("text", ["{}", '{"format": 1}', "[1]", "not JSON", "[" * 100_000])
@pytest.mark.parametrize("kind", [STUDY, EVALUATION])
def test_a_strangers_marker_licenses_nothing(tmp_path, marker, text, kind) -> None:
    (tmp_path / marker).write_text(text)
    with pytest.raises(UsageError, match=f"other files.*'{marker}'"):
        check_new(tmp_path, overwrite=True, kind=kind)


def test_kinds_do_not_replace_each_other(study: Path, evaluation: Path) -> None:
    with pytest.raises(UsageError, match="of a headstart evaluation"):
        check_new(study, overwrite=True, kind=EVALUATION)
    with pytest.raises(UsageError, match="of a headstart study"):
        check_new(evaluation, overwrite=True)
    with pytest.raises(UsageError, match="of a headstart study"):
        check_new(study / "seed-1", overwrite=True)


def test_an_evaluation_holds_predictions_of_its_members_only(evaluation: Path) -> None:
    check_new(evaluation, overwrite=True, kind=EVALUATION)
    (evaluation / "my-own.jsonl").touch()
    with pytest.raises(UsageError, match=r"'my-own\.jsonl'"):
        check_new(evaluation, overwrite=True, kind=EVALUATION)
    for members in (3, ["seed-1"]):
        (evaluation / "metrics.json").write_text(json.dumps(REPORT | {"members": members}))
        with pytest.raises(UsageError, match="other files"):
            check_new(evaluation, overwrite=True, kind=EVALUATION)


def test_what_came_while_the_work_ran_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "out"
    with caplog.at_level(logging.WARNING), new_folder(target) as scratch:
        (scratch / "mine.txt").write_text("mine")
        target.mkdir()
        (target / "theirs.txt").write_text("theirs")
    assert content(target) == {"mine.txt": b"mine"}
    (aside,) = [path for path in tmp_path.iterdir() if path != target]
    assert content(aside) == {"theirs.txt": b"theirs"} and str(aside) in caplog.text


def test_a_link_to_a_folder_stays_a_link(study: Path) -> None:
    link = study.with_name("link")
    link.symlink_to(study)
    with new_folder(link, overwrite=True) as scratch:
        (scratch / "new.txt").write_text("new")
    assert link.is_symlink() and content(study) == {"new.txt": b"new"}


def test_an_error_leaves_the_earlier_result(study: Path) -> None:
    before = content(study)
    with pytest.raises(HeadstartError), new_folder(study, overwrite=True) as scratch:
        (scratch / "half.txt").touch()
        raise HeadstartError("no")
    assert content(study) == before and [p.name for p in study.parent.iterdir()] == ["study"]


# runs that went wrong


def test_a_prompt_that_ran_away_names_its_seed_and_the_advice(monkeypatch) -> None:
    from headstart.recipes import fewshot

    whole = fewshot.tune

    def one_bad(*args, **kwargs):
        results = whole(*args, **kwargs)
        results[1].prompt_PH = results[1].prompt_PH * math.inf
        results[1].vitals.losses[-1] = math.nan
        return results

    monkeypatch.setattr(fewshot, "tune", one_bad)
    settings = QUICK.model_copy(update={"seeds": (1, 2, 3)})
    with pytest.raises(HeadstartError, match=r"seed 2: .*learning rate") as caught:
        tune_seeds(load_model("tiny-causal"), TASK, ROWS, settings)
    assert "seeds 1, 3 went well" in str(caught.value) and "\n" not in str(caught.value)


def test_a_learning_rate_out_of_range_is_told_for_all_seeds() -> None:
    train = FewShot.model_construct(**FewShot(num_steps=8).model_dump() | {"lr": math.inf})
    settings = QUICK.model_copy(update={"train": train})
    with pytest.raises(HeadstartError, match=r"seed 1, 2: .*not finite.*learning rate") as caught:
        tune_seeds(load_model("tiny-causal"), TASK, ROWS, settings)
    assert "\n" not in str(caught.value)


def strict(text: str):
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_loss_that_is_not_finite_still_makes_json(tuning: Tuning, tmp_path: Path) -> None:
    """With dev rows the best prompt is kept, so it can be fine where the last loss is not."""
    vitals = replace(tuning.results[0].tuned.vitals, losses=[0.7, math.nan], drift=math.inf)
    tuned = replace(tuning.results[0].tuned, vitals=vitals)
    sick = replace(tuning, results=[replace(tuning.results[0], tuned=tuned)])
    write_study(tmp_path, sick)
    assert strict((tmp_path / "study.json").read_text())["seeds"][0]["final_loss"] is None
    card = strict((tmp_path / "seed-1" / "card.json").read_text())
    assert card["training"]["final_loss"] is card["training"]["drift"] is None
    again = result_of(*load_prompt(tmp_path / "seed-1"))
    assert again.tuned.vitals.losses == [] and math.isnan(again.tuned.vitals.drift)
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"loss": math.nan})


def test_a_guess_costs_the_mean_over_rows_of_different_width() -> None:
    from headstart.models.base import Encoded

    rows = [Encoded("a", (5,), ((6,),) * 2), Encoded("b", (5,), ((6,),) * 4)]
    assert chance_loss(rows) == pytest.approx(math.log(8) / 2)


# cards


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, "'template', 'labels'|missing"),
        ({**TASK.to_dict()}, "'scoring'"),
        ({**TASK.to_dict(), "scoring": {"rule": "best"}}, "rule: input should be"),
        ({**TASK.to_dict(), "words": ["one"], "scoring": {}}, "do not pair up"),
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_a_damaged_task_is_one_line_with_the_cards_place(study, task, said, single) -> None:
    for name in ("seed-1", "seed-2"):
        path = study / name / "card.json"
        path.write_text(to_json({**json.loads(path.read_text()), "task": task}))
    with pytest.raises(PromptFileError, match=said) as caught:
        load_study(study / "seed-1" if single else study, load_model)
    assert str(caught.value).startswith(f"{study / 'seed-1' / 'card.json'}: ")
    assert "\n" not in str(caught.value)


def test_a_single_prompt_has_a_name_from_inside_its_folder(study, monkeypatch) -> None:
    monkeypatch.chdir(study / "seed-2")
    assert load_study(Path(), load_model).seeds == ("seed-2",)
