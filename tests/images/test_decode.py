from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image, ImageFile

from vitpose.errors import ImageError
from vitpose.images import MAX_PIXELS, find_images, read_image, read_size
from vitpose.images import decode as module


def make_photo(height: int = 24, width: int = 33) -> np.ndarray:
    """Returns a smooth image with different corners and channels."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.rint(np.stack([40 + 200 * x, 30 + 180 * y, 120 + 100 * x * y], axis=2)).astype(np.uint8)


def encode(image: Any, key: str, **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, key, **options)
    return file.getvalue()


def outcome(read: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, str]:
    """Returns the image and "", or None and the message of the ImageError."""
    try:
        return read(*args, **options), ""
    except ImageError as error:
        return None, str(error)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


PHOTO = make_photo()
GREY = PHOTO[:, :, 0]


# ------------------------------------------------------------------ sources


@pytest.mark.parametrize(
    "name", ["plain.png", "two words.png", "Zoë 写真 🏃.png", "-v.png", "no suffix", "a[1].png"]
)
def test_a_path_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(PHOTO, "PNG"))
    np.testing.assert_array_equal(read_image(path), PHOTO)
    np.testing.assert_array_equal(read_image(str(path)), PHOTO)
    assert find_images([str(path)]) == [path]


def test_paths_with_a_leading_dash_or_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "-x.png").write_bytes(encode(PHOTO, "PNG"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.testing.assert_array_equal(read_image("-x.png"), PHOTO)
    np.testing.assert_array_equal(read_image("~/-x.png"), PHOTO)
    assert find_images(["-x.png", "~/-x.png"]) == [Path("-x.png")]


def test_bytes_and_file_objects(tmp_path: Path) -> None:
    data = encode(PHOTO, "PNG")
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_array_equal(read_image(source), PHOTO)
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), PHOTO)
        assert not file.closed, "the caller closes the file"


def test_a_file_object_is_read_from_its_start() -> None:
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG")
    np.testing.assert_array_equal(read_image(file), PHOTO)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no path there")
def test_pipes() -> None:
    def open_pipe() -> int:
        reading, writing = os.pipe()
        os.write(writing, encode(PHOTO, "PNG"))
        os.close(writing)
        return reading

    with os.fdopen(open_pipe(), "rb") as file:
        np.testing.assert_array_equal(read_image(file), PHOTO)
    reading = open_pipe()
    np.testing.assert_array_equal(read_image(f"/dev/fd/{reading}"), PHOTO)
    os.close(reading)


def test_pil_images_are_not_changed() -> None:
    image = Image.fromarray(PHOTO)
    np.testing.assert_array_equal(read_image(image), PHOTO)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PHOTO)


def test_tensors_with_channels_first_or_last() -> None:
    np.testing.assert_array_equal(read_image(torch.from_numpy(PHOTO.copy())), PHOTO)
    first = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)
    np.testing.assert_array_equal(read_image(first), PHOTO)
    with_gradient = (first / 255).requires_grad_()
    np.testing.assert_array_equal(read_image(with_gradient), PHOTO)


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, vitpose.images; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    assert os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", code], environment) == 0


@pytest.mark.parametrize("source", [None, 3, [PHOTO, PHOTO], {"image": PHOTO}])
def test_other_types_raise(source: object) -> None:
    with pytest.raises(ImageError, match=rf"of type {type(source).__name__} is not an image; pass one path"):
        read_image(source)


def test_a_text_file_object_raises() -> None:
    with pytest.raises(
        ImageError, match=r"file object StringIO returns str, not bytes; open the file in binary mode"
    ):
        read_image(io.StringIO("text"))


def test_a_closed_file_object_raises() -> None:
    file = io.BytesIO(encode(PHOTO, "PNG"))
    file.close()
    with pytest.raises(ImageError, match="file object BytesIO cannot be read: I/O operation on closed file"):
        read_image(file)


def test_a_tensor_that_numpy_does_not_support_raises() -> None:
    with pytest.raises(
        ImageError, match=r"the Tensor cannot be read as an array: .*BFloat16; convert it to uint8"
    ):
        read_image(torch.zeros(3, 4, 5, dtype=torch.bfloat16))


# ------------------------------------------------------------------ formats of image files


@pytest.mark.parametrize("key", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_formats_are_read_exactly(key: str) -> None:
    read = read_image(encode(PHOTO, key, **({"lossless": True} if key == "WEBP" else {})))
    np.testing.assert_array_equal(read, PHOTO)
    assert read.flags.c_contiguous


@pytest.mark.parametrize("key", ["JPEG", "AVIF", "GIF", "MPO"])
def test_lossy_formats_are_read_approximately(key: str) -> None:
    assert np.abs(read_image(encode(PHOTO, key)).astype(int) - PHOTO).mean() < 8


def test_a_jpeg_equals_pillows_decoding() -> None:
    data = encode(PHOTO, "JPEG", quality=80)
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("key", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(key: str) -> None:
    levels = np.array([[0, 255, 256], [128 * 257, 254 * 257, 65535]], np.uint16)
    read = read_image(encode(levels, key))
    np.testing.assert_array_equal(read[:, :, 1], [[0, 0, 1], [128, 254, 255]])
    np.testing.assert_array_equal(read[:, :, 0], read[:, :, 2])


def test_16_bit_grey_in_every_mode_of_pillow() -> None:
    levels = GREY.astype(np.uint16) * 257
    images = {
        "I;16": Image.fromarray(levels),
        "I;16B": Image.frombytes("I;16B", GREY.shape[::-1], levels.astype(">u2").tobytes()),
        "I": Image.fromarray(levels.astype(np.int32)),
    }
    for mode, image in images.items():
        assert image.mode == mode
        np.testing.assert_array_equal(read_image(image), np.repeat(GREY[:, :, None], 3, axis=2))
    for order in "<", ">":  # TIFF files of both byte orders
        data = encode(images["I;16" if order == "<" else "I;16B"], "TIFF")
        np.testing.assert_array_equal(read_image(data)[:, :, 0], GREY)


def test_16_bit_colour_is_scaled() -> None:
    import cv2  # Pillow reads such files but cannot write them

    _, data = cv2.imencode(".png", PHOTO[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(data.tobytes()), PHOTO)


def test_16_bit_pgm() -> None:
    data = b"P5 2 1 65535\n" + np.array([128 * 257, 65535], ">u2").tobytes()
    np.testing.assert_array_equal(read_image(data)[0, :, 0], [128, 255])


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bits_raise(value: int) -> None:
    levels = np.array([[0, value]], np.int32)
    with pytest.raises(
        ImageError, match=r"contains integers from -?\d+ to \d+, but grey levels must be in 0..65535"
    ):
        read_image(encode(levels, "TIFF"))


def test_float_tiff_is_read_like_float_arrays() -> None:
    levels = GREY.astype(np.float32) / 255
    np.testing.assert_array_equal(read_image(encode(levels, "TIFF"))[:, :, 2], GREY)
    with pytest.raises(
        ImageError, match=r"the bytes object of \d+ bytes has values from 40 to 240, but floats"
    ):
        read_image(encode(GREY.astype(np.float32), "TIFF"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "RGBX", "RGBa"])
def test_every_mode_is_converted_to_rgb(mode: str) -> None:
    rgb = Image.fromarray(PHOTO)
    image = rgb.convert("RGBA").convert(mode) if mode == "RGBa" else rgb.convert(mode)
    read = read_image(image)
    assert read.shape == PHOTO.shape
    grey = np.asarray(rgb.convert("L"))[:, :, None]
    expected = grey if mode in ("L", "LA", "1") else PHOTO
    limit = 130 if mode == "1" else 35 if mode in ("P", "PA") else 4
    assert np.abs(read.astype(int) - expected).mean() < limit


def test_1_bit_is_black_and_white() -> None:
    bits = GREY > 100
    read = read_image(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(read, np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2))


def test_cmyk_jpeg() -> None:
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    assert np.abs(read_image(encode(cmyk, "JPEG", quality=95)).astype(int) - PHOTO).mean() < 4


def test_transparent_pixels_are_white() -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    expected = [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]]
    for source in (pixels, Image.fromarray(pixels), encode(pixels, "PNG"), encode(pixels, "TIFF")):
        np.testing.assert_allclose(read_image(source), expected, atol=1)


def test_grey_and_alpha() -> None:
    pixels = np.array([[[90, 255], [90, 0]]], np.uint8)
    for source in (
        pixels,
        encode(Image.merge("LA", [Image.fromarray(band) for band in np.moveaxis(pixels, 2, 0)]), "PNG"),
    ):
        np.testing.assert_array_equal(read_image(source)[0], [[90] * 3, [255] * 3])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency(transparency: Any) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encode(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(read_image(data)[0], [[10, 20, 30], [255] * 3, [70, 80, 90]])


@pytest.mark.parametrize(("mode", "key"), [("RGB", (40, 30, 120)), ("L", 40)])
def test_a_transparent_colour(mode: str, key: Any) -> None:
    image = Image.fromarray(PHOTO if mode == "RGB" else GREY)
    read = read_image(encode(image, "PNG", transparency=key))
    assert read[0, 0].tolist() == [255] * 3
    np.testing.assert_array_equal(read[-1, -1], PHOTO[-1, -1] if mode == "RGB" else [GREY[-1, -1]] * 3)


@pytest.mark.parametrize("key", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_read(key: str) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    options = {"lossless": True} if key == "WEBP" else {}
    data = encode(first, key, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert read_image(data)[0, 0].tolist() == [255, 0, 0]
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert read_image(image)[0, 0].tolist() == [0, 0, 255], "the current frame of a PIL image"


STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}
"""Functions from an upright image to its stored pixels, by EXIF orientation."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("key", ["PNG", "TIFF", "WEBP"])
def test_images_are_rotated_by_exif(orientation: int, key: str) -> None:
    stored = np.ascontiguousarray(STORED[orientation](PHOTO))
    options = {"lossless": True} if key == "WEBP" else {}
    data = encode(stored, key, exif=exif_of(orientation), **options)
    np.testing.assert_array_equal(read_image(data), PHOTO)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), PHOTO)


