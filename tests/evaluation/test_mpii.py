"""MPII's own json, with the boxes of the heads from the file of its evaluation."""

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
    """Writes what MPII's evaluation calls headboxes_src: 2 corners x (x, y) x people, counted from 1."""
    file = folder / "mpii_gt_val.mat"
    savemat(file, {"headboxes_src": np.array(corners, np.float64)})
    return file


def heads_of(annotations: Path) -> np.ndarray:
    """Invents boxes around head and neck, each of its own size."""
    ends = np.array([row["joints"] for row in json.loads(annotations.read_text())])[:, 8:10]
    margin = np.arange(5, 5 + len(ends))[:, None]
    return np.stack([ends.min(axis=1) - margin, ends.max(axis=1) + margin]).transpose(0, 2, 1)


def predictions_near(annotations: Path, spread: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for person in read_ground_truth(annotations).people:
        xy = person.points[:, :2] + rng.normal(0, spread, (16, 2))
        points = np.column_stack([xy, np.ones(16)]).ravel().tolist()
        rows.append({"image_id": person.image_id, "category_id": 1, "keypoints": points, "score": 1.0,
                     "bbox": list(person.xywh)})  # fmt: skip
    return rows


def pckh_of_its_script(
    annotations: Path, predictions: list[dict[str, Any]], corners: np.ndarray, left_out: tuple[int, ...] = ()
) -> float:
    """MPII's evaluation as its script describes it, in pixels counted from 1."""
    table = json.loads(annotations.read_text())
    hits = points = 0
    for number, (row, found) in enumerate(zip(table, predictions, strict=True)):
        head = 0.6 * np.linalg.norm(corners[1, :, number] - corners[0, :, number])
        for joint in range(16):
            if row["joints_vis"][joint] and joint not in left_out:
                x, y = found["keypoints"][3 * joint] + 1, found["keypoints"][3 * joint + 1] + 1
                away = np.hypot(x - row["joints"][joint][0], y - row["joints"][joint][1])
                hits, points = hits + (away <= 0.5 * head), points + 1
    return hits / points


def test_pckh_is_that_of_mpii_s_script(samples: Path, tmp_path: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    corners = heads_of(file)
    predictions = predictions_near(file, spread=0.25 * np.linalg.norm(corners[1] - corners[0], axis=0).mean())
    heads = write_heads(tmp_path, corners)
    report = evaluate_predictions(predictions, file, head_boxes=heads)
    expected = pckh_of_its_script(file, predictions, corners, left_out=(6, 7))  # pelvis and thorax
    assert 0.2 < expected < 0.9
    assert report.numbers["pckh"]["PCKh@0.5"] == pytest.approx(expected, abs=1e-12)
    assert list(report.numbers) == ["pckh", "pck"]
    assert report.problems.names == {}
    assert report.counts["people with a prediction"] == corners.shape[2]
    assert expected != pckh_of_its_script(file, predictions, corners)


@pytest.mark.parametrize(
    "flags",
    [
        {}, {"dataset": "mpii"}, {"dataset": "aic"}, {"metrics": ["pckh", "pck", "epe"]}, {"skeleton": "mpii"},
        {"dataset": replace(MPII, evaluation=replace(MPII.evaluation, uncounted=()))},
    ],
    ids=str,
)  # fmt: skip
def test_fault_pelvis_and_thorax_never_count(flags: dict[str, Any], samples: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    own = {"metrics": ["pckh"], **flags}
    report = evaluate_predictions(predictions_near(file, spread=25), file, **own)
    assert report.uncounted == ("pelvis", "thorax")
    assert len(report.compared) == 14
    assert "pelvis" not in report.by_keypoint["PCKh@0.5"]


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


def test_without_heads_pckh_is_only_on_request_and_says_what_stands_for_them(samples: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    assert list(evaluate_predictions([], file).numbers) == ["pck"]
    basis = evaluate_predictions([], file, metrics=["pckh"]).basis["pckh"]
    assert basis.endswith("nobody has a box of the head (see --head-boxes)")


def test_heads_of_other_people(samples: Path, tmp_path: Path) -> None:
    file = samples / "mpii/test_mpii.json"
    people = len(json.loads(file.read_text()))
    heads = write_heads(tmp_path, np.ones((2, 2, people + 2)))
    wanted = rf"has the heads of {people + 2} people, and .*test_mpii.json has {people}"
    with pytest.raises(InputError, match=wanted):
        read_ground_truth(file, head_boxes=heads)


def test_files_that_hold_no_heads(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.mat holds no boxes of heads \(FileNotFoundError"):
        read_head_boxes(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("no file of MATLAB's, but long enough to look like one " * 9)
    with pytest.raises(InputError, match=r"text.mat holds no boxes of heads .*; give MPII's mpii_gt_val.mat"):
        read_head_boxes(tmp_path / "text.mat")
    savemat(tmp_path / "other.mat", {"x": [1]})
    with pytest.raises(
        InputError, match=r"other.mat holds no boxes of heads \(KeyError\('headboxes_src'\)\)"
    ):
        read_head_boxes(tmp_path / "other.mat")
    with pytest.raises(
        InputError, match=r"headboxes_src must be 2 corners x \(x, y\) x people, not \(2, 3, 4\)"
    ):
        read_head_boxes(write_heads(tmp_path, np.ones((2, 3, 4))))


def test_heads_count_from_zero(tmp_path: Path) -> None:
    corners = [[[11.0], [21.0]], [[41.0], [61.0]]]
    assert read_head_boxes(write_heads(tmp_path, corners)).tolist() == [[10, 20, 30, 40]]
