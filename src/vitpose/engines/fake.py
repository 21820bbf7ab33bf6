"""An engine without a network, for tests of whatever stands around one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from ..geometry.boxes import Size
from ..geometry.heatmaps import encode


class FakeEngine:
    """Finds every keypoint at a fixed place of the crop.

    Args:
        points: Where, in cells of the map.
        size: Size of the maps.

    Attributes:
        batches: How many crops each call had.
    """

    def __init__(self, points: Float[np.ndarray, "k 2"], size: Size) -> None:
        self.points, self.size = points, size
        self.batches: list[int] = []
        self.description = "fake"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the same maps for every crop."""
        self.batches.append(len(crops))
        points = np.repeat(self.points[None], len(crops), axis=0)
        return encode(points, np.ones(points.shape[:2], bool), self.size)[0]
