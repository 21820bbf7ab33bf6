from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vitpose.errors import BoxError
from vitpose.geometry.boxes import (
    Size,
    as_xyxy,
    clip_to,
    iou,
    refuse_outside,
    suppress_overlaps,
    xywh_from_xyxy,
    xyxy_from_cxcywh,
    xyxy_from_xywh,
)


def boxes_of(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_size_of_an_image_and_its_string() -> None:
    size = Size.of(np.zeros((3, 5, 3), np.uint8))
    assert size == Size(width=5, height=3)
    assert str(size) == "5x3"


def test_conversions_between_formats() -> None:
    assert xyxy_from_xywh(boxes_of((1, 2, 3, 4))).tolist() == [[1, 2, 4, 6]]
    assert xywh_from_xyxy(boxes_of((1, 2, 4, 6))).tolist() == [[1, 2, 3, 4]]
    assert xyxy_from_cxcywh(boxes_of((2.5, 4, 3, 4))).tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 4)), np.zeros(0)])
def test_no_boxes_are_zero_boxes(empty: Any) -> None:
    array = as_xyxy(empty)
    assert array.shape == (0, 4)
    assert array.dtype == np.float32


def test_whole_numbers_and_tuples_become_float32() -> None:
    array = as_xyxy([(0, 1, 2, 3), (4, 5, 6, 7)])
    assert array.dtype == np.float32
    assert array.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    "boxes", [[["left", 0, 1, 1]], [[0, 0, 1, 1], [0, 0, 1]], [[None, {}, 0, 0]], object()]
)
def test_values_that_are_not_numbers_raise(boxes: Any) -> None:
    with pytest.raises(BoxError, match=r"boxes must be n rows of four numbers, not .*; "):
        as_xyxy(boxes)


@pytest.mark.parametrize(
    ("boxes", "shape"),
    [
        ([1, 2, 3, 4], r"\(4,\)"),
        ([[1, 2, 3]], r"\(1, 3\)"),
        ([[1, 2, 3, 4, 0.9]], r"\(1, 5\)"),
        (np.ones((1, 2, 4)), r"\(1, 2, 4\)"),
        (None, r"\(\)"),
    ],
)
def test_other_shapes_raise(boxes: Any, shape: str) -> None:
    message = rf"boxes must have the shape \(n, 4\).*, not {shape}; "
    with pytest.raises(BoxError, match=message):
        as_xyxy(boxes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_raise(value: float) -> None:
    with pytest.raises(
        BoxError, match=r"box 1 of 2, \[0, 0, (nan|inf|-inf), 5\], is not finite; remove it or"
    ):
        as_xyxy([[0, 0, 1, 1], [0, 0, value, 5]])


@pytest.mark.parametrize("box", [[5, 1, 5, 9], [1, 9, 5, 9], [9, 1, 5, 9], [1, 9, 5, 1]])
def test_an_empty_or_reversed_box_raises_with_its_index(box: list[float]) -> None:
    message = (
        r"box 2 of 3, \[{}, {}, {}, {}\], has no area: right must exceed left .* vitpose.xyxy_from_xywh first"
    )
    with pytest.raises(BoxError, match=message.format(*box)):
        as_xyxy([[0, 0, 1, 1], [0, 0, 2, 2], box])


def test_a_box_outside_its_image_raises() -> None:
    size = Size(width=100, height=50)
    refuse_outside(boxes_of((-10, -10, 1, 1), (99, 49, 200, 200)), size)
    refuse_outside(boxes_of(), size)
    for box in [(-9, 0, 0, 9), (0, -9, 9, 0), (100, 0, 109, 9), (0, 50, 9, 59)]:
        with pytest.raises(
            BoxError, match=r"box 0 of 1, \[.*\], lies wholly outside its image of 100x50 pixels; check"
        ):
            refuse_outside(boxes_of(box), size)


def test_clipping_at_the_borders() -> None:
    clipped = clip_to(boxes_of((-5, 10, 130, 70)), Size(width=100, height=50))
    assert clipped.tolist() == [[0, 10, 100, 50]]
    assert clipped.dtype == np.float32


def test_iou_of_known_boxes() -> None:
    boxes = boxes_of((0, 0, 2, 2), (1, 1, 3, 3), (5, 5, 6, 6))
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 1]])
    assert iou(boxes, boxes_of()).shape == (3, 0)


def test_iou_of_a_box_without_area_is_zero() -> None:
    assert iou(boxes_of((5, 5, 5, 5)), boxes_of((5, 5, 5, 5), (0, 0, 9, 9))).tolist() == [[0, 0]]


def test_suppression_removes_overlapping_boxes_of_lower_score() -> None:
    boxes = boxes_of((0, 0, 10, 10), (50, 50, 60, 60), (1, 0, 11, 10), (0, 5, 10, 15))
    scores = np.array([0.5, 0.7, 0.9, 0.4], np.float32)
    assert suppress_overlaps(boxes, scores, 0.5).tolist() == [2, 1, 3]
    assert suppress_overlaps(boxes, scores, 1.0).tolist() == [2, 1, 0, 3]
    assert suppress_overlaps(boxes_of(), np.zeros(0, np.float32), 0.5).tolist() == []


def test_the_first_of_equal_scores_is_kept() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 10))
    assert suppress_overlaps(boxes, np.ones(2, np.float32), 0.5).tolist() == [0]


@pytest.mark.parametrize("convert", [xyxy_from_xywh, xywh_from_xyxy, xyxy_from_cxcywh])
def test_float32_overflow_is_not_finite_and_does_not_warn(
    convert: Callable[[Any], np.ndarray],
) -> None:
    huge = convert([[3e38, -3e38, 3e38, 3e38], [1e300, 0, 1e300, 1], [-3e38, -3e38, 3e38, 3e38]])
    assert not np.isfinite(huge).all()


def test_integers_beyond_float_range_raise() -> None:
    with pytest.raises(BoxError, match="boxes must be n rows of four numbers"):
        as_xyxy([[0, 0, 1, 10**400]])


def test_iou_of_boxes_that_are_not_finite_is_finite_and_does_not_warn() -> None:
    boxes = boxes_of((0, 0, 10, 10), (0, 0, np.inf, 10), (-np.inf, 0, np.inf, 0), (0, 0, np.nan, 1))
    overlaps = iou(boxes, boxes)
    assert overlaps[0, 0] == 1
    assert np.isfinite(overlaps).all()
