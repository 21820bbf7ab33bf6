"""Each dataset by its rules, on the published samples, against metrics computed here."""

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


def keypoints_of(row: dict[str, Any], count: int) -> np.ndarray:
    numbers = row["keypoints"]
    if len(numbers) < 3 * count:
        numbers = [value for part in PARTS for value in row[part]]
    return np.array(numbers, float).reshape(count, 3)


def displaced(path: Path, count: int) -> tuple[list[dict], list[dict]]:
    """Returns usable annotations, and predictions for them with an offset that grows from person to person."""
    rows = [
        row
        for row in json.loads(path.read_text())["annotations"]
        if "keypoints" in row and any(row["keypoints"])
    ]
    kept = [row for row in rows if not row.get("iscrowd") and (keypoints_of(row, count)[:, 2] > 0).any()]
    predictions = []
    for index, row in enumerate(kept):
        keypoints = keypoints_of(row, count)
        keypoints[:, 0] += 0.01 * (index + 1) * np.sqrt(row["bbox"][2] * row["bbox"][3])
        keypoints[:, 2] = 0.9
        predictions.append(
            {
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "keypoints": keypoints.ravel().tolist(),
                "score": 0.9,
            }
        )
    return kept, predictions


def oks(row: dict[str, Any], prediction: dict[str, Any], sigmas: np.ndarray, box_area: bool) -> float:
    truth, found = keypoints_of(row, len(sigmas)), keypoints_of(prediction, len(sigmas))
    area = 0.53 * row["bbox"][2] * row["bbox"][3] if box_area else row["area"]
    labelled = truth[:, 2] > 0
    squared = ((truth[labelled, :2] - found[labelled, :2]) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * (2 * sigmas[labelled]) ** 2 * area)).mean())


def average_precision(rows: list[dict], similarities: list[float]) -> float:
    """AP if there is one prediction for each person and better ones score higher: precision is 1 up to the recall."""
    totals = []
    for category in sorted({row["category_id"] for row in rows}):
        values = [
            value for row, value in zip(rows, similarities, strict=True) if row["category_id"] == category
        ]
        for threshold in np.linspace(0.5, 0.95, 10):
            recall = np.mean([value >= threshold for value in values])
            totals.append(np.mean(np.linspace(0, 1, 101) <= recall + 1e-9) if recall else 0.0)
    return float(np.mean(totals))


@pytest.mark.parametrize("name", FILES)
def test_average_precision_by_the_rules_of_each_dataset(name: str, samples: Path) -> None:
    path, spec = samples / FILES[name], DatasetSpec.load(name)
    sigmas = np.array(spec.skeleton.sigmas)
    rows, predictions = displaced(path, len(sigmas))
    pairs = list(zip(rows, predictions, strict=True))
    similarities = [oks(row, one, sigmas, spec.evaluation.area == "box") for row, one in pairs]
    for one, value in zip(predictions, similarities, strict=True):
        one["score"] = value
    report = evaluate_predictions(predictions, path, dataset=name)
    metric = {"coco-wholebody": "wholebody all"}.get(name, spec.evaluation.metrics[0])
    assert report.numbers[metric]["AP"] == pytest.approx(average_precision(rows, similarities), abs=1e-6)
    assert report.settings["rules"] == name
    exact = [one | {"keypoints": keypoints_of(row, len(sigmas)).ravel().tolist()} for row, one in pairs]
    assert evaluate_predictions(exact, path, dataset=name).numbers[metric]["AP"] == pytest.approx(1.0)


def test_areas_follow_the_rules(samples: Path) -> None:
    path = samples / FILES["ochuman"]
    _, predictions = displaced(path, 17)
    by_annotation = evaluate_predictions(predictions, path, dataset="ochuman").numbers["coco"]
    spec = DatasetSpec.load("ochuman")
    boxes = replace(spec, evaluation=replace(spec.evaluation, area="box"))
    by_box = evaluate_predictions(predictions, path, dataset=boxes).numbers["coco"]
    assert by_box["AP"] < by_annotation["AP"]


def test_keypoints_that_do_not_count(samples: Path) -> None:
    path = samples / FILES["coco"]
    _, predictions = displaced(path, 17)
    spec = DatasetSpec.load("coco")
    rules = replace(spec.evaluation, metrics=("epe",), excluded=("nose", "left_eye"))
    report = evaluate_predictions(predictions, path, dataset=replace(spec, evaluation=rules))
    assert len(report.compared) == 15
    assert report.excluded == ("nose", "left_eye")
    assert report.to_dict()["keypoints"]["excluded"] == ["nose", "left_eye"]
    assert list(report.numbers) == ["epe"]
    shared = match_keypoints(spec.skeleton, spec.skeleton)
    with pytest.raises(
        InputError, match=r"the only keypoints shared are nose, .*do not count; choose the rules"
    ):
        shared.without(spec.skeleton.keypoints)


