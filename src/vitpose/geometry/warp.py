"""Affine transforms between an image and the crops around boxes; one object holds both directions.

A heatmap is here only a grid of cells over a crop. This module does not depend on networks or heatmap values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from ..errors import UnknownNameError
from .boxes import Size

Pixels = UInt8[np.ndarray, "_ _ 3"] | Float32[np.ndarray, "_ _ 3"]
"""An RGB image, uint8 or float32 of any range; all images of a batch have the same type."""

BOX_PADDING = 1.25
"""Scale of the crop relative to the box, in the original and in every released checkpoint."""

WARPS = ("udp", "plain")
ASPECTS = ("keep", "stretch")

_LONGEST_SIDE = 32_766
"""Longest side of an image, px, that OpenCV's warp supports (its coordinates are signed 16-bit integers)."""


@dataclass(frozen=True, eq=False)
class Warp:
    """The affine transforms of n crops of one size in an image.

    A crop covers a rectangle of the image with size `extents` around `centres`, rotated by `angles`. In the
    unbiased convention ("udp"; Huang et al., The Devil is in the Details, CVPR 2020) the first and the last
    cell of a grid lie on the rectangle's borders, so that a grid of w cells has w - 1 steps and every
    grid, crop or heatmap, covers the same rectangle. In the "plain" convention a grid of w cells has w steps.

    Attributes:
        centres: Centre of each rectangle, px of the image.
        extents: Width and height of each rectangle, px of the image. A negative width mirrors the crop,
            without a shift in either convention.
        size: Size of the crops, px.
        convention: "udp" or "plain".
        angles: Clockwise rotation of each rectangle on the screen, degrees; default: 0.

    Raises:
        UnknownNameError: The convention is neither "udp" nor "plain".
    """

    centres: Float[np.ndarray, "n 2"]
    extents: Float[np.ndarray, "n 2"]
    size: Size
    convention: str = "udp"
    angles: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.convention not in WARPS:
            raise UnknownNameError("warp", self.convention, WARPS)
        if not len(self.angles):
            object.__setattr__(self, "angles", np.zeros(len(self.centres)))

    @classmethod
    def from_boxes(
        cls,
        boxes: Float[np.ndarray, "n 4"],
        size: Size,
        convention: str = "udp",
        padding: float = BOX_PADDING,
        aspect: str = "keep",
    ) -> Warp:
        """Returns the crops of boxes: each box is extended on its short side about its centre, then padded.

        With aspect "keep" a box is extended to the aspect ratio of the crop, so nothing is distorted. With "stretch" it
        is extended to a square and resized to the crop, so people are 1.335 times as tall in a crop of 192x256. The
        original does so for MPII, where an annotation is a square as large as the person is tall; any other box, such
        as a detection, becomes the square of its longer side.

        Args:
            boxes: xyxy, px of the image.
            size: Size of the crops, px.
            convention: "udp" or "plain".
            padding: Scale of the crop relative to the extended box.
            aspect: "keep" or "stretch".

        Raises:
            UnknownNameError: The convention or the aspect is unknown.
        """
        boxes = boxes.astype(np.float64)
        extents = grow(boxes[:, 2:] - boxes[:, :2], size, aspect) * padding
        return cls((boxes[:, :2] + boxes[:, 2:]) / 2, extents, size, convention)

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, index: slice) -> Warp:
        return Warp(self.centres[index], self.extents[index], self.size, self.convention, self.angles[index])

    def matrices(self, grid: Size) -> Float[np.ndarray, "n 2 3"]:
        """Returns the affine matrices from cells of a grid over each crop to pixels of the image.

        Args:
            grid: Size of the grid: that of the crop, or that of a heatmap over it.
        """
        steps = np.array([grid.width, grid.height], np.float64) - (self.convention == "udp")
        scales = self.extents / steps
        cos, sin = np.cos(np.deg2rad(self.angles)), np.sin(np.deg2rad(self.angles))
        rotations = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
        offsets = self.centres - np.einsum("nij,nj->ni", rotations, self.extents / 2)
        return np.concatenate([rotations * scales[:, None, :], offsets[:, :, None]], axis=2)

    def crop(
        self,
        image: Pixels,
        out: UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"] | None = None,
    ) -> UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"]:
        """Samples every crop from the image with bilinear interpolation; pixels outside the image are black.

        Args:
            image: RGB image.
            out: Array to write the crops to; default: a new array.

        Returns:
            The crops, of the type of the image.
        """
        crops = (
            np.empty((len(self), self.size.height, self.size.width, 3), image.dtype) if out is None else out
        )
        for crop, matrix in zip(crops, self.matrices(self.size), strict=True):
            _sample(image, matrix, crop)
        return crops

    def to_image(self, points: Float[np.ndarray, "n k 2"], grid: Size) -> Float[np.ndarray, "n k 2"]:
        """Transforms points from cells of a grid over each crop to pixels of the image."""
        return _transform(self.matrices(grid), points)

    def to_grid(self, points: Float[np.ndarray, "n k 2"], grid: Size) -> Float[np.ndarray, "n k 2"]:
        """Transforms points from pixels of the image to cells of a grid over each crop."""
        matrices = self.matrices(grid)
        inverse = np.linalg.inv(matrices[:, :, :2])
        return np.einsum("nij,nkj->nki", inverse, points - matrices[:, None, :, 2])


