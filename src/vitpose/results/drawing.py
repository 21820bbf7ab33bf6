"""Drawing poses on images.

Widths depend on the size of the image and of each instance. Images are RGB; OpenCV's drawing functions do not depend on
the order of channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..errors import InputError, UnknownNameError, check_number
from ..geometry.boxes import Size
from ..images import read_image
from .labels import draw_boxes, write_names
from .palette import DARK, LIGHT, Colour, instance_colour, lighter, rgb

if TYPE_CHECKING:
    from .instances import Instances
    from .poses import Poses

FixedPoint = tuple[int, int]
"""A point (x, y) in sixteenths of a pixel."""

SUBPIXEL_BITS = 4
"""OpenCV takes coordinates as integers in sixteenths of a pixel."""
FARTHEST_PX = 1e6
"""Keypoints farther out than this are not drawn: in sixteenths they could overflow OpenCV's 32 bits."""
THICKEST_PX = 1000
"""Largest thickness of a line and radius of a keypoint."""

# Chosen by eye on photographs 160 to 1920 pixels wide with people of all sizes.
PERSON_PER_WIDTH = 70
"""Ratio of the longer side of an instance's box to the width of its edges."""
IMAGE_PER_NARROWEST, IMAGE_PER_WIDEST = 700, 120
"""Ratio of the image's short side to the width of the narrowest and of the widest edges."""
EDGE_PER_WIDTH = 8
"""Smallest ratio of the length of an edge to its width, which keeps hands and faces readable."""
RIM_FROM_WIDTH, LIGHT_RIM_FROM_WIDTH = 1.5, 2.0
"""Width, px, from which edges and keypoints have a dark rim, and keypoints a light rim inside it."""


class DrawingOptions(TypedDict, total=False):
    """The keyword arguments of `draw`, which has their documentation and defaults."""

    threshold: float | int
    colours: str
    thickness: float | int | None
    radius: float | int | None
    boxes: bool
    scores: bool
    ids: bool
    names: bool
    opacity_by_score: bool


