"""Draws poses and heatmaps into images.

Owns how a result looks: colours are the skeleton's, widths follow the image and each person. Knows
no network, no file and no window. Images are RGB going in and coming out; OpenCV paints the three
numbers it is given, whatever they are called.
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

Colour = tuple[int, int, int]
Place = tuple[int, int]

DARK: Colour = (16, 16, 16)
LIGHT: Colour = (255, 255, 255)
IDENTITY_COLOURS = (
    "#d62728", "#2a8a2a", "#1f5fb4", "#b85a00", "#8e44ad",
    "#00807a", "#c2185b", "#7a5230", "#6b6b00", "#30308f",
)  # fmt: skip
"""Of boxes and their marks: dark enough for white text. They repeat after ten."""
TAG_ROWS = 4
"""So many places, each below the last, are tried for the tag of a box."""
UNTRACKED_COLOUR = "#5c5c5c"
"""Of the boxes of people without a track ID, among people who have one."""

SUBPIXEL_BITS = 4
"""OpenCV takes a place as a whole number of sixteenths of a pixel."""
FARTHEST_PX = 1e6
"""What lies farther out than this lies nowhere; its sixteenths would soon overflow OpenCV's 32 bits."""
THICKEST_PX = 1000
"""More is no line."""

# Chosen by eye, on photographs 160 to 1920 pixels wide with people of all sizes.
PERSON_PER_WIDTH = 70
"""So many times as large as an edge is wide is the person: the longer side around the drawn points."""
IMAGE_PER_NARROWEST, IMAGE_PER_WIDEST = 700, 120
"""So many times as long as the narrowest and the widest edge is wide is the image's short side."""
EDGE_PER_WIDTH = 8
"""An edge is at least so many times as long as wide, which keeps hands and faces readable."""
RIM_FROM_WIDTH, LIGHT_RIM_FROM_WIDTH = 1.5, 2.0
"""An edge or point of at least this width, px, has a dark rim, and a point a light one inside it."""
IMAGE_PER_TEXT, FONT_WEIGHT = 45, 500
"""So many times as long as text is high is the image's short side; how bold text is, 100 to 1000."""
HAS_FONTS = hasattr(cv2, "FontFace")
"""OpenCV 5 writes any Unicode; OpenCV 4 has a stroke font of ASCII letters, with ? for all others."""
HALO = tuple((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0))
"""Where dark copies of a name go, px, so that it can be read on any ground."""


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
    """Returns a copy of an image with poses drawn into it.

    Edges and points have the skeleton's colours. Their width grows with the image and shrinks with
    the person; short edges, such as fingers, are thinner. The first pose, usually the best, lies on top.

    Args:
        image: An RGB image, or anything else that `read_image` takes; it is not changed.
        poses: The poses, in pixels of that image. Points that are not finite are left out.
        threshold: Points that score less are left out; an edge is drawn if both its ends are.
        boxes: Draws each person's box, and above it the score of the pose ("pose 0.83", see `Poses.pose_scores`).
        ids: Marks each person with their track ID ("id 3"), where the poses have IDs. People who are not tracked
            get no mark, and a grey box.
        names: Writes the keypoints' names beside them, as far as there is room.
        opacity_by_score: Makes a point as opaque as its score, and an edge as its weaker end.
        thickness: Width of long edges, px; None chooses it.

    Raises:
        ImageError: The image cannot be read.
        InputError: The threshold is not from 0 to 1, or the thickness not above 0 or absurdly large.
    """
    check_number("threshold", threshold, 0, 1)
    canvas = np.array(read_image(image))
    if thickness is not None and not 0 < thickness <= THICKEST_PX:
        raise InputError(
            f"thickness must be above 0 and at most {THICKEST_PX} pixels, not {thickness!r}; None chooses one"
        )
    everyone = list(poses)
    for one in reversed(everyone):
        opacities = np.clip(one.scores, 0, 1) if opacity_by_score else np.ones_like(one.scores)
        width = thickness or _width_of_edges(one.boxes[0], Size.of(canvas))
        shown = _shown(one, threshold)[0]
        _draw_person(canvas, one.skeleton, one.xy[0].astype(np.float64), shown, opacities[0].tolist(), width)
    if names:
        _write_names(canvas, everyone, threshold)
    tags = [
        _draw_box(canvas, one, number, boxes, ids)
        for number, one in reversed(list(enumerate(everyone)))
        if boxes or (ids and one.ids is not None)
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
    """Returns a copy of an image with heatmaps laid over it, all keypoints and people at once.

    The value goes from blue over green and yellow to red, and fades out towards 0.

    Args:
        image: An RGB image, or anything else that `read_image` takes; it is not changed.
        heatmaps: The maps of n people, 0 to 1.
        matrices: What takes a place (x, y, 1) in each person's cells to pixels of the image.
        opacity: Of the value 1.

    Raises:
        ImageError: The image cannot be read.
        InputError: There are not as many matrices as people, or the opacity lies outside 0 to 1.
    """
    canvas = np.array(read_image(image))
    if len(heatmaps) != len(matrices):
        raise InputError(f"the heatmaps of {len(heatmaps)} people need as many matrices, not {len(matrices)}")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity must lie within 0 to 1, not {opacity!r}")
    heat = np.zeros(canvas.shape[:2], np.float32)
    for maps, matrix in zip(heatmaps, matrices, strict=True):
        _warp_into(heat, maps.max(axis=0).astype(np.float32), matrix)
    heat = np.clip(heat, 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), _gradient())
    # The square root keeps the foot of a peak in sight, which tells how sure the network is of the place.
    weight = opacity * np.sqrt(heat)
    return cv2.blendLinear(canvas, colours, 1 - weight, weight)


