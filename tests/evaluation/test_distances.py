from __future__ import annotations

import numpy as np
import pytest

from vitpose.errors import InputError
from vitpose.evaluation.distances import (
    auc,
    by_keypoint,
    head_lengths,
    keypoint_distances,
    mean_distance,
    pck,
    relative_distances,
)

# Two instances, three keypoints: 3-4-5 triangles, so that the distances are whole numbers.
TRUTH = np.array([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [[5.0, 5.0], [5.0, 5.0], [9.0, 9.0]]])
FOUND = np.array([[[3.0, 4.0], [10.0, 0.0], [0.0, 20.0]], [[5.0, 7.0], [np.inf, np.inf], [9.0, 9.0]]])
DISTANCES = np.array([[5.0, 0.0, 10.0], [2.0, np.inf, 0.0]])
LABELLED = np.array([[True, True, True], [True, True, False]])
RELATIVE = np.array([[0.25, 0.0, 0.5], [0.2, np.inf, 0.0]])  # of 20 px and 10 px


def test_distances() -> None:
    assert keypoint_distances(FOUND, TRUTH).tolist() == DISTANCES.tolist()
    assert relative_distances(DISTANCES, np.array([20.0, 10.0])).tolist() == RELATIVE.tolist()


def test_pck_counts_labelled_keypoints_and_misses_those_without_a_prediction() -> None:
    assert pck(RELATIVE, LABELLED, 0.2) == 2 / 5  # 0 and 0.2 of five
    assert pck(RELATIVE, LABELLED, 0.5) == 4 / 5
    assert by_keypoint(pck, RELATIVE, LABELLED, threshold=0.2) == [1 / 2, 1 / 2, 0]


def test_auc_is_the_mean_over_thresholds() -> None:
    # 0, 0.25, 0.5, 0.75: one, three, four and four of the five keypoints.
    assert auc(RELATIVE, LABELLED, steps=4) == pytest.approx((1 + 3 + 4 + 4) / 20)
    with pytest.raises(InputError, match="steps must be 1 or more, not 0"):
        auc(RELATIVE, LABELLED, steps=0)


def test_mean_distance_leaves_out_keypoints_without_a_prediction() -> None:
    assert mean_distance(DISTANCES, LABELLED) == 17 / 4  # EPE
    assert mean_distance(RELATIVE, LABELLED) == pytest.approx(0.95 / 4)  # NME
    assert by_keypoint(mean_distance, DISTANCES, LABELLED) == [3.5, 0, 10]


def test_metrics_without_labelled_keypoints_are_none() -> None:
    empty = np.zeros((0, 3)), np.zeros((0, 3), bool)
    assert pck(*empty, 0.2) is None
    assert auc(*empty) is None
    assert mean_distance(*empty) is None
    assert mean_distance(np.full((1, 1), np.inf), np.ones((1, 1), bool)) is None


def test_head_length_is_that_of_mpii() -> None:
    assert head_lengths(np.array([[7.0, 7.0, 30.0, 40.0]])).tolist() == [30]  # 0.6 x 50


@pytest.mark.parametrize("length", [0.0, -1.0, np.nan])
def test_refuses_invalid_lengths(length: float) -> None:
    with pytest.raises(
        InputError, match=r"lengths must be finite and above 0, not .*; leave those instances out"
    ):
        relative_distances(DISTANCES, np.array([20.0, length]))
