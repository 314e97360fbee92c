"""Every start that ships says what it is, what it was learned on, and what it reached."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from headstart.cli.main import app
from headstart.prompts.files import Fingerprint, load_prompt
from headstart.prompts.shipped import fitting_starts, shipped_cards, shipped_folder
from headstart.recipes.kinds import KINDS
from headstart.recipes.meta_stage import MetaStage
from headstart.recipes.recipe import load_recipe

NAMES = sorted(shipped_cards())
RECIPES = Path(__file__).parents[2] / "recipes/metapt"


def test_there_is_one_at_least() -> None:
    assert "sentiment" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_start_is_whole(name: str) -> None:
    folder = shipped_folder() / name
    prompt, card = load_prompt(folder)
    assert torch.isfinite(prompt.vectors_PH).all() and prompt.spec.length == card.length == 20
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    assert len(card.training["about"]) > 20 and card.metrics
    sources = card.training["sources"]
    assert sources and all(source["licence"] and source["source"] for source in sources)
    page = (folder / "README.md").read_text()
    assert all(source["licence"] in page for source in sources)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_start_was_made_by_its_recipe(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", KINDS)
    made = shipped_cards()[name].training["meta"]["settings"]
    assert MetaStage.model_validate(made) == recipe.stage("start").settings


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_the_model_it_was_made_for_and_no_other(name: str) -> None:
    own = shipped_cards()[name].fingerprint
    assert name in fitting_starts(own, 20) and name not in fitting_starts(own, 21)
    other = Fingerprint(**{**own.model_dump(), "tokenizer": "another"})
    assert name not in fitting_starts(other, 20)


def test_the_list_names_sources_and_licences() -> None:
    shown = CliRunner().invoke(app, ["inits"]).stdout
    listed = json.loads(CliRunner().invoke(app, ["inits", "--json"]).stdout)["inits"]
    assert [each["init"] for each in listed] == [f"headstart:{name}" for name in NAMES]
    for each in listed:
        assert all(source["licence"] in shown for source in each["sources"])
