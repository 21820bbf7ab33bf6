"""MPII's JSON, with the head boxes of its evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vitpose.cli import app
from vitpose.errors import InputError
from vitpose.evaluation import evaluate_predictions
from vitpose.evaluation.ground_truth import read_ground_truth, read_head_boxes
from vitpose.keypoints.dataset_spec import DatasetSpec

MPII = DatasetSpec.load("mpii")
savemat = pytest.importorskip("scipy.io").savemat


def write_heads(folder: Path, corners: Any) -> Path:
    """Writes the head boxes of MPII's evaluation, headboxes_src: 2 corners x (x, y) x people, counted from 1."""
    file = folder / "mpii_gt_val.mat"
    savemat(file, {"headboxes_src": np.array(corners, np.float64)})
    return file


def heads_of(annotations: Path) -> np.ndarray:
    """Makes boxes of different sizes around head and neck."""
    ends = np.array([row["joints"] for row in json.loads(annotations.read_text())])[:, 8:10]
    margin = np.arange(5, 5 + len(ends))[:, None]
    return np.stack([ends.min(axis=1) - margin, ends.max(axis=1) + margin]).transpose(0, 2, 1)


def predictions_near(annotations: Path, spread: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for person in read_ground_truth(annotations).instances:
        xy = person.keypoints[:, :2] + rng.normal(0, spread, (16, 2))
        keypoints = np.column_stack([xy, np.ones(16)]).ravel().tolist()
        rows.append({"image_id": person.image_id, "category_id": 1, "keypoints": keypoints, "score": 1.0,
                     "bbox": list(person.xywh)})  # fmt: skip
    return rows


def reference_pckh(
    annotations: Path, predictions: list[dict[str, Any]], corners: np.ndarray, left_out: tuple[int, ...] = ()
) -> float:
    """PCKh as in MPII's evaluation code, in pixels counted from 1."""
    table = json.loads(annotations.read_text())
    hits = counted = 0
    for number, (row, found) in enumerate(zip(table, predictions, strict=True)):
        head = 0.6 * np.linalg.norm(corners[1, :, number] - corners[0, :, number])
        for joint in range(16):
            if row["joints_vis"][joint] and joint not in left_out:
                x, y = found["keypoints"][3 * joint] + 1, found["keypoints"][3 * joint + 1] + 1
                distance = np.hypot(x - row["joints"][joint][0], y - row["joints"][joint][1])
                hits, counted = hits + (distance <= 0.5 * head), counted + 1
    return hits / counted


def test_pckh_equals_that_of_mpii_s_evaluation(samples: Path, tmp_path: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    corners = heads_of(file)
    predictions = predictions_near(file, spread=0.25 * np.linalg.norm(corners[1] - corners[0], axis=0).mean())
    heads = write_heads(tmp_path, corners)
    report = evaluate_predictions(predictions, file, head_boxes=heads)
    expected = reference_pckh(file, predictions, corners, left_out=(6, 7))  # pelvis and thorax
    assert 0.2 < expected < 0.9
    assert report.numbers["pckh"]["PCKh@0.5"] == pytest.approx(expected, abs=1e-12)
    assert list(report.numbers) == ["pckh", "pck"]
    assert report.problems.names == {}
    assert report.counts["instances with a prediction"] == corners.shape[2]
    assert expected != reference_pckh(file, predictions, corners)


@pytest.mark.parametrize(
    "flags",
    [
        {}, {"dataset": "mpii"}, {"dataset": "aic"}, {"metrics": ["pckh", "pck", "epe"]}, {"skeleton": "mpii"},
        {"dataset": replace(MPII, evaluation=replace(MPII.evaluation, excluded=()))},
    ],
    ids=str,
)  # fmt: skip
def test_fault_pelvis_and_thorax_never_count(flags: dict[str, Any], samples: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    options = {"metrics": ["pckh"], **flags}
    report = evaluate_predictions(predictions_near(file, spread=25), file, **options)
    assert report.excluded == ("pelvis", "thorax")
    assert len(report.compared) == 14
    assert "pelvis" not in report.by_keypoint["PCKh@0.5 (head_top:upper_neck)"]


def test_a_model_on_mpii(samples: Path, tmp_path: Path) -> None:
    folder = samples / "mpii"
    corners = heads_of(folder / "test_mpii.json")
    heads = write_heads(tmp_path, corners)
    command = [
        "evaluate",
        "--annotations",
        folder / "test_mpii.json",
        "--images",
        folder,
        "--head-boxes",
        heads,
    ]
    result = CliRunner().invoke(app, [*map(str, command), "--device", "cpu", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert 0 < report["numbers"]["pckh"]["PCKh@0.5"] < 1
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())) == corners.shape[2]


def test_without_head_boxes_pckh_is_only_on_request_and_uses_keypoints(samples: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    assert list(evaluate_predictions([], file).numbers) == ["pck"]
    basis = evaluate_predictions([], file, metrics=["pckh"]).basis["pckh"]
    assert basis.endswith(
        "the distance head_top to upper_neck, as no annotation has a head box (see --head-boxes)"
    )


def test_refuses_head_boxes_of_other_annotations(samples: Path, tmp_path: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    people = len(json.loads(file.read_text()))
    heads = write_heads(tmp_path, np.ones((2, 2, people + 2)))
    message = rf"has {people + 2} head boxes and .*test_mpii.json has {people} annotations; give two files of the same"
    with pytest.raises(InputError, match=message):
        read_ground_truth(file, head_boxes=heads)


def test_refuses_files_without_head_boxes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.mat has no head boxes \(FileNotFoundError"):
        read_head_boxes(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("not a MATLAB file, but long enough to be read as one " * 9)
    with pytest.raises(InputError, match=r"text.mat has no head boxes .*; give MPII's mpii_gt_val.mat"):
        read_head_boxes(tmp_path / "text.mat")
    savemat(tmp_path / "other.mat", {"x": [1]})
    with pytest.raises(InputError, match=r"other.mat has no head boxes \(KeyError\('headboxes_src'\)\)"):
        read_head_boxes(tmp_path / "other.mat")
    with pytest.raises(
        InputError,
        match=r"headboxes_src must have the shape \(2 corners, x and y, instances\), not \(2, 3, 4\); give MPII's",
    ):
        read_head_boxes(write_heads(tmp_path, np.ones((2, 3, 4))))


def test_head_boxes_count_from_zero(tmp_path: Path) -> None:
    corners = [[[11.0], [21.0]], [[41.0], [61.0]]]
    assert read_head_boxes(write_heads(tmp_path, corners)).tolist() == [[10, 20, 30, 40]]
