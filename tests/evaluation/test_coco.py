from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.errors import InputError, SkeletonError
from vitpose.evaluation import evaluate_predictions
from vitpose.evaluation.coco import NAMES, Selection, coco_numbers
from vitpose.keypoints.skeleton import Skeleton

pytest.importorskip("pycocotools")


def reference(path: Path, results: list[dict[str, Any]], sigmas: tuple[float, ...]) -> list[float]:
    """Returns pycocotools' metrics of the file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "keypoints")
        judge.params.kpt_oks_sigmas = np.array(sigmas)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


@pytest.mark.parametrize("skeleton", ["coco", "lsp", "coco-wholebody", "interhand2d"])
@pytest.mark.parametrize(("seed", "boxed"), [(0, True), (1, False)])
def test_metrics_equal_those_of_pycocotools(
    skeleton: str, seed: int, boxed: bool, write: Callable[..., Path], invent: Callable, guess: Callable
) -> None:
    content = invent(skeleton, seed=seed)
    path, results = write(content), guess(content, seed=seed + 10)
    for row in results:
        row.update({} if boxed else {"bbox": []})
    sigmas = Skeleton.load(skeleton).sigmas or (0.05,) * len(Skeleton.load(skeleton))
    with_sigmas = Skeleton(skeleton, Skeleton.load(skeleton).keypoints, sigmas=sigmas)
    report = evaluate_predictions(results, path, metrics=["coco"], skeleton=with_sigmas)
    values = [-1 if value is None else value for value in report.numbers["coco"].values()]
    assert values == reference(path, results, sigmas)  # to the last digit
    assert list(report.numbers["coco"]) == list(NAMES)
    assert 0.05 < values[0] < 0.95


def test_metrics_equal_those_of_pycocotools_on_real_annotations(
    shared_data: Path, tmp_path: Path, guess: Callable
) -> None:
    path = shared_data / "coco/val.json"
    results = guess(json.loads(path.read_text()))
    report = evaluate_predictions(results, path, metrics=["coco"])
    assert list(report.numbers["coco"].values()) == reference(path, results, Skeleton.load("coco").sigmas)
    report.save_results(tmp_path / "saved.json")
    again = evaluate_predictions(tmp_path / "saved.json", path, metrics=["coco"])
    assert again.numbers == report.numbers


def test_ap_equals_an_independent_implementation(
    write: Callable[..., Path], invent: Callable, guess: Callable, plain_ap: Callable
) -> None:
    content = invent()
    results = guess(content)
    for index, row in enumerate(results):
        row["score"] = 1 - index / 1000  # distinct, as the order of equal scores is not specified
    people = [
        {**one, "ignore": bool(one["iscrowd"] or not one["num_keypoints"])} for one in content["annotations"]
    ]
    report = evaluate_predictions(results, write(content), metrics=["coco"])
    expected = plain_ap(people, results, Skeleton.load("coco").sigmas)
    assert report.numbers["coco"]["AP"] == pytest.approx(expected, abs=1e-12)


def test_an_annotation_with_the_id_0_counts(write: Callable[..., Path], invent: Callable) -> None:
    content = invent(images=3)
    for one in content["annotations"]:
        one["id"] -= 1
    results = [
        {"image_id": one["image_id"], "category_id": 1, "keypoints": one["keypoints"], "score": 1.0}
        for one in content["annotations"]
    ]
    report = evaluate_predictions(results, write(content), metrics=["coco"])
    assert report.numbers["coco"]["AP"] == pytest.approx(1)


def test_ap_by_keypoint(write: Callable[..., Path]) -> None:
    """The left wrist of one person is not labelled and that of the other is correct; both noses are wrong."""
    skeleton = Skeleton("pair", ("nose", "left_wrist"), sigmas=(0.05, 0.05))
    shared = {"category_id": 1, "iscrowd": 0, "area": 5000}
    people = [
        {"id": 1, "image_id": 1, "bbox": [0, 0, 100, 100], "keypoints": [10, 10, 2, 50, 50, 2], **shared},
        {"id": 2, "image_id": 2, "bbox": [0, 0, 100, 100], "keypoints": [10, 10, 2, 0, 0, 0], **shared},
    ]
    results = [
        {"image_id": image, "category_id": 1, "keypoints": [90, 90, 1, 50, 50, 1], "score": 0.9}
        for image in (1, 2)
    ]
    path = write({"images": [{"id": 1}, {"id": 2}], "annotations": people})
    report = evaluate_predictions(results, path, metrics=["coco-keypoints"], skeleton=skeleton)
    assert report.by_keypoint["AP"] == {"nose": 0.0, "left_wrist": pytest.approx(1)}
    assert report.by_keypoint["AR"] == {"nose": 0.0, "left_wrist": pytest.approx(1)}


def test_metrics_without_instances_are_none() -> None:
    indices = np.arange(2)
    selection = Selection(indices, indices, np.full(2, 0.1), recount=False)
    assert coco_numbers([], [], selection, images=[1]) == dict.fromkeys(NAMES)


def test_refuses_keypoints_without_sigmas(write: Callable[..., Path], invent: Callable) -> None:
    content = invent(images=4)
    content["categories"][0]["keypoints"][0] = "beak"
    path = write(content)
    with pytest.raises(
        InputError, match=r"skeleton 'custom' .* has no sigmas, which average precision requires; give a skel"
    ):
        evaluate_predictions([], path, metrics=["coco"])
    with pytest.raises(SkeletonError, match="do not name the keypoints; give a skeleton"):
        evaluate_predictions([], write({**content, "categories": []}))
