"""Image sizes, and boxes: conversions, checks, overlap and non-maximum suppression.

Inside vitpose a box is xyxy (left, top, right, bottom) in pixels of the image, float32. Other
formats are converted at the public boundary by the functions below. This module does not depend on
images or detectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ..errors import BoxError


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels or cells, accessed by name and not by position."""

    width: int
    height: int

    @classmethod
    def of(cls, image: Shaped[np.ndarray, "h w *channels"]) -> Size:
        """Returns the size of an image (h w 3)."""
        return cls(width=image.shape[1], height=image.shape[0])

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _overflow_is_infinite() -> np.errstate:
    """Returns a context in which float32 overflow gives infinity or NaN without a warning; checks reject both."""
    return np.errstate(over="ignore", invalid="ignore")


def xyxy_from_xywh(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Converts (left, top, width, height), the format of COCO files, to (left, top, right, bottom).

    Raises:
        BoxError: The boxes are not n rows of four numbers.
    """
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xywh_from_xyxy(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Converts (left, top, right, bottom) to (left, top, width, height), the format of COCO files.

    Raises:
        BoxError: The boxes are not n rows of four numbers.
    """
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def xyxy_from_cxcywh(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Converts (centre x, centre y, width, height) to (left, top, right, bottom).

    Raises:
        BoxError: The boxes are not n rows of four numbers.
    """
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def as_rows(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Converts boxes of any format to an array; an empty list gives zero rows.

    Raises:
        BoxError: The boxes are not n rows of four numbers.
    """
    try:
        with _overflow_is_infinite():
            array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:  # the last for integers that no float can hold
        raise BoxError(f"boxes must be n rows of four numbers, not {boxes!r:.200}; {error}") from error
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        advice = (
            "put a single box into a list"
            if array.shape == (4,)
            else "give exactly four numbers for each box"
        )
        raise BoxError(
            f"boxes must have the shape (n, 4), n rows of four numbers, not {array.shape}; {advice}"
        )
    return array


def as_xyxy(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Validates boxes given by the user and returns them as float32.

    Args:
        boxes: Anything that NumPy converts to n rows of (left, top, right, bottom) in pixels. An empty list
            is zero boxes, not an error.

    Raises:
        BoxError: The shape is not (n, 4), a value is not finite, or a box has no area. The message
            names the first such box.
    """
    array = as_rows(boxes)
    _refuse(array, ~np.isfinite(array).all(axis=1), "is not finite; remove it or correct its values")
    _refuse(
        array,
        (array[:, 2:] <= array[:, :2]).any(axis=1),
        "has no area: right must exceed left and bottom must exceed top, in pixels, "
        "as (left, top, right, bottom); convert COCO boxes (left, top, width, height) with "
        "vitpose.xyxy_from_xywh first",
    )
    return array


def are_outside(boxes: Float[np.ndarray, "n 4"], size: Size | None) -> Bool[np.ndarray, " n"]:
    """Returns which boxes (xyxy, px) lie wholly outside an image.

    Args:
        boxes: xyxy, px of the image.
        size: Size of the image; None: unknown, only boxes left of it or above it are outside.
    """
    width, height = (np.inf, np.inf) if size is None else (size.width, size.height)
    return (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)


def refuse_outside(boxes: Float[np.ndarray, "n 4"], size: Size) -> None:
    """Raises if a box (xyxy, px) lies wholly outside an image of the given size.

    Raises:
        BoxError: A box lies wholly outside the image. The message names the first such box.
    """
    _refuse(
        boxes,
        are_outside(boxes, size),
        f"lies wholly outside its image of {size} pixels; check its units and its coordinate frame",
    )


def _refuse(boxes: Float[np.ndarray, "n 4"], bad: Any, why: str) -> None:
    for index in np.flatnonzero(bad):
        box = ", ".join(f"{value:.7g}" for value in boxes[index])
        raise BoxError(f"box {index} of {len(boxes)}, [{box}], {why}")


def clip_to(boxes: Float[np.ndarray, "n 4"], size: Size) -> Float[np.ndarray, "n 4"]:
    """Clips boxes (xyxy, px) to the borders of an image of the given size."""
    limit = np.array([size.width, size.height] * 2, np.float32)
    return np.clip(boxes, 0, limit, dtype=np.float32)


def iou(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Returns the pairwise intersection over union of two sets of xyxy boxes, 0 to 1.

    The IoU of a box without area (clipping may produce one) or with values that are not finite is 0.
    """
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)  # float32 areas could overflow
    with _overflow_is_infinite():
        low = np.maximum(boxes[:, None, :2], others[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
        union = areas + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
        overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return np.nan_to_num(overlaps, nan=0.0)


def suppress_overlaps(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    max_iou: float,
    classes: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, " m"]:
    """Greedy non-maximum suppression by IoU, within each class (`cv2.dnn.NMSBoxesBatched`).

    Args:
        boxes: xyxy boxes.
        scores: Score of each box, any range.
        max_iou: A box whose IoU with a kept box of its class and higher score exceeds this is removed.
        classes: Class of each box; default: all boxes are of one class.

    Returns:
        The indices of the kept boxes, by descending score.
    """
    import cv2  # takes a third of a second to import, and nothing else here uses it

    if not len(boxes):
        return np.zeros(0, np.int64)
    boxes = boxes.astype(np.float64)  # widths in float32 could overflow
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    groups = np.zeros(len(boxes), np.int64) if classes is None else classes
    ranks = np.zeros(len(boxes))  # in place of scores, since OpenCV drops those that are not positive
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(boxes), 0, -1)
    kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), ranks.tolist(), groups.tolist(), 0.0, max_iou)
    return np.array(kept, np.int64).ravel()


def suppress_similar(
    scores: Float[np.ndarray, " n"], similarity: Callable[[Any, np.ndarray], np.ndarray], limit: float
) -> Int[np.ndarray, " m"]:
    """Greedy non-maximum suppression by any measure of similarity.

    Args:
        scores: Score of each of the n candidates, any range.
        similarity: Function of the index of one candidate and the indices of m others; returns the m similarities.
        limit: A candidate whose similarity to a kept one of higher score exceeds this is removed.

    Returns:
        The indices of the kept candidates, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[similarity(best, order) <= limit]
    return np.array(kept, dtype=np.int64)
