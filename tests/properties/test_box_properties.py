"""Properties that hold for every box."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitpose.errors import BoxError
from vitpose.geometry.boxes import (
    Size,
    as_xyxy,
    clip_to,
    iou,
    suppress_overlaps,
    xywh_from_xyxy,
    xyxy_from_xywh,
)

COORDINATE = st.floats(-1e4, 1e4, width=32)


@st.composite
def boxes(draw: st.DrawFn, most: int = 8) -> np.ndarray:
    """Boxes with area, many of which overlap."""
    count = draw(st.integers(0, most))
    corners = draw(arrays(np.float32, (count, 2), elements=st.floats(-100, 100, width=32)))
    sides = draw(arrays(np.float32, (count, 2), elements=st.floats(0.125, 200, width=32)))
    return np.concatenate([corners, corners + sides], axis=1)


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(0, 5), st.just(4)), elements=COORDINATE))
def test_xywh_and_xyxy_conversions_are_inverse(rows: np.ndarray) -> None:
    np.testing.assert_allclose(xyxy_from_xywh(xywh_from_xyxy(rows)), rows, atol=4e-3)
    np.testing.assert_allclose(xywh_from_xyxy(xyxy_from_xywh(rows)), rows, atol=4e-3)


@settings(deadline=None)
@given(boxes(), boxes())
def test_iou_is_symmetric_and_within_0_to_1(boxes_a: np.ndarray, boxes_b: np.ndarray) -> None:
    overlap = iou(boxes_a, boxes_b)
    assert overlap.shape == (len(boxes_a), len(boxes_b))
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_array_equal(overlap, iou(boxes_b, boxes_a).T)
    np.testing.assert_allclose(np.diag(iou(boxes_a, boxes_a)), 1)


@settings(deadline=None)
@given(arrays(np.float32, (2, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_iou_of_any_finite_boxes_is_a_number(rows: np.ndarray) -> None:
    """Including the smallest and largest floats: a NaN overlap would silently remove a person."""
    ordered = np.concatenate(
        [np.minimum(rows[:, :2], rows[:, 2:]), np.maximum(rows[:, :2], rows[:, 2:])], axis=1
    )
    overlap = iou(ordered, ordered)
    assert ((overlap >= 0) & (overlap <= 1)).all()


@settings(deadline=None)
@given(boxes(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_suppression_leaves_no_pair_above_the_limit_and_removes_no_other_box(
    rows: np.ndarray, limit: float, random: object
) -> None:
    scores = np.array([random.random() for _ in rows], np.float32)  # type: ignore[attr-defined]
    kept = suppress_overlaps(rows, scores, limit)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(scores[kept]) <= 0).all()
    overlap = iou(rows, rows)
    among = overlap[np.ix_(kept, kept)]
    assert (among[~np.eye(len(kept), dtype=bool)] <= limit).all()
    for index in set(range(len(rows))) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[index]]
        assert (overlap[index, better] > limit).any()


@settings(deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(allow_subnormal=False))
)
def test_checked_boxes_are_finite_and_have_area(rows: np.ndarray) -> None:
    try:
        checked = as_xyxy(rows)
    except BoxError:
        with np.errstate(over="ignore"):
            single = rows.astype(np.float32)
        valid = np.isfinite(single).all(axis=1) & (single[:, 2:] > single[:, :2]).all(axis=1)
        assert not valid.all()
    else:
        assert np.isfinite(checked).all()
        assert (checked[:, 2:] > checked[:, :2]).all()
        assert len(checked) == len(rows)


@settings(deadline=None)
@given(boxes(), st.integers(1, 200), st.integers(1, 200))
def test_clipped_boxes_lie_in_the_image(rows: np.ndarray, width: int, height: int) -> None:
    clipped = clip_to(rows, Size(width, height))
    assert ((clipped >= 0) & (clipped <= [width, height, width, height])).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()
