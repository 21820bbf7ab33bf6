from __future__ import annotations

import cv2
import numpy as np
import pytest

from vitpose.errors import UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.geometry.warp import Warp, normalise

SIZE = Size(width=192, height=256)


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Samples by the definition of bilinear interpolation, black outside the image."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    result = np.zeros((*x.shape, 3))
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
        inside = (column >= 0) & (column < image.shape[1]) & (row >= 0) & (row < image.shape[0])
        pixels = image[np.clip(row, 0, image.shape[0] - 1), np.clip(column, 0, image.shape[1] - 1)]
        result += pixels * (weight * inside)[..., None]
    return result


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("convention", ["udp", "plain"])
@pytest.mark.parametrize("box", [[20, 10, 80, 90], [-30, -20, 60, 50], [100, 60, 200, 180], [5, 5, 9, 9]])
def test_crop_is_bilinear_sampling_of_the_formula(
    image: np.ndarray, convention: str, box: list[float], opencv_rounding: float
) -> None:
    (x1, y1, x2, y2), width, height = box, SIZE.width, SIZE.height
    scale_x = max(x2 - x1, (y2 - y1) * width / height) * 1.25
    scale_y = scale_x * height / width
    steps = (width - 1, height - 1) if convention == "udp" else (width, height)
    x = np.arange(width) * scale_x / steps[0] + (x1 + x2) / 2 - scale_x / 2
    y = np.arange(height) * scale_y / steps[1] + (y1 + y2) / 2 - scale_y / 2
    expected = bilinear(image, *np.meshgrid(x, y))
    crop = Warp.from_boxes(np.array([box], np.float32), SIZE, convention).crop(image)[0]
    assert np.abs(crop - expected).max() <= 1 + opencv_rounding


@pytest.mark.parametrize("convention", ["udp", "plain"])
def test_a_rotated_crop_samples_at_the_positions_of_its_matrix(
    image: np.ndarray, convention: str, opencv_rounding: float
) -> None:
    warp = Warp(np.array([[70.0, 60.0]]), np.array([[60.0, 80.0]]), SIZE, convention, np.array([30.0]))
    cells = np.stack(np.meshgrid(np.arange(SIZE.width), np.arange(SIZE.height)), axis=-1).reshape(1, -1, 2)
    positions = warp.to_image(cells.astype(float), SIZE)[0].reshape(SIZE.height, SIZE.width, 2)
    difference = np.abs(warp.crop(image)[0] - bilinear(image, positions[..., 0], positions[..., 1]))
    assert difference.max() <= 1 + opencv_rounding


def test_udp_grids_of_every_size_cover_the_same_rectangle() -> None:
    warp = Warp.from_boxes(np.array([[10, 20, 50, 60]], np.float32), SIZE)
    for grid in (SIZE, Size(width=48, height=64), Size(width=12, height=16)):
        corners = np.array([[[0, 0], [grid.width - 1, grid.height - 1]]], float)
        expected = [[30 - 25, 40 - 100 / 3], [30 + 25, 40 + 100 / 3]]
        np.testing.assert_allclose(warp.to_image(corners, grid)[0], expected, atol=1e-5)


def test_all_channels_are_warped_in_one_call(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """One uint8 call for each box instead of one float call for each channel."""
    calls = []
    real = cv2.warpAffine

    def counted(part: np.ndarray, *arguments: object, **options: object) -> np.ndarray:
        calls.append((part.shape[2], part.dtype))
        return real(part, *arguments, **options)

    monkeypatch.setattr(cv2, "warpAffine", counted)
    Warp.from_boxes(np.array([[20, 10, 80, 90], [5, 5, 50, 70]], np.float32), SIZE).crop(image)
    assert calls == [(3, np.uint8)] * 2


def test_rotation_is_clockwise_on_the_screen_about_the_centre() -> None:
    grid = Size(width=49, height=65)
    warp = Warp(np.array([[100.0, 50.0]]), np.array([[48.0, 64.0]]), SIZE, "udp", np.array([90.0]))
    points = np.array([[[24.0, 32.0], [48.0, 32.0]]])  # the centre, and the middle of the right side
    np.testing.assert_allclose(warp.to_image(points, grid)[0], [[100, 50], [100, 74]], atol=1e-9)


def test_slices_have_the_same_matrices() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 60, 80], [5, 5, 50, 9]], np.float32)
    warp = Warp.from_boxes(boxes, SIZE)
    np.testing.assert_array_equal(warp[1:].matrices(SIZE), warp.matrices(SIZE)[1:])


def test_zero_boxes_give_zero_crops(image: np.ndarray) -> None:
    assert Warp.from_boxes(np.zeros((0, 4), np.float32), SIZE).crop(image).shape == (0, 256, 192, 3)


def test_images_longer_than_opencv_supports() -> None:
    image = np.zeros((40, 40_000, 3), np.uint8)
    image[:, 39_000:39_100] = 200
    crop = Warp.from_boxes(np.array([[39_000, 0, 39_099, 39]], np.float32), SIZE).crop(image)[0]
    assert (crop[128, 30:160] == 200).all()


@pytest.mark.parametrize("convention", ["udp", "plain"])
@pytest.mark.parametrize("sides", [(100_000, 8), (8, 100_000)])
@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_boxes_longer_than_opencv_supports(sides: tuple[int, int], convention: str, angle: float) -> None:
    """The crop of a whole long and thin image equals bilinear sampling by definition."""
    width, height = sides
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    extents = np.array([[width, height]], float)
    warp = Warp(extents / 2, extents, SIZE, convention, np.array([angle]))
    cells = np.stack(np.meshgrid(np.arange(SIZE.width), np.arange(SIZE.height)), axis=-1).reshape(1, -1, 2)
    positions = warp.to_image(cells.astype(float), SIZE)[0].reshape(SIZE.height, SIZE.width, 2)
    # OpenCV rounds positions to a 32nd of a pixel; noise changes by up to 255 levels a pixel.
    difference = np.abs(warp.crop(image)[0] - bilinear(image, positions[..., 0], positions[..., 1]))
    assert difference.max() <= 255 / 16 + 1
    assert angle or warp.crop(image).any()


def test_boxes_far_outside_give_black_crops() -> None:
    image = np.full((30, 30, 3), 255, np.uint8)
    for box in ([500, 500, 600, 600], [-600, -600, -500, -500]):
        assert not Warp.from_boxes(np.array([box], np.float32), SIZE).crop(image).any()


def test_an_unknown_convention_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown warp 'upd'; did you mean udp"):
        Warp.from_boxes(np.zeros((0, 4), np.float32), SIZE, "upd")


@pytest.mark.parametrize("box", [[0, 0, 40, 40], [0, 0, 40, 20], [10, 5, 30, 45]])
def test_a_stretched_crop_covers_the_square_of_the_longer_side(box: list[float]) -> None:
    warp = Warp.from_boxes(np.array([box], np.float32), SIZE, aspect="stretch")
    np.testing.assert_allclose(warp.extents, [[50, 50]])
    np.testing.assert_allclose(warp.centres, [[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]])


def test_an_unknown_aspect_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown aspect 'stretched'; did you mean stretch"):
        Warp.from_boxes(np.zeros((0, 4), np.float32), SIZE, aspect="stretched")


def test_normalise_applies_scale_and_offset_of_each_channel() -> None:
    crops = np.array([[[[0, 10, 255]]]], np.uint8)
    scale, offset = np.array([1, 2, 3], np.float32), np.array([0.5, 0, -1], np.float32)
    np.testing.assert_allclose(normalise(crops, scale, offset)[0, :, 0, 0], [0.5, 20, 764])