def test_rotated_jpeg_and_16_bit_images_have_the_upright_size() -> None:
    assert read_image(encode(PHOTO, "JPEG", exif=exif_of(6))).shape == (33, 24, 3)
    assert read_image(encode(GREY.astype(np.uint16), "PNG", exif=exif_of(8))).shape == (33, 24, 3)


@pytest.mark.parametrize("orientation", [0, 9, 777])
def test_an_invalid_orientation_is_ignored(orientation: int) -> None:
    np.testing.assert_array_equal(read_image(encode(PHOTO, "PNG", exif=exif_of(orientation))), PHOTO)


@pytest.mark.parametrize("key", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0junk",
        b"Exif\0\0MM\0*\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01",
    ],
)
def test_damaged_exif_is_ignored_without_a_warning(key: str, exif: bytes) -> None:
    assert read_image(encode(PHOTO, key, exif=exif)).shape == PHOTO.shape


def test_one_pixel() -> None:
    for key in ("PNG", "BMP", "GIF"):
        read = read_image(encode(np.full((1, 1, 3), 255, np.uint8), key))
        np.testing.assert_array_equal(read, np.full((1, 1, 3), 255))


# ------------------------------------------------------------------ unreadable files


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty; download or save the image again"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="the bytes object of 0 bytes is empty"):
        read_image(b"")


