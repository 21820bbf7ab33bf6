from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitpose.errors import ImageError, UnknownNameError
from vitpose.images import read_image, save_image

PHOTO = np.add.outer(np.arange(0, 96, 4), np.arange(0, 99, 3))[:, :, None] + np.array([9, 30, 59])
PHOTO = PHOTO.astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff"])
def test_written_images_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / "folder" / f"image{suffix}"
    save_image(path, PHOTO)
    np.testing.assert_array_equal(read_image(path), PHOTO)
    save_image(str(path), PHOTO[::-1])
    np.testing.assert_array_equal(read_image(path), PHOTO[::-1])


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_images_are_written_with_high_quality(tmp_path: Path, suffix: str) -> None:
    save_image(tmp_path / f"a{suffix}", PHOTO)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - PHOTO).mean() < 2.5


def test_thin_coloured_lines_keep_their_colour(tmp_path: Path) -> None:
    drawn = np.full((32, 32, 3), 90, np.uint8)
    drawn[:, 11] = 255, 0, 0
    save_image(tmp_path / "a.jpg", drawn)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - drawn).max() < 40


def test_an_unknown_suffix_raises(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown image suffix '\.jpgg'; did you mean \.jpg"):
        save_image(tmp_path / "new" / "a.jpgg", PHOTO)
    with pytest.raises(
        UnknownNameError, match=r"unknown image suffix ''; known: .*The suffix of .*a selects the format"
    ):
        save_image(tmp_path / "new" / "a", PHOTO)
    assert not (tmp_path / "new").exists()


def test_a_path_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.jpg", tmp_path / "file" / "sub" / "a.jpg"):
        with pytest.raises(ImageError, match=r"a\.jpg cannot be written: .*; choose another path"):
            save_image(path, PHOTO)
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=r"folder\.jpg cannot be written: .*directory"):
        save_image(tmp_path / "folder.jpg", PHOTO)


def test_an_image_too_large_for_its_format_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"a\.webp cannot be written: .*another format if the image of 17000x1 pixels is"
    ):
        save_image(tmp_path / "a.webp", np.zeros((1, 17_000, 3), np.uint8))
    assert not (tmp_path / "a.webp").exists()


def test_arrays_that_are_not_images_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has four axes, like a batch"):
        save_image(tmp_path / "a.png", np.zeros((2, 4, 4, 3), np.uint8))
