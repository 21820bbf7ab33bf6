"""Boxes, tags and names of keypoints on drawings, written where they hide no face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton, plain_name
from .palette import DARK, LIGHT, instance_colour, rgb
from .text import text_height, text_width, write_text

if TYPE_CHECKING:
    from .poses import Poses

HEAD_WORDS = frozenset(("nose", "eye", "ear", "head", "face", "mouth", "jaw", "chin", "forehead"))
"""Words in the names of keypoints of a head."""
FACE_PER_EXTENT, PERSON_PER_FACE = 0.75, 16
"""Half the side of a face's square: share of the extent of its keypoints, and at least this part of the box."""
HALO = tuple((x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0))
"""Offsets of dark copies of a name, which make it readable on any background, in `TEXT_PER_HALO`ths of its height."""
TEXT_PER_HALO = 16
FARTHEST_BOX_PX = 100_000
"""Boxes are drawn up to this distance, far outside of any image, so that OpenCV's integers do not overflow."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom, px."""


def draw_boxes(
    canvas: UInt8[np.ndarray, "h w 3"],
    instances: Sequence[Poses],
    shown: Sequence[Bool[np.ndarray, " k"]],
    boxes: bool,
    scores: bool,
    ids: bool,
    taken: Bool[np.ndarray, "h w"],
) -> None:
    """Draws the boxes of instances, and tags with track ID and score at them, in place.

    A tag is omitted if every position at its box is covered by an earlier tag.

    Args:
        canvas: The RGB image.
        instances: `Poses` of length 1; the tags of the first ones take the best positions.
        shown: Mask of the drawn keypoints of each instance.
        boxes: Draw the boxes.
        scores: Write the scores.
        ids: Write the track IDs, of poses that have them.
        taken: Mask of pixels with text, to which the tags are added.
    """
    corners = [
        np.clip(pose.boxes[0].astype(np.float64), -FARTHEST_BOX_PX, FARTHEST_BOX_PX) for pose in instances
    ]
    drawn = [number for number, box in enumerate(corners) if np.isfinite(box).all()]
    colours = [instance_colour(pose, number) for number, pose in enumerate(instances)]
    for number in reversed(drawn if boxes else []):
        width = max(round(min(canvas.shape[:2]) / 400), 1)
        low, high = map(tuple, np.rint(corners[number].reshape(2, 2) * 16).astype(int).tolist())
        cv2.rectangle(canvas, low, high, rgb(colours[number]), width, cv2.LINE_AA, 4)
    faces = np.zeros(canvas.shape[:2], bool)
    for rectangle in filter(None, map(_face, instances, shown)):
        faces[_region(rectangle)] = True
    for number in drawn:
        pose = instances[number]
        parts = [f"id {pose.ids[0]}"] if ids and pose.ids is not None and pose.ids[0] >= 0 else []
        text = "  ".join([*parts, f"{pose.pose_scores[0]:.2f}"] if scores else parts)
        if text:
            _write_tag(canvas, text, corners[number], colours[number], faces, taken)


def _write_tag(
    canvas: UInt8[np.ndarray, "h w 3"],
    text: str,
    box: Float[np.ndarray, " 4"],
    colour: str,
    faces: Bool[np.ndarray, "h w"],
    taken: Bool[np.ndarray, "h w"],
) -> None:
    """Writes a tag at the corner of a box where it covers no other tag and as little as possible of faces."""
    height = text_height(canvas)
    pad = height // 4
    bars = _bars(box, Size(text_width(text, height) + 2 * pad, height + 2 * pad), Size.of(canvas))
    free = [bar for bar in bars if not taken[_region(bar)].any()]
    if not free:
        return
    left, top, right, bottom = best = min(free, key=lambda bar: int(faces[_region(bar)].sum()))
    taken[_region(best)] = True
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), rgb(colour), cv2.FILLED)
    write_text(canvas, text, left + pad, top + pad, LIGHT)


def _bars(box: Float[np.ndarray, " 4"], bar: Size, image: Size) -> Iterator[Rectangle]:
    """Yields the positions of a tag at a box, the preferred ones first: above, below, inside; left, right."""
    left, top, right, bottom = box.tolist()
    for y in (top - bar.height, bottom, top, bottom - bar.height):
        for x in (left, right - bar.width):
            x_px = int(np.clip(x, 0, max(image.width - bar.width, 0)))
            y_px = int(np.clip(y, 0, max(image.height - bar.height, 0)))
            yield x_px, y_px, x_px + bar.width, y_px + bar.height


