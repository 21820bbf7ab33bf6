"""The interface of engines: `Engine`, and `ImageEngine` for those that also crop and decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..geometry.boxes import Size
from ..geometry.heatmaps import Decoding
from ..geometry.warp import Warp


@runtime_checkable
class Engine(Protocol):
    """A network that is ready to run: crops in, heatmaps out.

    Attributes:
        description: Library, device and dtype, for display: "torch, cpu, float32".
    """

    description: str

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops (0 to 255); n may be 0."""
        ...


@dataclass(frozen=True, eq=False)
class DecodingOptions:
    """How keypoints are decoded from the heatmaps of crops.

    Attributes:
        decoding: How the position of a keypoint is decoded from its heatmap.
        mirror: For a flip test, the index of each keypoint's counterpart on the other side; None: no flip test.
        shift: Whether to shift the mirrored heatmaps by one cell, as the plain warp requires.
    """

    decoding: Decoding
    mirror: Int[np.ndarray, " k"] | None = None
    shift: bool = False


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An engine that also crops and decodes on its device, and returns only keypoints and scores.

    The result equals that of cropping, `heatmaps` and decoding in NumPy up to rounding.
    """

    def upload(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        """Upload an RGB image to the device, for `find_keypoints`."""
        ...

    def find_keypoints(
        self, images: Sequence[Any], warps: Sequence[Warp], options: DecodingOptions
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Estimate the keypoints in crops of images.

        Args:
            images: Uploaded images, as returned by `upload`.
            warps: The crops of each image; the crops of all images are one batch.
            options: How the heatmaps are decoded.

        Returns:
            Keypoints (x, y) in cells of the heatmaps, their scores, and the size of the heatmaps in cells.

        Raises:
            InputError: A heatmap contains NaN or infinity.
        """
        ...
