"""Detectors of the caller: functions from an image to boxes, and objects with `detect`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vitpose
from vitpose.detectors import Detections, load_detector
from vitpose.detectors.custom import run_detector
from vitpose.errors import BoxError, InputError

IMAGE = np.zeros((40, 60, 3), np.uint8)
BOXES = [[10.0, 5.0, 30.0, 35.0], [0.0, 0.0, 9.0, 9.0]]


def run(detector: Any) -> Detections:
    (found,) = run_detector(detector, [IMAGE], [""])
    return found


def returns(value: Any) -> Any:
    def find_cats(image: np.ndarray) -> Any:
        assert image.shape == (40, 60, 3)
        return value

    return find_cats


@pytest.mark.parametrize(
    "boxes",
    [BOXES, np.array(BOXES), np.int64(BOXES), tuple(map(tuple, BOXES)), Detections.of_boxes(BOXES, "")],
)
def test_a_function_returns_boxes(boxes: Any) -> None:
    found = run(returns(boxes))
    np.testing.assert_array_equal(found.boxes, np.float32(BOXES))
    assert found.scores.tolist() == [1, 1]
    assert found.labels == ("", "")


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 4)), np.array([])])
def test_an_empty_list_means_no_instances(nothing: Any) -> None:
    assert len(run(returns(nothing))) == 0


def test_a_function_returns_detections_of_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    boxes, scores = np.float32(BOXES), np.float32([0.25, 0.5])
    found = run(returns(supervision.Detections(boxes, confidence=scores)))
    assert (found.scores.tolist(), found.labels) == ([0.25, 0.5], ("", ""))
    names = {"class_name": np.array(["cat", "dog"])}
    detector = returns(supervision.Detections(boxes, confidence=scores, data=names))
    assert run(detector).labels == ("cat", "dog")
    assert run(load_detector(detector, labels="dog")).boxes.tolist() == BOXES[1:]
    assert run(load_detector(detector, min_score=0.3)).boxes.tolist() == BOXES[1:]
    assert len(run(returns(supervision.Detections.empty()))) == 0


def test_class_names_that_are_not_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    supervision = pytest.importorskip("supervision")
    # Types are checked while the tests run, which would reject these first.
    unchecked = getattr(Detections.__init__, "__wrapped__", Detections.__init__)
    monkeypatch.setattr(Detections, "__init__", unchecked)
    names = {"class_name": np.array([1.0, 2.0])}
    with pytest.raises(
        BoxError, match=r"(?s)find_cats returned .*labels must be a class name \(a string\) for each"
    ):
        run(returns(supervision.Detections(np.float32(BOXES), data=names)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            [1.0, 2.0, 3.0, 4.0],
            r"returned \[1.0, 2.0, 3.0, 4.0\] .*shape \(n, 4\), .*put a single box into a list",
        ),
        (np.zeros((2, 5)), r"returned array.* must have the shape \(n, 4\), .* not \(2, 5\)"),
        ([[0.0, 0.0, np.nan, 9.0]], r"returned \[\[0.0, 0.0, nan, 9.0\]\] .*box 0 of 1, .* is not finite"),
        ([[9.0, 0.0, 3.0, 9.0]], r"returned .*box 0 of 1, .* has no area"),
        ([["a", "b", "c", "d"]], r"returned \[\['a', 'b', 'c', 'd'\]\] .*must be n rows of four numbers"),
        (None, r"returned None for an image: .*an empty list for no instances"),
    ],
)
def test_invalid_boxes_name_the_detector_and_the_value(value: Any, message: str) -> None:
    with pytest.raises(BoxError, match="(?s)the detector find_cats " + message):
        run(returns(value))


def test_an_object_may_return_any_form_of_boxes() -> None:
    class Several:
        def detect(self, images: list[np.ndarray], names: list[str]) -> list[Any]:
            return [BOXES, [], Detections.of_boxes(BOXES[:1])]

    found = run_detector(Several(), [IMAGE] * 3, [""] * 3)
    assert [len(boxes) for boxes in found] == [2, 0, 1]
    with pytest.raises(
        InputError, match=r"Several must return a list with the boxes of each of the 1 images, not \[\[\[10"
    ):
        run(Several())


def test_functions_without_labels_cannot_be_filtered_by_label() -> None:
    with pytest.raises(InputError, match=r"find_cats returns boxes without labels, .* labels \['dog'\]"):
        run(load_detector(returns(BOXES), labels="dog"))


def test_a_function_is_the_detector_of_a_pipeline() -> None:
    pipe = vitpose.load("vitpose-tiny", lambda image: [[0, 0, image.shape[1], image.shape[0]]], device="cpu")
    assert repr(pipe).endswith("detector=<lambda>)")
    np.testing.assert_array_equal(pipe(IMAGE).boxes, [[0, 0, 60, 40]])
    several = pipe([IMAGE, IMAGE[:20]])
    assert [poses.boxes[0, 3] for poses in several] == [40, 20]
    empty = vitpose.load("vitpose-tiny", lambda image: [], device="cpu")
    assert len(empty(IMAGE)) == 0
    failing = vitpose.load("vitpose-tiny", returns([1.0]), device="cpu")
    with pytest.raises(BoxError, match=r"the detector find_cats returned \[1.0\]"):
        failing(IMAGE)
    outside = vitpose.load("vitpose-tiny", returns([[100.0, 100.0, 120.0, 120.0]]), device="cpu")
    with pytest.raises(BoxError, match="lies wholly outside its image of 60x40 pixels"):
        outside(IMAGE)
