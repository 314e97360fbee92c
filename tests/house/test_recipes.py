"""Every recipe loads: its kinds, keys and references are those of this headstart."""

import re
from pathlib import Path

import pytest

from headstart.recipes.kinds import KINDS
from headstart.recipes.recipe import load_recipe, make_recipe
from tests.house.source import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
HOW_MANY = 10
"""Raise it with each recipe: a glob that finds fewer than there are must not pass."""


def test_all_recipes_are_looked_at() -> None:
    assert len(RECIPES) == HOW_MANY, [str(path.relative_to(ROOT)) for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path, KINDS)
    assert recipe.description, f"{path}: say in a line what it is for"
    again = make_recipe(recipe.resolved(), path, KINDS)
    assert again == recipe


GUIDES = sorted((ROOT / "docs/how_to").glob("*.md"))
BLOCKS = [
    block for guide in GUIDES for block in re.findall(r"```yaml\n(.*?)```", guide.read_text(), re.S)
]


def test_recipes_in_the_guides_load(tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        path = tmp_path / "recipe.yaml"
        path.write_text(block)
        assert load_recipe(path, KINDS).stages
