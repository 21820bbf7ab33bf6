"""An engine without a network, for tests of code that uses an engine."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from ..geometry.boxes import Size
from ..geometry.heatmaps import encode


class FakeEngine:
    """An engine whose heatmaps have every keypoint at a fixed position of the crop.

    Args:
        keypoints: Keypoints (x, y), in cells of the heatmap.
        size: Size of the heatmaps, in cells.

    Attributes:
        batches: Number of crops of each call.
    """

    def __init__(self, keypoints: Float[np.ndarray, "k 2"], size: Size) -> None:
        self.keypoints, self.size = keypoints, size
        self.batches: list[int] = []
        self.description = "fake"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the same heatmaps for every crop."""
        self.batches.append(len(crops))
        keypoints = np.repeat(self.keypoints[None], len(crops), axis=0)
        return encode(keypoints, np.ones(keypoints.shape[:2], bool), self.size)[0]
