"""Drawing poses and heatmaps on images.

Colours are those of the skeleton; line widths depend on the size of the image and of each instance. Images are RGB;
OpenCV's drawing functions do not depend on the order of channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..errors import InputError, check_number
from ..geometry.boxes import Size
from ..images import read_image
from ..keypoints.skeleton import Skeleton
from .mixed_poses import MixedPoses
from .poses import Poses
from .text import Colour, text_height, text_width, write_text

FixedPoint = tuple[int, int]
"""A point (x, y) in sixteenths of a pixel."""

DARK: Colour = (16, 16, 16)
LIGHT: Colour = (255, 255, 255)
TRACK_COLOURS = (
    "#d62728", "#2a8a2a", "#1f5fb4", "#b85a00", "#8e44ad",
    "#00807a", "#c2185b", "#7a5230", "#6b6b00", "#30308f",
)  # fmt: skip
"""Colours of boxes and tags, dark enough for white text; they repeat after ten."""
TAG_ROWS = 4
"""Number of positions, each below the previous one, that are tried for the tag of a box."""
UNTRACKED_COLOUR = "#5c5c5c"
"""Colour of the boxes of instances without a track where tracking was used."""

SUBPIXEL_BITS = 4
"""OpenCV takes coordinates as integers in sixteenths of a pixel."""
FARTHEST_PX = 1e6
"""Keypoints farther out than this are not drawn: in sixteenths they could overflow OpenCV's 32 bits."""
THICKEST_PX = 1000
"""Largest thickness of a line."""

# Chosen by eye on photographs 160 to 1920 pixels bar_width with people of all sizes.
PERSON_PER_WIDTH = 70
"""Ratio of the longer side of an instance's box to the width of its edges."""
IMAGE_PER_NARROWEST, IMAGE_PER_WIDEST = 700, 120
"""Ratio of the image's short side to the width of the narrowest and of the widest edges."""
EDGE_PER_WIDTH = 8
"""Smallest ratio of the length of an edge to its width, which keeps hands and faces readable."""
RIM_FROM_WIDTH, LIGHT_RIM_FROM_WIDTH = 1.5, 2.0
"""Width, px, from which edges and keypoints have a dark rim, and keypoints a light rim inside it."""
HALO = tuple((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0))
"""Offsets, px, of dark copies of a name, which make it readable on any background."""


