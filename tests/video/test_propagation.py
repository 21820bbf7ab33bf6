from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitpose.geometry.boxes import Size
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import Poses
from vitpose.video.propagation import propagate_boxes

COCO = Skeleton.load("coco")
SIZE = Size(640, 480)


def person(left: float = 100, top: float = 80) -> Poses:
    xy = np.random.default_rng(3).uniform(0, 1, (1, 17, 2)) * [60, 160] + [left + 10, top + 10]
    box = np.array([[left, top, left + 80, top + 180]], np.float32)
    return Poses(xy.astype(np.float32), np.full((1, 17), 0.7, np.float32), box, np.ones(1, np.float32), COCO)


def test_a_box_moves_with_its_keypoints() -> None:
    seen = person()
    np.testing.assert_allclose(propagate_boxes(seen, seen, SIZE), seen.boxes, atol=1e-4)
    now = replace(seen, xy=seen.xy + np.array([12, -7], np.float32))
    np.testing.assert_allclose(
        propagate_boxes(seen, now, SIZE), seen.boxes + np.array([12, -7, 12, -7]), atol=1e-3
    )


def test_the_scale_of_a_box_is_limited() -> None:
    seen = person()
    centre = seen.xy.mean(axis=1, keepdims=True)
    for grown, expected in ((1.1, 1.1), (3.0, 1.25)):
        now = replace(seen, xy=centre + (seen.xy - centre) * np.float32(grown))
        box = propagate_boxes(seen, now, Size(5000, 5000))[0]
        assert abs((box[2] - box[0]) / 80 - expected) < 0.03


def test_low_scoring_keypoints_do_not_move_the_box() -> None:
    seen = person()
    xy = seen.xy.copy()
    xy[0, :4] += 300
    scores = seen.scores.copy()
    scores[0, :4] = 0.05
    box = propagate_boxes(seen, replace(seen, xy=xy, scores=scores), SIZE)
    assert np.abs(box[0, :2] - seen.boxes[0, :2]).max() < 30


def test_boxes_stay_in_the_frame_and_have_an_area() -> None:
    seen = person()
    for shift in ([900, 0], [0, 900], [-900, -900]):
        (box,) = propagate_boxes(seen, replace(seen, xy=seen.xy + np.array(shift, np.float32)), SIZE)
        assert 0 <= box[0] < box[2] <= 640
        assert 0 <= box[1] < box[3] <= 480


def test_no_instances_and_scores_of_zero() -> None:
    empty = Poses.empty(COCO)
    assert propagate_boxes(empty, empty, SIZE).shape == (0, 4)
    unseen = replace(person(), scores=np.zeros((1, 17), np.float32))
    np.testing.assert_array_equal(propagate_boxes(unseen, unseen, SIZE), unseen.boxes)
