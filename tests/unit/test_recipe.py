"""Recipes: what they may say, what is told when they are wrong, and when a stage is run again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.config import FewShot, Settings, check_settings, override, read_assignment
from headstart.errors import HeadstartError, StorageError, UsageError
from headstart.recipes.engine import Outcome, plan, run_recipe, work_of
from headstart.recipes.manifest import Manifest, data_hash
from headstart.recipes.recipe import Recipe, load_recipe, make_recipe
from headstart.recipes.run_dir import locked
from headstart.recipes.stages import Context, DataFile, StageKind
from tests.tiny_stages import KINDS, RECIPE, write_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.stage.name: outcome.found.state.value for outcome in outcomes}


def load(path: Path, *assignments: str, **more: Any) -> Recipe:
    return load_recipe(path, KINDS, assignments, **more)


def planned(path: Path, out: Path, *assignments: str) -> dict[str, str]:
    return states(plan(load(path, *assignments), out))


def because(path: Path, out: Path, *assignments: str) -> dict[str, tuple[str, ...]]:
    found = plan(load(path, *assignments), out)
    return {o.stage.name: o.found.because for o in found if o.found.because}


DONE = {"lines": "done", "slow": "done", "words": "done", "table": "done"}


def test_a_resolved_recipe_is_the_same_recipe(path: Path) -> None:
    recipe = load(path, "stages.words.limits.at_most=7", "stages.table.seed=9")
    text = yaml.safe_dump(recipe.resolved(), sort_keys=False)
    again = make_recipe(yaml.safe_load(text), Path("elsewhere/tiny.yaml"), KINDS)
    assert replace(again, path=recipe.path) == recipe
    assert recipe.resolved()["stages"]["words"]["limits"] == {"at_least": 2, "at_most": 7}
    assert recipe.stage("table").seed == 9 and recipe.stage("words").seed == 3
    assert recipe.stage("table").base_model == "tiny-causal"
    assert recipe.stage("words").base_model == ""  # counting words takes no model


def test_data_is_relative_to_the_recipe_unless_told(path: Path, tmp_path: Path) -> None:
    assert load(path).data == tmp_path / "data"
    assert load(path, data=tmp_path / "x").data == tmp_path / "x"
    assert load(path, "data=other").data == tmp_path / "other"


def test_an_override_leaves_what_an_anchor_shares(tmp_path: Path) -> None:
    text = "{name: a, x-l: &l {limits: {at_least: 2}}, stages: {lines: {kind: lines, source: t},"
    text += " a: {<<: *l, kind: words, lines: lines}, b: {<<: *l, kind: words, lines: lines}}}"
    recipe = load(write_recipe(tmp_path, text), "stages.a.limits.at_least=5")
    assert recipe.resolved()["stages"]["a"]["limits"]["at_least"] == 5
    assert recipe.resolved()["stages"]["b"]["limits"]["at_least"] == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 3", "sed: 3", "tiny.yaml: unknown setting 'sed'; did you mean 'seed'?"),
        ("kind: table", "kind: tabel", "stages.table: there is no kind 'tabel'; did you mean 'table'?"),
        ("at_least", "at_leest", "stages.words: unknown setting 'limits.at_leest'; did you mean"),
        ("title:", "titel:", "stages.table: unknown setting 'titel'; did you mean 'title'?"),
        ("[words]", "[word]", "stages.table: counts.0=word: there is no stage 'word'; did you mean"),
        ("lines: lines,", "lines: table,", "lines=table: a stage reads earlier ones only"),
        ("lines: lines,", "lines: words,", "lines=words: a stage reads earlier ones only"),
        ("table, counts: [words], title: Words", "words, lines: words", "a stage of kind 'lines' is"),
        ("lines: lines, ", "", "stages.words: 'lines' is missing"),
        ("kind: words, ", "", "stages.words: 'kind' is missing"),
        ("at_least: 2", "at_least: few", "stages.words: limits.at_least=few: input should be"),
        ("  lines:\n", "  Lines:\n", "stages.Lines: a stage's name becomes a folder"),
        ("  lines:\n", "  ../x:\n", "stages.../x: a stage's name becomes a folder"),
        ("name: tiny", "name: Tiny", "name=Tiny: string should match"),
        ("  slow:\n", "  lines:\n", "tiny.yaml:12: not YAML (the key 'lines' comes twice)"),
        ("seed: 3", "seed: 3\nseed: 4", "tiny.yaml:5: not YAML (the key 'seed' comes twice)"),
        ("seed: 3", "seed: !!python/name:os.system ''", "tiny.yaml:4: not YAML"),
        ("seed: 3", "seed: [", "not YAML"),
        ("seed: 3", "base: &b [*b]", "unfolds to more than"),
        ("seed: 3", "x-b: &b {b: *b}", "unfolds to more than"),
        ("{kind: words", "{base_model: m, kind: words", "base_model=m: a 'words' uses no base model"),
        (RECIPE, "[]", "holds no mapping"),
        (RECIPE, "{name: a, stages: {}}", "stages={}: dictionary should have at least 1 item"),
        (RECIPE, "{name: a, stages: {b: }}", "stages.b=None: input should be a valid dictionary"),
        (RECIPE, "{stages: {b: {}}}", "'name' is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in RECIPE
    with pytest.raises(UsageError) as caught:
        load(write_recipe(tmp_path, RECIPE.replace(old, new, 1)))
    assert said in str(caught.value) and "tiny.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("stages.word.seed=1", "--set stages.word.seed=1: there is no stage 'word'; did you mean"),
        ("stages.words.limit.at_most=1", "unknown setting 'limit'; did you mean 'limits'?"),
        (
            "stages.words.lines.x=1",
            "--set stages.words.lines.x=1: 'lines' is 'lines', with nothing",
        ),
        ("seed=-1", "seed=-1: input should be greater"),
        ("seed", "'seed' is no override"),
    ],
)
def test_a_wrong_override_is_told(path: Path, assignment: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(path, assignment)
    assert said in str(caught.value)


def test_a_wrong_path_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"tinny.yaml: no such recipe; did you mean .*/tiny.yaml'\?"
    ):
        load(tmp_path / "tinny.yaml")
    with pytest.raises(UsageError, match=r"is a folder; recipes in it: .*tiny.yaml"):
        load(tmp_path)
    (tmp_path / "recipes" / "deep").mkdir(parents=True)
    shutil.copy(path, tmp_path / "recipes" / "deep" / "words.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"did you mean 'recipes/deep/words.yaml'\?"):
        load(Path("words"))


@pytest.mark.parametrize("merge", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "<<: [{0}, {0}]"])
def test_a_small_file_that_unfolds_without_end_is_refused(tmp_path: Path, merge: str) -> None:
    lines = ["name: bomb", "x-a0: &a0 {k: 1}"]
    for n in range(40):
        inner = merge.format(f"*a{n}")
        lines.append(f"x-a{n + 1}: &a{n + 1} {'{' + inner + '}' if '<<' in merge else inner}")
    lines.append("stages: {a: {kind: lines, source: t}}")
    with pytest.raises(UsageError, match="more than"):
        load(write_recipe(tmp_path, "\n".join(lines)))
    with pytest.raises(UsageError, match="bytes; a recipe has at most"):
        load(write_recipe(tmp_path, "# " + "x" * 300_000))


def test_a_run_and_what_it_writes(path: Path, out: Path) -> None:
    assert planned(path, out) == dict.fromkeys(DONE, "new")
    assert not out.exists()
    assert states(run_recipe(load(path), out)) == dict.fromkeys(DONE, "new")
    table = (out / "table" / "table.md").read_text()
    assert table == "Words with tiny-causal\nwords: cat 2\nwords: mat 2\nwords: the 4\n"
    made = Manifest.model_validate_json((out / "words" / "manifest.json").read_bytes())
    assert made.work.settings["limits"] == {"at_least": 2, "at_most": 1000}
    assert made.identity == made.work.identity and list(made.files) == ["parts/counts.json"]
    assert made.versions["headstart"] and made.times.sessions == 1
    lines = Manifest.model_validate_json((out / "lines" / "manifest.json").read_bytes())
    assert made.work.inputs == {"lines": lines.content} and list(lines.work.data) == ["text.txt"]
    kept = load_recipe(out / "recipe.yaml", KINDS)
    assert kept.stages == load(path).stages and kept.data == load(path).data
    assert sorted(p.name for p in out.iterdir()) == sorted([".lock", "recipe.yaml", *DONE])
    assert states(run_recipe(kept, out)) == DONE and planned(path, out) == DONE


def test_what_changed_is_run_again_and_nothing_else(path: Path, out: Path) -> None:
    run_recipe(load(path), out)
    for assignment, why in {
        "stages.words.limits.at_least=3": {"words": ("limits.at_least: 2 -> 3",)},
        "stages.table.title=T": {"table": ("title: Words -> T",)},
        "stages.table.seed=4": {"table": ("seed: 3 -> 4",)},
        "base_model=tiny-seq2seq": {"table": ("base_model: tiny-causal -> tiny-seq2seq",)},
        "stages.slow.pause=0": {"slow": ("pause: 0.001 -> 0.0",)},
    }.items():
        found = because(path, out, assignment)
        waits = {"table": ("input 'words' is still to be made",)} if "words" in why else {}
        assert found == {**why, **waits}
    assert planned(path, out, "stages.words.limits.at_least=3")["table"] == "maybe"
    changed = states(run_recipe(load(path, "stages.words.limits.at_least=3"), out))
    assert changed == {**DONE, "words": "again", "table": "again"}
    assert because(path, out) == {
        "words": ("limits.at_least: 3 -> 2",),
        "table": ("input 'words' is still to be made",),
    }


def test_an_input_that_comes_out_the_same_leaves_the_rest_done(path: Path, out: Path) -> None:
    run_recipe(load(path), out)
    same = states(run_recipe(load(path, "stages.lines.pause=0.0001"), out))
    assert same == {**DONE, "lines": "again"}


def test_changed_data_and_a_new_version_run_again(path: Path, out: Path, tmp_path: Path) -> None:
    run_recipe(load(path), out)
    text = tmp_path / "data" / "text.txt"
    text.write_text(text.read_text() + "the end\n")
    assert because(path, out)["lines"] == ("data file 'text.txt' has changed",)
    assert states(run_recipe(load(path), out)) == dict.fromkeys(DONE, "again")
    kinds = {**KINDS, "table": replace(KINDS["table"], version=2)}
    (_, _, _, table) = plan(load_recipe(path, kinds), out)
    assert table.found.because == ("kind 'table' now works differently: version 1 -> 2",)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(text, tmp_path / "elsewhere" / "text.txt")
    assert states(plan(load(path, data=moved.parent), out)) == DONE
    with pytest.raises(
        UsageError, match=r"stages.lines: source=text.txt: no such file in .*--data"
    ):
        plan(load(path), out)
    (text.parent / "texts.txt").touch()
    with pytest.raises(UsageError, match=r"did you mean 'texts.txt'"):
        plan(load(path), out)


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_damaged_result_is_noticed(path: Path, out: Path, harm: str) -> None:
    run_recipe(load(path), out)
    counts = out / "words" / "parts" / "counts.json"
    if harm == "missing":
        counts.unlink()
    else:
        counts.write_text(counts.read_text().replace("4", "5"))
    said = {"missing": "is missing", "changed": "is not as it was written"}[harm]
    assert because(path, out)["words"] == (f"file 'parts/counts.json' {said}",)
    assert states(run_recipe(load(path), out)) == {**DONE, "words": "again"}
    assert json.loads(counts.read_text())["the"] == 4 and planned(path, out) == DONE


def test_what_is_replaced_goes_in_one_step(
    path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(load(path), out)
    with monkeypatch.context() as patch:  # the machine stops before anything is deleted
        patch.setattr("headstart.recipes.run_dir.shutil.rmtree", lambda *args, **more: None)
        (out / "words" / "parts" / "stale.txt").touch()
        assert states(run_recipe(load(path, "seed=4"), out))["words"] == "again"
    assert len(list(out.glob(".headstart-old-*"))) == len(DONE)
    assert not (out / "words" / "parts" / "stale.txt").exists()
    run_recipe(load(path, "seed=4"), out)
    assert not list(out.glob(".headstart-old-*"))


def test_data_may_be_a_folder_or_on_the_hub(path: Path, out: Path, tmp_path: Path) -> None:
    recipe = load(path, "stages.lines.source=hub:imdb", "stages.slow.source=.")
    assert set(states(plan(recipe, out)).values()) == {"new"}
    lines, slow, *_ = recipe.stages
    assert recipe.source(DataFile("hub:imdb")) == "hub:imdb"
    assert work_of(lines, {}, {"hub:imdb": None}).data == {"hub:imdb": None}
    before = data_hash(tmp_path / "data")
    (tmp_path / "data" / "more.txt").touch()
    assert data_hash(tmp_path / "data") != before
    assert recipe.source(DataFile(".")) == str(tmp_path / "data") and slow.inputs == ()


def test_partial_work_is_kept_for_the_same_identity_only(path: Path, out: Path) -> None:
    def stop(context: Context[Any]) -> None:
        held = context.folder / "lines.jsonl"
        before.append(held.read_text() if held.exists() else None)
        held.write_text('{"n": 0, "line": "kept", "mark": 0}\n{"n": 1, "to')
        raise HeadstartError("no more")

    before: list[str | None] = []
    stopping = {**KINDS, "lines": replace(KINDS["lines"], run=stop)}
    with pytest.raises(HeadstartError, match="stage 'lines': no more"):
        run_recipe(load_recipe(path, stopping), out)
    (out / "lines" / f".tmp-{'0' * 32}-x").mkdir()
    assert planned(path, out) == {**dict.fromkeys(DONE, "new"), "lines": "resume"}
    assert because(path, out, "seed=4")["lines"] == ("seed: 3 -> 4",)
    with pytest.raises(HeadstartError):
        run_recipe(load_recipe(path, stopping, ["seed=4"]), out)
    with pytest.raises(HeadstartError):
        run_recipe(load_recipe(path, stopping, ["seed=4"]), out)
    assert before[:2] == [None, None] and "kept" in str(before[2])
    assert states(run_recipe(load(path, "seed=4"), out))["lines"] == "resume"
    rows = [json.loads(line) for line in (out / "lines" / "lines.jsonl").read_text().splitlines()]
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 4] and rows[0]["line"] == "kept"
    made = Manifest.model_validate_json((out / "lines" / "manifest.json").read_bytes())
    assert made.times.sessions == 3 and list(made.files) == ["lines.jsonl"]


def test_some_stages_only(path: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="stage 'words' needs 'lines', which is not done"):
        run_recipe(load(path), out, only="words")
    assert list(states(run_recipe(load(path), out, until="slow"))) == ["lines", "slow"]
    assert states(run_recipe(load(path), out, only="words")) == {"lines": "done", "words": "new"}
    with pytest.raises(UsageError, match="there is no stage 'tabel'; did you mean 'table'"):
        run_recipe(load(path), out, until="tabel")


def test_what_headstart_did_not_write_is_never_touched(path: Path, out: Path) -> None:
    (out / "words").mkdir(parents=True)
    (out / "words" / "thesis.md").write_text("mine")
    with pytest.raises(UsageError, match=r"words: holds 'thesis.md', which is not of a headstart"):
        run_recipe(load(path), out)
    assert (out / "words" / "thesis.md").read_text() == "mine"
    with pytest.raises(UsageError, match=r"recipe.yaml: was not written by a headstart run"):
        run_recipe(load(path.rename(path.with_name("recipe.yaml"))), path.parent)
    (out / "words" / "thesis.md").rename(out / "words" / "manifest.json")
    with pytest.raises(StorageError, match=r"manifest.json: damaged.* delete .*words to have"):
        plan(load(path.with_name("recipe.yaml")), out)


def test_one_at_a_time(path: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        locked(out),
        pytest.raises(StorageError, match=r"in use by process \d+ on .* since 20.*; wait"),
    ):
        run_recipe(load(path), out)
    (out / ".holder.json").write_text('{"pid": 1, "host": "gone", "since": "long ago"}')
    run_recipe(load(path), out)
    assert "process 1 on gone since long ago ended without tidying up" in caplog.text


def test_settings_of_any_kind_are_overridden_and_checked() -> None:
    class Deep(Settings):
        train: FewShot = FewShot()
        words: tuple[FewShot, ...] = ()
        named: dict[str, FewShot] = {}  # noqa: RUF012 - pydantic copies it
        many: int = 0

    assert override(Deep(), ["train.num_steps=7"]).train.num_steps == 7
    for values, said in (
        (
            {"train": {"num_stepz": 1}},
            "unknown setting 'train.num_stepz'; did you mean 'num_steps'?",
        ),
        ({"words": [{"num_stepz": 1}]}, "'words.0.num_stepz'; did you mean 'num_steps'?"),
        ({"named": {"a": {"num_stepz": 1}}}, "'named.a.num_stepz'; did you mean 'num_steps'?"),
        ({"many": "x" * 99}, f"many={'x' * 77}...: input should be a valid integer"),
    ):
        with pytest.raises(UsageError) as caught:
            check_settings(values, Deep)
        assert said in str(caught.value)
    assert read_assignment("a.b=1e-3") == (("a", "b"), 0.001)
    assert read_assignment("file=1e5.jsonl") == (("file",), "1e5.jsonl")


def test_a_kind_is_checked_at_birth() -> None:
    class Seeded(Settings):
        seed: int = 1

    with pytest.raises(AssertionError, match=r"has {'seed'} already"):
        StageKind("a", 1, Seeded, lambda context: None)
