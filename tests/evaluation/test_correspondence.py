from __future__ import annotations

import numpy as np
import pytest

from vitpose.errors import InputError, UnknownNameError
from vitpose.evaluation.correspondence import match_boxes, match_keypoints
from vitpose.evaluation.ground_truth import Instance
from vitpose.evaluation.pairing import has_torso, measure_lengths
from vitpose.keypoints.skeleton import Skeleton

COCO, LSP = Skeleton.load("coco"), Skeleton.load("lsp")
EDGES = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


def test_keypoints_correspond_by_name() -> None:
    shared = match_keypoints(LSP, COCO)
    assert len(shared.names) == 12
    assert shared.unpredicted == ("neck", "head_top")
    assert shared.unannotated == ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    for name, a, b in zip(shared.names, shared.annotated, shared.predicted, strict=True):
        assert LSP.keypoints[a] == COCO.keypoints[b] == name


def test_spelling_of_names_does_not_matter() -> None:
    shared = match_keypoints(Skeleton("a", ("L-Eye", "top_head")), Skeleton("b", ("Head_Top", "left_eye")))
    assert shared.predicted.tolist() == [1, 0]


def test_refuses_skeletons_without_shared_keypoints() -> None:
    message = "'scissors' and the annotated skeleton 'coco' share no keypoint: pivot, … and nose, .* give the skeletons"
    with pytest.raises(InputError, match=message):
        match_keypoints(COCO, Skeleton("scissors", ("pivot",)))


def test_boxes_are_matched_once_each_in_order_of_overlap() -> None:
    annotated = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60.0]])
    predicted = np.array([[1, 0, 11, 10], [0, 0, 9, 10], [90, 90, 99, 99.0]])
    assert match_boxes(annotated, predicted).tolist() == [1, 0, -1]
    assert match_boxes(annotated, np.zeros((0, 4))).tolist() == [-1, -1, -1]
    same = np.array([[0, 0, 10, 10.0]] * 2)
    assert match_boxes(same, same).tolist() == [0, 1]


def person(points: list[list[float]], head: tuple[float, float, float, float] | None = None) -> Instance:
    box = (0.0, 0.0, 30.0, 50.0)
    return Instance(1, 1, 1, np.array(points, np.float64), box, 1.0, False, 4, head)


def test_lengths() -> None:
    skeleton = Skeleton("trunk", EDGES)
    whole = person([[0, 0, 2], [9, 9, 2], [1, 1, 2], [30, 40, 1]], (0.0, 0.0, 30.0, 40.0))
    partly = person([[0, 0, 2], [9, 9, 2], [1, 1, 2], [30, 40, 0]])
    people = [whole, partly]
    assert measure_lengths("torso", people, skeleton)[0] == 50
    assert np.isnan(measure_lengths("torso", people, skeleton)[1])
    assert measure_lengths("box", people, skeleton).tolist() == [50, 50]
    assert measure_lengths("head", people, skeleton)[0] == 30
    assert np.isnan(measure_lengths("head", people, skeleton)[1])
    assert measure_lengths("12.5", people, skeleton).tolist() == [12.5, 12.5]
    expected = pytest.approx(np.hypot(8, 8))
    assert measure_lengths("right_shoulder:left_hip", people, skeleton).tolist() == [expected, expected]
    assert has_torso(skeleton)
    assert not has_torso(Skeleton("a", ("nose",)))


def test_refuses_lengths_that_cannot_be_measured() -> None:
    skeleton, people = Skeleton("trunk", EDGES), [person([[0, 0, 2]] * 4)]
    with pytest.raises(UnknownNameError, match="unknown length 'tors'; did you mean torso"):
        measure_lengths("tors", people, skeleton)
    with pytest.raises(InputError, match="a length must be above 0 pixels, not -1"):
        measure_lengths("-1", people, skeleton)
    with pytest.raises(InputError, match="no annotation has a head box, which PCKh requires; add head_bbox"):
        measure_lengths("head", people, skeleton)
    with pytest.raises(UnknownNameError, match=r"unknown keypoint 'nose'.*The skeleton is 'trunk'"):
        measure_lengths("nose:left_hip", people, skeleton)
