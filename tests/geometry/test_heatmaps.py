from __future__ import annotations

import numpy as np
import pytest

from vitpose.errors import InputError, UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.geometry.heatmaps import TRANSFORMERS_DECODING, Decoding, decode, encode, merge_flipped

GRID = Size(width=48, height=64)
OPENCV_LIKE = Decoding(border="mirror", max_step=None)


def noisy_heatmaps(
    low: float, high: float, noise: float, count: int = 2_000
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians of sigma 2 between `low` and `high` cells from the left border, with noise."""
    rng = np.random.default_rng(0)
    keypoints = np.stack([rng.uniform(low, high, count), rng.uniform(20, 44, count)], axis=1)[None]
    heatmaps, _ = encode(keypoints, np.ones((1, count), bool), GRID)
    return keypoints, heatmaps + rng.normal(0, noise, heatmaps.shape).astype(np.float32)


def error(keypoints: np.ndarray, heatmaps: np.ndarray, decoding: Decoding) -> float:
    found, _ = decode(heatmaps, decoding)
    return float(np.linalg.norm(found - keypoints, axis=2).mean())


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03])
def test_sigma_2_is_more_accurate_than_sigma_0_8_under_noise(noise: float) -> None:
    keypoints, heatmaps = noisy_heatmaps(12, 36, noise)
    assert error(keypoints, heatmaps, TRANSFORMERS_DECODING) > 1.5 * error(keypoints, heatmaps, Decoding())


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
def test_zero_padding_is_more_accurate_than_mirroring_at_the_border(noise: float) -> None:
    keypoints, heatmaps = noisy_heatmaps(0, 5, noise)
    ours, mirrored = error(keypoints, heatmaps, Decoding()), error(keypoints, heatmaps, OPENCV_LIKE)
    plain = error(keypoints, heatmaps, Decoding("argmax"))
    assert mirrored > plain, "mirroring is less accurate than no refinement"
    assert ours < 0.8 * plain
    assert ours < 0.5 * mirrored


def test_quarter_steps_go_towards_the_larger_neighbour() -> None:
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    heatmaps[0, 0, [4, 4, 3, 5], [3, 4, 3, 3]] = [1.0, 0.5, 0.6, 0.2]
    found, scores = decode(heatmaps, Decoding("quarter"))
    np.testing.assert_array_equal(found[0, 0], [3.25, 3.75])
    assert scores[0, 0] == 1


@pytest.mark.parametrize("peak", [(0, 4), (1, 4), (7, 4), (4, 0), (4, 1), (4, 7)])
def test_quarter_steps_are_zero_at_the_border(peak: tuple[int, int]) -> None:
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    heatmaps[0, 0, peak[1], peak[0]] = 1
    heatmaps[0, 0, 3, 3] = 0.5
    np.testing.assert_array_equal(decode(heatmaps, Decoding("quarter"))[0][0, 0], peak)


def test_dark_equals_a_blur_of_the_whole_heatmap_by_opencv() -> None:
    """Blurring around the peaks only gives the same result as blurring the whole heatmap."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)
    keypoints = rng.uniform([0, 0], [47, 63], (1, 40, 2))
    heatmaps, _ = encode(keypoints, np.ones((1, 40), bool), GRID)
    heatmaps += rng.uniform(0, 0.02, heatmaps.shape).astype(np.float32)
    found, _ = decode(heatmaps, OPENCV_LIKE)
    for point, heatmap in zip(found[0], heatmaps[0], strict=True):
        blurred = np.log(np.clip(cv2.GaussianBlur(heatmap.astype(np.float64), (11, 11), 0), 0.001, 50))
        blurred = np.pad(blurred, 1, mode="edge")
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        m = blurred[row : row + 3, column : column + 3]
        gradient = np.array([m[1, 2] - m[1, 0], m[2, 1] - m[0, 1]]) / 2
        xy = (m[2, 2] - m[1, 2] - m[2, 1] + 2 * m[1, 1] - m[1, 0] - m[0, 1] + m[0, 0]) / 2
        hessian = np.array([[m[1, 2] - 2 * m[1, 1] + m[1, 0], xy], [xy, m[2, 1] - 2 * m[1, 1] + m[0, 1]]])
        expected = np.array([column, row]) - np.linalg.solve(hessian, gradient)
        np.testing.assert_allclose(point, expected, atol=1e-3)


def test_flat_and_negative_heatmaps_give_finite_keypoints() -> None:
    heatmaps = np.stack([np.zeros((64, 48)), np.full((64, 48), -1.0)]).astype(np.float32)[None]
    found, scores = decode(heatmaps)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(scores, [[0, -1]])


def test_half_precision_heatmaps_are_decoded() -> None:
    keypoints, heatmaps = noisy_heatmaps(20, 30, 0, count=5)
    np.testing.assert_allclose(decode(heatmaps.astype(np.float16))[0], keypoints, atol=0.05)


def test_zero_instances_and_one_keypoint() -> None:
    assert decode(np.zeros((0, 17, 64, 48), np.float32))[0].shape == (0, 17, 2)
    assert decode(np.zeros((1, 1, 64, 48), np.float32))[0].shape == (1, 1, 2)


def test_nan_and_infinity_raise() -> None:
    heatmaps = np.zeros((1, 2, 4, 4), np.float32)
    for wrong in (np.nan, np.inf):
        heatmaps[0, 1, 2, 2] = wrong
        with pytest.raises(InputError, match="heatmaps contain NaN or infinity"):
            decode(heatmaps)


def test_sigma_follows_the_kernel_as_in_opencv() -> None:
    assert Decoding().sigma == pytest.approx(2.0)
    assert Decoding(kernel_size=17).sigma == pytest.approx(2.9)
    assert Decoding(kernel_size=17, blur_sigma=0.8).sigma == 0.8


def test_no_step_is_taken_where_there_is_no_peak() -> None:
    """At a saddle or minimum of the blurred heatmap the Newton step leads away from the maximum."""
    rng = np.random.default_rng(5)
    heatmaps = rng.uniform(0, 1, (1, 400, 16, 12)).astype(np.float32)
    bounded, _ = decode(heatmaps)
    trusted, _ = decode(heatmaps, Decoding(max_step=None))
    highest, _ = decode(heatmaps, Decoding("argmax"))
    still = (bounded == highest).all(axis=2)
    assert still.any(), "some noise has no peak"
    assert (np.abs(trusted - highest)[still].max(axis=-1) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine": "drak"}, "unknown decoding 'drak'; did you mean dark"),
        ({"border": "zeros"}, "unknown border 'zeros'; did you mean zero"),
        ({"kernel_size": 10}, "kernel_size 10 must be odd"),
        ({"blur_sigma": 0.0}, "blur_sigma 0.0 must be finite and positive"),
        ({"max_step": -1.0}, "max_step -1.0 must not be negative"),
    ],
)
def test_invalid_options_raise(options: dict, message: str) -> None:
    error_class = UnknownNameError if "unknown" in message else InputError
    with pytest.raises(error_class, match=message):
        Decoding(**options)