def test_metrics_without_a_dataset_follow_the_file(samples: Path) -> None:
    path = samples / FILES["coco"]
    _, predictions = displaced(path, 17)
    report = evaluate_predictions(predictions, path)
    assert report.settings["rules"] == "from the annotation file"
    assert list(report.numbers) == ["coco", "pck"]


@pytest.mark.parametrize("name", ["coco", "aic", "mpii", "ap10k", "coco-wholebody"])
def test_a_model_is_evaluated_by_the_rules_in_its_checkpoint(
    name: str, samples: Path, tmp_path: Path
) -> None:
    """With random weights: the test covers the rules, the metrics and that every person has a prediction."""
    spec = DatasetSpec.load(name)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=192, num_hidden_layers=1, num_attention_heads=3
    )
    config = vitpose.VitPoseConfig(backbone_config=backbone, datasets=[spec])
    vitpose.VitPoseForPoseEstimation(config).save_pretrained(tmp_path)
    pipe = vitpose.load(tmp_path, None, device="cpu")
    path = samples / (FILES | {"mpii": "mpii/test_mpii.json"})[name]
    report = vitpose.evaluate_model(pipe, path, path.parent, flip_test=True)
    assert report.settings["rules"] == name
    assert {metric.split()[0] for metric in report.numbers} == set(spec.evaluation.metrics)
    assert report.counts["instances"] == report.counts["instances with a prediction"] > 1
    assert not report.problems.images
    assert report.excluded == spec.evaluation.excluded


def test_mpii_in_its_json_form(samples: Path) -> None:
    """PCKh without pelvis and thorax, against distances computed here."""
    path = samples / "mpii" / "test_mpii.json"
    rows = json.loads(path.read_text())
    predictions, hits = [], []
    for number, row in enumerate(rows):
        joints = np.array(row["joints"]) - 1
        moved = joints + 20.0 * np.arange(16)[:, None] / 16 * (number + 1)
        head = np.linalg.norm(joints[9] - joints[8])
        counted = np.array(row["joints_vis"], bool) & ~np.isin(np.arange(16), [6, 7])
        hits += (np.linalg.norm(moved - joints, axis=1) <= 0.5 * head)[counted].tolist()
        middle, side = np.array(row["center"]) - 1 + [0, 15 * row["scale"]], 200 * row["scale"]
        box = [*(middle - side / 2), side, side]
        flat = np.column_stack([moved, np.ones(16)]).ravel().tolist()
        predictions.append(
            {"image_id": row["image"], "category_id": 1, "keypoints": flat, "score": 1.0, "bbox": box}
        )
    assert 0 < np.mean(hits) < 1
    report = evaluate_predictions(predictions, path, dataset="mpii")
    assert report.numbers["pckh"]["PCKh@0.5 (head_top:upper_neck)"] == pytest.approx(np.mean(hits))
    assert report.excluded == ("pelvis", "thorax")
    assert "the distance head_top to upper_neck, as no annotation has a head box" in report.basis["pckh"]


def test_refuses_a_list_in_another_form(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"image_id": 1}]')
    with pytest.raises(
        InputError,
        match=r"list.json is neither in MPII format, a list of rows with 'image' and 'joints'",
    ):
        evaluate_predictions([], tmp_path / "list.json")


def test_mpii_rows_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    good = {
        "image": "a.jpg",
        "center": [50, 50],
        "scale": 0.4,
        "joints": [[50, 50]] * 16,
        "joints_vis": [1] * 16,
    }
    rows = [good, {**good, "joints": [[1, 2]]}, {**good, "scale": None}]
    (tmp_path / "mpii.json").write_text(json.dumps(rows))
    keypoints = [49.0, 49.0, 1.0] * 16
    result = {
        "image_id": "a.jpg",
        "category_id": 1,
        "keypoints": keypoints,
        "score": 1.0,
        "bbox": [9, 15, 80, 80],
    }
    report = evaluate_predictions([result], tmp_path / "mpii.json", metrics=["epe"])
    assert report.numbers["epe"]["EPE px"] == 0
    named = [name for names in report.problems.names.values() for name in names]
    assert {"a.jpg, row 1", "a.jpg, row 2"} <= set(named)