def crop_all(
    images: Sequence[Pixels], warps: Sequence[Warp], size: Size
) -> UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"]:
    """Samples the crops of several images into one batch.

    Args:
        images: RGB images of one type.
        warps: The crops of each image.
        size: Size of all crops, px.
    """
    dtype = images[0].dtype if images else np.uint8
    crops, start = np.empty((sum(map(len, warps)), size.height, size.width, 3), dtype), 0
    for image, warp in zip(images, warps, strict=True):
        warp.crop(image, crops[start : start + len(warp)])
        start += len(warp)
    return crops


def _transform(
    matrices: Float[np.ndarray, "n 2 3"], points: Float[np.ndarray, "n k 2"]
) -> Float[np.ndarray, "n k 2"]:
    return np.einsum("nij,nkj->nki", matrices[:, :, :2], points) + matrices[:, None, :, 2]


def grow(sides: Float[np.ndarray, "n 2"], size: Size, aspect: str = "keep") -> Float[np.ndarray, "n 2"]:
    """Returns the sides (width, height) of boxes, the shorter one extended as in `Warp.from_boxes`.

    Args:
        sides: Width and height of each box, px.
        size: Size of the crops, px.
        aspect: "keep" or "stretch".

    Raises:
        UnknownNameError: The aspect is neither "keep" nor "stretch".
    """
    if aspect not in ASPECTS:
        raise UnknownNameError("aspect", aspect, ASPECTS)
    ratio = size.width / size.height if aspect == "keep" else 1.0
    width = np.maximum(sides[:, 0], sides[:, 1] * ratio)
    return np.stack([width, width / ratio], axis=1)


def _sample(image: Pixels, matrix: Float[np.ndarray, "2 3"], crop: Pixels) -> None:
    """Samples one crop, in halves if it covers more pixels of the image than OpenCV supports."""
    height, width = crop.shape[:2]
    if max(image.shape) > _LONGEST_SIDE:
        image, matrix = _covered_part(image, matrix, Size(width=width, height=height))
    if max(image.shape) <= _LONGEST_SIDE:  # always true for a crop of one pixel, which ends the recursion
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(image, matrix, (width, height), dst=crop, flags=flags)
        return
    x, y = (width // 2, 0) if width >= height else (0, height // 2)
    first, second = (crop[:, :x], crop[:, x:]) if x else (crop[:y], crop[y:])
    _sample(image, matrix, first)
    _sample(image, np.column_stack([matrix[:, :2], matrix @ [x, y, 1]]), second)


def _covered_part(
    image: Pixels, matrix: Float[np.ndarray, "2 3"], size: Size
) -> tuple[Pixels, Float[np.ndarray, "2 3"]]:
    """Returns the part of an image that a crop covers, and the matrix of the crop in that part."""
    last = size.width - 1, size.height - 1
    corners = np.array([[[0, 0], [last[0], 0], [0, last[1]], last]], np.float64)
    reached = np.clip(_transform(matrix[None], corners)[0], -1e9, 1e9)  # beyond any image, within integers
    low = np.clip(np.floor(reached.min(axis=0)).astype(int) - 1, 0, [image.shape[1] - 1, image.shape[0] - 1])
    high = np.ceil(reached.max(axis=0)).astype(int) + 2
    shifted = matrix.copy()
    shifted[:, 2] -= low
    return image[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)], shifted


def normalise(
    crops: UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"],
    scale: Float[np.ndarray, " 3"],
    offset: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, "n 3 hc wc"]:
    """Converts crops to the network's input: pixel x scale + offset for each channel, channels first, float32."""
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32)
    pixels *= scale[:, None, None]
    pixels += offset[:, None, None]
    return pixels
