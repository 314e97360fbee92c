"""Average relative gain in its three readings, against what paper A published."""

import json
from pathlib import Path

import pytest

from headstart.evaluate.relative_gain import average_relative_gain

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
