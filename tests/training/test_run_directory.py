from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vitpose.errors import InputError
from vitpose.training.recipe import Recipe
from vitpose.training.recipe_tables import Stage, Validation
from vitpose.training.run_directory import (
    NUMBERS_FILE,
    RECIPE_FILE,
    claim_directory,
    find_checkpoints,
    read_numbers,
    step_of,
)


def test_incomplete_checkpoints_are_ignored(tmp_path: Path) -> None:
    for name in ("step-00000002", "step-00000004.part", "step-00000001.old", "step-3", "logs", "best"):
        (tmp_path / name).mkdir()
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000002"]
    assert [step_of(path) for path in (None, *find_checkpoints(tmp_path))] == [0, 2]


@pytest.fixture
def started(recipe: Recipe, tmp_path: Path) -> Path:
    """The directory of a training run with a checkpoint."""
    claim_directory(tmp_path, recipe, 2)
    (tmp_path / "step-00000001").mkdir()
    return tmp_path


def test_keys_that_do_not_affect_the_result_may_change(recipe: Recipe, started: Path) -> None:
    loop = replace(recipe.loop, minutes=3.0, workers=1, checkpoint_every=7, evaluate_every=7, log_every=1)
    sets = (Validation(annotations="more.json", images="more"),)
    claim_directory(started, replace(recipe, loop=loop, name="renamed", validation=sets), 2)


def test_any_recipe_may_use_a_directory_without_checkpoints(recipe: Recipe, tmp_path: Path) -> None:
    claim_directory(tmp_path, recipe, 1)
    claim_directory(tmp_path, replace(recipe, model=replace(recipe.model, size="small")), 2)
    assert json.loads((tmp_path / RECIPE_FILE).read_text())["model"]["size"] == "small"


def test_another_recipe_in_the_same_directory_raises(recipe: Recipe, started: Path) -> None:
    other = replace(
        recipe, optimizer=replace(recipe.optimizer, lr=0.5), stages=(Stage(loop={"epochs": 1.0}),)
    )
    with pytest.raises(
        InputError,
        match=r"contains a training run of another recipe \(optimizer.lr 0.001 there, 0.5 here, stages",
    ):
        claim_directory(started, other, 2)


def test_another_number_of_devices_raises(recipe: Recipe, started: Path) -> None:
    with pytest.raises(InputError, match=r"uses 2 devices, not 1, which would .*loop.devices, loop.nodes"):
        claim_directory(started, recipe, 1)


def test_a_damaged_stored_recipe_raises(recipe: Recipe, started: Path) -> None:
    (started / RECIPE_FILE).write_text("{")
    with pytest.raises(InputError, match=r"recipe.json is not valid JSON: .*choose another directory"):
        claim_directory(started, recipe, 2)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"step": "1", "score": 0.5, "numbers": {}}', b"\xff"]
)
def test_damaged_metrics_raise(content: bytes, tmp_path: Path) -> None:
    assert read_numbers(tmp_path) == {}
    (tmp_path / NUMBERS_FILE).write_bytes(b'{"step": 1, "score": 1, "numbers": {"AP": NaN}}')
    assert read_numbers(tmp_path)["score"] == 1
    (tmp_path / NUMBERS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=rf"{NUMBERS_FILE}(: | is not valid JSON)"):
        read_numbers(tmp_path)
