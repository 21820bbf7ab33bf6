"""What every engine gives and takes. Knows no particular one."""

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
    """Runs a network: crops in, heatmaps out.

    Attributes:
        description: What runs where, for people: "torch, cpu, float32".
    """

    description: str

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps (float32) of RGB crops; n may be 0."""
        ...


@dataclass(frozen=True, eq=False)
class Reading:
    """How keypoints are read from the maps of crops.

    Attributes:
        decoding: How the place of a keypoint is read from its map.
        mirror: Each keypoint's mirror image, for a flip test; None for none.
        shift: Shift the mirrored maps by one cell, as the plain warp needs it.
    """

    decoding: Decoding
    mirror: Int[np.ndarray, " k"] | None = None
    shift: bool = False


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An engine that crops and decodes too, where its network is: only keypoints and scores come back.

    What it finds is what cropping, `heatmaps` and decoding find, up to rounding.
    """

    def upload(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        """Brings an RGB image to where the network is; what this returns is for `find_points`."""
        ...

    def find_points(
        self, images: Sequence[Any], warps: Sequence[Warp], reading: Reading
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Finds the keypoints in crops of images.

        Args:
            images: What `upload` returned.
            warps: Where the crops lie in each; together they are one batch.
            reading: How the maps are read.

        Returns:
            Points in cells of the maps, their scores, and the size of the maps.

        Raises:
            InputError: A map holds NaN or infinity.
        """
        ...