def draw(
    image: Any,
    poses: Instances,
    *,
    threshold: float | int = 0.3,
    colours: str = "skeleton",
    thickness: float | int | None = None,
    radius: float | int | None = None,
    boxes: bool = False,
    scores: bool = False,
    ids: bool = True,
    names: bool = False,
    opacity_by_score: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a copy of an image with poses drawn on it.

    Widths depend on the size of the image and of the instance; short edges, such as fingers, are thinner. The first
    pose, usually the best, is drawn last and so on top. Text is written where it hides no face, if there is space.

    Args:
        image: An RGB image, or any other source that `read_image` takes; it is not changed.
        poses: `Poses` or `MixedPoses` of that image. Keypoints that are not finite are not drawn.
        threshold: Keypoints with a lower score are not drawn, nor edges that end in one.
        colours: "skeleton": each keypoint and edge has the colour that its skeleton declares; "instance": each instance
            has one, by its track ID or else its index; or one colour for all, such as "#ff8800".
        thickness: Width of long edges, px; default: by the size of the image and the instance.
        radius: Radius of keypoints, px, smaller where they are close to each other; default: the width of the edges.
        boxes: Draw the box of each instance.
        scores: Write the score of each pose at its box ("0.83", see `Poses.pose_scores`).
        ids: Write the track ID of each instance at its box ("id 3"), if the poses have IDs. Instances without a track
            have a grey box.
        names: Write the names of keypoints beside them, if there is free space.
        opacity_by_score: Use the score of a keypoint as its opacity, and the lower score of its ends for an edge.

    Raises:
        ImageError: The image cannot be read.
        InputError: The image has another size than that of the poses; the threshold is not from 0 to 1; or thickness or
            radius is not above 0 and at most `THICKEST_PX`.
        UnknownNameError: `colours` is none of these.
    """
    check_number("threshold", threshold, 0, 1)
    for name, value in (("thickness", thickness), ("radius", radius)):
        if value is not None and not 0 < value <= THICKEST_PX:
            raise InputError(
                f"{name} must be above 0 and at most {THICKEST_PX} pixels, not {value!r}; None: automatic"
            )
    if colours not in ("skeleton", "instance") and not re.fullmatch("#[0-9a-fA-F]{6}", colours):
        hint = 'One colour is written as "#rrggbb".'
        raise UnknownNameError("choice of colours", colours, ("skeleton", "instance"), hint)
    canvas = np.array(read_image(image))
    _refuse_other_size(poses, Size.of(canvas))
    instances = list(poses)
    shown = [_shown(pose, threshold) for pose in instances]
    for number, pose in reversed(list(enumerate(instances))):
        one_colour = lighter(instance_colour(pose, number)) if colours == "instance" else colours
        opacities = np.clip(pose.scores, 0, 1) if opacity_by_score else np.ones_like(pose.scores)
        width = thickness or _width_of_edges(pose.boxes[0], Size.of(canvas))
        _draw_pose(
            canvas,
            pose,
            shown[number],
            opacities[0].tolist(),
            float(width),
            float(radius or width),
            None if colours == "skeleton" else rgb(one_colour),
        )
    taken = np.zeros(canvas.shape[:2], bool)
    draw_boxes(canvas, instances, shown, boxes, scores, ids, taken)
    if names:
        write_names(canvas, instances, shown, taken)
    return canvas


def _refuse_other_size(poses: Instances, size: Size) -> None:
    if poses.image_size not in (None, size):
        raise InputError(
            f"the image has {size} pixels, but the poses are those of an image of {poses.image_size}; pass that "
            "image, or scale the poses and set their image_size"
        )


def _shown(pose: Poses, threshold: float) -> Bool[np.ndarray, " k"]:
    return (pose.visible(threshold) & (np.abs(pose.xy) < FARTHEST_PX).all(axis=2))[0]


def _draw_pose(
    canvas: UInt8[np.ndarray, "h w 3"],
    pose: Poses,
    drawn: Bool[np.ndarray, " k"],
    opacities: list[float],
    width: float,
    radius: float,
    one_colour: Colour | None,
) -> None:
    skeleton, xy = pose.skeleton, pose.xy[0].astype(np.float64)
    edges = np.array(skeleton.edges, np.int64).reshape(-1, 2)
    shown = np.flatnonzero(drawn[edges].all(axis=1))
    edges = edges[shown]
    lengths = np.linalg.norm(xy[edges[:, 0]] - xy[edges[:, 1]], axis=1)
    limits = _local_scales(xy, drawn, edges, lengths) / EDGE_PER_WIDTH
    radii, ends = np.minimum(radius, limits), np.minimum(width, limits)
    # Long edges of the palm are as thin as those of the fingers.
    edge_widths = np.minimum(lengths / EDGE_PER_WIDTH, ends[edges].min(axis=1, initial=width)).tolist()
    points = _fixed(np.where(drawn[:, None], xy, 0))
    for index, (a, b), edge_width in zip(shown, edges, edge_widths, strict=True):
        colour = one_colour or rgb(skeleton.edge_colours[index])
        with _blended(canvas, [points[a], points[b]], 2 * width, min(opacities[a], opacities[b])):
            _draw_edge(canvas, points[a], points[b], edge_width, colour)
    for index in np.flatnonzero(drawn):
        colour = one_colour or rgb(skeleton.colours[index])
        with _blended(canvas, [points[index]], 2 * radius, opacities[index]):
            _draw_point(canvas, points[index], float(radii[index]), colour)


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


def _fixed(xy: Float[np.ndarray, "p 2"]) -> list[FixedPoint]:
    """Converts points in px to the fixed-point integers of OpenCV."""
    return [(x, y) for x, y in np.rint(xy * 2**SUBPIXEL_BITS).astype(int).tolist()]