def test_a_file_that_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("dear diary")
    with pytest.raises(
        ImageError,
        match=r"notes\.jpg is not an image: it starts with b'dear diary'; supported formats are JPEG,",
    ):
        read_image(tmp_path / "notes.jpg")


def test_eps_is_unsupported() -> None:
    with pytest.raises(ImageError, match=r"is not an image: it starts with b'%!PS"):
        read_image(encode(PHOTO, "EPS"))


def test_a_format_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.setitem(Image.OPEN, "AVIF", (None, lambda prefix: "AVIF support not installed"))
    with pytest.raises(
        ImageError, match=r"cannot be read: AVIF support not installed; save the image as JPEG or PNG"
    ):
        read_image(encode(PHOTO, "AVIF"))


COMPLETE = {
    "JPEG": encode(PHOTO, "JPEG"),
    "JPEG, progressive": encode(PHOTO, "JPEG", progressive=True),
    "PNG": encode(PHOTO, "PNG"),
    "PNG, 16 bits": encode(GREY.astype(np.uint16) * 257, "PNG"),
    "WEBP": encode(PHOTO, "WEBP"),
    "AVIF": encode(PHOTO, "AVIF"),
    "BMP": encode(PHOTO, "BMP"),
    "GIF": encode(PHOTO, "GIF"),
    "PPM": encode(PHOTO, "PPM"),
    "TIFF": encode(PHOTO, "TIFF"),
    "TIFF, packed": encode(PHOTO, "TIFF", compression="tiff_deflate"),
    "JPEG2000": encode(PHOTO, "JPEG2000"),
}


