"""Checkpoints are evaluated as by `vitpose evaluate`, and the best one is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vitpose
from vitpose.errors import InputError
from vitpose.training.loop import train
from vitpose.training.recipe import Recipe
from vitpose.training.recipe_tables import Validation
from vitpose.training.run_directory import NUMBERS_FILE, find_checkpoints, read_numbers
from vitpose.training.validation import Validator

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's hints; our warnings are tested elsewhere


@pytest.fixture
def validated(recipe: Recipe, arrows: Path, tmp_path: Path) -> Recipe:
    """A recipe with two validation sets: one with sigmas, for average precision, and one without."""
    skeleton = tmp_path / "sigmas.toml"
    sigmas = "".join(f"{name} = 0.1\n" for name in ("tip", "left_end", "right_end", "middle", "tail"))
    skeleton.write_text(f"{(arrows / 'arrow.toml').read_text()}[sigmas]\n{sigmas}")
    plain = Validation(annotations=str(arrows / "arrows.json"), images=str(arrows), name="plain")
    precise = replace(plain, name="precise", skeleton=str(skeleton))
    loop = replace(recipe.loop, epochs=0.8, evaluate_every=2)
    return replace(recipe, validation=(precise, plain), loop=loop)


def test_metrics_are_those_of_evaluate_model(validated: Recipe, arrows: Path, tmp_path: Path) -> None:
    last = train(validated, tmp_path / "out")
    pipe = vitpose.load(last, detector=None)
    precise = validated.validation[0]
    report = vitpose.evaluate_model(
        pipe,
        precise.annotations,
        arrows,
        flip_test=True,
        skeleton=precise.skeleton,
        metrics=["coco", "pck"],
        thresholds=[0.2],
    )
    found = read_numbers(last)
    share = report.numbers["pck"]["PCK@0.2 (box)"]
    expected = {
        "precise/AP": report.numbers["coco"]["AP"],
        "precise/PCK@0.2 (box)": share,
        "plain/PCK@0.2 (box)": share,
    }
    assert found["numbers"] == expected
    assert found["step"] == 4
    assert found["score"] == pytest.approx((expected["precise/AP"] + share) / 2)
    board = EventAccumulator(str(tmp_path / "out/tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [0, 1, 2, 3]
    assert [event.step for event in board.Scalars("plain/PCK@0.2 (box)")] == [2, 4]


def test_the_best_checkpoint_is_kept_and_missing_metrics_are_computed(
    validated: Recipe, tmp_path: Path
) -> None:
    first, second = train(validated, tmp_path), find_checkpoints(tmp_path)[-2]
    scores = {path.name: read_numbers(path)["score"] for path in (first, second)}
    best = tmp_path / "best"
    assert f"step-{read_numbers(best)['step']:08d}" == max(scores, key=scores.get)
    assert {path.name for path in best.iterdir()} == {path.name for path in first.iterdir()}
    # As after a kill during validation.
    shutil.rmtree(best)
    (first / NUMBERS_FILE).unlink()
    train(validated, tmp_path)
    assert read_numbers(first)["score"] == read_numbers(best)["score"] == scores[first.name]
    # A checkpoint with a lower score does not replace the best one.
    (best / NUMBERS_FILE).write_text(json.dumps({"step": 1, "score": 2.0, "numbers": {}}))
    (first / NUMBERS_FILE).unlink()
    train(validated, tmp_path)
    assert read_numbers(best)["score"] == 2.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"annotations": "missing.json"}, InputError, "missing.json"),
        (
            {"images": "missing"},
            InputError,
            "images of the validation set plain is 'missing', which is not a directory; give",
        ),
        ({"skeleton": "other.toml"}, InputError, "share no keypoint: tip"),
    ],
)
def test_unusable_validation_sets_raise_before_training(
    validated: Recipe,
    change: dict,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.toml").write_text('name = "other"\nkeypoints = ["a", "b", "c", "d", "e"]\n')
    broken = replace(validated, validation=(replace(validated.validation[1], **change),))
    with pytest.raises(error, match=message):
        Validator(broken, 10, [])


def test_nothing_is_due_without_validation_sets(recipe: Recipe) -> None:
    assert not Validator(recipe, 10, []).is_due(10)


def test_validation_is_due_at_its_steps_and_at_the_end(validated: Recipe) -> None:
    validator = Validator(validated, 5, [])
    assert [step for step in range(1, 6) if validator.is_due(step)] == [2, 4, 5]
