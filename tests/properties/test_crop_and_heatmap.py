"""Properties that hold for every box, warp and point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpose.geometry.boxes import Size
from vitpose.geometry.heatmaps import Decoding, decode, encode, merge_flipped
from vitpose.geometry.warp import Warp

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
    back = warp.to_grid(warp.to_image(points, GRID), GRID)
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


@given(st.floats(10, 38), st.floats(8, 55))
def test_a_plain_map_is_shifted_after_mirroring(x: float, y: float) -> None:
    """A plain grid of w cells has its mirror line at w / 2: a point at x is seen at w - x."""
    points, seen = np.array([[[x, y]]]), np.ones((1, 1), bool)
    maps, _ = encode(points, seen, GRID)
    mirrored, _ = encode(points * [-1, 1] + [GRID.width, 0], seen, GRID)
    found, _ = decode(merge_flipped(maps, mirrored, np.array([0]), shift=True))
    np.testing.assert_allclose(found, points, atol=0.05)


@given(warps(), st.floats(10, 38), st.floats(10, 54))
def test_a_point_of_the_image_comes_back_through_its_map(warp: Warp, x: float, y: float) -> None:
    """ImageRow → cells → target map → cells → image, in both conventions, turned or not."""
    points = warp.to_image(np.full((len(warp), 1, 2), [x, y]), GRID)
    maps, _ = encode(warp.to_grid(points, GRID), np.ones((len(warp), 1), bool), GRID)
    found = warp.to_image(decode(maps)[0].astype(float), GRID)
    cell_px = np.linalg.norm(warp.matrices(GRID)[:, :, :2], axis=1).max(axis=1)
    assert (np.linalg.norm(found - points, axis=2)[:, 0] <= 0.08 * cell_px).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["dark", "quarter", "argmax"]))
def test_no_decoding_moves_a_point_by_more_than_a_cell(seed: int, refine: str) -> None:
    maps = np.random.default_rng(seed).normal(0, 1, (2, 3, 16, 12)).astype(np.float32)
    found, scores = decode(maps, Decoding(refine))
    highest, _ = decode(maps, Decoding("argmax"))
    assert np.abs(found - highest).max() <= 1
    np.testing.assert_array_equal(scores, maps.max(axis=(2, 3)))
