"""Paper A end to end on tiny models: continued pretraining, prompting on held-out sets, Table 1."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from headstart.config import check_settings
from headstart.errors import DataError, UsageError
from headstart.models.load import load_model
from headstart.prompts.files import load_prompt
from headstart.recipes.engine import estimates, plan, run_recipe
from headstart.recipes.kinds import KINDS
from headstart.recipes.labelled_stage import LabelledSource, read_labelled, under_templates
from headstart.recipes.prompted_stage import PromptedSet, PromptedStage, ask
from headstart.recipes.prompted_table_stage import PromptedTableStage, page, summarise
from headstart.recipes.recipe import load_recipe
from headstart.recipes.results import Result, read_results
from headstart.recipes.source_stages import read_source_rows
from headstart.tasks.example import Example
from headstart.tasks.paper_mixture import mixture_tasks

RECIPE = """
name: tiny-a
description: paper A once, on models that know nothing
base_model: {model}
seed: 1
data: .
x-train: &train
  {{num_steps: 4, batch_size: 6, meta_batch_size: 2, task_batch_size: 2, inner_steps: 2, lr: 0.01}}
stages:
  rows:
    kind: labelled
    sources: {{p3: {{file: p3.jsonl, text: source, label: target, by: [set, template]}}}}
  both: &pretrain
    kind: pretrain
    rows: rows
    init: vocab
    prompt_length: 3
    max_length: 60
    max_target: 8
    save_every: 2
    train: {{<<: *train, method: {method}, trains: {trains}}}
  held-out: &prompted
    kind: prompted
    sets:
      PAIRS:
        train: pairs.jsonl
        test: pairs.jsonl
        templates: pairs.yaml
        relabel: {{"yes": "0", "no": "1"}}
        label_field: verdict
        group: nli
    method: ours
    model: {source}
    prompt: {prompt}
    init: vocab
    prompt_length: 3
    num_shots: 6
    seeds: [1, 2]
    num_test: 6
    max_length: 60
    train: {{num_steps: 2, start_worth: 0}}
  table:
    kind: prompted-table
    title: Table 1
    cells: [{{results: held-out, row: ours, column: Shallow}}]
