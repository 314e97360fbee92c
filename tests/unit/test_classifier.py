"""PromptClassifier: what it takes, what it learns, what it refuses, and how it travels."""

import inspect
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import headstart
from headstart.classifier import PromptClassifier
from headstart.config import FewShot, Scoring, TuneSettings
from headstart.errors import (
    DataError,
    HeadstartError,
    PromptFileError,
    TemplateError,
    UsageError,
)
from headstart.models.load import cached_model, load_model
from headstart.recipes.study import load_study
from headstart.tasks.template import Template

TEXTS = ["aaaa", "zzzz", "aaa", "zzz", "aa", "zz", "aaaaa", "zzzzz"]
LABELS = ["low", "high"] * 4
QUICK: dict[str, Any] = {"num_steps": 2, "prompt_length": 4}
LEARN: dict[str, Any] = {"num_steps": 30, "prompt_length": 8, "lr_scale": 0.2}


def quick(**changes: Any) -> PromptClassifier:
    return PromptClassifier("tiny-causal", **(QUICK | changes))


@pytest.fixture(scope="module")
def fitted() -> PromptClassifier:
    return quick(**LEARN).fit(TEXTS, LABELS)


def test_it_learns(fitted: PromptClassifier) -> None:
    assert quick(**LEARN | {"num_steps": 0}).fit(TEXTS, LABELS).score(TEXTS, LABELS) < 0.8
    assert fitted.score(TEXTS, LABELS) == 1.0


def test_probabilities_stand_in_the_order_of_the_classes(fitted: PromptClassifier) -> None:
    assert fitted.classes_.tolist() == ["high", "low"]
    chances = fitted.predict_proba(TEXTS)
    assert chances.shape == (8, 2) and chances.dtype == np.float64
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-12)
    assert fitted.predict(TEXTS).tolist() == fitted.classes_[chances.argmax(1)].tolist() == LABELS


def test_a_row_does_not_depend_on_its_batch(fitted: PromptClassifier) -> None:
    alone = np.vstack([fitted.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(fitted.predict_proba(TEXTS), alone, atol=1e-5)


def test_the_same_seed_gives_the_same_prompt_and_another_another() -> None:
    def vectors(seed: Any) -> Any:
        return quick(random_state=seed).fit(TEXTS, LABELS).prompt_.vectors_PH

    assert (vectors(3) == vectors(3)).all()
    assert (vectors(np.int64(3)) == vectors(3)).all()
    assert (vectors(np.random.RandomState(5)) == vectors(np.random.RandomState(5))).all()
    assert (vectors(3) != vectors(4)).any()
    np.random.seed(0)
    assert (vectors(None) != vectors(None)).any()


@pytest.mark.parametrize(
    ("labels", "names", "kind"),
    [
        ([7, 10] * 4, ["7", "10"], np.int64),
        ([True, False] * 4, ["false", "true"], np.bool_),
        ([1.0, 0.0] * 4, ["0", "1"], np.float64),
        (np.array([2, 1] * 4, dtype=np.int8), ["1", "2"], np.int8),
        (np.array(["b", "a"] * 4, dtype=object), ["a", "b"], np.object_),
        (np.array([True, False] * 4, dtype=object), ["false", "true"], np.bool_),
        (pd.Series(["b", "a"] * 4, dtype="category"), ["a", "b"], np.object_),
        (pd.Series([2, 1] * 4, dtype="Int64"), ["1", "2"], np.int64),
    ],
)
def test_labels_keep_their_type(labels: Any, names: list[str], kind: type, tmp_path: Path) -> None:
    classifier = quick().fit(TEXTS, labels)
    assert classifier.classes_.dtype.type is kind
    assert classifier.card_.task["labels"] == names
    assert set(classifier.predict(TEXTS).tolist()) <= set(classifier.classes_.tolist())
    classifier.save(tmp_path / "out")
    loaded = PromptClassifier.load(tmp_path / "out")
    assert loaded.classes_.dtype == classifier.classes_.dtype
    assert loaded.classes_.tolist() == classifier.classes_.tolist()


@pytest.mark.parametrize(
    "rows",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS, dtype=object).reshape(-1, 1),
        [[text] for text in TEXTS],
        pd.Series(TEXTS, index=range(100, 108)),
        [{"text": text} for text in TEXTS],
        pd.DataFrame({"text": TEXTS}),
    ],
    ids=["tuple", "str array", "object array", "column", "lists", "series", "dicts", "frame"],
)
def test_one_text_in_many_forms(rows: Any, fitted: PromptClassifier) -> None:
    assert (fitted.predict_proba(rows) == fitted.predict_proba(TEXTS)).all()


