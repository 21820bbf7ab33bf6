"""New boxes from estimated poses, for detectors whose boxes are only a first guess."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..geometry.boxes import Size, clip_to
from ..results.poses import Poses

# Measured on the fully labelled people of COCO: a box is 1.28 x as wide and 1.20 x as high as the extent of its
# keypoints.
_MARGIN = np.array([0.14, 0.10])
# The box of a pose encloses the keypoints that score at least this share of the best one. With a fixed threshold the
# box shrinks in every round where scores are low (benchmarks/whole_image.py).
_MIN_SCORE_SHARE = 0.3
_MIN_KEYPOINTS = 4


def fit_boxes(poses: Poses, size: Size) -> Float[np.ndarray, "n 4"]:
    """Returns a box (xyxy, px) around the high-scoring keypoints of each pose, or its old box where they are too few.

    Args:
        poses: The poses of one image.
        size: Size of the image, to which the boxes are clipped.
    """
    boxes = poses.boxes.copy()
    for row, scores in enumerate(poses.scores):
        counted = np.flatnonzero(scores >= _MIN_SCORE_SHARE * scores.max())
        if len(counted) < _MIN_KEYPOINTS:
            continue
        keypoints = poses.xy[row, counted]
        low, high = keypoints.min(axis=0), keypoints.max(axis=0)
        margin = (
            _MARGIN * (high - low) + 1
        )  # at least a pixel, so that keypoints on a line have a box with an area
        boxes[row] = np.concatenate([low - margin, high + margin])
    clipped = clip_to(boxes, size)
    empty = np.any(clipped[:, 2:] <= clipped[:, :2], axis=1, keepdims=True)
    return np.where(empty, poses.boxes, clipped)
