from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.errors import InputError
from vitpose.evaluation import evaluate_predictions
from vitpose.evaluation.wholebody import PARTS
from vitpose.keypoints.skeleton import Skeleton

pytest.importorskip("pycocotools")
FIELDS = {"body": "keypoints", "feet": "foot_kpts", "face": "face_kpts", "left hand": "lefthand_kpts",
          "right hand": "righthand_kpts"}  # fmt: skip


def joined(person: dict[str, Any]) -> list[float]:
    return [value for field in FIELDS.values() for value in person[field]]


def spread(content: dict[str, Any]) -> dict[str, Any]:
    """Moves 133 keypoints into the fields of the published files."""
    for person in content["annotations"]:
        keypoints = np.array(person["keypoints"]).reshape(-1, 3)
        for part, field in FIELDS.items():
            person[field] = keypoints[PARTS[part]].ravel().tolist()
        person["num_keypoints"] = int((keypoints[:17, 2] > 0).sum())
    content["categories"][0]["keypoints"] = list(Skeleton.load("coco").keypoints)
    return content


def expected(content: dict[str, Any], results: list[dict[str, Any]], part: str, plain_ap: Callable) -> float:
    people = []
    for person in content["annotations"]:
        keypoints = joined(person) if part == "all" else person[FIELDS[part]]
        ignore = bool(person["iscrowd"]) or not any(v > 0 for v in keypoints[2::3])
        people.append({**person, "keypoints": keypoints, "ignore": ignore})
    span = PARTS[part]
    found = [{**row, "keypoints": row["keypoints"][3 * span.start : 3 * span.stop]} for row in results]
    return plain_ap(people, found, Skeleton.load("coco-wholebody").sigmas[span])


def check(path: Path, content: dict[str, Any], guess: Callable, plain_ap: Callable, seed: int) -> None:
    whole = {**content, "annotations": [{**one, "keypoints": joined(one)} for one in content["annotations"]]}
    results = guess(whole, seed)
    for index, row in enumerate(results):
        row["score"] = 1 - index / 1000
    report = evaluate_predictions(results, path)
    for part in PARTS:
        value = report.numbers[f"wholebody {part}"]["AP"]
        assert value == pytest.approx(expected(content, results, part, plain_ap), abs=1e-12), part
    hands = [report.numbers[f"wholebody {side} hand"]["AP"] for side in ("left", "right")]
    assert report.numbers["wholebody hands"]["AP"] == np.mean(hands)


def test_ap_of_each_part_equals_an_independent_implementation(
    write: Callable[..., Path], invent: Callable, guess: Callable, plain_ap: Callable
) -> None:
    content = spread(invent("coco-wholebody", images=10))
    check(write(content), content, guess, plain_ap, seed=2)


def test_ap_of_real_annotations_equals_an_independent_implementation(
    shared_data: Path, guess: Callable, plain_ap: Callable
) -> None:
    path = shared_data / "samples/coco/test_coco_wholebody.json"
    check(path, json.loads(path.read_text()), guess, plain_ap, seed=3)


def test_rows_with_all_133_keypoints_in_one_field(shared_data: Path) -> None:
    path = shared_data / "samples/coco/test_keypoint_partition_metric.json"
    results = [
        {"image_id": one["image_id"], "category_id": 1, "keypoints": one["keypoints"], "score": 0.5}
        for one in json.loads(path.read_text())["annotations"]
        if any(one["keypoints"][2::3])
    ]
    report = evaluate_predictions(results, path)
    assert report.numbers["wholebody all"]["AP"] == pytest.approx(1)


def test_parts_that_are_not_predicted_are_left_out(
    write: Callable[..., Path], invent: Callable, guess: Callable
) -> None:
    content = spread(invent("coco-wholebody", images=6))
    report = evaluate_predictions(guess(content), write(content), predicted_skeleton="coco")
    assert list(report.numbers) == ["wholebody body"]
    assert len(report.unpredicted) == 133 - 17


def test_refuses_other_keypoints(write: Callable[..., Path], invent: Callable, guess: Callable) -> None:
    content = invent("coco", images=4)
    with pytest.raises(
        InputError, match="metric wholebody requires 133 annotated keypoints, not 17; leave it"
    ):
        evaluate_predictions(guess(content), write(content), metrics=["wholebody"])
    content = spread(invent("coco-wholebody", images=4))
    with pytest.raises(InputError, match="no part of COCO-WholeBody is predicted completely; leave"):
        evaluate_predictions([], write(content), metrics=["wholebody"], predicted_skeleton="lsp")
