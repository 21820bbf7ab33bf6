"""Each dataset by its own rules, on the published samples: numbers worked out by hand beside ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitpose
from vitpose.errors import InputError
from vitpose.evaluation import evaluate_predictions
from vitpose.evaluation.correspondence import match_keypoints
from vitpose.keypoints.dataset_spec import DatasetSpec

FILES = {
    "coco": "coco/test_coco.json",
    "aic": "aic/test_aic.json",
    "ap10k": "ap10k/test_ap10k.json",
    "coco-wholebody": "coco/test_coco_wholebody.json",
    "crowdpose": "crowdpose/test_crowdpose.json",
    "ochuman": "ochuman/test_ochuman.json",
}
PARTS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


def points_of(row: dict[str, Any], count: int) -> np.ndarray:
    numbers = row["keypoints"]
    if len(numbers) < 3 * count:
        numbers = [value for part in PARTS for value in row[part]]
    return np.array(numbers, float).reshape(count, 3)


def displaced(path: Path, count: int) -> tuple[list[dict], list[dict]]:
    """Predictions beside the labels, every person's farther off than the one's before."""
    rows = [
        row
        for row in json.loads(path.read_text())["annotations"]
        if "keypoints" in row and any(row["keypoints"])
    ]
    kept = [row for row in rows if not row.get("iscrowd") and (points_of(row, count)[:, 2] > 0).any()]
    predictions = []
    for index, row in enumerate(kept):
        points = points_of(row, count)
        points[:, 0] += 0.01 * (index + 1) * np.sqrt(row["bbox"][2] * row["bbox"][3])
        points[:, 2] = 0.9
        predictions.append(
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "keypoints": points.ravel().tolist(),
                "score": 0.9,
            }
        )
    return kept, predictions


def oks(row: dict[str, Any], prediction: dict[str, Any], sigmas: np.ndarray, box_area: bool) -> float:
    truth, found = points_of(row, len(sigmas)), points_of(prediction, len(sigmas))
    area = 0.53 * row["bbox"][2] * row["bbox"][3] if box_area else row["area"]
    seen = truth[:, 2] > 0
    squared = ((truth[seen, :2] - found[seen, :2]) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * (2 * sigmas[seen]) ** 2 * area)).mean())


def average_precision(rows: list[dict], alike: list[float]) -> float:
    """AP where every prediction is of its own person and better ones score more: precision is 1 while they match."""
    totals = []
    for category in sorted({row["category_id"] for row in rows}):
        own = [value for row, value in zip(rows, alike, strict=True) if row["category_id"] == category]
        for threshold in np.linspace(0.5, 0.95, 10):
            recall = np.mean([value >= threshold for value in own])
            totals.append(np.mean(np.linspace(0, 1, 101) <= recall + 1e-9) if recall else 0.0)
    return float(np.mean(totals))


@pytest.mark.parametrize("name", FILES)
def test_average_precision_by_each_data_sets_rules(name: str, samples: Path) -> None:
    path, own = samples / FILES[name], DatasetSpec.load(name)
    sigmas = np.array(own.skeleton.sigmas)
    rows, predictions = displaced(path, len(sigmas))
    pairs = list(zip(rows, predictions, strict=True))
    alike = [oks(row, one, sigmas, own.evaluation.area == "box") for row, one in pairs]
    for one, value in zip(predictions, alike, strict=True):
        one["score"] = value
    report = evaluate_predictions(predictions, path, dataset=name)
    measure = {"coco-wholebody": "wholebody all"}.get(name, own.evaluation.metrics[0])
    assert report.numbers[measure]["AP"] == pytest.approx(average_precision(rows, alike), abs=1e-6)
    assert report.settings["rules"] == name
    exact = [one | {"keypoints": points_of(row, len(sigmas)).ravel().tolist()} for row, one in pairs]
    assert evaluate_predictions(exact, path, dataset=name).numbers[measure]["AP"] == pytest.approx(1.0)


def test_the_rules_of_the_areas_matter(samples: Path) -> None:
    path = samples / FILES["ochuman"]
    _, predictions = displaced(path, 17)
    by_annotation = evaluate_predictions(predictions, path, dataset="ochuman").numbers["coco"]
    own = DatasetSpec.load("ochuman")
    boxes = replace(own, evaluation=replace(own.evaluation, area="box"))
    by_box = evaluate_predictions(predictions, path, dataset=boxes).numbers["coco"]
    assert by_box["AP"] < by_annotation["AP"]


def test_points_that_do_not_count(samples: Path) -> None:
    path = samples / FILES["coco"]
    _, predictions = displaced(path, 17)
    own = DatasetSpec.load("coco")
    rules = replace(own.evaluation, metrics=("epe",), uncounted=("nose", "left_eye"))
    report = evaluate_predictions(predictions, path, dataset=replace(own, evaluation=rules))
    assert len(report.compared) == 15
    assert report.uncounted == ("nose", "left_eye")
    assert report.to_dict()["keypoints"]["uncounted"] == ["nose", "left_eye"]
    assert list(report.numbers) == ["epe"]
    shared = match_keypoints(own.skeleton, own.skeleton)
    with pytest.raises(InputError, match=r"the points nose, .* do not count, and no other is shared"):
        shared.without(own.skeleton.keypoints)


def test_without_a_data_set_the_file_decides(samples: Path) -> None:
    path = samples / FILES["coco"]
    _, predictions = displaced(path, 17)
    report = evaluate_predictions(predictions, path)
    assert report.settings["rules"] == "of the file"
    assert list(report.numbers) == ["coco", "pck"]


@pytest.mark.parametrize("name", ["coco", "aic", "mpii", "ap10k", "coco-wholebody"])
def test_a_model_is_measured_by_the_rules_in_its_checkpoint(name: str, samples: Path, tmp_path: Path) -> None:
    """Random weights: what is shown is which file is read, which measures are taken, and that all people are found."""
    own = DatasetSpec.load(name)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=192, num_hidden_layers=1, num_attention_heads=3
    )
    config = vitpose.VitPoseConfig(backbone_config=backbone, datasets=[own])
    vitpose.VitPoseForPoseEstimation(config).save_pretrained(tmp_path)
    pipe = vitpose.load(tmp_path, None, device="cpu")
    path = samples / (FILES | {"mpii": "mpii/test_mpii.json"})[name]
    report = vitpose.evaluate_model(pipe, path, path.parent, flip_test=True)
    assert report.settings["rules"] == name
    assert {measure.split()[0] for measure in report.numbers} == set(own.evaluation.metrics)
    assert report.counts["people"] == report.counts["people with a prediction"] > 1
    assert not report.problems.images
    assert report.uncounted == own.evaluation.uncounted


def test_mpii_in_its_own_form(samples: Path) -> None:
    """PCKh without pelvis and thorax, against distances worked out here."""
    path = samples / "mpii" / "test_mpii.json"
    rows = json.loads(path.read_text())
    predictions, hits = [], []
    for number, row in enumerate(rows):
        joints = np.array(row["joints"]) - 1
        moved = joints + 20.0 * np.arange(16)[:, None] / 16 * (number + 1)
        head = np.linalg.norm(joints[9] - joints[8])
        seen = np.array(row["joints_vis"], bool) & ~np.isin(np.arange(16), [6, 7])
        hits += (np.linalg.norm(moved - joints, axis=1) <= 0.5 * head)[seen].tolist()
        middle, side = np.array(row["center"]) - 1 + [0, 15 * row["scale"]], 200 * row["scale"]
        box = [*(middle - side / 2), side, side]
        flat = np.column_stack([moved, np.ones(16)]).ravel().tolist()
        predictions.append(
            {"image_id": row["image"], "category_id": 1, "keypoints": flat, "score": 1.0, "bbox": box}
        )
    assert 0 < np.mean(hits) < 1
    report = evaluate_predictions(predictions, path, dataset="mpii")
    assert report.numbers["pckh"]["PCKh@0.5"] == pytest.approx(np.mean(hits))
    assert report.uncounted == ("pelvis", "thorax")
    assert "the distance of head_top and upper_neck, as nobody has a box of the head" in report.basis["pckh"]


def test_a_list_that_is_not_mpiis(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"image_id": 1}]')
    with pytest.raises(
        InputError,
        match=r"list.json is neither in MPII format, a list of rows with 'image' and 'joints'",
    ):
        evaluate_predictions([], tmp_path / "list.json")


def test_rows_of_mpii_that_cannot_be_used(tmp_path: Path) -> None:
    good = {
        "image": "a.jpg",
        "center": [50, 50],
        "scale": 0.4,
        "joints": [[50, 50]] * 16,
        "joints_vis": [1] * 16,
    }
    rows = [good, {**good, "joints": [[1, 2]]}, {**good, "scale": None}]
    (tmp_path / "mpii.json").write_text(json.dumps(rows))
    points = [49.0, 49.0, 1.0] * 16
    result = {
        "image_id": "a.jpg",
        "category_id": 1,
        "keypoints": points,
        "score": 1.0,
        "bbox": [9, 15, 80, 80],
    }
    report = evaluate_predictions([result], tmp_path / "mpii.json", metrics=["epe"])
    assert report.numbers["epe"]["EPE px"] == 0
    named = [name for names in report.problems.names.values() for name in names]
    assert {"a.jpg, row 1", "a.jpg, row 2"} <= set(named)
