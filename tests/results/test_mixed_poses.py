"""People and animals in one image: assignment by the detector's classes, and exports."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from vitpose.detectors.given import WholeImage
from vitpose.detectors.protocol import Detections
from vitpose.engines.fake import FakeEngine
from vitpose.errors import BoxError, InputError, UnknownNameError
from vitpose.evaluation import evaluate_model
from vitpose.geometry.boxes import Size
from vitpose.inference.estimator import Estimator, MixedEstimator
from vitpose.inference.pipeline import Pipeline
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.mixed_poses import MixedPoses
from vitpose.results.poses import Poses

GRID = Size(width=48, height=64)
BOXES = np.array([[10, 10, 60, 90], [100, 20, 190, 80], [20, 30, 80, 70]], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.8, 0.7], np.float32), ("dog", "person", "zebra"))


def estimator(name: str, level: float) -> Estimator:
    dataset = DatasetSpec.load(name)
    cells = np.full((len(dataset.skeleton), 2), level)
    return Estimator(FakeEngine(cells, GRID), ModelSpec(dataset=dataset))


def both() -> MixedEstimator:
    return MixedEstimator({"coco": estimator("coco", 20.0), "ap10k": estimator("ap10k", 30.0)})


@pytest.fixture
def mixed() -> MixedPoses:
    return Pipeline(None, both())(np.zeros((100, 200, 3), np.uint8), boxes=FOUND)


def test_boxes_are_assigned_to_datasets_by_class(mixed: MixedPoses) -> None:
    assert mixed.datasets == ("ap10k", "coco", "ap10k")
    assert mixed.labels == ("dog", "person", "zebra")
    assert [len(pose.skeleton) for pose in mixed] == [17, 17, 17]
    np.testing.assert_array_equal(mixed.boxes, BOXES)
    np.testing.assert_allclose(mixed.box_scores, [0.9, 0.8, 0.7], rtol=1e-6)
    np.testing.assert_allclose(mixed.pose_scores, [pose.pose_scores[0] for pose in mixed])
    alone = Pipeline(None, estimator("ap10k", 30.0))(np.zeros((100, 200, 3), np.uint8), boxes=BOXES[[0, 2]])
    np.testing.assert_array_equal(mixed["ap10k"].xy, alone.xy)
    np.testing.assert_array_equal(mixed[2].xy[0], alone.xy[1])
    np.testing.assert_array_equal(mixed[-2].xy, mixed["coco"].xy)


def test_each_dataset_uses_its_warp(mixed: MixedPoses) -> None:
    """The same cell is at different pixels in the two conventions, as computed from their formulas."""
    for pose, cell, unit in ((mixed[0], 30.0, 0), (mixed[1], 20.0, 1)):
        x1, y1, x2, y2 = pose.boxes[0].astype(float)
        width = max(x2 - x1, (y2 - y1) * 0.75) * 1.25
        left, top = (x1 + x2) / 2 - width / 2, (y1 + y2) / 2 - width / 0.75 / 2
        expected = [left + cell * width / (48 - unit), top + cell * width / 0.75 / (64 - unit)]
        # Quarter-cell decoding may add a quarter of a cell.
        step = 0.26 * width / 48 if unit == 0 else 0.01
        np.testing.assert_allclose(pose.xy[0], np.tile(expected, (17, 1)), atol=step + 0.01)


def test_repr_and_exports(mixed: MixedPoses) -> None:
    text = repr(mixed)
    assert text.startswith("MixedPoses: 3 poses of coco, ap10k\n  0: dog (ap10k): 17 of 17 keypoints")
    table = json.loads(mixed.to_json())
    assert [row["dataset"] for row in table["poses"]] == ["ap10k", "coco", "ap10k"]
    assert next(iter(table["poses"][0]["keypoints"])) == "L_Eye"
    assert next(iter(table["poses"][1]["keypoints"])) == "nose"
    assert ["Nose", "Neck"] in table["edges"]["ap10k"]
    rows = mixed.to_coco(7)
    assert [row["category_id"] for row in rows] == [2, 1, 2]
    assert mixed.to_coco(7, {"coco": 1, "ap10k": 93})[2]["category_id"] == 93
    assert rows[1]["box_xywh"] == [100, 20, 90, 60]
    frame = mixed.to_pandas()
    assert frame.groupby("pose")["label"].first().tolist() == ["dog", "person", "zebra"]
    assert len(frame) == 3 * 17
    keypoints = mixed.to_supervision()
    assert {name: len(group) for name, group in keypoints.items()} == {"coco": 1, "ap10k": 2}


def test_zero_instances() -> None:
    empty = Pipeline(None, both())(np.zeros((100, 200, 3), np.uint8), boxes=[])
    assert len(empty) == 0
    assert list(empty) == []
    assert repr(empty) == "MixedPoses: 0 poses of coco, ap10k"
    assert empty.to_pandas().empty
    assert empty.to_dict()["poses"] == []


def test_unknown_datasets_indices_and_datasets_raise(mixed: MixedPoses) -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset of these poses 'ap10'; did you mean ap10k"):
        mixed["ap10"]
    with pytest.raises(IndexError, match=r"index 3 is out of range for 3 poses"):
        mixed[3]
    with pytest.raises(InputError, match=r"must contain each of the 3 instances of .* exactly once"):
        replace(mixed, indices=mixed.indices[:2])


def test_invalid_mixtures_raise() -> None:
    chair = Detections(BOXES[:1], np.ones(1, np.float32), ("chair",))
    with pytest.raises(
        BoxError, match="a box has the class 'chair', but the datasets coco, ap10k have only person, cat, dog"
    ):
        Pipeline(None, both())(np.zeros((100, 200, 3), np.uint8), boxes=chair)
    with pytest.raises(
        BoxError, match=r"a box has no class, but .*; give boxes of these classes only, or add the"
    ):
        Pipeline(lambda image: BOXES[:1], both())(np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(InputError, match="WholeImage does not distinguish people from animals"):
        Pipeline(WholeImage(), both())
    with pytest.raises(
        InputError, match="the dataset 'x' does not declare which of a detector's classes it is for"
    ):
        spec = ModelSpec(dataset=DatasetSpec.of_skeleton(Skeleton.load("coco")))
        MixedEstimator({"x": replace(estimator("coco", 1.0), spec=spec)})
    with pytest.raises(InputError, match="the list of datasets is empty"):
        MixedEstimator({})
    with pytest.raises(
        InputError, match=r"several datasets \(coco, ap10k\), but tables, videos and evaluation require"
    ):
        evaluate_model(Pipeline(None, both()), "none.json", ".")


def test_a_class_of_two_datasets_is_assigned_to_the_first() -> None:
    pipe = Pipeline(None, MixedEstimator({"aic": estimator("aic", 20.0), "coco": estimator("coco", 20.0)}))
    found = pipe(np.zeros((100, 200, 3), np.uint8), boxes=BOXES)
    assert found.datasets == ("aic",) * 3
    assert "aic: skeleton='aic'" in repr(pipe)
    assert isinstance(found["aic"], Poses)