def draw(
    image: Any,
    poses: Poses | MixedPoses,
    *,
    threshold: float | int = 0.3,
    boxes: bool = False,
    ids: bool = True,
    names: bool = False,
    opacity_by_score: bool = False,
    thickness: float | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a copy of an image with poses drawn on it.

    Edges and keypoints have the colours of the skeleton. Their width depends on the size of the image and of the
    instance; short edges, such as fingers, are thinner. The first pose, usually the best, is drawn last and so on top.

    Args:
        image: An RGB image, or any other source that `read_image` takes; it is not changed.
        poses: Poses in pixels of that image. Keypoints that are not finite are not drawn.
        threshold: Keypoints with a lower score are not drawn, nor edges that end in one.
        boxes: Draw the box of each instance, and above it the score of the pose ("pose 0.83", see `Poses.pose_scores`).
        ids: Write the track ID of each instance ("id 3"), if the poses have IDs. Instances without a track have no
            tag and a grey box.
        names: Write the names of keypoints beside them, if there is free space.
        opacity_by_score: Use the score of a keypoint as its opacity, and the lower score of its ends for an edge.
        thickness: Width of long edges, px; default: by the size of the image and the instance.

    Raises:
        ImageError: The image cannot be read.
        InputError: The threshold is not from 0 to 1, or the thickness is not above 0 and at most `THICKEST_PX`.
    """
    check_number("threshold", threshold, 0, 1)
    canvas = np.array(read_image(image))
    if thickness is not None and not 0 < thickness <= THICKEST_PX:
        raise InputError(
            f"thickness must be above 0 and at most {THICKEST_PX} pixels, not {thickness!r}; None: automatic"
        )
    instances = list(poses)
    for pose in reversed(instances):
        opacities = np.clip(pose.scores, 0, 1) if opacity_by_score else np.ones_like(pose.scores)
        width = thickness or _width_of_edges(pose.boxes[0], Size.of(canvas))
        shown = _shown(pose, threshold)[0]
        _draw_pose(canvas, pose.skeleton, pose.xy[0].astype(np.float64), shown, opacities[0].tolist(), width)
    if names:
        _write_names(canvas, instances, threshold)
    tags = [
        _draw_box(canvas, pose, number, boxes, ids)
        for number, pose in reversed(list(enumerate(instances)))
        if boxes or (ids and pose.ids is not None)
    ]
    _write_tags(canvas, tags[::-1])
    return canvas


def _shown(poses: Poses, threshold: float) -> Bool[np.ndarray, "n k"]:
    return poses.visible(threshold) & (np.abs(poses.xy) < FARTHEST_PX).all(axis=2)


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


def _draw_pose(
    canvas: UInt8[np.ndarray, "h w 3"],
    skeleton: Skeleton,
    xy: Float[np.ndarray, "k 2"],
    drawn: Bool[np.ndarray, " k"],
    opacities: list[float],
    width: float,
) -> None:
    edges = np.array(skeleton.edges, np.int64).reshape(-1, 2)
    shown = np.flatnonzero(drawn[edges].all(axis=1))
    edges = edges[shown]
    lengths = np.linalg.norm(xy[edges[:, 0]] - xy[edges[:, 1]], axis=1)
    point_widths = np.minimum(width, _local_scales(xy, drawn, edges, lengths) / EDGE_PER_WIDTH)
    # Long edges of the palm are as thin as those of the fingers.
    edge_widths = np.minimum(
        lengths / EDGE_PER_WIDTH, point_widths[edges].min(axis=1, initial=width)
    ).tolist()
    points = _fixed(np.where(drawn[:, None], xy, 0))
    for index, (a, b), edge_width in zip(shown, edges, edge_widths, strict=True):
        colour = _rgb(skeleton.edge_colours[index])
        with _blended(canvas, [points[a], points[b]], 2 * width, min(opacities[a], opacities[b])):
            _draw_edge(canvas, points[a], points[b], edge_width, colour)
    for index in np.flatnonzero(drawn):
        colour = _rgb(skeleton.colours[index])
        with _blended(canvas, [points[index]], 2 * width, opacities[index]):
            _draw_point(canvas, points[index], float(point_widths[index]), colour)


def _width_of_edges(box: Float[np.ndarray, " 4"], size: Size) -> float:
    """Returns the width of an instance's edges by its box, px, which does not depend on the drawn keypoints."""
    short = min(size.width, size.height)
    narrowest, widest = max(short / IMAGE_PER_NARROWEST, 1), max(short / IMAGE_PER_WIDEST, 2)
    with np.errstate(invalid="ignore", over="ignore"):  # a box may contain NaN
        extent = np.nan_to_num((box[2:] - box[:2]).max())
    return float(np.clip(extent / PERSON_PER_WIDTH, narrowest, widest))


def _local_scales(
    xy: Float[np.ndarray, "k 2"],
    drawn: Bool[np.ndarray, " k"],
    edges: Int[np.ndarray, "l 2"],
    lengths: Float[np.ndarray, " l"],
) -> Float[np.ndarray, " k"]:
    """Returns the mean length of each keypoint's edges, or 1.5 times the distance to the nearest keypoint, px."""
    total, count = np.zeros((2, len(xy)))
    np.add.at(total, edges.ravel(), np.repeat(lengths, 2))
    np.add.at(count, edges.ravel(), 1)
    others, isolated = np.flatnonzero(drawn), np.flatnonzero(drawn & (count == 0))
    gaps = np.linalg.norm(xy[isolated, None] - xy[None, others], axis=2)
    gaps[isolated[:, None] == others] = np.inf
    total[isolated] = 1.5 * gaps.min(axis=1, initial=np.inf)
    return total / np.maximum(count, 1)


def _draw_edge(
    canvas: UInt8[np.ndarray, "h w 3"], a: FixedPoint, b: FixedPoint, width: float, colour: Colour
) -> None:
    core = max(round(width), 1)
    if width >= RIM_FROM_WIDTH:
        rim = max(round(width / 3), 1)
        cv2.line(canvas, a, b, DARK, core + 2 * rim, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.line(canvas, a, b, colour, core, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_point(canvas: UInt8[np.ndarray, "h w 3"], point: FixedPoint, width: float, colour: Colour) -> None:
    radius, rim = max(width, 0.5), max(width / 3, 0.8)
    discs = [(radius, colour)]
    if width >= LIGHT_RIM_FROM_WIDTH:
        discs = [(radius + 1.4 * rim, DARK), (radius + 0.8 * rim, LIGHT), *discs]
    elif width >= RIM_FROM_WIDTH:
        discs = [(radius + rim, DARK), *discs]
    for size, disc_colour in discs:
        sixteenths = round(size * 2**SUBPIXEL_BITS)
        cv2.circle(canvas, point, sixteenths, disc_colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


@contextmanager
def _blended(
    canvas: UInt8[np.ndarray, "h w 3"], points: list[FixedPoint], margin: float, opacity: float
) -> Iterator[None]:
    """Blends everything drawn in its block, at most `margin` px around the points, with this opacity."""
    if opacity >= 1:
        yield
        return
    margin = math.ceil(margin) + 2
    xs, ys = ([value >> SUBPIXEL_BITS for value in axis] for axis in zip(*points, strict=True))
    rows = slice(max(min(ys) - margin, 0), max(max(ys) + margin, 0))
    region = canvas[rows, max(min(xs) - margin, 0) : max(max(xs) + margin, 0)]
    before = region.copy()
    yield
    if region.size:
        region[:] = cv2.addWeighted(region, opacity, before, 1 - opacity, 0)


@dataclass(frozen=True)
class _Tag:
    """The text above a box."""

    text: str
    corner: tuple[float, float]
    colour: Colour


def _draw_box(canvas: UInt8[np.ndarray, "h w 3"], pose: Poses, number: int, boxes: bool, ids: bool) -> _Tag:
    """Draws the box of an instance if requested, and returns its tag."""
    colour, parts = TRACK_COLOURS[number % len(TRACK_COLOURS)], []
    if ids and pose.ids is not None:
        tracked = pose.ids[0] >= 0
        parts += [f"id {pose.ids[0]}"] if tracked else []
        colour = TRACK_COLOURS[pose.ids[0] % len(TRACK_COLOURS)] if tracked else UNTRACKED_COLOUR
    if not np.isfinite(pose.boxes[0]).all():
        return _Tag("", (0.0, 0.0), DARK)
    box = np.clip(pose.boxes[0].astype(np.float64), -FARTHEST_PX, FARTHEST_PX)
    if boxes:
        parts.append(f"pose {pose.pose_scores[0]:.2f}")
        width = max(round(min(canvas.shape[:2]) / 400), 1)
        low, high = _fixed(box.reshape(2, 2))
        cv2.rectangle(canvas, low, high, _rgb(colour), width, cv2.LINE_AA, SUBPIXEL_BITS)
    return _Tag("  ".join(parts), (float(box[0]), float(box[1])), _rgb(colour))


def _write_tags(canvas: UInt8[np.ndarray, "h w 3"], tags: list[_Tag]) -> None:
    """Writes each tag on a bar above the corner of its box, shifted into the image.

    The bar moves down if it would overlap an earlier tag. It is omitted if there is no free position, because a tag
    that is partly covered would show another number.
    """
    size, height = Size.of(canvas), text_height(canvas)
    pad = height // 4
    bar_height = height + 2 * pad
    taken = np.zeros(canvas.shape[:2], bool)
    for tag in tags:
        bar_width = text_width(tag.text, height) + 2 * pad
        left = int(np.clip(tag.corner[0], 0, max(size.width - bar_width, 0)))
        for row in range(TAG_ROWS if tag.text else 0):
            top = int(np.clip(tag.corner[1] + (row - 1) * bar_height, 0, max(size.height - bar_height, 0)))
            bar = (slice(top, top + bar_height), slice(left, left + bar_width))
            if not taken[bar].any():
                taken[bar] = True
                cv2.rectangle(
                    canvas, (left, top), (left + bar_width - 1, top + bar_height - 1), tag.colour, cv2.FILLED
                )
                write_text(canvas, tag.text, left + pad, top + pad, LIGHT)
                break


def _write_names(canvas: UInt8[np.ndarray, "h w 3"], instances: list[Poses], threshold: float) -> None:
    """Writes names beside their keypoints; a name that would cover a keypoint or another name is omitted."""
    size, height = Size.of(canvas), text_height(canvas)
    half = height // 2 + 1
    taken = np.zeros(canvas.shape[:2], bool)
    keypoints = []
    for pose in instances:
        inside = (pose.xy >= 0).all(axis=2) & (pose.xy < (size.width, size.height)).all(axis=2)
        shown = np.flatnonzero((_shown(pose, threshold) & inside)[0])
        keypoints += [(pose.skeleton.keypoints[k], *pose.xy[0, k].astype(int).tolist()) for k in shown]
    for _, x, y in keypoints:
        taken[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = True
    for name, x, y in keypoints:
        corner = _find_space(taken, x, y, text_width(name, height) + 2, height)
        if corner is not None:
            left, top = corner[0] + 1, corner[1]
            for dx, dy in HALO:
                write_text(canvas, name, left + dx, top + dy, DARK)
            write_text(canvas, name, left, top, LIGHT)


def _find_space(
    taken: Bool[np.ndarray, "h w"], x: int, y: int, width: int, height: int
) -> tuple[int, int] | None:
    """Reserves the first free rectangle right, left, above or below a keypoint, and returns its top left corner."""
    half = height // 2 + 1
    across, level = x - width // 2, y - height // 2
    beside = (x + half, level), (x - half - width, level)
    for left, top in (*beside, (across, y - half - height), (across, y + half)):
        inside = 0 <= left <= taken.shape[1] - width and 0 <= top <= taken.shape[0] - height
        region = taken[top : top + height, left : left + width]
        if inside and not region.any():
            region[:] = True
            return left, top
    return None


def _fixed(xy: Float[np.ndarray, "p 2"]) -> list[FixedPoint]:
    """Converts points in px to the fixed-point integers of OpenCV."""
    return [(x, y) for x, y in np.rint(xy * 2**SUBPIXEL_BITS).astype(int).tolist()]


@cache
def _rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


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