@pytest.mark.parametrize("kind", COMPLETE)
def test_a_truncated_file_raises_or_is_complete(kind: str) -> None:
    data, complete = COMPLETE[kind], read_image(COMPLETE[kind])
    errors = 0
    for length in {*range(0, len(data), 11), *range(len(data) - 40, len(data))}:
        read, error = outcome(read_image, data[:length])
        if read is None:
            assert error.startswith(f"the bytes object of {length} bytes ")
            errors += 1
        else:
            np.testing.assert_array_equal(
                read, complete, err_msg=f"{kind}, truncated after {length} of {len(data)}"
            )
    assert errors > len(data) // 11 // 2


def test_a_truncated_image_raises(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(COMPLETE["PNG"][:-60])
    with pytest.raises(
        ImageError, match=r"cut\.png cannot be read: .*; if it is damaged or truncated, download it"
    ):
        read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, progressive", "JPEG2000"])
def test_a_file_padded_with_zeros_raises(kind: str) -> None:
    data = COMPLETE[kind]
    with pytest.raises(ImageError, match="is truncated: it has no end marker; download or copy it again"):
        read_image(data[: len(data) * 9 // 10].ljust(len(data), b"\0"))


def test_a_jpeg_may_be_followed_by_other_data() -> None:
    np.testing.assert_array_equal(read_image(COMPLETE["JPEG"] + bytes(500)), read_image(COMPLETE["JPEG"]))


def enormous(width: int, height: int) -> bytes:
    """Returns a PNG with a header of that size and without pixels."""
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_001), (2**31 - 1, 2**31 - 1)])
def test_enormous_images_raise_by_their_header(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(enormous(width, height))
    pixels = width * height
    message = (
        f"has {width}x{height} = {pixels} pixels; the limit is {MAX_PIXELS}. .* pass max_pixels={pixels} if"
    )
    with pytest.raises(ImageError, match=f"huge.png {message}"):
        read_image(path)


def test_pillows_limit_is_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_image(encode(PHOTO, "PNG")), PHOTO)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_max_pixels() -> None:
    count = PHOTO.shape[0] * PHOTO.shape[1]
    for source in (encode(PHOTO, "PNG"), Image.fromarray(PHOTO)):
        np.testing.assert_array_equal(read_image(source, max_pixels=count), PHOTO)
        with pytest.raises(ImageError, match=f"has 33x24 = {count} pixels; the limit is {count - 1}"):
            read_image(source, max_pixels=count - 1)
    np.testing.assert_array_equal(read_image(PHOTO, max_pixels=1), PHOTO)


