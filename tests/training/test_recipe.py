from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vitpose.cli.train import _changes
from vitpose.errors import InputError, UnknownNameError
from vitpose.training.recipe import Recipe, build, read_recipe


def test_a_file_becomes_a_recipe_and_flags_change_it(table: dict, toml_of: Callable, tmp_path: Path) -> None:
    del table["name"]
    path = tmp_path / "arrows.toml"
    path.write_text(toml_of(table))
    recipe = read_recipe(path, {"loop.epochs": "7", "target.convention": "msra", "model.freeze": '["mlp"]'})
    assert (recipe.name, recipe.loop.epochs, recipe.target.convention) == ("arrows", 7.0, "msra")
    assert (recipe.model.freeze, recipe.optimizer.lr, recipe.sources[0].weight) == (("mlp",), 1e-3, None)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lop": {}}, UnknownNameError, "unknown key in the recipe 'lop'; did you mean loop"),
        ({"loop": {"epoch": 3}}, UnknownNameError, "unknown key in loop 'epoch'; did you mean epochs"),
        ({"loop": {"epochs": "3"}}, InputError, "loop.epochs must be of the type float, not '3'"),
        ({"loop": {"workers": True}}, InputError, "loop.workers must be of the type int, not True"),
        ({"loop": 3}, InputError, "loop must be a table, not 3"),
        ({"loop": {"batch_size": 0}}, InputError, "loop.batch_size is 0; it must be above 0"),
        ({"loop": {"precision": "16"}}, UnknownNameError, "unknown value of loop.precision '16'"),
        ({"model": {"freeze": "mlp"}}, InputError, "model.freeze must be a list, not 'mlp'"),
        ({"model": {"freeze": ["mpl"]}}, UnknownNameError, "value of model.freeze 'mpl'; did you mean mlp"),
        ({"optimizer": {"schedule": "cos"}}, UnknownNameError, "schedule 'cos'; did you mean cosine"),
        ({"sources": []}, InputError, "the recipe 'arrows' has no sources"),
        ({"sources": [{"images": "x"}]}, InputError, r"sources\[0\] has no 'annotations', which is needed"),
    ],
)
def test_what_is_wrong_is_named(table: dict, change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(Recipe, {**table, **change}, "the recipe")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("[loop\n")
    with pytest.raises(InputError, match=r"broken.toml is not valid TOML: .*line 1"):
        read_recipe(tmp_path / "broken.toml")


def test_flags() -> None:
    assert _changes(["--loop.epochs", "3", "--optimizer.lr=1e-4"]) == {
        "loop.epochs": "3",
        "optimizer.lr": "1e-4",
    }
    with pytest.raises(InputError, match="'3' is no flag"):
        _changes(["3"])
    with pytest.raises(InputError, match=r"--loop.epochs has no value"):
        _changes(["--loop.epochs"])


def test_shipped_recipes_are_read() -> None:
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")):
        assert read_recipe(path).name
