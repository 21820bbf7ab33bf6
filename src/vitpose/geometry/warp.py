"""From box to crop and back: one object owns both directions, so they cannot disagree.

Knows no network and no heatmap values; a heatmap is here only a grid of cells over the crop.
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
"""An RGB image of bytes, or of floats of any range; all images of a batch are of one kind."""

BOX_PADDING = 1.25
"""The crop is this much larger than the box, in the original and in every released checkpoint."""

WARPS = ("udp", "plain")
ASPECTS = ("keep", "stretch")

_LONGEST_SIDE = 32_766
"""Longest side of an image, px, whose cells OpenCV's warp can address (it counts them in 16 bits with sign)."""


@dataclass(frozen=True, eq=False)
class Warp:
    """Where n crops of one size lie in an image.

    A crop covers a rectangle of the image, `extents` large around `centres`, turned by `angles`. In the
    unbiased convention ("udp"; Huang et al., The Devil is in the Details, CVPR 2020) the first and the last
    cell of a grid lie on the rectangle's borders, so that a grid of w cells has w - 1 steps and every
    grid, crop or heatmap, covers the same rectangle. In the "plain" convention a grid of w cells has w steps.

    Attributes:
        centres: Middle of each rectangle, px of the image.
        extents: Width and height of each rectangle, px of the image. A negative width runs from right to
            left: that crop is mirrored, in both conventions without a shift.
        size: Size of the crops, px.
        convention: "udp" or "plain".
        angles: Clockwise turn of each rectangle on the screen, degrees.
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
        """Returns the crops for boxes: grown on the short side about their centre, then padded.

        A crop that keeps the aspect ("keep") covers a rectangle of its own aspect, so that nothing is distorted. A crop
        that stretches covers a square, whatever its own aspect, so that in a crop of 192x256 people are 1.335 times
        as tall. The original treats MPII so, whose annotations give a square as large as the person is tall; any other
        box, such as a detector's, becomes the square of its longer side.

        Args:
            boxes: xyxy, px of the image.
            size: Size of the crops, px.
            convention: "udp" or "plain".
            padding: How much larger than the box the crop is.
            aspect: "keep" or "stretch".

        Raises:
            UnknownNameError: The convention or the aspect is none of these.
        """
        boxes = boxes.astype(np.float64)
        extents = grow(boxes[:, 2:] - boxes[:, :2], size, aspect) * padding
        return cls((boxes[:, :2] + boxes[:, 2:]) / 2, extents, size, convention)

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, index: slice) -> Warp:
        return Warp(self.centres[index], self.extents[index], self.size, self.convention, self.angles[index])

    def matrices(self, grid: Size) -> Float[np.ndarray, "n 2 3"]:
        """Returns the affine maps from cells of a grid over the crop to pixels of the image.

        Args:
            grid: Size of the grid: the crop's own, or that of a heatmap over it.
        """
        steps = np.array([grid.width, grid.height], np.float64) - (self.convention == "udp")
        scales = self.extents / steps
        cos, sin = np.cos(np.deg2rad(self.angles)), np.sin(np.deg2rad(self.angles))
        turn = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
        offsets = self.centres - np.einsum("nij,nj->ni", turn, self.extents / 2)
        return np.concatenate([turn * scales[:, None, :], offsets[:, :, None]], axis=2)

    def crop(
        self,
        image: Pixels,
        out: UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"] | None = None,
    ) -> UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"]:
        """Samples every crop from the image: bilinear, black outside it.

        Args:
            image: RGB image.
            out: Where to put the crops; new memory without it.
        """
        crops = (
            np.empty((len(self), self.size.height, self.size.width, 3), image.dtype) if out is None else out
        )
        for crop, matrix in zip(crops, self.matrices(self.size), strict=True):
            _sample(image, matrix, crop)
        return crops

    def to_image(self, points: Float[np.ndarray, "n k 2"], grid: Size) -> Float[np.ndarray, "n k 2"]:
        """Carries points from cells of a grid over each crop to pixels of the image."""
        return _transform(self.matrices(grid), points)

    def to_grid(self, points: Float[np.ndarray, "n k 2"], grid: Size) -> Float[np.ndarray, "n k 2"]:
        """Carries points from pixels of the image to cells of a grid over each crop."""
        matrices = self.matrices(grid)
        inverse = np.linalg.inv(matrices[:, :, :2])
        return np.einsum("nij,nkj->nki", inverse, points - matrices[:, None, :, 2])


def crop_all(
    images: Sequence[Pixels], warps: Sequence[Warp], size: Size
) -> UInt8[np.ndarray, "n hc wc 3"] | Float32[np.ndarray, "n hc wc 3"]:
    """Samples the crops of several images into one batch.

    Args:
        images: RGB images.
        warps: The crops of each.
        size: Size of all crops, px.
    """
    kind = images[0].dtype if images else np.uint8
    crops, start = np.empty((sum(map(len, warps)), size.height, size.width, 3), kind), 0
    for image, warp in zip(images, warps, strict=True):
        warp.crop(image, crops[start : start + len(warp)])
        start += len(warp)
    return crops


def _transform(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nkj->nki", matrices[:, :, :2], points) + matrices[:, None, :, 2]


def grow(sides: Float[np.ndarray, "n 2"], size: Size, aspect: str = "keep") -> Float[np.ndarray, "n 2"]:
    """Returns the sides (width, height) of boxes, the shorter one grown as `Warp.from_boxes` says.

    Raises:
        UnknownNameError: The aspect is neither "keep" nor "stretch".
    """
    if aspect not in ASPECTS:
        raise UnknownNameError("aspect", aspect, ASPECTS)
    ratio = size.width / size.height if aspect == "keep" else 1.0
    width = np.maximum(sides[:, 0], sides[:, 1] * ratio)
    return np.stack([width, width / ratio], axis=1)


def _sample(image: Pixels, matrix: Float[np.ndarray, "2 3"], crop: Pixels) -> None:
    """Fills a crop, in halves where it covers more pixels of the image than OpenCV can address."""
    height, width = crop.shape[:2]
    if max(image.shape) > _LONGEST_SIDE:
        image, matrix = _covered_part(image, matrix, Size(width=width, height=height))
    if max(image.shape) <= _LONGEST_SIDE:  # as it is for a crop of one pixel at the latest
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
    """Cuts out the part of an image under a crop."""
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
    """Turns crops into the network's input: pixel x scale + offset for each channel, channels first, float32."""
    pixels = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).astype(np.float32)
    pixels *= scale[:, None, None]
    pixels += offset[:, None, None]
    return pixels
