from __future__ import annotations

import numpy as np
import pytest

from vitpose.boxes import Size
from vitpose.detect import Detections
from vitpose.errors import BoxError


def test_lengths_must_agree():
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    with pytest.raises(BoxError, match="1 boxes, 1 scores and 2 labels do not belong together"):
        Detections(boxes, np.ones(1, np.float32), ("person", "dog"))


def test_found_boxes_are_cut_sorted_and_never_empty():
    boxes = np.array([[-5, 2, 30, 8], [25, 0, 30, 5], [1, 1, 2, 2], [3, 9, 3, 10]], np.float32)
    scores = np.array([0.2, 0.9, 0.5, 0.8])
    found = Detections.found(boxes, scores, ["a", "outside", "b", "thin"], Size(20, 10))
    np.testing.assert_array_equal(found.boxes, [[1, 1, 2, 2], [0, 2, 20, 8]])
    np.testing.assert_array_equal(found.scores, np.float32([0.5, 0.2]))
    assert found.labels == ("b", "a")
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_finding_nothing_is_fine():
    found = Detections.found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), [], Size(5, 5))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
