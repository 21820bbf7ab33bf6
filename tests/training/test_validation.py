"""Checkpoints are measured as `vitpose evaluate` would, and the best one is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vitpose
from vitpose.errors import InputError
from vitpose.training.checkpoints import find_checkpoints
from vitpose.training.loop import train
from vitpose.training.recipe import Recipe, Validation
from vitpose.training.validation import NUMBERS_FILE, Validator, read_numbers

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's hints; ours are tested elsewhere


@pytest.fixture
def measured(recipe: Recipe, arrows: Path, tmp_path: Path) -> Recipe:
    """Two sets: one with sigmas, for average precision, and one without."""
    skeleton = tmp_path / "sigmas.toml"
    sigmas = "".join(f"{name} = 0.1\n" for name in ("tip", "left_end", "right_end", "middle", "tail"))
    skeleton.write_text(f"{(arrows / 'arrow.toml').read_text()}[sigmas]\n{sigmas}")
    plain = Validation(annotations=str(arrows / "arrows.json"), images=str(arrows), name="plain")
    precise = replace(plain, name="precise", skeleton=str(skeleton))
    loop = replace(recipe.loop, epochs=0.8, evaluate_every=2)
    return replace(recipe, validation=(precise, plain), loop=loop)


def test_the_numbers_are_those_of_evaluate(measured: Recipe, arrows: Path, tmp_path: Path) -> None:
    last = train(measured, tmp_path / "out")
    pipe = vitpose.load(last, detector=None)
    precise = measured.validation[0]
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
    share = report.numbers["pck"]["PCK@0.2"]
    expected = {"precise/AP": report.numbers["coco"]["AP"], "precise/PCK@0.2": share, "plain/PCK@0.2": share}
    assert found["numbers"] == expected
    assert found["step"] == 4
    assert found["score"] == pytest.approx((expected["precise/AP"] + share) / 2)
    board = EventAccumulator(str(tmp_path / "out/tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [0, 1, 2, 3]
    assert [event.step for event in board.Scalars("plain/PCK@0.2")] == [2, 4]


def test_the_best_stays_and_what_was_not_measured_is(measured: Recipe, tmp_path: Path) -> None:
    first, second = train(measured, tmp_path), find_checkpoints(tmp_path)[-2]
    scores = {path.name: read_numbers(path)["score"] for path in (first, second)}
    best = tmp_path / "best"
    assert f"step-{read_numbers(best)['step']:08d}" == max(scores, key=scores.get)
    assert {path.name for path in best.iterdir()} == {path.name for path in first.iterdir()}
    # As if it had been killed while it measured.
    shutil.rmtree(best)
    (first / NUMBERS_FILE).unlink()
    train(measured, tmp_path)
    assert read_numbers(first)["score"] == read_numbers(best)["score"] == scores[first.name]
    # No later one takes the place of a better one.
    (best / NUMBERS_FILE).write_text(json.dumps({"step": 1, "score": 2.0, "numbers": {}}))
    (first / NUMBERS_FILE).unlink()
    train(measured, tmp_path)
    assert read_numbers(best)["score"] == 2.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"annotations": "missing.json"}, InputError, "missing.json"),
        (
            {"images": "missing"},
            InputError,
            "the images of the validation set plain, missing, are no folder",
        ),
        ({"skeleton": "other.toml"}, InputError, "share no keypoint: tip"),
    ],
)
def test_sets_that_cannot_be_used_are_said_at_once(
    measured: Recipe,
    change: dict,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.toml").write_text('name = "other"\nkeypoints = ["a", "b", "c", "d", "e"]\n')
    broken = replace(measured, validation=(replace(measured.validation[1], **change),))
    with pytest.raises(error, match=message):
        Validator(broken, 10, [])


def test_without_sets_nothing_is_due(recipe: Recipe) -> None:
    assert not Validator(recipe, 10, []).is_due(10)


def test_evaluations_are_due_at_their_steps_and_the_end(measured: Recipe) -> None:
    validator = Validator(measured, 5, [])
    assert [step for step in range(1, 6) if validator.is_due(step)] == [2, 4, 5]
