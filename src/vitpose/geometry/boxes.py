"""Sizes and boxes: the one place that knows how four numbers become a box.

Inside vitpose a box is xyxy (left, top, right, bottom) in pixels of the image, float32. Other
forms exist only at the door, behind the named conversions below. This module knows no images
and no detectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import BoxError


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height, told apart by name and never by position."""

    width: int
    height: int

    @classmethod
    def of(cls, image: np.ndarray) -> Size:
        """Returns the size of an image (h w 3)."""
        return cls(width=image.shape[1], height=image.shape[0])

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _overflow_is_infinite() -> np.errstate:
    """Lets what float32 cannot hold become infinite, or NaN, without a warning; checks refuse it."""
    return np.errstate(over="ignore", invalid="ignore")


def xyxy_from_xywh(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Turns (left, top, width, height), the form of COCO files, into (left, top, right, bottom)."""
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xywh_from_xyxy(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Turns (left, top, right, bottom) into (left, top, width, height), the form of COCO files."""
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def xyxy_from_cxcywh(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Turns (centre x, centre y, width, height) into (left, top, right, bottom)."""
    boxes = as_rows(boxes)
    with _overflow_is_infinite():
        return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def as_rows(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Reads rows of four numbers, whatever they mean; an empty list is no rows.

    Raises:
        BoxError: They are not n rows of four numbers.
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
            else "give every box its four numbers and no more"
        )
        raise BoxError(
            f"boxes must have the shape (n, 4), n rows of four numbers, not {array.shape}; {advice}"
        )
    return array


def as_xyxy(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Checks boxes from outside and returns them as float32.

    Args:
        boxes: Anything numpy reads as n rows of (left, top, right, bottom) in pixels. An empty list
            is zero boxes, not an error.

    Raises:
        BoxError: The shape is not (n, 4), a value is not finite, or a box has no area. The message
            names the first such box.
    """
    array = as_rows(boxes)
    _refuse(array, ~np.isfinite(array).all(axis=1), "is not finite; drop it or mend its source")
    _refuse(
        array,
        (array[:, 2:] <= array[:, :2]).any(axis=1),
        "has no area: right must exceed left and bottom must exceed top, in pixels, "
        "as (left, top, right, bottom); boxes in COCO's (left, top, width, height) go through "
        "vitpose.xyxy_from_xywh first",
    )
    return array


def are_outside(boxes: Float[np.ndarray, "n 4"], size: Size | None) -> Bool[np.ndarray, " n"]:
    """Tells which boxes (xyxy, px) do not touch an image of that size; of an unknown one without it."""
    width, height = (np.inf, np.inf) if size is None else (size.width, size.height)
    return (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)


def refuse_outside(boxes: Float[np.ndarray, "n 4"], size: Size) -> None:
    """Refuses boxes (xyxy, px) that do not touch an image of that size.

    Raises:
        BoxError: A box lies wholly outside. The message names the first such box.
    """
    _refuse(
        boxes,
        are_outside(boxes, size),
        f"lies wholly outside its image of {size} pixels; check its units and frame",
    )


def _refuse(boxes: Float[np.ndarray, "n 4"], bad: Any, why: str) -> None:
    for index in np.flatnonzero(bad):
        box = ", ".join(f"{value:.7g}" for value in boxes[index])
        raise BoxError(f"box {index} of {len(boxes)}, [{box}], {why}")


def clip_to(boxes: Float[np.ndarray, "n 4"], size: Size) -> Float[np.ndarray, "n 4"]:
    """Cuts boxes (xyxy, px) at the borders of an image of that size."""
    limit = np.array([size.width, size.height] * 2, np.float32)
    return np.clip(boxes, 0, limit, dtype=np.float32)


def iou(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Returns intersection over union of every box with every other (both xyxy), in 0..1.

    A box without area, as cutting at a border may leave one, overlaps nothing; nor does one that is not finite.
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
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], max_iou: float
) -> Int[np.ndarray, " m"]:
    """Greedy non-maximum suppression.

    Args:
        boxes: xyxy boxes of one class.
        scores: Their scores, any range.
        max_iou: A box that overlaps a better one by more than this is dropped.

    Returns:
        The indices of the boxes that stay, best first.
    """
    return keep_best(scores, lambda best, others: iou(boxes[[best]], boxes[others])[0], max_iou)


def keep_best(
    scores: Float[np.ndarray, " n"], likeness: Callable[[Any, np.ndarray], np.ndarray], limit: float
) -> Int[np.ndarray, " m"]:
    """Greedy suppression of whatever is too much alike something better.

    Args:
        scores: Any range.
        likeness: Tells how alike one of the n is to several others, all by their indices.
        limit: What is more alike to a better one than this is dropped.

    Returns:
        The indices of those that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[likeness(best, order) <= limit]
    return np.array(kept, dtype=np.int64)
