"""Properties that hold for every box, warp and point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpose.boxes import Size
from vitpose.crop import Warp
from vitpose.heatmap import Decoding, decode, encode, merge_flipped

SIDE = st.floats(1, 5_000)
PLACE = st.floats(-2_000, 5_000)
GRID = Size(width=48, height=64)


@st.composite
def warps(draw: st.DrawFn) -> Warp:
    count = draw(st.integers(1, 4))
    boxes = [[draw(PLACE), draw(PLACE), draw(SIDE), draw(SIDE)] for _ in range(count)]
    array = np.array(boxes)
    warp = Warp.from_boxes(
        np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1).astype(np.float32),
        Size(width=192, height=256),
        draw(st.sampled_from(["udp", "plain"])),
    )
    angles = np.array([draw(st.floats(-180, 180)) for _ in range(count)])
    return Warp(warp.centres, warp.extents, warp.size, warp.convention, angles)


@given(warps(), st.floats(-100, 200), st.floats(-100, 200))
def test_there_and_back_is_the_same_point(warp: Warp, x: float, y: float) -> None:
    points = np.full((len(warp), 1, 2), [x, y])
    back = warp.to_grid(warp.to_picture(points, GRID), GRID)
    np.testing.assert_allclose(back, points, atol=1e-6)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_crop_holds_its_box_and_keeps_its_aspect(w: float, h: float, x: float, y: float) -> None:
    box = np.array([[x, y, x + w, y + h]], np.float32)
    if (box[:, 2:] <= box[:, :2]).any():
        return  # float32 swallowed the side
    warp = Warp.from_boxes(box, Size(width=192, height=256))
    low, high = warp.centres[0] - warp.extents[0] / 2, warp.centres[0] + warp.extents[0] / 2
    assert (low < box[0, :2]).all()
    assert (high > box[0, 2:]).all()
    assert warp.extents[0, 0] / warp.extents[0, 1] == pytest.approx(0.75)


@given(st.floats(8, 39), st.floats(8, 55), st.sampled_from(["zero", "mirror", "reflect"]))
def test_dark_reads_back_a_point_between_cells(x: float, y: float, border: str) -> None:
    points = np.array([[[x, y]]])
    maps, _ = encode(points, np.ones((1, 1), bool), GRID)
    found, _ = decode(maps, Decoding(border=border))
    np.testing.assert_allclose(found, points, atol=0.05)


@given(st.floats(8, 39), st.floats(8, 55), st.booleans())
def test_a_mirrored_map_reads_the_same_point(x: float, y: float, swap: bool) -> None:
    """The mirrored pass of UDP sees the point at width - 1 - x, in the partner's channel."""
    mirror = np.array([1, 0]) if swap else np.array([0, 1])
    points = np.array([[[x, y], [40 - x / 2, y]]])
    seen = np.ones((1, 2), bool)
    maps, _ = encode(points, seen, GRID)
    mirrored_points = points[:, mirror] * [-1, 1] + [GRID.width - 1, 0]
    mirrored, _ = encode(mirrored_points, seen, GRID)
    found, _ = decode(merge_flipped(maps, mirrored, mirror))
    np.testing.assert_allclose(found, points, atol=0.05)


@given(st.integers(2, 45), st.integers(2, 61))
def test_plain_maps_are_shifted_after_mirroring(x: int, y: int) -> None:
    """A plain crop of w cells, mirrored, puts cell x at w - x - ... one to the left of where it belongs."""
    points = np.array([[[float(x), float(y)]]])
    seen = np.ones((1, 1), bool)
    maps, _ = encode(points, seen, GRID, unbiased=False)
    mirrored, _ = encode(points * [-1, 1] + [GRID.width, 0], seen, GRID, unbiased=False)
    merged = merge_flipped(maps, mirrored, np.array([0]), shift=True)
    found, _ = decode(merged, Decoding("argmax"))
    np.testing.assert_array_equal(found, points)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["dark", "quarter", "argmax"]))
def test_no_decoding_moves_a_point_by_more_than_a_cell(seed: int, refine: str) -> None:
    maps = np.random.default_rng(seed).normal(0, 1, (2, 3, 16, 12)).astype(np.float32)
    found, scores = decode(maps, Decoding(refine))
    highest, _ = decode(maps, Decoding("argmax"))
    assert np.abs(found - highest).max() <= 1
    np.testing.assert_array_equal(scores, maps.max(axis=(2, 3)))
