"""Predictions of rows that differ in their candidates; files that hold JSON and nothing else."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from headstart.config import FewShot, Scoring, TuneSettings
from headstart.errors import DataError, HeadstartError, TemplateError
from headstart.evaluate.predictions import prediction, prediction_file
from headstart.evaluate.rank import probabilities
from headstart.models.load import load_model
from headstart.prompts.prompt import SoftPrompt
from headstart.recipes.fewshot import tune_seeds
from headstart.recipes.judge import judge
from headstart.recipes.predict import Scored, predict_stream, predictions, score_examples
from headstart.recipes.study import Study
from headstart.recipes.write_study import Tuning, write_study
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

# As promptsource asks multiple choice: each row brings its own answers.
PICK = Template(
    "{{ question }} ||| {{ options[label] }}", "{{ options | join('|||') }}", name="pick"
)
WIDTHS = (2, 4, 3, 2, 4)
LETTERS = ("alpha", "beta", "gamma", "delta")
ROWS = [
    Example(f"q:{n}", {"question": f"Which {n}?", "options": LETTERS[:width]}, str(n % width))
    for n, width in enumerate(WIDTHS)
]


@pytest.fixture(scope="module", params=["tiny-causal", "tiny-seq2seq"])
def model(request):
    return load_model(request.param)


@pytest.fixture(scope="module", params=[(), ("0", "1", "2", "3"), ("0", "1")], ids=str)
def study(request, model):
    """Members of a task whose rows have 2 to 4 answers, under labels of three kinds."""
    task = Task(PICK, request.param, ())
    start = torch.randn(2, 3, model.hidden_size, generator=torch.Generator().manual_seed(0))
    return Study(
        model, task, Scoring(rule="mean"), ("seed-1", "seed-2"), tuple(map(SoftPrompt.of, start))
    )


ASKED = [Example(row.id, row.fields) for row in ROWS]


def strict(line):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_a_row_has_the_candidates_it_has_and_no_other(study):
    found = predictions(study, ASKED, score_examples(study, ASKED))
    for row, width in zip(found, WIDTHS, strict=True):
        names = [str(index) for index in range(width)]
        assert list(row["scores"]) == list(row["probabilities"]) == names
        assert row["candidates"] == dict(zip(names, LETTERS[:width], strict=True))
        assert row["predicted"] in names and row["label"] is None
        assert all(map(math.isfinite, row["scores"].values()))
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_row_does_not_depend_on_how_wide_its_chunk_is(study):
    together = predictions(study, ASKED, score_examples(study, ASKED))
    for example, wide in zip(ASKED, together, strict=True):
        (alone,) = predictions(study, [example], score_examples(study, [example]))
        assert alone["predicted"] == wide["predicted"]
        assert alone["scores"] == pytest.approx(wide["scores"], abs=1e-4)
        assert alone["probabilities"] == pytest.approx(wide["probabilities"], abs=1e-4)


@pytest.mark.parametrize("labels", [(), ("0", "1", "2", "3")])
def test_members_and_ensemble_are_measured_where_widths_differ(model, labels):
    start = torch.randn(2, 3, model.hidden_size, generator=torch.Generator().manual_seed(1))
    study = Study(model, Task(PICK, labels, ()), prompts=tuple(map(SoftPrompt.of, start)))
    judged = judge(study, ROWS)
    assert len(judged.members) == 2
    for rows, measured in [
        *zip(judged.rows, judged.members, strict=True),
        (judged.ensemble_rows, judged.ensemble),
    ]:
        assert [row["label"] for row in rows] == [row.label for row in ROWS]
        hits = [row["label"] == row["predicted"] for row in rows]
        assert measured["accuracy"] == pytest.approx(sum(hits) / len(hits))
    mean = [
        {c: sum(rows[i]["probabilities"][c] for rows in judged.rows) / 2 for c in each["scores"]}
        for i, each in enumerate(judged.ensemble_rows)
    ]
    for each, expected in zip(judged.ensemble_rows, mean, strict=True):
        assert each["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_gold_is_the_candidate_that_the_template_names(model):
    """The target text may come from another field than the label: its candidate is the gold."""
    task = Task(Template("{{ q }} ||| {{ right }}", "{{ options | join('|||') }}"), (), ())
    fields = {"q": "Which?", "options": LETTERS[:3], "right": "gamma"}
    (row,) = judge(Study(model, task), [Example("q:1", fields, "gamma")]).ensemble_rows
    assert row["label"] == "2"


def test_rows_without_a_label_are_not_measured(model):
    with pytest.raises(DataError, match="q:0: no label"):
        judge(Study(model, Task(PICK, (), ())), ASKED)


def test_more_answers_than_named_labels_are_told(model):
    choices = Template("{{ question }} {{ answer }}", "{{ options | join('|||') }}", name="pick")
    study = Study(model, Task(choices, ("yes", "no"), ()))
    narrow = predictions(study, ASKED[:1], score_examples(study, ASKED[:1]))
    assert list(narrow[0]["scores"]) == ["yes", "no"]
    with pytest.raises(TemplateError, match=r"q:1: template 'pick' brings 4 answers for 2 labels"):
        predictions(study, ASKED[:2], score_examples(study, ASKED[:2]))


def test_texts_stand_in_a_row_only_where_rows_differ(model):
    fixed = Study(model, Task(Template("{{ question }} {{ answer }}", "no ||| yes"), (), ()))
    own = Study(model, Task(Template("{{ question }} {{ answer }}"), ("a", "b"), ("x", "y")))
    for study, names in ((fixed, ["0", "1"]), (own, ["a", "b"])):
        (row,) = predictions(study, ASKED[:1], score_examples(study, ASKED[:1]))
        assert "candidates" not in row and list(row["scores"]) == names


def test_files_of_both_kinds_hold_the_same(study, tmp_path):
    paths = [tmp_path / "p.jsonl", tmp_path / "p.parquet"]
    for path in paths:
        with prediction_file(path) as sink:
            assert predict_stream(study, iter(ASKED), sink) == len(ASKED)
    lines = [strict(line) for line in paths[0].read_text().splitlines()]
    table = pq.read_table(paths[1]).to_pylist()
    for line, row, width in zip(lines, table, WIDTHS, strict=True):
        assert row["classes"] == list(line["scores"]) and len(row["classes"]) == width
        for key in ("scores", "probabilities", "candidates"):
            assert row[key] == list(line[key].values())


def test_a_study_of_such_rows_is_tuned_and_written(model, tmp_path):
    task = Task(PICK, (), ())
    settings = TuneSettings(prompt_length=2, train=FewShot(num_steps=2))
    tuning = Tuning(model, task, settings, tune_seeds(model, task, ROWS, settings))
    write_study(tmp_path, tuning, judge(tuning.study(), ROWS))
    lines = (tmp_path / "seed-1" / "test.jsonl").read_text().splitlines()
    assert [len(strict(line)["scores"]) for line in lines] == list(WIDTHS)
    assert "chooses among the answers" in (tmp_path / "README.md").read_text()


def test_absent_candidates_have_no_probability():
    scores = torch.tensor([[[0.0, 0.0, -torch.inf]], [[0.0, -1.0, -torch.inf]]])
    chances = probabilities(scores)
    assert chances[0, 2] == 0 and chances.sum() == pytest.approx(1)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error_and_no_file(score, tmp_path):
    with pytest.raises(HeadstartError, match="a:1: the model gives no finite scores"):
        prediction("a:1", ["0", "1"], [0.5, 0.5], [-1.0, score], None)
    with pytest.raises(HeadstartError, match="no finite scores"):
        prediction("a:1", ["0"], [math.nan], [-math.inf], None)
    with pytest.raises(ValueError, match="JSON"), prediction_file(tmp_path / "p.jsonl") as sink:
        sink.write([{"id": "a:1", "scores": {"0": score}}])
    assert not list(tmp_path.iterdir())


def test_a_row_without_finite_scores_is_told_by_name(model):
    study = Study(model, Task(PICK, (), ()))
    scored = score_examples(study, ASKED[:1])
    scored = Scored(scored.scores_NRC * math.nan, scored.cut_R, scored.rendered_R)
    with pytest.raises(HeadstartError, match=r"q:0: .*learning rate"):
        predictions(study, ASKED[:1], scored)


def test_the_estimator_gives_absent_classes_no_probability():
    from headstart.classifier import PromptClassifier

    template = Template("{{ question }} {{ answer }}", "{{ options | join('|||') }}", name="pick")
    frame = [dict(row.fields) for row in ROWS]
    frame[0], labels = frame[1], [0, 1, 2, 1, 3]
    classifier = PromptClassifier("tiny-causal", num_steps=1, template=template)
    classifier.fit(frame, labels)
    narrow = [dict(ASKED[0].fields)]
    chances = classifier.predict_proba(narrow)
    assert chances.shape == (1, 4) and chances[0, 2:].tolist() == [0, 0]
    mixed = classifier.predict_proba([*narrow, frame[1]])
    np.testing.assert_allclose(mixed[0], chances[0], atol=1e-5)
    wide = {"question": "Which?", "options": [*LETTERS, "epsilon"]}
    with pytest.raises(TemplateError, match=r"row 1: .*5 answers for 4 labels"):
        classifier.predict([*narrow, wide])
