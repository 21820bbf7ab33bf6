"""Heatmaps as a coloured overlay of their image."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InputError
from ..geometry.boxes import Size
from ..images import read_image


def draw_heatmaps(
    image: Any,
    heatmaps: Float[np.ndarray, "n k hm wm"],
    matrices: Float[np.ndarray, "m 2 3"],
    opacity: float = 0.6,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a copy of an image overlaid with the maximum of all heatmaps of all instances.

    Values are coloured from blue (low) to red (high), transparent at 0.

    Args:
        image: An RGB image, or any other source that `read_image` takes; it is not changed.
        heatmaps: Heatmaps of n instances, 0 to 1.
        matrices: Affine matrices from cells of each instance's heatmaps to pixels of the image, as from
            `Warp.matrices`; m must be n.
        opacity: Opacity of the value 1, 0 to 1.

    Raises:
        ImageError: The image cannot be read.
        InputError: The numbers of matrices and instances differ, or the opacity is not from 0 to 1.
    """
    canvas = np.array(read_image(image))
    if len(heatmaps) != len(matrices):
        raise InputError(f"{len(heatmaps)} instances need one matrix each, not {len(matrices)} matrices")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity must be from 0 to 1, not {opacity!r}")
    heat = np.zeros(canvas.shape[:2], np.float32)
    for channels, matrix in zip(heatmaps, matrices, strict=True):
        _warp_into(heat, channels.max(axis=0).astype(np.float32), matrix)
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), _gradient())
    # The square root keeps low values visible, which show how certain the position is.
    weight = opacity * np.sqrt(heat)
    return cv2.blendLinear(canvas, colours, 1 - weight, weight)


def _warp_into(
    heat: Float[np.ndarray, "h w"], cells: Float[np.ndarray, "hm wm"], matrix: Float[np.ndarray, "2 3"]
) -> None:
    """Takes the maximum of `heat` and a heatmap warped into the image, in the region that it covers."""
    grid = Size(width=cells.shape[1], height=cells.shape[0])
    corners = np.array([(x, y, 1) for x in (-1, grid.width) for y in (-1, grid.height)])
    corners_px = corners @ matrix.T
    limit = np.array([heat.shape[1], heat.shape[0]])
    low = np.clip(np.floor(corners_px.min(axis=0)), 0, limit).astype(int)
    high = np.clip(np.ceil(corners_px.max(axis=0)) + 1, 0, limit).astype(int)
    part = heat[low[1] : high[1], low[0] : high[0]]
    if part.size:
        shifted = matrix.astype(np.float64) - [[0, 0, low[0]], [0, 0, low[1]]]
        warped = cv2.warpAffine(cells, shifted, (part.shape[1], part.shape[0]), flags=cv2.INTER_CUBIC)
        np.maximum(part, warped, out=part)


@cache
def _gradient() -> UInt8[np.ndarray, "256 1 3"]:
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
