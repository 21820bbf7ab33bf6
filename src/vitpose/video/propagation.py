"""Boxes for frames that no detector looks at: the detector's box goes where the pose went.

So a box keeps the extent that the detector gave it, and an unsure point moves nothing by itself. Knows no
detector and no network.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..geometry.boxes import Size, clip_to
from ..results.poses import Poses

_MOST_SCALED = 1.25  # between two looks of the detector; more is a pose that went wrong
_SMALLEST_PX = 4


def carry_boxes(seen: Poses, now: Poses, size: Size) -> Float[np.ndarray, "n 4"]:
    """Moves and scales each person's box as their points moved and spread.

    The shift is the weighted median over the points, the scale the ratio of the weighted mean distances from
    it; a point weighs as much as both poses are sure of it.

    Args:
        seen: The people when the detector looked last, with its boxes.
        now: The same people, in the same order, in the frame before the one that boxes are wanted for.
        size: That of the frame, at whose borders boxes are cut.
    """
    boxes = seen.boxes.astype(np.float64)
    for row, weights in enumerate(np.sqrt(np.clip(seen.scores * now.scores, 0, None)).astype(np.float64)):
        if not weights.sum() > 0:
            continue
        before, after = seen.xy[row].astype(np.float64), now.xy[row].astype(np.float64)
        middle, moved = _weighted_median(before, weights), _weighted_median(after - before, weights)
        spreads = [
            np.average(np.linalg.norm(points - place, axis=1), weights=weights)
            for points, place in ((before, middle), (after, middle + moved))
        ]
        scale = np.clip(spreads[1] / max(spreads[0], 1e-6), 1 / _MOST_SCALED, _MOST_SCALED)
        boxes[row] = ((boxes[row].reshape(2, 2) - middle) * scale + middle + moved).ravel()
    limit = np.array([size.width, size.height])
    boxes[:, :2] = np.minimum(boxes[:, :2], limit - _SMALLEST_PX)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], _SMALLEST_PX)
    return clip_to(boxes.astype(np.float32), size)


def _weighted_median(
    values: Float[np.ndarray, "k 2"], weights: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " 2"]:
    order = np.argsort(values, axis=0)
    shares = np.cumsum(weights[order], axis=0) / weights.sum()
    places = (shares >= 0.5).argmax(axis=0)
    return np.take_along_axis(values, order[places, [0, 1]][None], axis=0)[0]
