from __future__ import annotations

import numpy as np
import pytest

from vitpose.detectors import Detections
from vitpose.errors import BoxError
from vitpose.geometry.boxes import Size


def test_lengths_must_agree():
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    with pytest.raises(BoxError, match="there are 1 boxes, 1 scores and 2 labels; give one score"):
        Detections(boxes, np.ones(1, np.float32), ("person", "dog"))


def test_found_boxes_are_clipped_sorted_and_have_an_area():
    boxes = np.array([[-5, 2, 30, 8], [25, 0, 30, 5], [1, 1, 2, 2], [3, 9, 3, 10]], np.float32)
    scores = np.array([0.2, 0.9, 0.5, 0.8])
    found = Detections.found(boxes, scores, ["a", "outside", "b", "thin"], Size(20, 10))
    np.testing.assert_array_equal(found.boxes, [[1, 1, 2, 2], [0, 2, 20, 8]])
    np.testing.assert_array_equal(found.scores, np.float32([0.5, 0.2]))
    assert found.labels == ("b", "a")
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_no_found_boxes():
    found = Detections.found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), [], Size(5, 5))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


BOX = [[0.0, 0.0, 4.0, 4.0]]


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "message"),
    [
        ([[0, 0, np.nan, 4]], [1], ["a"], r"box 0 of 1, \[0, 0, nan, 4\], is not finite; remove it"),
        ([[0, 0, np.inf, 4]], [1], ["a"], r"is not finite"),
        ([[4, 0, 4, 4]], [1], ["a"], r"box 0 of 1, \[4, 0, 4, 4\], has no area: right must exceed left"),
        ([[0, 0, 4]], [1], ["a"], r"must have the shape \(n, 4\)"),
        (
            BOX,
            [np.nan],
            ["a"],
            r"scores must be one finite number for each box, not \[nan\]; drop boxes without a finite score",
        ),
        (BOX, [[1]], ["a"], r"scores must be one finite number for each box, not \[\[1\]\]"),
        (BOX, ["high"], ["a"], r"scores must be one number for each box, not \['high'\]"),
        (BOX, [1], "a", r"labels must be a class name \(a string\) for each box, not 'a'"),
        (BOX, [1], [0], r"labels must be a class name \(a string\) for each box, not \[0\]"),
    ],
)
def test_invalid_detections_are_rejected(boxes: object, scores: object, labels: object, message: str):
    # Types are checked while the tests run, which would reject some of these first.
    build = getattr(Detections.__init__, "__wrapped__", Detections.__init__)
    with pytest.raises(BoxError, match=message):
        build(object.__new__(Detections), boxes, scores, labels)


def test_detections_copy_the_arrays_they_are_created_from():
    boxes, scores = np.float32(BOX), np.float32([0.5])
    found = Detections(boxes, scores, ("a",))
    boxes[:], scores[:] = 0, 0
    assert (found.boxes.tolist(), found.scores.tolist()) == (BOX, [0.5])


def test_boxes_are_selected_by_index_and_mask():
    boxes = np.float32([[left, 0, left + 4, 4] for left in range(3)])
    found = Detections(boxes, np.float32([0.9, 0.8, 0.7]), ("a", "b", "c"))
    chosen = found[[2, 0]]
    assert (chosen.boxes[:, 0].tolist(), chosen.labels) == ([2, 0], ("c", "a"))
    assert found[found.scores > 0.75].labels == ("a", "b")
    assert len(found[found.scores > 1]) == 0


@pytest.mark.parametrize(
    ("box", "score"), [([0, 0, np.nan, 4], 1.0), ([-np.inf, 0, 4, 4], 1.0), (BOX[0], np.nan)]
)
def test_found_boxes_that_are_not_finite_are_rejected(box: list[float], score: float):
    """Clipped to the image, an infinite box would be the whole image."""
    message = "returned boxes or scores that are NaN or infinite; its file is damaged, or its dtype overflows"
    with pytest.raises(BoxError, match=message):
        Detections.found(np.float32([box]), np.float32([score]), ["a"], Size(9, 9))
