"""Average relative gain in its three readings, against what paper A published."""

import json
from pathlib import Path

import numpy as np
import pytest

from headstart.evaluate.relative_gain import average_relative_gain, resampled

PUBLISHED = (
    Path(__file__).parents[3] / "shared/data/paper_a_published_accuracies/xl_deep_16shot.json"
)


def published(method):
    """Accuracies and chances by (set, template); ANLI's three rounds take turns, and are one group."""
    told = json.loads(PUBLISHED.read_text())
    accuracies, chances, groups, values = {}, {}, {}, iter(told[method])
    for group in told["groups"]:
        for n in range(group["templates"]):
            name = f"ANLI r{n % 3 + 1}" if group["name"] == "ANLI" else group["name"]
            accuracies[name, str(n)] = next(values)
            chances[name, str(n)] = group["random_accuracy"]
            groups[name] = group["name"]
    return accuracies, chances, groups


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the folder of the data sets is not here")
def test_paper_a_comes_out_by_its_own_reading_and_not_by_the_others():
    found = {
        method: {
            reading: 100
            * average_relative_gain(*published(method)[:2], reading, published(method)[2])
            for reading in ("groups", "sets", "templates")
        }
        for method in ("mtl_model_only", "mtl_model_and_prompt")
    }
    both, model_only = found["mtl_model_and_prompt"], found["mtl_model_only"]
    assert both["groups"] == pytest.approx(43.19, abs=0.01)
    assert model_only["groups"] == pytest.approx(42.91, abs=0.01)
    assert both["sets"] == pytest.approx(37.62, abs=0.02)
    assert model_only["sets"] == pytest.approx(36.98, abs=0.02)
    assert both["templates"] == pytest.approx(39.4, abs=0.1)
    assert model_only["templates"] == pytest.approx(38.7, abs=0.1)


def test_a_guess_gains_nothing_and_nothing_to_average_is_told():
    assert average_relative_gain({("a", "t"): 0.25}, {("a", "t"): 0.25}) == 0
    with pytest.raises(ValueError, match="no accuracies"):
        average_relative_gain({}, {})
    with pytest.raises(KeyError):
        average_relative_gain({("a", "t"): 0.25}, {})


def test_other_rows_are_drawn_alike_for_all_templates_and_methods():
    """A set's templates, and methods, share a draw; so a method differs from itself by nothing."""
    generator = np.random.default_rng(1)
    one = {("a", t): (generator.random(200) < 0.6).astype(float) for t in ("x", "y")}
    other = {**one, ("b", "x"): (generator.random(50) < 0.3).astype(float)}
    drawn, again = resampled(one, 500), resampled(other, 500)
    assert all(d["a", "x"] == e["a", "x"] for d, e in zip(drawn, again, strict=True))
    values = np.array([d["a", "x"] for d in drawn])
    assert abs(values.mean() - one["a", "x"].mean()) < 0.01
    expected = np.sqrt(one["a", "x"].mean() * (1 - one["a", "x"].mean()) / 200)
    assert values.std() == pytest.approx(expected, rel=0.15)
    same = {("a", "x"): one["a", "x"], ("a", "y"): 1 - one["a", "x"]}
    assert all(d["a", "x"] + d["a", "y"] == pytest.approx(1) for d in resampled(same, 50))
