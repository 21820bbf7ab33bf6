from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitpose.errors import InputError
from vitpose.evaluation import evaluate_predictions
from vitpose.evaluation.ground_truth import read_ground_truth
from vitpose.evaluation.problems import Problems
from vitpose.evaluation.results import read_results

POINTS = [12, 25, 2, 14, 24, 1, 40, 45, 2]
FILE = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "keypoints": POINTS}
    ],
    "categories": [{"id": 1, "keypoints": ["nose", "left_eye", "right_eye"]}],
}
GOOD = {"image_id": 1, "category_id": 1, "keypoints": [10, 20, 0.5, 40, 60, 0.5, 20, 30, 0.5], "score": 0.5}


def test_rows_that_cannot_be_used_are_reported(write: Callable[..., Path]) -> None:
    rows: list[Any] = [
        GOOD,
        {**GOOD, "image_id": 99},
        {**GOOD, "category_id": 3},
        {**GOOD, "keypoints": [1, 2]},
        {**GOOD, "keypoints": [float("nan")] * 9},
        {**GOOD, "score": None},
        "nonsense",
        {**GOOD, "image_id": [1]},
        {**GOOD, "category_id": [1]},
    ]
    problems = Problems()
    (only,) = read_results(rows, read_ground_truth(write(FILE)), problems)
    assert only.xywh == (10, 20, 30, 40)  # the extent of the keypoints
    assert only.to_row() == GOOD
    assert problems.names == {
        "predictions for an image that is not annotated": ["row 1, image 99"],
        "predictions of a category that is not annotated": ["row 2, category 3", "row 8, category [1]"],
        "predictions without finite keypoints and score": ["row 3", "row 4", "row 5"],
        "predictions without an image_id": ["row 6", "row 7"],
    }


@pytest.mark.parametrize(
    ("boxes", "key"),
    [
        ({"bbox": [1, 2, 3, 4]}, "bbox"),
        ({"box_xywh": [1, 2, 3, 4]}, "box_xywh"),
        ({"box_xywh": [5, 6, 7, 8], "bbox": [1, 2, 3, 4]}, "bbox"),
        ({"box_xywh": [1, 2, 3, 4], "bbox": []}, "box_xywh"),
    ],
)
def test_box_of_a_row(boxes: dict[str, Any], key: str, write: Callable[..., Path]) -> None:
    (one,) = read_results([GOOD | boxes], read_ground_truth(write(FILE)), Problems())
    assert (one.xywh, one.box_key) == ((1, 2, 3, 4), key)
    assert one.to_row() == GOOD | {key: [1, 2, 3, 4]}


def test_problems_appear_in_the_report(write: Callable[..., Path]) -> None:
    report = evaluate_predictions([GOOD, {**GOOD, "image_id": 99}], write(FILE), metrics=["epe"])
    assert report.to_dict()["problems"]["predictions for an image that is not annotated"] == [
        "row 1, image 99"
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{**GOOD, "image_id": 99}],
            r"1 row, none of which can be used .* not annotated: 1\); give two files of the same",
        ),
        (
            [GOOD, {**GOOD, "keypoints": [1, 2, 3]}],
            r"poses have \[1, 3\] keypoints; give poses of the same number",
        ),
        (
            [{**GOOD, "keypoints": [1, 2, 3]}],
            "have 1 keypoint and the skeleton 'custom' has 3; give the skeleton .* with --predicted-skeleton",
        ),
    ],
)
def test_refuses_rows_that_do_not_fit(rows: list[Any], message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_predictions(rows, write(FILE), metrics=["epe"])


def test_rows_with_numbers_beyond_float64_are_reported(write: Callable[..., Path]) -> None:
    rows = [
        GOOD,
        GOOD | {"score": 10**400},
        GOOD | {"keypoints": [10**400] * 9},
        GOOD | {"bbox": [10**400] * 4},
    ]
    report = evaluate_predictions(rows, write(FILE), metrics=["epe"])
    assert report.problems.names["predictions without finite keypoints and score"] == ["row 1", "row 2"]


def test_a_row_without_a_required_category_is_reported(write: Callable[..., Path]) -> None:
    categories = [category | {"id": 5} for category in FILE["categories"]]
    annotations = [row | {"category_id": 5} for row in FILE["annotations"]]
    file = write(FILE | {"categories": categories, "annotations": annotations})
    row = {key: value for key, value in GOOD.items() if key != "category_id"}
    with pytest.raises(
        InputError, match=r"1 row, none of which can be used .*category that is not annotated: 1"
    ):
        evaluate_predictions([row], file, metrics=["epe"])


def test_refuses_files_that_are_not_results(write: Callable[..., Path], tmp_path: Path) -> None:
    annotations = write(FILE)
    with pytest.raises(InputError, match=r"none\.json cannot be read .* give a file of COCO's results"):
        evaluate_predictions(tmp_path / "none.json", annotations)
    (tmp_path / "broken.json").write_text("[")
    with pytest.raises(InputError, match=r"broken\.json is not valid JSON"):
        evaluate_predictions(tmp_path / "broken.json", annotations)
    with pytest.raises(
        InputError, match=r"is not a list; give COCO's keypoint results, a list of \{image_id"
    ):
        evaluate_predictions(write({"a": 1}, "table.json"), annotations)
