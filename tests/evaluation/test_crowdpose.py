from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.evaluation import evaluate_predictions
from vitpose.keypoints.skeleton import Skeleton

pytest.importorskip("pycocotools")


def reference(path: Path, results: list[dict[str, Any]]) -> list[float]:
    """Returns the metrics of faster-coco-eval, which implements CrowdPose's rules."""
    faster = pytest.importorskip("faster_coco_eval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = faster.COCO(str(path))
        found = truth.loadRes(json.loads(json.dumps(results)))
        judge = faster.COCOeval_faster(truth, found, "keypoints_crowd", use_area=False, print_function=str)
        judge.params.kpt_oks_sigmas = np.array(Skeleton.load("crowdpose").sigmas)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return list(judge.stats)[:9]


def named_as_published(content: dict[str, Any]) -> dict[str, Any]:
    content["categories"][0]["keypoints"][-2:] = ["head", "neck"]
    return content


def check(path: Path, results: list[dict[str, Any]]) -> dict[str, float | None]:
    numbers = evaluate_predictions(results, path).numbers["crowdpose"]
    values = [-1 if value is None else value for value in numbers.values()]
    expected = reference(path, results)
    assert values[:6] == pytest.approx(expected[:6], abs=1e-12)
    assert values[6:] == pytest.approx(expected[6:], abs=5.1e-5)  # rounded to four digits there
    return numbers


def test_metrics_equal_those_of_faster_coco_eval(
    write: Callable[..., Path], invent: Callable, guess: Callable
) -> None:
    content = named_as_published(invent("crowdpose", images=60))
    for one in content["annotations"]:
        del one["area"]
    numbers = check(write(content), guess(content))
    assert list(numbers) == ["AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP easy", "AP medium", "AP hard"]
    assert len(set(numbers.values())) == 9


def test_metrics_of_real_annotations(shared_data: Path, guess: Callable) -> None:
    path = shared_data / "samples/crowdpose/test_crowdpose.json"
    numbers = check(path, guess(json.loads(path.read_text()), seed=5))
    assert numbers["AP medium"] == numbers["AP"]  # both images are of medium crowding
    assert numbers["AP easy"] is None
    assert numbers["AP hard"] is None


def test_ap_by_crowding_equals_an_independent_implementation(
    write: Callable[..., Path], invent: Callable, guess: Callable, plain_ap: Callable
) -> None:
    content = named_as_published(invent("crowdpose"))
    results = guess(content)
    for index, row in enumerate(results):
        row["score"] = 1 - index / 1000
    numbers = evaluate_predictions(results, write(content)).numbers["crowdpose"]
    for name, low, high in (("easy", 0, 0.2), ("medium", 0.2, 0.8), ("hard", 0.8, 2)):
        images = {one["id"] for one in content["images"] if low <= one["crowdIndex"] < high}
        people = [
            {
                **one,
                "ignore": bool(one["iscrowd"] or not one["num_keypoints"]),
                "area": 0.53 * one["bbox"][2] * one["bbox"][3],
            }
            for one in content["annotations"]
            if one["image_id"] in images
        ]
        rows = [row for row in results if row["image_id"] in images]
        expected = plain_ap(people, rows, Skeleton.load("crowdpose").sigmas)
        assert numbers[f"AP {name}"] == pytest.approx(expected, abs=1e-12)


def test_images_without_a_crowd_index_are_reported(
    write: Callable[..., Path], invent: Callable, guess: Callable
) -> None:
    content = named_as_published(invent("crowdpose", images=6))
    del content["images"][0]["crowdIndex"]
    content["images"][1]["crowdIndex"] = "hard"
    report = evaluate_predictions(guess(content), write(content), metrics=["crowdpose"])
    kind = "images without a crowdIndex: not in AP easy, medium or hard"
    assert report.problems.names[kind] == ["0.png", "1.png"]