def test_an_error_of_pillows_limit_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    # A GIF whose frame is larger than its screen of 1x1: Pillow enlarges the image, and checks its size, on decoding.
    data = COMPLETE["GIF"]
    frame_beyond_the_screen = data[:6] + b"\1\0\1\0" + data[10:]
    with pytest.raises(ImageError, match=r"exceeds a limit of Pillow: .*raise PIL.Image.MAX_IMAGE_PIXELS"):
        read_image(frame_beyond_the_screen)


def test_a_pil_image_that_was_closed_or_has_no_pixels() -> None:
    image = Image.open(io.BytesIO(COMPLETE["PNG"]))
    image.close()
    with pytest.raises(ImageError, match=r"the PIL image \(RGB, 33x24\) cannot be read: "):
        read_image(image)
    with pytest.raises(ImageError, match=r"the PIL image \(RGB, 0x5\) has no pixels"):
        read_image(Image.new("RGB", (0, 5)))


def test_a_colour_space_that_pillow_cannot_convert() -> None:
    with pytest.raises(
        ImageError, match=r"PIL image \(La, 2x2\) cannot be read: .*save it as an RGB image in JPEG"
    ):
        read_image(Image.new("La", (2, 2)))


def test_pillows_settings_and_warning_filters_are_not_changed() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    with ThreadPoolExecutor(8) as pool:
        damaged = encode(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
        read = list(pool.map(read_image, [damaged, COMPLETE["TIFF"]] * 100))
    assert {image.shape for image in read} == {PHOTO.shape}
    with pytest.raises(ImageError):
        read_image(COMPLETE["TIFF"][:100])
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_warnings_of_other_code_are_not_suppressed() -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            warnings.resetwarnings()
            warnings.warn("from the file", UserWarning, stacklevel=1)
            return super().read(size)

    with warnings.catch_warnings(record=True) as caught:
        read_image(Image.open(File(COMPLETE["PNG"])))
    assert {str(warning.message) for warning in caught} == {"from the file"}


# ------------------------------------------------------------------ arrays


def test_an_rgb_array_is_not_copied() -> None:
    assert read_image(PHOTO) is PHOTO


def test_views_are_made_contiguous() -> None:
    read = read_image(PHOTO[::2, ::-1, ::-1])
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, PHOTO[::2, ::-1, ::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("form", ["h w", "h w 1", "1 h w", "h w 3", "3 h w", "h w 4"])
def test_arrays_of_every_type_and_shape(dtype: Any, form: str) -> None:
    scale = {"u": {1: 1, 2: 257}, "f": dict.fromkeys((2, 4, 8), 1 / 255)}[np.dtype(dtype).kind]
    opaque = np.dstack([PHOTO, np.full_like(GREY, 255)])
    levels = {"h w": GREY, "h w 1": GREY[:, :, None], "1 h w": GREY[None], "h w 4": opaque}
    levels |= {"h w 3": PHOTO, "3 h w": PHOTO.transpose(2, 0, 1)}
    array = (levels[form].astype(np.float64) * scale[np.dtype(dtype).itemsize]).astype(dtype)
    expected = PHOTO if form in ("h w 3", "3 h w", "h w 4") else np.dstack([GREY] * 3)
    read = read_image(array)
    np.testing.assert_array_equal(read, expected)
    assert read.flags.c_contiguous


def test_bools_are_black_and_white() -> None:
    assert read_image(np.array([[True, False]]))[0].tolist() == [[255] * 3, [0] * 3]


def test_the_last_axis_is_the_channels_if_it_can_be() -> None:
    rows = np.arange(3 * 50 * 3, dtype=np.uint8).reshape(3, 50, 3)
    assert read_image(rows) is rows


def test_floats_slightly_out_of_range_are_clipped() -> None:
    read = read_image(np.array([[1.0015, -0.0015]], np.float32))
    assert read[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 4, 4, 3), np.uint8),
            r"shape \(2, 4, 4, 3\) and type uint8 has four axes, like a batch; pass one",
        ),
        (
            np.zeros(7, np.uint8),
            r"shape \(7,\) and type uint8 is not an image; its axes must be \(h w\) or",
        ),
        (np.uint8(7), r"shape \(\) and type uint8 is not an image"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\) and type uint8 has no pixels"),
        (np.zeros((5, 5, 0), np.uint8), r"shape \(5, 5, 0\) and type uint8 has no pixels"),
        (
            np.zeros((4, 9, 9), np.uint8),
            r"shape \(4, 9, 9\) and type uint8 has no axis that is clearly the channels",
        ),
        (
            np.zeros((9, 9, 9), np.uint8),
            r"has no axis that is clearly the channels; pass one image with the axes",
        ),
        (
            np.zeros((9, 9, 3), np.int64),
            r"and type int64 has an unsupported type; pass uint8, .*astype\('uint8'\)",
        ),
        (np.zeros((9, 9), complex), r"type complex128 has an unsupported type"),
        (np.full((9, 9), None), r"type object has an unsupported type"),
        (np.array([[0.0, 200.0]]), r"has values from 0 to 200, but floats must be in 0..1; divide values"),
        (np.array([[-0.5, 0.5]]), r"has values from -0.5 to 0.5, but floats"),
        (np.array([[0.5, np.nan]]), r"has values from nan to nan, but floats"),
        (np.array([[0.5, np.inf]]), r"has values from 0.5 to inf, but floats"),
    ],
)
def test_arrays_that_are_not_images_raise(array: Any, message: str) -> None:
    with pytest.raises(ImageError, match=f"^the array of .*{message.removeprefix('shape ')}"):
        read_image(array)