def test_targets_are_gaussians_cut_at_three_sigma() -> None:
    heatmaps, weights = encode(np.array([[[10.3, 20.8]]]), np.ones((1, 1), bool), GRID)
    y, x = np.mgrid[:64, :48]
    expected = np.exp(-((x - 10.3) ** 2 + (y - 20.8) ** 2) / 8) * (abs(x - 10) <= 6) * (abs(y - 21) <= 6)
    np.testing.assert_allclose(heatmaps[0, 0], expected, atol=1e-6)
    assert weights == [[1]]


def test_msra_targets_are_centred_on_a_cell() -> None:
    heatmaps, _ = encode(np.array([[[10.5, 20.4]]]), np.ones((1, 1), bool), GRID, unbiased=False)
    assert heatmaps[0, 0, 20, 11] == 1


def test_unlabelled_or_distant_keypoints_have_weight_zero() -> None:
    keypoints = np.array([[[10, 10], [np.nan, 3], [-7, 20], [-6.4, 20], [20, 71], [60, 60]]], float)
    labelled = np.array([[True, False, True, True, True, True]])
    heatmaps, weights = encode(keypoints, labelled, GRID)
    np.testing.assert_array_equal(weights, [[1, 0, 0, 1, 0, 0]])
    assert not heatmaps[0, weights[0] == 0].any()


def test_merging_swaps_channels_and_flips_columns() -> None:
    heatmaps = np.zeros((1, 2, 2, 3), np.float32)
    mirrored = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    merged = merge_flipped(heatmaps, mirrored, np.array([1, 0]))
    np.testing.assert_array_equal(merged[0, 0] * 2, mirrored[0, 1, :, ::-1])
    shifted = merge_flipped(heatmaps, mirrored, np.array([1, 0]), shift=True)
    np.testing.assert_array_equal(shifted[0, 0] * 2, [[8, 8, 7], [11, 11, 10]])
