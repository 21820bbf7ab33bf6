from __future__ import annotations

import json
import pickle
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from vitpose.errors import InputError, MissingDependencyError
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import UNTRACKED, Poses

TRIANGLE = Skeleton("triangle", ("top", "left", "right"), edges=((0, 1), (0, 2)), flip_pairs=((1, 2),))


def poses_of(n: int, skeleton: Skeleton = TRIANGLE, ids: bool = False, **changes: Any) -> Poses:
    k = len(skeleton)
    parts: dict[str, Any] = {
        "xy": np.arange(n * k * 2, dtype=np.float32).reshape(n, k, 2) + 10,
        "scores": np.linspace(0.9, 0.1, n * k, dtype=np.float32).reshape(n, k),
        "boxes": np.array([[row, 2, row + 10, 22] for row in range(n)], np.float32).reshape(n, 4),
        "box_scores": np.linspace(1, 0.5, n, dtype=np.float32),
        "ids": np.arange(n) + 100 if ids else None,
    }
    return Poses(skeleton=skeleton, **{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"xy": np.zeros((2, 4, 2), np.float32)},
            r"xy has the shape \(2, 4, 2\); it must be \(2, 3, 2\), for 2 poses with the 3",
        ),
        ({"xy": np.zeros((2, 3, 3), np.float32)}, r"xy has the shape \(2, 3, 3\); it must be \(2, 3, 2\)"),
        ({"scores": np.zeros((3, 2), np.float32)}, r"scores has the shape \(3, 2\); it must be \(2, 3\)"),
        ({"boxes": np.zeros((1, 4), np.float32)}, r"boxes has the shape \(1, 4\); it must be \(2, 4\)"),
        (
            {"box_scores": np.zeros((2, 1), np.float32)},
            r"box_scores has the shape \(2, 1\); it must be \(2,\)",
        ),
        ({"ids": np.ones(2)}, r"ids must be whole numbers, not float64; convert it"),
        ({"scores": np.full((2, 3), "high")}, r"scores must be numbers, not <U4; convert it"),
        ({"ids": np.zeros(3, int)}, r"ids has the shape \(3,\); it must be \(2,\).* skeleton 'triangle'"),
    ],
)
def test_arrays_of_wrong_shape_or_type_raise(changes: dict[str, Any], message: str) -> None:
    # Without jaxtyping's checks, which would reject these arrays first.
    build = getattr(Poses.__init__, "__wrapped__", Poses.__init__)
    with pytest.raises(InputError, match=message):
        build(object.__new__(Poses), **{**vars(poses_of(2)), **changes})


def test_poses_are_immutable() -> None:
    poses = poses_of(2, ids=True)
    with pytest.raises(FrozenInstanceError):
        poses.xy = np.zeros((2, 3, 2))  # type: ignore[misc]
    for name in ("xy", "scores", "boxes", "box_scores", "ids"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(poses, name)[0] = 0


def test_arrays_are_copied() -> None:
    xy = np.zeros((2, 3, 2), np.float32)
    poses = poses_of(2, xy=xy)
    xy[:] = 7
    assert (poses.xy == 0).all()


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0, 2], [2, 0, 2]),
        (np.array([3, 1]), [3, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, False, False], [1]),
        ([], []),
        (np.zeros(4, bool), []),
    ],
)
def test_selecting_instances_gives_poses(index: Any, rows: list[int]) -> None:
    poses = poses_of(4, ids=True)
    chosen = poses[index]
    assert chosen.xy.shape == (len(rows), 3, 2)
    assert chosen.ids is not None
    assert chosen.ids.tolist() == [100 + row for row in rows]
    for name in ("xy", "scores", "boxes", "box_scores"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(poses, name)[rows])
    assert chosen.skeleton is poses.skeleton
    assert poses_of(4)[index].ids is None


def test_an_index_out_of_range_raises() -> None:
    with pytest.raises(IndexError, match="index 4 is out of range for 4 poses, counted from 0"):
        poses_of(4)[4]
    with pytest.raises(IndexError, match="index -5 is out of range for 4 poses, counted from 0"):
        poses_of(4)[-5]
    with pytest.raises(IndexError):
        poses_of(4)[np.ones(3, bool)]


def test_iterating_gives_poses_of_one_instance() -> None:
    poses = poses_of(3)
    assert [len(pose) for pose in poses] == [1, 1, 1]
    np.testing.assert_array_equal(np.concatenate([pose.xy for pose in poses]), poses.xy)
    assert len(poses) == 3


def test_visible_is_a_mask() -> None:
    poses = poses_of(1, scores=np.array([[0.3, 0.29, np.nan]]))
    assert poses.visible().tolist() == [[True, False, False]]
    assert poses.visible(0.2).tolist() == [[True, True, False]]
    assert poses.xy.shape == (1, 3, 2)


def test_a_threshold_that_is_not_finite_raises() -> None:
    with pytest.raises(InputError, match=r"threshold nan must be a finite number"):
        poses_of(1).visible(float("nan"))


