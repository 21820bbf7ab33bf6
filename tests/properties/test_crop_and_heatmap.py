"""Properties that hold for every box, warp and keypoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitpose.geometry.boxes import Size
from vitpose.geometry.heatmaps import Decoding, decode, encode, merge_flipped
from vitpose.geometry.warp import Warp

SIDE = st.floats(1, 5_000)
COORDINATE = st.floats(-2_000, 5_000)
GRID = Size(width=48, height=64)


@st.composite
def warps(draw: st.DrawFn) -> Warp:
    count = draw(st.integers(1, 4))
    boxes = [[draw(COORDINATE), draw(COORDINATE), draw(SIDE), draw(SIDE)] for _ in range(count)]
    array = np.array(boxes)
    warp = Warp.from_boxes(
        np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1).astype(np.float32),
        Size(width=192, height=256),
        draw(st.sampled_from(["udp", "plain"])),
    )
    angles = np.array([draw(st.floats(-180, 180)) for _ in range(count)])
    return Warp(warp.centres, warp.extents, warp.size, warp.convention, angles)


@given(warps(), st.floats(-100, 200), st.floats(-100, 200))
def test_to_grid_inverts_to_image(warp: Warp, x: float, y: float) -> None:
    keypoints = np.full((len(warp), 1, 2), [x, y])
    back = warp.to_grid(warp.to_image(keypoints, GRID), GRID)
    np.testing.assert_allclose(back, keypoints, atol=1e-6)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_crop_contains_its_box_and_keeps_its_aspect(w: float, h: float, x: float, y: float) -> None:
    box = np.array([[x, y, x + w, y + h]], np.float32)
    if (box[:, 2:] <= box[:, :2]).any():
        return  # the side is below the resolution of float32
    warp = Warp.from_boxes(box, Size(width=192, height=256))
    low, high = warp.centres[0] - warp.extents[0] / 2, warp.centres[0] + warp.extents[0] / 2
    assert (low < box[0, :2]).all()
    assert (high > box[0, 2:]).all()
    assert warp.extents[0, 0] / warp.extents[0, 1] == pytest.approx(0.75)


@given(st.floats(8, 39), st.floats(8, 55), st.sampled_from(["zero", "mirror", "reflect"]))
def test_dark_decodes_a_keypoint_between_cells(x: float, y: float, border: str) -> None:
    keypoints = np.array([[[x, y]]])
    heatmaps, _ = encode(keypoints, np.ones((1, 1), bool), GRID)
    found, _ = decode(heatmaps, Decoding(border=border))
    np.testing.assert_allclose(found, keypoints, atol=0.05)


@given(st.floats(8, 39), st.floats(8, 55), st.booleans())
def test_a_mirrored_heatmap_decodes_to_the_same_keypoint(x: float, y: float, swap: bool) -> None:
    """In the mirrored pass of UDP a keypoint is at width - 1 - x, in the channel of its mirror image."""
    mirror = np.array([1, 0]) if swap else np.array([0, 1])
    keypoints = np.array([[[x, y], [40 - x / 2, y]]])
    seen = np.ones((1, 2), bool)
    heatmaps, _ = encode(keypoints, seen, GRID)
    mirrored_keypoints = keypoints[:, mirror] * [-1, 1] + [GRID.width - 1, 0]
    mirrored, _ = encode(mirrored_keypoints, seen, GRID)
    found, _ = decode(merge_flipped(heatmaps, mirrored, mirror))
    np.testing.assert_allclose(found, keypoints, atol=0.05)


@given(st.floats(10, 38), st.floats(8, 55))
def test_a_plain_heatmap_is_shifted_after_mirroring(x: float, y: float) -> None:
    """A plain grid of w cells is mirrored about w / 2: a keypoint at x is at w - x."""
    keypoints, seen = np.array([[[x, y]]]), np.ones((1, 1), bool)
    heatmaps, _ = encode(keypoints, seen, GRID)
    mirrored, _ = encode(keypoints * [-1, 1] + [GRID.width, 0], seen, GRID)
    found, _ = decode(merge_flipped(heatmaps, mirrored, np.array([0]), shift=True))
    np.testing.assert_allclose(found, keypoints, atol=0.05)


@given(warps(), st.floats(10, 38), st.floats(10, 54))
def test_a_keypoint_of_the_image_is_recovered_from_its_heatmap(warp: Warp, x: float, y: float) -> None:
    """Image → cells → target heatmap → cells → image, in both conventions, rotated or not."""
    keypoints = warp.to_image(np.full((len(warp), 1, 2), [x, y]), GRID)
    heatmaps, _ = encode(warp.to_grid(keypoints, GRID), np.ones((len(warp), 1), bool), GRID)
    found = warp.to_image(decode(heatmaps)[0].astype(float), GRID)
    cell_px = np.linalg.norm(warp.matrices(GRID)[:, :, :2], axis=1).max(axis=1)
    assert (np.linalg.norm(found - keypoints, axis=2)[:, 0] <= 0.08 * cell_px).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["dark", "quarter", "argmax"]))
def test_no_refinement_moves_a_keypoint_by_more_than_a_cell(seed: int, refine: str) -> None:
    heatmaps = np.random.default_rng(seed).normal(0, 1, (2, 3, 16, 12)).astype(np.float32)
    found, scores = decode(heatmaps, Decoding(refine))
    highest, _ = decode(heatmaps, Decoding("argmax"))
    assert np.abs(found - highest).max() <= 1
    np.testing.assert_array_equal(scores, heatmaps.max(axis=(2, 3)))
