"""The recipes in recipes/ and in the docs are valid, and the published ones have the published values."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from vitpose.files.schemas import check
from vitpose.model.config import VitPoseConfig
from vitpose.training.optimizer import rate_factor
from vitpose.training.recipe import Recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))

# Layer decay, drop path, width: the original's released configurations.
PUBLISHED = {
    "small": (0.80, 0.10, 384),
    "base": (0.75, 0.30, 768),
    "large": (0.80, 0.50, 1024),
    "huge": (0.85, 0.55, 1280),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_contain_their_command(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert f"# vitpose train recipes/{path.name}" in path.read_text()
    for stage in recipe.split():
        assert isinstance(stage, Recipe)


def test_recipes_in_the_docs_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs/guides/training.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    tables = [tomllib.loads(block) for block in blocks if re.search(r"^\[\[", block, re.MULTILINE)]
    recipes = [
        check(Recipe, {"name": "shown", "sources": [{"pack": "pack"}], **table}, "the recipe")
        for table in tables
    ]
    assert {len(recipe.split()) for recipe in recipes} == {1, 2}


@pytest.mark.parametrize("decoder", ["classic", "simple"])
@pytest.mark.parametrize("size", PUBLISHED)
def test_published_recipes_have_the_published_values(size: str, decoder: str) -> None:
    name = f"vitpose-{size}" + ("-simple" if decoder == "simple" else "")
    (path,) = (path for path in RECIPES if path.stem == name)
    recipe = read_recipe(path)
    model, optimizer, loop = recipe.model, recipe.optimizer, recipe.loop
    config = VitPoseConfig.preset(model.size, decoder=model.decoder)
    found = optimizer.layer_decay, config.backbone_config.drop_path_rate, config.backbone_config.hidden_size
    assert found == PUBLISHED[size]
    assert config.use_simple_decoder == (decoder == "simple")
    assert (loop.batch_size * loop.devices * loop.accumulate, loop.epochs) == (512, 210)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.clip) == (5e-4, 0.1, 1.0)
    assert (recipe.target.convention, recipe.target.sigma, recipe.target.joint_weights) == ("udp", 2.0, False)
    assert recipe.augmentation == type(recipe.augmentation)()
    # Divided by ten at the epochs 170 and 200.
    factors = [rate_factor(epoch * 100, 21_000, optimizer) for epoch in (169, 170, 199, 200)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])
