from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vitpose.errors import InputError
from vitpose.training.checkpoints import RECIPE_FILE, claim_folder, find_checkpoints, step_of
from vitpose.training.recipe import Recipe, Stage, Validation
from vitpose.training.validation import NUMBERS_FILE, read_numbers


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    for name in ("step-00000002", "step-00000004.part", "step-00000001.old", "step-3", "logs", "best"):
        (tmp_path / name).mkdir()
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000002"]
    assert [step_of(path) for path in (None, *find_checkpoints(tmp_path))] == [0, 2]


@pytest.fixture
def begun(recipe: Recipe, tmp_path: Path) -> Path:
    """The folder of a training that has a checkpoint."""
    claim_folder(tmp_path, recipe, 2)
    (tmp_path / "step-00000001").mkdir()
    return tmp_path


def test_the_same_recipe_may_go_on_with_what_changes_nothing(recipe: Recipe, begun: Path) -> None:
    loop = replace(recipe.loop, minutes=3.0, workers=1, checkpoint_every=7, evaluate_every=7, log_every=1)
    sets = (Validation(annotations="more.json", images="more"),)
    claim_folder(begun, replace(recipe, loop=loop, name="renamed", validation=sets), 2)


def test_a_folder_without_a_checkpoint_takes_any_recipe(recipe: Recipe, tmp_path: Path) -> None:
    claim_folder(tmp_path, recipe, 1)
    claim_folder(tmp_path, replace(recipe, model=replace(recipe.model, size="small")), 2)
    assert json.loads((tmp_path / RECIPE_FILE).read_text())["model"]["size"] == "small"


def test_another_recipe_in_the_same_folder_is_refused(recipe: Recipe, begun: Path) -> None:
    other = replace(
        recipe, optimizer=replace(recipe.optimizer, lr=0.5), stages=(Stage(loop={"epochs": 1.0}),)
    )
    with pytest.raises(InputError, match=r"another recipe \(optimizer.lr 0.001 there, 0.5 here, stages"):
        claim_folder(begun, other, 2)


def test_another_number_of_devices_is_refused(recipe: Recipe, begun: Path) -> None:
    with pytest.raises(
        InputError, match=r"runs on 2 devices, not on 1, which would .*loop.devices, loop.nodes"
    ):
        claim_folder(begun, recipe, 1)


def test_a_damaged_note_of_the_recipe_is_named(recipe: Recipe, begun: Path) -> None:
    (begun / RECIPE_FILE).write_text("{")
    with pytest.raises(InputError, match=r"recipe.json is not valid JSON: .*choose another folder"):
        claim_folder(begun, recipe, 2)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"step": "1", "score": 0.5, "numbers": {}}', b"\xff"]
)
def test_numbers_that_are_damaged(content: bytes, tmp_path: Path) -> None:
    assert read_numbers(tmp_path) == {}
    (tmp_path / NUMBERS_FILE).write_bytes(b'{"step": 1, "score": 1, "numbers": {"AP": NaN}}')
    assert read_numbers(tmp_path)["score"] == 1
    (tmp_path / NUMBERS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=rf"{NUMBERS_FILE}(: | is not valid JSON)"):
        read_numbers(tmp_path)
