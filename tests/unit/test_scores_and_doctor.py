"""Scoring rules as equations, calibration as Zhao et al. define it, and the doctor's diagnoses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.config import FewShot, Scoring
from headstart.errors import UsageError
from headstart.evaluate.metrics import classification_metrics, over_seeds
from headstart.evaluate.rank import content_free_rows, probabilities, scores_under
from headstart.learn.doctor import Vitals, diagnose
from headstart.learn.fewshot import Run, tune
from headstart.models.base import Encoded, Limits
from headstart.models.initial import initialiser
from headstart.models.load import load_model
from headstart.ops.scores import (
    answer_logprobs,
    candidate_cross_entropy,
    rank_scores,
    token_cross_entropy,
)
from headstart.tasks.example import Example
from headstart.tasks.task import Task
from headstart.tasks.template import Template

LOGPROB = torch.tensor([[-6.0, -2.0, 0.0], [-1.0, -5.0, -4.0]])
LENGTH = torch.tensor([[3, 2, 0], [1, 5, 2]])
TASK = Task(Template("{{ text }} It was {{ answer }}"), ("0", "1"), ("bad", "rather good"))


@pytest.mark.parametrize("gamma, rule", [(0.0, "sum"), (1.0, "mean")])
def test_length_to_a_power_has_sum_and_mean_as_its_ends(gamma, rule):
    powered = rank_scores(LOGPROB, LENGTH, "length", gamma)
    assert torch.equal(powered, rank_scores(LOGPROB, LENGTH, rule))


def test_the_rules_by_hand():
    assert rank_scores(LOGPROB, LENGTH, "sum")[1].tolist() == [-1.0, -5.0, -4.0]
    assert rank_scores(LOGPROB, LENGTH, "mean")[0].tolist() == [-2.0, -1.0, -math.inf]
    assert rank_scores(LOGPROB, LENGTH, "length", 0.5)[1, 1].item() == pytest.approx(-5 / 5**0.5)


def test_a_candidate_that_is_not_there_never_wins_nor_costs():
    scores = rank_scores(torch.tensor([[-9.0, -8.0, 0.0]]), torch.tensor([[1, 1, 0]]))
    assert scores.argmax(-1).item() == 1
    there = candidate_cross_entropy(scores[:, :2], torch.tensor([0]))
    assert torch.equal(candidate_cross_entropy(scores, torch.tensor([0])), there)


def test_token_cross_entropy_is_the_gold_answers_mean():
    losses = token_cross_entropy(LOGPROB, LENGTH, torch.tensor([1, 1]))
    assert losses.tolist() == [1.0, 1.0]


def test_calibration_divides_probabilities_by_those_of_a_text_without_content():
    model = load_model("tiny-causal")
    rows = model.encode([TASK.render(Example("a", {"text": "hello"}))], Limits())
    blanks = content_free_rows(model, TASK, ["text"], Limits())
    plain = scores_under(model, rows, None, Scoring())
    bias = scores_under(model, blanks, None, Scoring()).softmax(-1)
    calibrated = scores_under(model, rows, None, Scoring(calibrate=True), blanks)
    raw = scores_under(model, blanks, None, Scoring()).exp().mean(1)
    assert torch.allclose(calibrated.exp(), plain.exp() / raw[:, None], rtol=1e-4)
    assert bias.shape == (1, 3, 2)


def test_a_text_without_content_has_no_side_after_calibration():
    model = load_model("tiny-causal")
    blanks = content_free_rows(model, TASK, ["text"], Limits())
    one = blanks[:1]
    calibrated = scores_under(model, one, None, Scoring(calibrate=True), one)
    assert torch.allclose(calibrated, torch.zeros_like(calibrated), atol=1e-5)


def test_calibration_is_refused_where_candidates_differ_by_row():
    task = Task(Template("{{ text }} ||| {{ a }}", "{{ a }} ||| {{ b }}"), (), ())
    with pytest.raises(UsageError, match="same candidates"):
        content_free_rows(load_model("tiny-causal"), task, ["text"], Limits())


def test_calibration_works_for_answer_choices_that_are_the_same_for_every_row():
    task = Task(
        Template("{{ text }} ||| {{ answer_choices[label] }}", "bad ||| good"), ("0", "1"), ()
    )
    blanks = content_free_rows(load_model("tiny-causal"), task, ["text"], Limits())
    assert len(blanks) == 3 and all(len(row.candidates) == 2 for row in blanks)


def test_members_are_averaged_by_probability():
    scores = torch.tensor([[[0.0, math.log(3)]], [[math.log(3), 0.0]]])
    assert probabilities(scores).tolist()[0] == pytest.approx([0.5, 0.5])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_metrics_of_perfect_predictions_are_one(gold):
    measured = classification_metrics(gold, gold)
    assert measured["accuracy"] == measured["macro_f1"] == 1
    assert measured["matthews"] == (1 if len(set(gold)) > 1 else 0)


def test_metrics_by_hand():
    measured = classification_metrics(list("aabb"), list("abbb"))
    assert measured["accuracy"] == 0.75
    assert measured["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert measured["matthews"] == pytest.approx(1 / 3**0.5)


def test_one_seed_has_no_spread():
    assert over_seeds([{"accuracy": 0.7}])["accuracy"] == {"mean": 0.7, "std": 0.0}


HEALTHY = Vitals([0.7, 0.6, 0.5, 0.4, 0.3] * 1 + [0.2] * 20, [0.5] * 25, [0.01] * 25, drift=0.3)
SICK = {
    "cannot move": Vitals([0.7] * 30, [0.1] * 30, [1e-6] * 30, drift=1e-5),
    "it changed by 0.00%": Vitals([0.7] * 5, [0.1] * 5, [1e-9] * 5, drift=5e-9),
    "diverges": Vitals([0.7] * 5 + [3.0] * 25, [9.0] * 30, [0.5] * 30, drift=9.0),
    "not finite": Vitals([0.7, math.nan], [0.1, math.nan], [0.1, 0.1], drift=math.nan),
    "stays at a guess": Vitals([0.7] * 30, [0.1] * 30, [0.02] * 30, drift=0.4),
}


@pytest.mark.parametrize("finding", SICK)
def test_the_doctor_finds_what_is_wrong_and_says_what_to_try(finding):
    line = diagnose(SICK[finding], math.log(2), 0.01)
    assert line is not None and finding in line and "\n" not in line
    assert "learning rate" in line


@pytest.mark.parametrize("init", ["zero", "vocab", "normal:0.001"])
def test_the_doctor_does_not_blame_a_small_start(init):
    """A start of zeros has no size of its own to be far away from."""
    model = load_model("tiny-causal")
    rows = [
        Encoded(str(i), (30 + 9 * (i % 2), 5), ((7,), (8,)), target=i % 2) for i in range(8)
    ]  # fmt: skip
    start_PH = initialiser(init, model)(4, torch.Generator().manual_seed(1))
    (tuned,) = tune(model, [Run("r", start_PH, rows)], FewShot())
    assert tuned.vitals.losses[-1] < 0.3
    assert diagnose(tuned.vitals, math.log(2), 0.03) is None


def test_the_doctor_lets_a_healthy_run_be():
    assert diagnose(HEALTHY, math.log(2), 0.01) is None
    assert diagnose(Vitals(), math.log(2), 0.01) is None


def test_bfloat16_weights_do_not_tie_candidates():
    """A logit near 16 in bfloat16 moves in steps of 1/8: candidates closer than that would tie."""
    generator = torch.Generator().manual_seed(0)
    hidden_BQH = torch.randn(4, 1, 64, generator=generator).bfloat16()
    head_VH = torch.randn(50, 64, generator=generator).bfloat16()
    head_VH[:10] = (hidden_BQH[0, 0] * 0.25 + 0.004 * head_VH[:10]).bfloat16()
    answers = torch.arange(10).reshape(1, 10, 1).expand(4, -1, -1)
    zeros = torch.zeros_like(answers)
    scores, _ = answer_logprobs(hidden_BQH, head_VH, answers, zeros, zeros == 0)
    exact = (hidden_BQH[:, 0].double() @ head_VH[:10].double().T).log_softmax(-1)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores.double().log_softmax(-1), exact, atol=1e-5)
    assert len(set(scores[0].tolist())) == 10


def test_bfloat16_log_probabilities_are_not_above_zero():
    """A sure answer has probability 1 at most: the normaliser is as exact as the logit itself."""
    generator = torch.Generator().manual_seed(0)
    hidden_BQH = torch.randn(64, 1, 64, generator=generator).bfloat16()
    head_VH = torch.randn(50, 64, generator=generator).bfloat16()
    head_VH[0] = 0
    for row in range(64):
        sure_VH = head_VH.clone()
        sure_VH[1] = hidden_BQH[row, 0]
        answer = torch.ones(1, 1, 1, dtype=torch.long)
        zeros = torch.zeros_like(answer)
        logprob, _ = answer_logprobs(hidden_BQH[row : row + 1], sure_VH, answer, zeros, zeros == 0)
        exact = (hidden_BQH[row].double() @ sure_VH.double().T).log_softmax(-1)[0, 1]
        assert logprob.item() <= 0 and logprob.item() == pytest.approx(exact.item(), abs=1e-4)
