"""Propagates the detector's boxes to frames that it does not run on, by the motion of the poses.

A propagated box keeps the extent that the detector gave it, and a single keypoint with a low score does not move it.
Does not know detectors or networks.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..geometry.boxes import Size, clip_to
from ..results.poses import Poses

_MAX_SCALE = 1.25  # between two runs of the detector; a larger change is a wrong pose
_MIN_SIDE_PX = 4


def propagate_boxes(detected: Poses, latest: Poses, size: Size) -> Float[np.ndarray, "n 4"]:
    """Moves and scales the box of each instance as its keypoints moved and spread.

    The shift is the weighted median of the keypoints' shifts; the scale is the ratio of their weighted mean
    distances from the median keypoint. The weight of a keypoint is the geometric mean of its two scores.

    Args:
        detected: The poses of the last frame that the detector ran on, with its boxes.
        latest: The poses of the same instances, in the same order, in the latest frame.
        size: Size of the frame, to whose borders boxes are clipped.

    Returns:
        Boxes for the next frame, xyxy in pixels.
    """
    boxes = detected.boxes.astype(np.float64)
    weights_of_rows = np.sqrt(np.clip(detected.scores * latest.scores, 0, None)).astype(np.float64)
    for row, weights in enumerate(weights_of_rows):
        if not weights.sum() > 0:
            continue
        before, after = detected.xy[row].astype(np.float64), latest.xy[row].astype(np.float64)
        centre, shift = _weighted_median(before, weights), _weighted_median(after - before, weights)
        spreads = [
            np.average(np.linalg.norm(keypoints - origin, axis=1), weights=weights)
            for keypoints, origin in ((before, centre), (after, centre + shift))
        ]
        scale = np.clip(spreads[1] / max(spreads[0], 1e-6), 1 / _MAX_SCALE, _MAX_SCALE)
        boxes[row] = ((boxes[row].reshape(2, 2) - centre) * scale + centre + shift).ravel()
    limit = np.array([size.width, size.height])
    boxes[:, :2] = np.minimum(boxes[:, :2], limit - _MIN_SIDE_PX)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], _MIN_SIDE_PX)
    return clip_to(boxes.astype(np.float32), size)


def _weighted_median(
    values: Float[np.ndarray, "k 2"], weights: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " 2"]:
    order = np.argsort(values, axis=0)
    shares = np.cumsum(weights[order], axis=0) / weights.sum()
    rows = (shares >= 0.5).argmax(axis=0)
    return np.take_along_axis(values, order[rows, [0, 1]][None], axis=0)[0]