def _draw_person(
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
    point_widths = np.minimum(width, _rooms(xy, drawn, edges, lengths) / EDGE_PER_WIDTH)
    # A palm's long lines are no thicker than the fingers they lead to.
    edge_widths = np.minimum(
        lengths / EDGE_PER_WIDTH, point_widths[edges].min(axis=1, initial=width)
    ).tolist()
    places = _fixed(np.where(drawn[:, None], xy, 0))
    for index, (a, b), edge_width in zip(shown, edges, edge_widths, strict=True):
        colour = _rgb(skeleton.edge_colours[index])
        with _see_through(canvas, [places[a], places[b]], 2 * width, min(opacities[a], opacities[b])):
            _draw_edge(canvas, places[a], places[b], edge_width, colour)
    for index in np.flatnonzero(drawn):
        colour = _rgb(skeleton.colours[index])
        with _see_through(canvas, [places[index]], 2 * width, opacities[index]):
            _draw_point(canvas, places[index], float(point_widths[index]), colour)


def _width_of_edges(box: Float[np.ndarray, " 4"], size: Size) -> float:
    """Returns the width of a person's edges by their box, px: the same whatever points are drawn."""
    short = min(size.width, size.height)
    narrowest, widest = max(short / IMAGE_PER_NARROWEST, 1), max(short / IMAGE_PER_WIDEST, 2)
    with np.errstate(invalid="ignore", over="ignore"):  # a box may hold no numbers
        extent = np.nan_to_num((box[2:] - box[:2]).max())
    return float(np.clip(extent / PERSON_PER_WIDTH, narrowest, widest))


def _rooms(
    xy: Float[np.ndarray, "k 2"],
    drawn: Bool[np.ndarray, " k"],
    edges: Int[np.ndarray, "l 2"],
    lengths: Float[np.ndarray, " l"],
) -> Float[np.ndarray, " k"]:
    """Returns the mean length of each point's edges, or 1.5 times the way to the nearest point, px."""
    total, count = np.zeros((2, len(xy)))
    np.add.at(total, edges.ravel(), np.repeat(lengths, 2))
    np.add.at(count, edges.ravel(), 1)
    others, alone = np.flatnonzero(drawn), np.flatnonzero(drawn & (count == 0))
    gaps = np.linalg.norm(xy[alone, None] - xy[None, others], axis=2)
    gaps[alone[:, None] == others] = np.inf
    total[alone] = 1.5 * gaps.min(axis=1, initial=np.inf)
    return total / np.maximum(count, 1)


def _draw_edge(canvas: UInt8[np.ndarray, "h w 3"], a: Place, b: Place, width: float, colour: Colour) -> None:
    core = max(round(width), 1)
    if width >= RIM_FROM_WIDTH:
        rim = max(round(width / 3), 1)
        cv2.line(canvas, a, b, DARK, core + 2 * rim, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.line(canvas, a, b, colour, core, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_point(canvas: UInt8[np.ndarray, "h w 3"], place: Place, width: float, colour: Colour) -> None:
    radius, rim = max(width, 0.5), max(width / 3, 0.8)
    discs = [(radius, colour)]
    if width >= LIGHT_RIM_FROM_WIDTH:
        discs = [(radius + 1.4 * rim, DARK), (radius + 0.8 * rim, LIGHT), *discs]
    elif width >= RIM_FROM_WIDTH:
        discs = [(radius + rim, DARK), *discs]
    for size, paint in discs:
        sixteenths = round(size * 2**SUBPIXEL_BITS)
        cv2.circle(canvas, place, sixteenths, paint, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


@contextmanager
def _see_through(
    canvas: UInt8[np.ndarray, "h w 3"], places: list[Place], margin: float, opacity: float
) -> Iterator[None]:
    """Gives what is drawn inside it, at most `margin` px around the places, this opacity."""
    if opacity >= 1:
        yield
        return
    margin = math.ceil(margin) + 2
    xs, ys = ([value >> SUBPIXEL_BITS for value in axis] for axis in zip(*places, strict=True))
    rows = slice(max(min(ys) - margin, 0), max(max(ys) + margin, 0))
    region = canvas[rows, max(min(xs) - margin, 0) : max(max(xs) + margin, 0)]
    before = region.copy()
    yield
    if region.size:
        region[:] = cv2.addWeighted(region, opacity, before, 1 - opacity, 0)


@dataclass(frozen=True)
class _Tag:
    """What is written above a box."""

    words: str
    corner: tuple[float, float]
    colour: Colour


def _draw_box(canvas: UInt8[np.ndarray, "h w 3"], one: Poses, number: int, boxes: bool, ids: bool) -> _Tag:
    """Draws one person's box if asked for, and returns the tag with what is known of them."""
    colour, words = IDENTITY_COLOURS[number % len(IDENTITY_COLOURS)], []
    if ids and one.ids is not None:
        followed = one.ids[0] >= 0
        words += [f"id {one.ids[0]}"] if followed else []
        colour = IDENTITY_COLOURS[one.ids[0] % len(IDENTITY_COLOURS)] if followed else UNTRACKED_COLOUR
    if not np.isfinite(one.boxes[0]).all():
        return _Tag("", (0.0, 0.0), DARK)
    box = np.clip(one.boxes[0].astype(np.float64), -FARTHEST_PX, FARTHEST_PX)
    if boxes:
        words.append(f"pose {one.pose_scores[0]:.2f}")
        width = max(round(min(canvas.shape[:2]) / 400), 1)
        low, high = _fixed(box.reshape(2, 2))
        cv2.rectangle(canvas, low, high, _rgb(colour), width, cv2.LINE_AA, SUBPIXEL_BITS)
    return _Tag("  ".join(words), (float(box[0]), float(box[1])), _rgb(colour))


def _write_tags(canvas: UInt8[np.ndarray, "h w 3"], tags: list[_Tag]) -> None:
    """Writes each tag on a bar that stands on its corner, or as near to it as the image lets it.

    Where an earlier tag is in the way, the bar moves down, and without room it is left out: half a number would be
    another number.
    """
    size, height = Size.of(canvas), _text_height(canvas)
    pad = height // 4
    high = height + 2 * pad
    taken = np.zeros(canvas.shape[:2], bool)
    for tag in tags:
        wide = _text_width(tag.words, height) + 2 * pad
        left = int(np.clip(tag.corner[0], 0, max(size.width - wide, 0)))
        for row in range(TAG_ROWS if tag.words else 0):
            top = int(np.clip(tag.corner[1] + (row - 1) * high, 0, max(size.height - high, 0)))
            bar = (slice(top, top + high), slice(left, left + wide))
            if not taken[bar].any():
                taken[bar] = True
                cv2.rectangle(canvas, (left, top), (left + wide - 1, top + high - 1), tag.colour, cv2.FILLED)
                _write(canvas, tag.words, left + pad, top + pad, LIGHT)
                break


def _write_names(canvas: UInt8[np.ndarray, "h w 3"], everyone: list[Poses], threshold: float) -> None:
    """Writes names beside their points, or nowhere if they would hide a point or another name."""
    size, height = Size.of(canvas), _text_height(canvas)
    half = height // 2 + 1
    taken = np.zeros(canvas.shape[:2], bool)
    points = []
    for one in everyone:
        inside = (one.xy >= 0).all(axis=2) & (one.xy < (size.width, size.height)).all(axis=2)
        shown = np.flatnonzero((_shown(one, threshold) & inside)[0])
        points += [(one.skeleton.keypoints[k], *one.xy[0, k].astype(int).tolist()) for k in shown]
    for _, x, y in points:
        taken[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = True
    for name, x, y in points:
        place = _find_room(taken, x, y, _text_width(name, height) + 2, height)
        if place is not None:
            left, top = place[0] + 1, place[1]
            for dx, dy in HALO:
                _write(canvas, name, left + dx, top + dy, DARK)
            _write(canvas, name, left, top, LIGHT)


def _find_room(taken: Bool[np.ndarray, "h w"], x: int, y: int, width: int, height: int) -> Place | None:
    """Takes the first free place for text right, left, above or below a point, and returns its corner."""
    half = height // 2 + 1
    across, level = x - width // 2, y - height // 2
    beside = (x + half, level), (x - half - width, level)
    for left, top in (*beside, (across, y - half - height), (across, y + half)):
        inside = 0 <= left <= taken.shape[1] - width and 0 <= top <= taken.shape[0] - height
        place = taken[top : top + height, left : left + width]
        if inside and not place.any():
            place[:] = True
            return left, top
    return None


def _text_height(canvas: UInt8[np.ndarray, "h w 3"]) -> int:
    return int(np.clip(min(canvas.shape[:2]) / IMAGE_PER_TEXT, 10, 24))


def _text_width(words: str, height: int) -> int:
    if not HAS_FONTS:
        return int(cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, _stroke_scale(height), 1)[0][0])
    return int(cv2.getTextSize((0, 0), words, (0, 0), cv2.FontFace("sans"), height, FONT_WEIGHT)[2])


def _write(canvas: UInt8[np.ndarray, "h w 3"], words: str, left: int, top: int, colour: Colour) -> None:
    height = _text_height(canvas)
    corner = left, top + round(0.85 * height)
    if HAS_FONTS:
        cv2.putText(canvas, words, corner, colour, cv2.FontFace("sans"), height, FONT_WEIGHT)
    else:
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, _stroke_scale(height)
        cv2.putText(canvas, words, corner, font, scale, colour, 1, cv2.LINE_AA)


def _stroke_scale(height: int) -> float:
    """Returns the scale at which the stroke font of OpenCV 4 has letters of this height in pixels."""
    return cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.7 * height), 1)


def _fixed(xy: Float[np.ndarray, "p 2"]) -> list[Place]:
    """Turns places in px into the whole numbers that OpenCV wants."""
    return [(x, y) for x, y in np.rint(xy * 2**SUBPIXEL_BITS).astype(int).tolist()]


@cache
def _rgb(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _warp_into(
    heat: Float[np.ndarray, "h w"], cells: Float[np.ndarray, "hm wm"], matrix: Float[np.ndarray, "2 3"]
) -> None:
    """Raises `heat` to a map laid over the image, in the part that the map covers."""
    grid = Size(width=cells.shape[1], height=cells.shape[0])
    corners = np.array([(x, y, 1) for x in (-1, grid.width) for y in (-1, grid.height)])
    reached = corners @ matrix.T
    limit = np.array([heat.shape[1], heat.shape[0]])
    low = np.clip(np.floor(reached.min(axis=0)), 0, limit).astype(int)
    high = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, limit).astype(int)
    part = heat[low[1] : high[1], low[0] : high[0]]
    if part.size:
        moved = matrix.astype(np.float64) - [[0, 0, low[0]], [0, 0, low[1]]]
        warped = cv2.warpAffine(cells, moved, (part.shape[1], part.shape[0]), flags=cv2.INTER_CUBIC)
        np.maximum(part, warped, out=part)


@cache
def _gradient() -> UInt8[np.ndarray, "256 1 3"]:
    levels = np.arange(256, dtype=np.uint8)[:, None]
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