def test_several_fields_and_an_own_template() -> None:
    frame = pd.DataFrame({"title": TEXTS, "stars": range(8)})
    classifier = quick().fit(frame, LABELS)
    assert classifier.card_.task["template"]["text"].startswith("title: {{ title }}\nstars:")
    rows = frame.to_dict("records")
    assert (classifier.predict_proba(rows) == classifier.predict_proba(frame)).all()
    with pytest.raises(TemplateError, match=r"row 0.*stars"):
        classifier.predict([{"title": "a"}])

    words = {"low": "bad", "high": "good"}
    classifier = quick(template="{{ title }} It was {{ answer }}", label_words=words)
    assert classifier.fit(frame, LABELS).card_.task["words"] == ["good", "bad"]
    assert quick(label_words={0: "bad", 1: "good"}).fit(TEXTS, [0, 1] * 4)


def test_a_template_may_bring_its_answers(tmp_path: Path) -> None:
    template = Template("{{ text }} ||| {{ answer_choices[label] }}", "no ||| yes")
    classifier = quick(template=template).fit(TEXTS, LABELS)
    classifier.save(tmp_path / "out")
    loaded = PromptClassifier.load(tmp_path / "out")
    assert loaded.template == template and loaded.label_words is None
    assert (loaded.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()
    with pytest.raises(TemplateError, match="brings 2 answers for 3 labels"):
        quick(template=template).fit(TEXTS[:3], [0, 1, 2])


@pytest.mark.parametrize(
    ("rows", "labels", "error", "said"),
    [
        ("one text", ["a"], DataError, "not one str; put it in a list"),
        (3, ["a"], DataError, "expected texts.*not int"),
        ([1.5, 2.5], ["a", "b"], DataError, "row 0 is a float; expected texts"),
        ([["a", "b"], ["c", "d"]], ["a", "b"], DataError, "2 columns without names"),
        (["a", None], ["a", "b"], DataError, "row 1: the text is missing"),
        (["a", float("nan")], ["a", "b"], DataError, "row 1: the text is missing"),
        (["a", pd.NA], ["a", "b"], DataError, "row 1: the text is missing"),
        ([{"x": "a"}, {"x": None}], ["a", "b"], DataError, "row 1: the field 'x' is missing"),
        (["a", ""], ["a", "b"], DataError, "row 1: the text is empty; fill it in"),
        ([["a"], [" \n"]], ["a", "b"], DataError, "row 1: the text is empty"),
        ([{"x": "a"}, {"x": " "}], ["a", "b"], DataError, "row 1: the field 'x' is empty"),
        ([], [], DataError, "0 samples"),
        (["a", "b"], ["a", "b", "a"], DataError, "2 rows and 3 labels"),
        (["a", "b"], ["a", "a"], DataError, "one class only"),
        (["a", "b"], ["a", None], DataError, "row 1: the label is missing"),
        (["a", "b"], [1.0, float("nan")], DataError, "row 1: the label is missing"),
        (["a", "b"], [1.5, 2.5], ValueError, "Unknown label type: continuous"),
        (["a", "b"], np.array([1, "a"], dtype=object), DataError, "labels of type int, str"),
        (["a", "b"], [b"a", b"b"], DataError, "labels of type bytes"),
        (["a", "b"], None, DataError, "requires y to be passed, but the target y is None"),
    ],
)
def test_wrong_input_is_one_clear_line(
    rows: Any, labels: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        quick().fit(rows, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_steps": -1}, "num_steps=-1"),
        ({"loss": "hinge"}, "loss=hinge"),
        ({"init": "vocabb"}, "did you mean 'vocab'"),
        ({"prompt_length": "long"}, "prompt_length=long"),
        ({"label_words": "0=a"}, "expected a dict"),
        ({"label_words": {"low": "a"}}, "no word for the label"),
        ({"template": "{{ txt }}"}, "needs the field 'txt'.*did you mean 'text'"),
        ({"dev_size": 100}, "leave none of 8"),
        ({"dtype": "float99"}, "dtype 'float99'"),
        ({"model": "tiny-casual"}, "did you mean 'tiny-causal'"),
    ],
)
def test_a_wrong_parameter_is_told_by_fit(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(HeadstartError, match=said):
        quick().set_params(**changes).fit(TEXTS, LABELS)


def test_predict_comes_after_fit(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        quick().predict(["a"])
    with pytest.raises(NotFittedError):
        quick().save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_dev_rows_stop_early_and_are_counted() -> None:
    settings = {"num_steps": 50, "eval_every": 1, "patience": 4, "lr_scale": 1e-6}
    with pytest.warns(ConvergenceWarning, match="cannot move"):  # what makes it stop early here
        card = quick(dev_size=4, **settings).fit(TEXTS, LABELS).card_
    assert card.training["labels"] == {"train": 4, "dev": 4, "total": 8}
    assert card.training["steps"] < 50 and "dev_accuracy" in card.metrics


def test_a_prompt_that_cannot_move_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="cannot move"):
        quick(num_steps=10, lr=1e-12).fit(TEXTS, LABELS)


def test_verbose_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headstart.classifier"):
        quick().fit(TEXTS, LABELS)
        assert not caplog.records
        quick(verbose=True).fit(TEXTS, LABELS)
    assert caplog.messages[-1].startswith("step 2 of 2, loss")


def test_every_setting_of_one_run_is_a_parameter_with_its_default() -> None:
    found = {name: p.default for name, p in inspect.signature(PromptClassifier).parameters.items()}
    plain = TuneSettings()
    expected = {**FewShot().model_dump(), **Scoring().model_dump(), "init": plain.init}
    expected |= {"prompt_length": plain.prompt_length, "max_length": plain.max_length}
    assert {name: found[name] for name in expected} == expected
    assert found["dev_size"] == plain.dev_shots


# how it travels


def test_save_and_load(fitted: PromptClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    loaded = PromptClassifier.load(tmp_path / "out")
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    loaded.save(tmp_path / "again")
    again = PromptClassifier.load(tmp_path / "again")
    assert again.card_.model_dump() == loaded.card_.model_dump()
    with pytest.raises(UsageError, match="holds files already"):
        fitted.save(tmp_path / "out")
    fitted.save(tmp_path / "out", overwrite=True)


def test_what_is_saved_is_a_study(fitted: PromptClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    study = load_study(tmp_path / "out", load_model)
    assert study.seeds == ("seed-0",) and study.task.labels == ("high", "low")
    summary = json.loads((tmp_path / "out" / "study.json").read_text())
    assert summary["base_model"] == "tiny-causal"
    assert summary["seeds"][0]["labels"]["total"] == 8


def test_a_prompt_for_another_model_is_refused(fitted: PromptClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "out")
    with pytest.raises(PromptFileError, match="made for base model 'tiny-causal'"):
        PromptClassifier.load(tmp_path / "out", model="tiny-seq2seq")
    (tmp_path / "out" / "seed-0").rename(tmp_path / "out" / "seed-7")
    (tmp_path / "out" / "seed-8").symlink_to(tmp_path / "out" / "seed-7")
    with pytest.raises(UsageError, match="holds the seeds 7, 8; choose one"):
        PromptClassifier.load(tmp_path / "out")
    assert PromptClassifier.load(tmp_path / "out", seed=8).classes_.tolist() == ["high", "low"]


def test_a_study_of_the_command_line_loads_too(fitted: PromptClassifier, tmp_path: Path) -> None:
    from headstart.prompts.files import save_prompt

    training = {k: v for k, v in fitted.card_.training.items() if k != "classifier"}
    card = fitted.card_.model_copy(update={"training": training})
    save_prompt(tmp_path, fitted.prompt_, card)
    loaded = PromptClassifier.load(tmp_path)
    assert loaded.label_words == {"high": "high", "low": "low"}
    assert loaded.predict(TEXTS).tolist() == LABELS
    refitted = clone(loaded).fit(TEXTS, LABELS)
    assert (refitted.prompt_.vectors_PH == fitted.prompt_.vectors_PH).all()


def test_a_damaged_card_is_refused(fitted: PromptClassifier, tmp_path: Path) -> None:
    from headstart.prompts.files import save_prompt

    for damage in (
        {"classifier": {"classes": ["V8", ["a"]], "params": {}}},
        {"classifier": {"params": {"modell": "x"}}},
        {"settings": {"prompt_length": 0}},
    ):
        training = {**fitted.card_.training, **damage}
        save_prompt(
            tmp_path, fitted.prompt_, fitted.card_.model_copy(update={"training": training})
        )
        with pytest.raises(PromptFileError, match=r"card\.json"):
            PromptClassifier.load(tmp_path)


def test_a_pickle_holds_the_prompt_and_not_the_model(fitted: PromptClassifier) -> None:
    data = pickle.dumps(fitted)
    assert len(data) < 100_000
    assert b"LlamaForCausalLM" not in data
    again = pickle.loads(data)
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert again.get_params() == fitted.get_params()


def test_a_loaded_model_is_shared_by_clones_and_named_in_pickles() -> None:
    model = load_model("tiny-causal")
    classifier = PromptClassifier(model, **QUICK)
    twin = clone(classifier)
    assert twin.model is model and twin.model.network is model.network
    assert {**twin.get_params(), "model": 0} == {**classifier.get_params(), "model": 0}
    classifier.fit(TEXTS, LABELS)
    assert not hasattr(clone(classifier), "prompt_")
    again = pickle.loads(pickle.dumps(classifier))
    assert again.model == "tiny-causal" and again.dtype == "float32"
    assert (again.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()
    assert again._fitted_base() is cached_model("tiny-causal", "float32", "eager")


def test_a_loaded_model_keeps_its_dtype_and_attention(
    fitted: PromptClassifier, tmp_path: Path
) -> None:
    model = load_model("tiny-causal")
    same = PromptClassifier(model, dtype="float32", attention="eager", **QUICK)
    assert same.fit(TEXTS, LABELS).predict(TEXTS).shape == (8,)
    for changes in ({"dtype": "bfloat16"}, {"attention": "sdpa"}):
        (name,) = changes
        with pytest.raises(UsageError, match=rf"{name}=.* is not the loaded model's \("):
            PromptClassifier(model, **QUICK, **changes).fit(TEXTS, LABELS)
        quick(**changes).fit(TEXTS, LABELS).save(tmp_path / name)
    loaded = PromptClassifier.load(tmp_path / "attention", model=model)  # the caller's word wins
    assert loaded.attention == "auto" and loaded.predict(TEXTS).shape == (8,)


def test_a_pickle_refuses_another_model(fitted: PromptClassifier) -> None:
    again = pickle.loads(pickle.dumps(fitted)).set_params(model="tiny-seq2seq")
    with pytest.raises(PromptFileError, match="made for base model 'tiny-causal'"):
        again.predict(TEXTS)


@pytest.mark.slow
def test_other_processes_predict_the_same(fitted: PromptClassifier) -> None:
    found = Parallel(n_jobs=2, backend="loky")(
        delayed(fitted.predict_proba)([text]) for text in TEXTS[:2]
    )
    np.testing.assert_allclose(np.vstack(found), fitted.predict_proba(TEXTS[:2]), atol=1e-5)
    scores = [cross_val_score(fitted, TEXTS, LABELS, cv=2, n_jobs=jobs) for jobs in (1, 2)]
    assert (scores[0] == scores[1]).all()


# scikit-learn's own tools


def test_pipeline() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("prompt", quick(**LEARN))])
    upper = [text.upper() for text in TEXTS]
    assert pipeline.fit(upper, LABELS).score(upper, LABELS) == 1.0
    assert pipeline.set_params(prompt__num_steps=3).get_params()["prompt__num_steps"] == 3


def test_column_transformer() -> None:
    frame = pd.DataFrame({"id": range(8), "review": TEXTS})
    pick = ColumnTransformer([("text", "passthrough", ["review"])])
    pipeline = Pipeline([("pick", pick), ("prompt", quick(**LEARN))])
    assert pipeline.fit(frame, LABELS).score(frame, LABELS) == 1.0


def test_cross_validation() -> None:
    folds = StratifiedKFold(2)
    scores = cross_val_score(quick(**LEARN), TEXTS, LABELS, cv=folds, error_score="raise")
    assert len(scores) == 2 and scores.mean() > 0.7


def test_grid_search() -> None:
    grid = {"init": ["vocab", "class-words"], "num_steps": np.array([1, 30])}
    search = GridSearchCV(
        quick(prompt_length=8, lr_scale=0.2), grid, cv=2, error_score="raise"
    ).fit(np.array(TEXTS), LABELS)
    assert search.best_params_["num_steps"] == 30 and search.best_score_ > 0.7
    assert search.best_estimator_.score(TEXTS, LABELS) == 1.0


# the package's door


def test_import_is_lazy_and_complete() -> None:
    code = (
        "import sys, time; start = time.process_time(); import headstart;"
        "print(time.process_time() - start, 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *loaded = said.stdout.split()
    assert float(seconds) < 0.05 and loaded == ["False", "False"]
    assert headstart.PromptClassifier is PromptClassifier
    assert set(headstart.__all__) < set(dir(headstart))
    assert all(getattr(headstart, name) for name in (*headstart.__all__, "__version__"))
    with pytest.raises(AttributeError, match="no attribute 'Promptclassifier'"):
        headstart.Promptclassifier  # noqa: B018