def write_names(
    canvas: UInt8[np.ndarray, "h w 3"],
    instances: Sequence[Poses],
    shown: Sequence[Bool[np.ndarray, " k"]],
    taken: Bool[np.ndarray, "h w"],
) -> None:
    """Writes names beside their keypoints, those of a face beside the face, in place.

    A name that would cover a keypoint, a face or other text is omitted.

    Args:
        canvas: The RGB image.
        instances: `Poses` of length 1.
        shown: Mask of the drawn keypoints of each instance.
        taken: Mask of pixels with text, to which keypoints and names are added.
    """
    size, height = Size.of(canvas), text_height(canvas)
    half = height // 2 + 1
    keypoints: list[tuple[str, int, int, Rectangle | None]] = []
    for pose, mask in zip(instances, shown, strict=True):
        face, head = _face(pose, mask), _head(pose.skeleton)
        inside = np.all((pose.xy[0] >= 0) & (pose.xy[0] < (size.width, size.height)), axis=1)
        for k in np.flatnonzero(mask & inside):
            x, y = pose.xy[0, k].astype(int).tolist()
            around = face if k in head else None
            taken[_region(around or (x - half, y - half, x + half, y + half))] = True
            keypoints.append((pose.skeleton.keypoints[k], x, y, around))
    for name, x, y, around in keypoints:
        text = Size(text_width(name, height) + 2, height)
        corners = _beside_keypoint(x, y, half, text) if around is None else _beside_face(x, y, around, text)
        corner = _take_free(taken, corners, text)
        if corner is not None:
            left, top = corner[0] + 1, corner[1]
            width = max(height // TEXT_PER_HALO, 1)
            for dx, dy in HALO:
                write_text(canvas, name, left + dx * width, top + dy * width, DARK)
            write_text(canvas, name, left, top, LIGHT)


def _beside_keypoint(x: int, y: int, half: int, text: Size) -> list[tuple[int, int]]:
    """Returns the corners of text right, left, above and below a keypoint."""
    across, level = x - text.width // 2, y - text.height // 2
    return [
        (x + half, level),
        (x - half - text.width, level),
        (across, y - half - text.height),
        (across, y + half),
    ]


def _beside_face(x: int, y: int, face: Rectangle, text: Size) -> list[tuple[int, int]]:
    """Returns the corners of text at the side of a face that is nearer to a keypoint, at its level or close to it."""
    left = face[2] if 2 * x >= face[0] + face[2] else face[0] - text.width
    return [(left, y - text.height // 2 + lines * text.height) for lines in (0, 1, -1, 2, -2)]


def _take_free(
    taken: Bool[np.ndarray, "h w"], corners: Sequence[tuple[int, int]], text: Size
) -> tuple[int, int] | None:
    """Reserves space for text at the first corner with free space, and returns the corner."""
    for left, top in corners:
        inside = 0 <= left <= taken.shape[1] - text.width and 0 <= top <= taken.shape[0] - text.height
        region = taken[top : top + text.height, left : left + text.width]
        if inside and not region.any():
            region[:] = True
            return left, top
    return None


def _face(pose: Poses, shown: Bool[np.ndarray, " k"]) -> Rectangle | None:
    """Returns a square around the drawn keypoints of the head of an instance, None if there are none."""
    head = [k for k in _head(pose.skeleton) if shown[k]]
    if not head:
        return None
    xy = pose.xy[0, head].astype(np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    box = np.nan_to_num(pose.boxes[0].astype(np.float64), posinf=0, neginf=0)
    radius = max(FACE_PER_EXTENT * (high - low).max(), (box[2:] - box[:2]).max() / PERSON_PER_FACE)
    centre = (low + high) / 2
    left, top = np.floor(centre - radius).astype(int).tolist()
    right, bottom = np.ceil(centre + radius).astype(int).tolist()
    return left, top, right, bottom


@cache
def _head(skeleton: Skeleton) -> tuple[int, ...]:
    """Returns the indices of the keypoints of the head."""
    words = [set(plain_name(name).split("_")) for name in skeleton.keypoints]
    return tuple(k for k, parts in enumerate(words) if parts & HEAD_WORDS)


def _region(rectangle: Rectangle) -> tuple[slice, slice]:
    """Returns the rows and columns of a rectangle inside an image."""
    left, top, right, bottom = (max(value, 0) for value in rectangle)
    return slice(top, bottom), slice(left, right)