"""

TEMPLATES = """
templates:
  a: !Template {name: "does it?", answer_choices: "Yes ||| No",
    jinja: "{{premise}} So {{hypothesis}}? ||| {{ answer_choices[label] }}"}
  b: !Template {name: "only short", answer_choices: "Yes ||| No",
    jinja: "{% if premise|length < 8 %}{{premise}}? ||| {{ answer_choices[label] }}{% endif %}"}
  c: !Template {name: "gives it away", answer_choices: "Yes ||| No",
    jinja: "{{premise}} is {{verdict}} ||| {{ answer_choices[label] }}"}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rows = [
        {
            "set": f"s{i % 2}",
            "template": "t",
            "source": f"row {i} " + "ab"[i % 2] * (i % 7),
            "target": word,
        }
        for i, word in enumerate(["good", "bad", "so so"] * 10)
    ]
    pairs = [
        {
            "premise": "It rains" if i % 2 else "Rain",
            "hypothesis": f"wet {i}",
            "label": "yes" if i // 2 % 2 else "no",
        }
        for i in range(18)
    ]
    for name, lines in (("p3", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "pairs.yaml").write_text(TEMPLATES)
    return tmp_path


def recipe(place: Path, **changes: str):
    told = {
        "model": "tiny-seq2seq",
        "method": "multitask",
        "trains": "both",
        "source": "both",
        "prompt": "both",
    }
    path = place / "recipe.yaml"
    path.write_text(RECIPE.format(**{**told, **changes}))
    return load_recipe(path, KINDS)


@pytest.mark.parametrize("model", ["tiny-causal", "tiny-seq2seq"])
@pytest.mark.parametrize("method", ["multitask", "fomaml", "reptile"])
def test_from_rows_to_the_table(place, model, method):
    run_recipe(recipe(place, model=model, method=method), place / "out")
    out = place / "out"
    results = read_results(out / "held-out/results.jsonl")
    assert len(results) == 3 * (1 + 2)  # templates x (zero-shot, two seeds of six shots)
    assert {result.details["chance"] for result in results} == {0.5}
    judged = {result.target: len(result.right) for result in results}
    assert judged["PAIRS/does it?"] == 6 > judged["PAIRS/only short"] > 0
    table = (out / "table/table.md").read_text()
    assert "| method | Shallow, 0-shot | Shallow, 6-shot |" in table
    assert len(re.findall(r"^\\| ours", table, re.M)) == 4
    trained = load_model(str(out / "both/model"), dtype="float32", attention="eager")
    assert trained.fingerprint() != load_model(model).fingerprint()
    prompt, card = load_prompt(out / "both", trained.fingerprint())
    assert prompt.spec.length == 3 and card.training["pretrain"]["steps"] == 4
    log = [json.loads(line) for line in (out / "both/log.jsonl").read_text().splitlines()]
    assert log[-1]["rows"] == card.training["pretrain"]["rows_seen"]


def test_a_frozen_model_gives_a_prompt_alone(place):
    study = recipe(place, trains="prompt", source="null")
    run_recipe(study, place / "out")
    assert not (place / "out/both/model").exists()
    load_prompt(place / "out/both", load_model("tiny-seq2seq").fingerprint())


def test_a_model_without_a_prompt_is_prompted_bare_and_tuned_from_vocabulary(place):
    run_recipe(recipe(place, trains="model", prompt="null"), place / "out")
    assert not (place / "out/both/card.json").exists()
    assert len(read_results(place / "out/held-out/results.jsonl")) == 9


def test_no_continued_pretraining_is_the_base_model_as_it_is(place):
    study = recipe(place, source="null", prompt="null")
    run_recipe(study, place / "out", only="held-out")
    assert not (place / "out/both").exists()


def test_a_killed_stage_goes_on_and_ends_the_same(place, monkeypatch):
    whole = recipe(place, method="reptile")
    run_recipe(whole, place / "whole", until="both")
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    from headstart.learn import pretrain_step

    step = pretrain_step.STEPS["reptile"]
    monkeypatch.setitem(pretrain_step.STEPS, "reptile", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(whole, place / "out", until="both")
    assert (place / "out/both/state.safetensors").is_file()
    run_recipe(whole, place / "out", until="both")
    assert len(calls) == 3 + 2  # the update that was cut off, and the one after it
    for name in ("prompt.safetensors", "model/model.safetensors", "log.jsonl", "state.safetensors"):
        assert (place / "out/both" / name).read_bytes() == (
            place / "whole/both" / name
        ).read_bytes()


@pytest.mark.parametrize(
    "change, error, said",
    [
        (
            ("group: nli", 'group: nli\n        use: ["does itt?"]'),
            DataError,
            "did you mean 'does it\\?'",
        ),
        (("trains: both", "trains: model"), UsageError, "adapts a prompt"),
        (("method: multitask", "method: fomal"), UsageError, "fomaml"),
        (("max_target: 8", "max_targett: 8"), UsageError, "max_target"),
        (("set, template]", "set, templat]"), DataError, "templat"),
        (("cells:", "baseline: ous\n    cells:"), UsageError, "did you mean 'ours'"),
    ],
)
def test_a_wrong_recipe_is_one_line(place, change, error, said):
    recipe(place, method="fomaml" if "trains" in change[0] else "multitask")
    path = place / "recipe.yaml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(error, match=said) as caught:
        run_recipe(load_recipe(path, KINDS), place / "out")
    assert "\n" not in str(caught.value)


def test_targets_are_cut_and_end_with_the_end(place):
    from headstart.models.base import Limits
    from headstart.tasks.example import ANSWER_SLOT, Rendered

    for name in ("tiny-causal", "tiny-seq2seq"):
        model = load_model(name)
        row = Rendered("a", f"x{ANSWER_SLOT}", ("a long answer",), 0)
        (whole,) = model.encode([row], Limits(eos=True))
        (cut,) = model.encode([row], Limits(eos=True, max_target=3))
        assert whole.candidates[0][-1] == model.tokenizer.eos_token_id
        assert cut.candidates[0] == whole.candidates[0][:3]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["false", "true"])
def test_processes_share_a_stage(place, shard):
    """Started together they write what one writes, to the last digits of a float32 sum."""
    path = place / "recipe.yaml"
    recipe(place)
    path.write_text(
        path.read_text().replace("lr: 0.01}", f"lr: 0.01, shard: {shard}, optimizer: sgd}}")
    )
    headstart = str(Path(sys.executable).with_name("headstart"))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    for out, before in (("one", []), ("two", [*launch, "--no-python"])):
        run = [headstart, "run", str(path), "--out", str(place / out), "--until"]
        for words in ([*run, "rows"], [*before, *run, "both"]):
            ended = subprocess.run(words, capture_output=True, text=True, timeout=240)
            assert ended.returncode == 0, ended.stderr
    one, two = (place / out / "both" for out in ("one", "two"))
    ours, theirs = (load_prompt(folder)[0].vectors_PH for folder in (one, two))
    assert torch.allclose(ours, theirs, atol=1e-4)
    models = [load_model(str(folder / "model"), dtype="float32").network for folder in (one, two)]
    pairs = zip(*(model.state_dict().items() for model in models), strict=True)
    assert all(torch.allclose(a, b, atol=1e-4) for (_, a), (_, b) in pairs)
    assert not list(two.glob(".cache*"))


def test_stages_that_trained_no_model_or_no_prompt_are_told(place):
    for trains, changes, said in (
        ("prompt", {}, "stage 'both' trained no model; take model away"),
        ("model", {}, "stage 'both' trained no prompt; take prompt away"),
    ):
        with pytest.raises(UsageError, match=said):
            run_recipe(recipe(place, trains=trains, **changes), place / trains)


def test_a_table_compares_its_rows_with_one_of_them():
    """Gains first, then how far they are above the baseline's on the same rows, then accuracies."""

    def summary(right):
        told = {"chance": 0.5, "group": "nli", "set": "rte", "template": "a"}
        judged = {"accuracy": sum(right) / 4, "macro_f1": 0.5, "right": right, "details": told}
        return summarise([Result(target="rte/a", method="m", seed=1, **judged)])

    cells = [{"results": r, "row": r, "column": "Deep"} for r in ("bare", "both", "same")]
    found = {
        (row, "Deep, 0-shot"): summary(right)
        for row, right in (("bare", (1, 1, 0, 0)), ("both", (1, 1, 1, 0)), ("same", (1, 1, 0, 0)))
    }
    shown = page(found, PromptedTableStage(cells=cells, baseline="bare"))
    gains, above, accuracies, _ = re.findall(r"((?:^\|.*\n)+)", shown, re.M)
    assert "| bare | 0.0 [" in gains and "| both | 50.0 [" in gains
    assert "| same | +0.0 [+0.0, +0.0] |" in above and "| both | +50.0 [+0.0, +" in above
    assert "| both | 75.0 [" in accuracies and "bare" not in above
    with pytest.raises(ValueError, match="row 'bare' comes twice in column 'Deep'"):
        PromptedTableStage(cells=[cells[0], cells[0]])


def test_a_plan_says_what_pretraining_takes(place):
    """Of rows of full length before they are there, of their own lengths after."""
    study, out = recipe(place), place / "out"
    before = estimates(study, out, plan(study, out))
    assert list(before) == ["both"] and before["both"].startswith("rows of full length, about ")
    run_recipe(study, out, until="rows")
    after = estimates(study, out, plan(study, out))["both"]
    assert re.match(r"rows of \d+ and \d tokens, about \S+ GiB on each device, \S+ TFLOP", after)
    run_recipe(study, out, until="both")
    assert estimates(study, out, plan(study, out)) == {}


def test_the_same_rows_are_drawn_under_all_templates_that_apply(place):
    stage = recipe(place).stage("held-out").settings
    data = {name: str(place / name) for name in ("pairs.jsonl", "pairs.yaml")}
    asked = {one.template: one for one in ask(stage, load_model("tiny-seq2seq"), "PAIRS", data)}
    ids = {name: [row.id for row in one.train[1]] for name, one in asked.items()}
    assert ids["does it?"] == ids["gives it away"] != ids["only short"]
    assert torch.equal(*(torch.tensor([len(ids[n])]) for n in ("does it?", "only short")))


def test_raw_rows_are_rendered_under_promptsource_templates(place):
    path = place / "raw.yaml"
    path.write_text(
        """
name: raw
description: rows under templates, and tasks left out
base_model: tiny-causal
seed: 1
data: .
stages:
  rows:
    kind: labelled
    sources:
      pairs:
        file: pairs.jsonl
        relabel: {"yes": "0", "no": "1"}
        templates: pairs.yaml
        use: ["does it?", only short]
        cut: drop
      p3: {file: p3.jsonl, text: source, label: target, by: [set, template], without: [s1]}
"""
    )
    run_recipe(load_recipe(path, KINDS), place / "out")
    lines = (place / "out/rows/rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    sources = {row["source"] for row in rows}
    assert len(read_source_rows(place / "out/rows")) == len(rows)  # ids are told apart
    assert sources == {"pairs/does it?", "pairs/only short", "p3/s0/t"}
    (first, *_) = [row for row in rows if row["source"] == "pairs/does it?"]
    assert first["text"].startswith("Rain So wet") and first["label"] in ("Yes", "No")
    for change, said in (
        (("without: [s1]", "without: [s11]"), "did you mean 's1'"),
        (("only short]", "onli short]"), "did you mean 'only short'"),
        (
            ("        use:", "        label_field: label\n        by: [premise]\n        use:"),
            "templates make",
        ),
        (("        cut: drop", "        cut: end"), "take cut: drop"),
        (
            ("        cut: drop", "        keep: [premise]\n        cut: drop"),
            "some sources keep 'premise'",
        ),
        (("        cut: drop", "        bins: [1]\n        cut: drop"), "take text and bins away"),
        (("without: [s1]", "without: [s1/t], only: [s1/t]"), "both name 's1/t'"),
    ):
        path.write_text(path.read_text().replace(*change))
        with pytest.raises((DataError, UsageError), match=said):
            run_recipe(load_recipe(path, KINDS), place / "out")
        path.write_text(path.read_text().replace(*reversed(change)))
    source = LabelledSource(
        file="pairs.jsonl", templates="pairs.yaml", cut="drop", keep=["premises"]
    )
    with pytest.raises(DataError, match="no column 'premises'; did you mean 'premise'"):
        under_templates(
            read_labelled(source, str(place / "pairs.jsonl"), Counter()),
            source,
            str(place / "pairs.yaml"),
        )


def test_p3_is_read_task_by_task_and_drawn_lazily(place, monkeypatch):
    """The Hub's part is played by a function that gives rows by configuration."""
    asked = []

    def hub(source, label, columns, split):
        asked.append(source)
        for i in range(30):
            target = " yes\n" if i % 3 else "  "
            yield Example(f"{source}:{i}", {"text": f"Row {i}? "}, target)

    monkeypatch.setattr("headstart.recipes.p3_stage.read_examples", hub)
    path = place / "p3.yaml"
    path.write_text(
        """
name: p3
description: paper A's own data
base_model: tiny-causal
seed: 1
data: .
stages:
  p3: {kind: p3, sets: [Structure-To-Text], without: [wiki_bio], cap: 90, repository: bigscience/P3@abc}
  both:
    kind: pretrain
    rows: p3
    init: vocab
    prompt_length: 2
    max_length: 8
    train: {method: fomaml, meta_batch_size: 2, task_batch_size: 2, inner_steps: 1, num_steps: 2}
"""
    )
    study = load_recipe(path, KINDS)
    run_recipe(study, place / "out")
    tasks = json.loads((place / "out/p3/tasks.json").read_text())
    assert len(tasks) == 9 and {task["rows"] for task in tasks} == {10}  # 90 over nine templates
    assert asked[0].startswith("hub:bigscience/P3:common_gen_") and asked[0].endswith("@abc")
    summary = json.loads((place / "out/both/pretrain.json").read_text())
    assert summary["rows"] == 90 and summary["rows_seen"] == 16 == summary["rows_cut"]
    calls = []

    def cut_off(source, **told):
        calls.append(source)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return hub(source, **told)

    monkeypatch.setattr("headstart.recipes.p3_stage.read_examples", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(study, place / "again", until="p3")
    run_recipe(study, place / "again", until="p3")
    assert len(calls) == 4 + 6, "a task whose file is there is not read again"


def test_an_unknown_set_of_the_mixture_is_told():
    with pytest.raises(DataError, match="did you mean 'Sentiment'"):
        mixture_tasks("train", ["Sentimet"])
    with pytest.raises(DataError, match="no set or kind of task 'imdb' to held out"):
        mixture_tasks("held_out", ["imdb"])
    held_out = {task.set for task in mixture_tasks("held_out")}
    assert not held_out & {task.set for task in mixture_tasks("train")}
    assert len(mixture_tasks("train", without=["Sentiment"])) == 313 - 41


def test_story_cloze_is_read_from_its_own_csv(place):
    """Its columns have names of their own, and the templates count with its label."""
    header = "InputStoryid,InputSentence1,RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding"
    lines = [f"s{i},It rained {i}.,She got wet.,She flew.,{1 + i % 2}" for i in range(8)]
    (place / "cloze.csv").write_text("\n".join([header, *lines]))
    (place / "cloze.yaml").write_text(
        """
templates:
  a: !Template {name: ends, answer_choices: "{{sentence_quiz1}} ||| {{sentence_quiz2}}",
    jinja: "{{input_sentence_1}} Then? ||| {{answer_choices[answer_right_ending -1]}}"}
"""
    )
    one = PromptedSet(
        train="cloze.csv",
        test="cloze.csv",
        templates="cloze.yaml",
        label="AnswerRightEnding",
        label_field="answer_right_ending",
        relabel={"1": "0", "2": "1"},
        columns={
            "input_sentence_1": "InputSentence1",
            "sentence_quiz1": "RandomFifthSentenceQuiz1",
            "sentence_quiz2": "RandomFifthSentenceQuiz2",
        },
    )
    stage = PromptedStage(sets={"cloze": one}, method="m", num_shots=4)
    data = {name: str(place / name) for name in ("cloze.csv", "cloze.yaml")}
    (asked,) = ask(stage, load_model("tiny-seq2seq"), "cloze", data)
    assert [row.target for row in asked.test] == [0, 1] * 4 and asked.chance == 0.5
    with pytest.raises(UsageError, match="did you mean 'story_cloze/2016'"):
        check_settings({**one.model_dump(), "mixture": "story_cloze/2061"}, PromptedSet)
    assert len(PromptedSet(**{**one.model_dump(), "mixture": "hellaswag"}).templates_used) == 4
