from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vitpose.cli.train import _read_overrides
from vitpose.errors import InputError
from vitpose.files.schemas import check
from vitpose.training.loop import train
from vitpose.training.recipe import Recipe, read_recipe


def test_a_recipe_is_read_from_a_file_and_changed_by_flags(
    table: dict, toml_of: Callable, tmp_path: Path
) -> None:
    del table["name"]
    path = tmp_path / "arrows.toml"
    path.write_text(toml_of(table))
    recipe = read_recipe(path, {"loop.epochs": "7", "target.convention": "msra", "model.freeze": '["mlp"]'})
    assert (recipe.name, recipe.loop.epochs, recipe.target.convention) == ("arrows", 7.0, "msra")
    assert (recipe.model.freeze, recipe.optimizer.lr, recipe.sources[0].weight) == (("mlp",), 1e-3, None)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lop": {}}, InputError, "^the recipe: unknown key 'lop'; did you mean loop"),
        ({"lr": 3}, InputError, "unknown key 'lr'; .*known: optimizer.lr"),
        ({"loop": {"epoch": 3}}, InputError, "unknown key 'loop.epoch'; did you mean loop.epochs"),
        ({"loop": {"epochs": "3"}}, InputError, "loop.epochs is '3'; input should be a valid number"),
        ({"loop": {"workers": True}}, InputError, "loop.workers is True; input should be a valid integer"),
        ({"loop": 3}, InputError, "loop is 3; it must be a table"),
        (
            {"loop": {"batch_size": 0}},
            InputError,
            "loop.batch_size is 0; input should be greater than or equal to 1",
        ),
        (
            {"loop": {"epochs": float("nan")}},
            InputError,
            "loop.epochs is nan; input should be a finite number",
        ),
        ({"loop": {"seed": -5}}, InputError, "loop.seed is -5; input should be greater than or equal to 0"),
        ({"loop": {"ema": 1.5}}, InputError, "loop.ema is 1.5; input should be less than 1"),
        ({"optimizer": {"betas": [0.9]}}, InputError, "optimizer.betas.1 is missing"),
        (
            {"optimizer": {"cooldown": 3}},
            InputError,
            "optimizer.cooldown is 3; input should be less than or equal to 1",
        ),
        ({"target": {"sigma": 0}}, InputError, "target.sigma is 0; input should be greater than 0"),
        (
            {"model": {"height": 100}},
            InputError,
            "model.height is 100; input should be a multiple of 16",
        ),
        (
            {"stages": [{"model": {"width": 50}}]},
            InputError,
            "stages.0: model.width is 50; input should be a multiple of 16",
        ),
        (
            {"target": {"loss_average": "head"}},
            InputError,
            "unknown value of target.loss_average 'head'",
        ),
        ({"loop": {"precision": "16"}}, InputError, "unknown value of loop.precision '16'"),
        ({"model": {"freeze": "mlp"}}, InputError, "model.freeze is 'mlp'; input should be a valid array"),
        ({"model": {"freeze": ["mpl"]}}, InputError, "value of model.freeze.0 'mpl'; did you mean mlp"),
        ({"optimizer": {"schedule": "cos"}}, InputError, "schedule 'cos'; did you mean cosine"),
        ({"sources": []}, InputError, "the recipe 'arrows' has no sources"),
        (
            {"sources": [{"images": "x"}]},
            InputError,
            "requires either annotations or a pack, and has {'images': 'x'}; give one",
        ),
        (
            {"sources": [{"annotations": "a", "pack": "b"}]},
            InputError,
            "either annotations or a pack, and has {'annotat",
        ),
        ({"sources": [{"pack": "a", "images": "b"}]}, InputError, "a is a pack, .* omit images 'b'"),
        (
            {"sources": [{"pack": "a", "limit": 0}]},
            InputError,
            "a has the limit 0; give 1 or more, or omit the limit",
        ),
        (
            {"sources": [{"pack": "a", "weight": 1}, {"pack": "b"}]},
            InputError,
            "only some of the sources have a weight; give",
        ),
        (
            {"loop": {"on_device": True}},
            InputError,
            "loop.on_device requires packs, and .*arrows.json is not",
        ),
        ({"validation": {}}, InputError, "validation is {}; input should be a valid array"),
        ({"validation": [{"images": "x"}]}, InputError, "validation.0.annotations is missing"),
        ({"validation": [{"annotations": "a/b.json", "images": "x"}] * 2}, InputError, "same name: .*'a/b'"),
        (
            {"augmentation": {"flipp": 1}},
            InputError,
            "key 'augmentation.flipp'; did you mean augmentation.flip",
        ),
        (
            {"optimizer": {"kind": "muon"}, "loop": {"strategy": "fsdp"}},
            InputError,
            "use 'adamw', or the strategy 'ddp'",
        ),
        ({"stages": [{"lop": {}}]}, InputError, "key 'stages.0.lop'; did you mean stages.0.loop"),
        ({"stages": [{"loop": {"epoch": 1}}]}, InputError, "stages.0: unknown key 'loop.epoch'; did"),
        ({"stages": [{}, {"loop": {"minutes": 1}}]}, InputError, "stages.1.loop.minutes cannot differ"),
        (
            {"stages": [{"loop": {"batch_size": 0}}]},
            InputError,
            "loop.batch_size is 0; input should be greater than or equal to 1",
        ),
        ({"model": {"layers": 16**5000}}, InputError, "the recipe has a number that is too large"),
        (
            {"model": {"layers": None, "drop_path": [1]}},
            InputError,
            r"model.drop_path is \[1\]; input should be",
        ),
        ({"stages": [{"loop": 5}]}, InputError, "stages.0.loop is 5; it must be a table"),
    ],
)
def test_invalid_values_raise(table: dict, change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(Recipe, {**table, **change}, "the recipe")


def test_recipes_made_in_python_are_validated_before_training(recipe: Recipe, tmp_path: Path) -> None:
    wrong = replace(recipe, loop=replace(recipe.loop, epochs=-1.0))
    with pytest.raises(InputError, match=r"^the recipe: loop.epochs is -1.0; input should be greater than 0"):
        train(wrong, tmp_path)


def test_strings_may_be_written_as_numbers(table: dict) -> None:
    assert check(Recipe, table | {"loop": {"precision": 32}}, "the recipe").loop.precision == "32"


def test_stages_change_the_recipe(table: dict) -> None:
    table["stages"] = [
        {"model": {"height": 32, "width": 32}, "loop": {"epochs": 1}},
        {"loop": {"batch_size": 4, "seed": 9}, "augmentation": {"flip": 0.1}},
    ]
    recipe = check(Recipe, table, "the recipe")
    first, second = recipe.split()
    assert (first.model.height, first.loop.epochs, first.loop.seed) == (32, 1.0, 0)
    assert (second.model.height, second.loop.epochs, second.loop.seed) == (64, 2.0, 9)
    assert (second.loop.batch_size, second.augmentation.flip, second.model.drop_path) == (4, 0.1, 0.1)
    assert first.stages == second.stages == ()
    assert first.split() == [first]


def test_titles_of_validation_sets(table: dict) -> None:
    table["validation"] = [{"annotations": "a/b.json", "images": "x"}] * 2
    table["validation"][1] = {**table["validation"][1], "name": "mine"}
    assert [validation.title for validation in check(Recipe, table, "the recipe").validation] == [
        "a/b",
        "mine",
    ]


def test_list_entries_are_changed_by_index(table: dict, toml_of: Callable, tmp_path: Path) -> None:
    (tmp_path / "arrows.toml").write_text(toml_of(table))
    recipe = read_recipe(tmp_path / "arrows.toml", {"sources.0.weight": "2.5"})
    assert recipe.sources[0].weight == 2.5
    for name in ("sources.1.weight", "sources.weight", "name.first"):
        with pytest.raises(InputError, match=f"the recipe has no key '{name}'; give keys such as"):
            read_recipe(tmp_path / "arrows.toml", {name: "1"})


def test_missing_and_malformed_files_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("[loop\n")
    with pytest.raises(InputError, match=r"broken.toml is not valid TOML: .*line 1"):
        read_recipe(tmp_path / "broken.toml")


def test_flags() -> None:
    assert _read_overrides(["--loop.epochs", "3", "--optimizer.lr=1e-4"]) == {
        "loop.epochs": "3",
        "optimizer.lr": "1e-4",
    }
    with pytest.raises(InputError, match="'3' is not an option"):
        _read_overrides(["3"])
    with pytest.raises(InputError, match=r"--loop.epochs has no value"):
        _read_overrides(["--loop.epochs"])


def test_shipped_recipes_are_read() -> None:
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.toml")):
        assert read_recipe(path).name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = '\xff'", "is not valid TOML: 'utf-8' codec"),
        (b"loop = " + b"[" * 100_000, "is not valid TOML: it is nested too deeply"),
        (b"loop.seed = " + b"1" * 5000, "is not valid TOML: Exceeds the limit"),
        (b"loop.seed = 0x" + b"f" * 5000, "has a number that is too large"),
        (
            b"loop.seed = 1979-05-27",
            "sources is missing; loop.seed is '1979-05-27'; input should be a valid integer",
        ),
    ],
)
def test_malformed_toml(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_bytes(content)
    with pytest.raises(InputError, match=rf"^the recipe .*odd\.toml:? {message}"):
        read_recipe(tmp_path / "odd.toml")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_invalid_paths_raise(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be a path"):
        read_recipe(name)


def test_flag_values_that_are_not_toml_are_strings(table: dict, toml_of: Callable, tmp_path: Path) -> None:
    (tmp_path / "arrows.toml").write_text(toml_of(table))
    with pytest.raises(InputError, match=r"loop.epochs is '\[\[\[.*; input should be a valid number"):
        read_recipe(tmp_path / "arrows.toml", {"loop.epochs": "[" * 100_000})