def test_pose_scores() -> None:
    poses = poses_of(
        4,
        scores=np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0], [0.3, 0.21, 0.6], [np.nan, 0.4, 0.1]]),
        box_scores=np.array([0.5, 0.9, 1.0, 1.0]),
    )
    np.testing.assert_allclose(poses.pose_scores, [0.5 * 0.7, 0, 1.11 / 3, 0.4], rtol=1e-6)


def test_repr() -> None:
    text = repr(poses_of(2, ids=True)).splitlines()
    assert text[0] == "Poses: 2 poses, 3 keypoints each (triangle)"
    assert text[1] == "  0 (id 100): 3 of 3 keypoints score 0.3 or more, pose 0.74, box [0 2 10 22]"
    assert text[2] == "  1 (id 101): 1 of 3 keypoints score 0.3 or more, pose 0.17, box [1 2 11 22]"
    assert repr(poses_of(1)).startswith("Poses: 1 pose, 3 keypoints each (triangle)\n  0: 2 of 3 keypoints")


def test_repr_of_many_poses_is_short() -> None:
    lines = repr(poses_of(25)).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  ... and 15 more"


def test_json_of_poses() -> None:
    poses = poses_of(2, ids=True, xy=np.full((2, 3, 2), 1.23456))
    read = json.loads(poses.to_json())
    assert read == poses.to_dict()
    assert read["skeleton"] == "triangle"
    assert read["edges"] == [["top", "left"], ["top", "right"]]
    instance = read["poses"][0]
    assert list(instance) == ["id", "box_xyxy", "box_score", "score", "keypoints"]
    assert instance["id"] == 100
    assert instance["box_xyxy"] == [0, 2, 10, 22]
    assert instance["box_score"] == 1
    assert instance["score"] == 0.74
    assert instance["keypoints"]["top"] == {"x": 1.23, "y": 1.23, "score": 0.9}
    assert list(instance["keypoints"]) == ["top", "left", "right"]
    assert "id" not in poses_of(1).to_dict()["poses"][0]
    assert poses.to_json(indent=2).count("\n") > 10


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    poses = poses_of(1, xy=np.full((1, 3, 2), np.nan), scores=np.full((1, 3), np.inf))
    read = json.loads(poses.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["poses"][0]["keypoints"]["top"] == {"x": None, "y": None, "score": None}
    assert poses.to_coco(1)[0]["keypoints"] == [0.0] * 9


def test_a_keypoint_that_is_not_finite_is_zero_in_coco_results() -> None:
    """At 0, 0 with a score it would be a keypoint in the corner of the image."""
    xy = np.float32([[[1, 2], [np.nan, 3], [4, 5]]])
    poses = poses_of(1, xy=xy, scores=np.float32([[0.5, 0.75, np.inf]]))
    (result,) = poses.to_coco(1)
    assert result["keypoints"] == [1, 2, 0.5, 0, 0, 0, 0, 0, 0]
    assert result["score"] == pytest.approx((0.5 + 0.75) / 2)


def test_coco_results() -> None:
    poses = poses_of(2)
    results = json.loads(json.dumps(poses.to_coco(image_id=42)))
    assert [(row["image_id"], row["category_id"]) for row in results] == [(42, 1), (42, 1)]
    assert results[1]["box_xywh"] == [1, 2, 10, 20]
    assert "bbox" not in results[0]  # pycocotools would use its area as that of the pose
    assert results[0]["keypoints"] == pytest.approx([10, 11, 0.9, 12, 13, 0.74, 14, 15, 0.58])
    assert [row["score"] for row in results] == pytest.approx(poses.pose_scores.tolist(), abs=1e-6)
    assert poses.to_coco(1, category_id=7)[0]["category_id"] == 7


def test_pandas_has_a_row_for_every_keypoint() -> None:
    table = poses_of(2, ids=True).to_pandas()
    assert list(table.columns) == ["pose", "id", "keypoint", "x", "y", "score"]
    assert len(table) == 6
    row = table[(table["pose"] == 1) & (table["keypoint"] == "left")].iloc[0]
    assert (row["id"], row["x"], row["y"]) == (101, 18, 19)
    assert "id" not in poses_of(2).to_pandas().columns


def draw_with_supervision(poses: Poses, threshold: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges and the keypoints as supervision draws them on black."""
    sv = pytest.importorskip("supervision")
    keypoints = poses.to_supervision(threshold)
    edges = sv.EdgeAnnotator(color=sv.Color.WHITE, thickness=1, edges=poses.skeleton.supervision_edges)
    vertices = sv.VertexAnnotator(color=sv.Color.WHITE, radius=1)
    black = np.zeros((100, 100, 3), np.uint8)
    return edges.annotate(black.copy(), keypoints)[:, :, 0], vertices.annotate(black.copy(), keypoints)[
        :, :, 0
    ]


def test_supervision_draws_edges_and_keypoints() -> None:
    xy = np.array([[[50, 10], [10, 90], [90, 90]]], np.float32)
    edges, points = draw_with_supervision(poses_of(1, xy=xy))
    assert edges[50, 30] == edges[50, 70] == 255  # middle of top-left and of top-right
    assert edges[90, 50] == 0  # no edge between left and right
    assert (points[10, 50], points[90, 10], points[90, 90]) == (255, 255, 255)
    assert np.count_nonzero(points) == 3 * 5


def test_supervision_does_not_draw_keypoints_below_the_threshold() -> None:
    xy = np.array([[[50, 10], [10, 90], [90, 90]]], np.float32)
    poses = poses_of(1, xy=xy, scores=np.array([[0.9, 0.2, 0.9]], np.float32))
    edges, points = draw_with_supervision(poses, threshold=0.3)
    assert (edges[50, 30], edges[50, 70]) == (0, 255)
    assert (points[90, 10], points[90, 90]) == (0, 255)
    marked = poses.to_supervision(0.3)
    assert marked.xy.shape == (1, 3, 2)
    assert marked.visible.tolist() == [[True, False, True]]


def test_supervision_has_scores_and_edges() -> None:
    poses = poses_of(2)
    points = poses.to_supervision()
    np.testing.assert_array_equal(points.xy, poses.xy)
    np.testing.assert_array_equal(points.keypoint_confidence, poses.scores)
    np.testing.assert_array_equal(points.detection_confidence, poses.box_scores)
    assert points.visible.all()
    assert points.data["edges"].tolist() == [[[1, 2], [1, 3]]] * 2
    assert len(points[1]) == 1
    points.xy[0] = 0  # the arrays are copies
    assert poses.xy[0].all()


def test_supervision_draws_the_edges_of_animals() -> None:
    """Without edges supervision draws any 17 keypoints as a person."""
    skeleton = Skeleton.load("ap10k")
    xy = np.random.default_rng(0).uniform(5, 95, (1, 17, 2)).astype(np.float32)
    edges, _ = draw_with_supervision(poses_of(1, skeleton, xy=xy, scores=np.ones((1, 17), np.float32)))
    for a, b in skeleton.edges:
        x, y = xy[0, [a, b]].mean(axis=0).astype(int)
        assert edges[y - 1 : y + 2, x - 1 : x + 2].any()


def test_supervision_draws_nothing_if_all_scores_are_low() -> None:
    edges, points = draw_with_supervision(poses_of(1, scores=np.zeros((1, 3), np.float32)), threshold=0.3)
    assert not edges.any()
    assert not points.any()


@pytest.mark.parametrize("name", ["coco", "coco-wholebody"])
def test_zero_instances(name: str) -> None:
    skeleton = Skeleton.load(name)
    empty = Poses.empty(skeleton)
    k = len(skeleton)
    assert (len(empty), empty.xy.shape, empty.scores.shape) == (0, (0, k, 2), (0, k))
    assert empty.visible().shape == (0, k)
    assert empty.pose_scores.shape == (0,)
    assert list(empty) == []
    assert len(empty[:]) == len(empty[[]]) == 0
    assert repr(empty) == f"Poses: 0 poses, {k} keypoints each ({name})"
    assert json.loads(empty.to_json())["poses"] == []
    assert empty.to_coco(1) == []
    assert list(empty.to_pandas().columns) == ["pose", "keypoint", "x", "y", "score"]
    assert len(empty.to_pandas()) == 0
    edges, points = draw_with_supervision(empty, threshold=0.3)
    assert not edges.any()
    assert not points.any()
    with pytest.raises(IndexError, match="index 0 is out of range for 0 poses, counted from 0"):
        empty[0]


def test_poses_can_be_pickled() -> None:
    poses = pickle.loads(pickle.dumps(poses_of(2)))
    np.testing.assert_array_equal(poses.xy, poses_of(2).xy)
    assert poses.skeleton == TRIANGLE


def test_supervision_does_not_draw_keypoints_that_are_not_finite() -> None:
    xy = np.float32([[[10, 10], [np.nan, np.nan], [30, 30]]])
    for threshold in (None, 0.3):
        edges, points = draw_with_supervision(poses_of(1, xy=xy, scores=np.ones((1, 3))), threshold)
        assert points[10, 10]
        assert points[30, 30]
        assert edges[20, 20]
        assert np.count_nonzero(points) < 60


@pytest.mark.parametrize(
    ("package", "export", "extra"),
    [("pandas", "to_pandas", "tables"), ("supervision", "to_supervision", "supervision")],
)
def test_exports_without_their_package_raise(
    package: str, export: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"'{package}' is required for {export}\(\); install it with: pip install 'vitpose\[{extra}\]'"
    with pytest.raises(MissingDependencyError, match=message):
        getattr(poses_of(1), export)()


def test_untracked_instances_have_no_id_in_exports() -> None:
    poses = poses_of(2, ids=True)
    poses = replace(poses, ids=np.array([7, UNTRACKED]))
    assert poses.track_ids == [7, None]
    assert poses_of(2).track_ids == [None, None]
    assert [instance.get("id") for instance in poses.to_dict()["poses"]] == [7, None]
    assert poses.to_pandas()["id"].isna().tolist() == [False] * 3 + [True] * 3
    assert repr(poses).count("(id ") == 1