ANY_DTYPE = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(),
    hnp.byte_string_dtypes(max_len=3),
    hnp.datetime64_dtypes(max_period="s", min_period="s"),
    hnp.array_dtypes(hnp.integer_dtypes(), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(hnp.arrays(ANY_DTYPE, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)))
def test_any_array_is_an_image_or_raises_image_error(array: np.ndarray) -> None:
    read, error = outcome(read_image, array)
    if read is None:
        assert error.startswith("the array of shape")
    else:
        assert read.dtype == np.uint8
        assert read.shape[2:] == (3,)
        assert read.size
        assert read.flags.c_contiguous
        assert read_image(read) is read


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 2, 3, 4]))))
def test_a_file_and_an_array_with_the_same_levels_are_equal(levels: np.ndarray) -> None:
    stored = levels[:, :, 0] if levels.shape[2] == 1 else levels
    np.testing.assert_array_equal(read_image(encode(np.ascontiguousarray(stored), "PNG")), read_image(levels))


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(COMPLETE)),
    where=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
)
def test_damaged_files_are_images_or_raise_image_error(kind: str, where: float, junk: bytes) -> None:
    data = bytearray(COMPLETE[kind])
    start = int(where * len(data))
    data[start : start + len(junk)] = junk
    read, error = outcome(read_image, bytes(data), max_pixels=10**6)
    assert read.dtype == np.uint8 if read is not None else "the bytes object of" in error


# ------------------------------------------------------------------ photographs


def test_photographs(samples: Path) -> None:
    found = find_images(samples)
    assert len(found) >= 14
    for path in found:
        read = read_image(path)
        assert read.std() > 5
        image = Image.open(path)
        if image.mode == "RGB" and ExifTags.Base.Orientation not in image.getexif():
            np.testing.assert_array_equal(read, np.asarray(image))


def test_truncated_photographs_raise(samples: Path) -> None:
    for path in find_images(samples / "coco")[:3]:
        data = Path(path).read_bytes()
        for damaged in (data[: len(data) // 2], data[: len(data) // 2].ljust(len(data), b"\0")):
            with pytest.raises(ImageError, match="truncated"):
                read_image(damaged)


@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 7, 8])
def test_read_size_of_rotated_images(tmp_path: Path, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    size = read_size(tmp_path / "a.jpg")
    assert (size.height, size.width) == read_image(tmp_path / "a.jpg").shape[:2]


def test_read_size_of_a_file_that_is_not_an_image_raises(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a.jpg is not an image: it starts with"):
        read_size(tmp_path / "a.jpg")
