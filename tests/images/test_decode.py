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
    """A smooth image whose corners and channels all differ."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.rint(np.stack([40 + 200 * x, 30 + 180 * y, 120 + 100 * x * y], axis=2)).astype(np.uint8)


def encode(image: Any, key: str, **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, key, **options)
    return file.getvalue()


def outcome(read: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, str]:
    """Returns what was read and no text, or nothing and the text of the ImageError."""
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


# ------------------------------------------------------------------ where images come from


@pytest.mark.parametrize(
    "name", ["plain.png", "two words.png", "Zoë 写真 🏃.png", "-v.png", "no suffix", "a[1].png"]
)
def test_a_path_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(PHOTO, "PNG"))
    np.testing.assert_array_equal(read_image(path), PHOTO)
    np.testing.assert_array_equal(read_image(str(path)), PHOTO)
    assert find_images([str(path)]) == [path]


def test_a_leading_dash_and_a_tilde_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert not file.closed, "the caller's file stays the caller's"


def test_a_file_object_just_written_need_not_be_rewound() -> None:
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG")
    np.testing.assert_array_equal(read_image(file), PHOTO)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no path there")
def test_pipes_are_read_although_they_cannot_be_rewound() -> None:
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


def test_pil_images_stay_as_they_are() -> None:
    image = Image.fromarray(PHOTO)
    np.testing.assert_array_equal(read_image(image), PHOTO)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PHOTO)


def test_tensors_of_either_order() -> None:
    np.testing.assert_array_equal(read_image(torch.from_numpy(PHOTO.copy())), PHOTO)
    first = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)
    np.testing.assert_array_equal(read_image(first), PHOTO)
    learning = (first / 255).requires_grad_()
    np.testing.assert_array_equal(read_image(learning), PHOTO)


def test_this_module_brings_no_torch() -> None:
    code = "import sys, vitpose.images; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    assert os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", code], environment) == 0


@pytest.mark.parametrize("source", [None, 3, [PHOTO, PHOTO], {"image": PHOTO}])
def test_other_things_are_refused(source: object) -> None:
    with pytest.raises(ImageError, match=rf"of type {type(source).__name__} is not an image; pass one path"):
        read_image(source)


def test_a_text_file_object_is_refused() -> None:
    with pytest.raises(
        ImageError, match=r"file object StringIO gives str, not bytes; open the file in binary mode"
    ):
        read_image(io.StringIO("text"))


def test_a_closed_file_object_is_refused() -> None:
    file = io.BytesIO(encode(PHOTO, "PNG"))
    file.close()
    with pytest.raises(ImageError, match="file object BytesIO cannot be read: I/O operation on closed file"):
        read_image(file)


def test_a_tensor_that_numpy_cannot_hold_is_refused() -> None:
    with pytest.raises(
        ImageError, match=r"the Tensor cannot be read as an array: .*BFloat16; convert it to uint8"
    ):
        read_image(torch.zeros(3, 4, 5, dtype=torch.bfloat16))


# ------------------------------------------------------------------ forms of image files


@pytest.mark.parametrize("key", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000"])
def test_lossless_formats_come_back_exactly(key: str) -> None:
    read = read_image(encode(PHOTO, key, **({"lossless": True} if key == "WEBP" else {})))
    np.testing.assert_array_equal(read, PHOTO)
    assert read.flags.c_contiguous


@pytest.mark.parametrize("key", ["JPEG", "AVIF", "GIF", "MPO"])
def test_lossy_formats_come_back_nearly(key: str) -> None:
    assert np.abs(read_image(encode(PHOTO, key)).astype(int) - PHOTO).mean() < 8


def test_a_jpeg_is_exactly_what_pillow_decodes() -> None:
    data = encode(PHOTO, "JPEG", quality=80)
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("key", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(key: str) -> None:
    levels = np.array([[0, 255, 256], [128 * 257, 254 * 257, 65535]], np.uint16)
    read = read_image(encode(levels, key))
    np.testing.assert_array_equal(read[:, :, 1], [[0, 0, 1], [128, 254, 255]])
    np.testing.assert_array_equal(read[:, :, 0], read[:, :, 2])


def test_sixteen_bit_grey_in_every_mode_of_pillow() -> None:
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


def test_sixteen_bit_colour_is_scaled() -> None:
    import cv2  # Pillow reads such files and cannot write them

    _, data = cv2.imencode(".png", PHOTO[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(data.tobytes()), PHOTO)


def test_a_grey_map_of_sixteen_bits() -> None:
    data = b"P5 2 1 65535\n" + np.array([128 * 257, 65535], ">u2").tobytes()
    np.testing.assert_array_equal(read_image(data)[0, :, 0], [128, 255])


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_sixteen_bits_are_refused(value: int) -> None:
    levels = np.array([[0, value]], np.int32)
    with pytest.raises(
        ImageError, match=r"holds integers from -?\d+ to \d+, and grey levels must lie in 0..65535"
    ):
        read_image(encode(levels, "TIFF"))


def test_float_tiff_follows_the_rule_for_float_arrays() -> None:
    levels = GREY.astype(np.float32) / 255
    np.testing.assert_array_equal(read_image(encode(levels, "TIFF"))[:, :, 2], GREY)
    with pytest.raises(
        ImageError, match=r"the bytes object of \d+ bytes has values from 40 to 240, and floats"
    ):
        read_image(encode(GREY.astype(np.float32), "TIFF"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "RGBX", "RGBa"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    rgb = Image.fromarray(PHOTO)
    image = rgb.convert("RGBA").convert(mode) if mode == "RGBa" else rgb.convert(mode)
    read = read_image(image)
    assert read.shape == PHOTO.shape
    grey = np.asarray(rgb.convert("L"))[:, :, None]
    wanted = grey if mode in ("L", "LA", "1") else PHOTO
    limit = 130 if mode == "1" else 35 if mode in ("P", "PA") else 4
    assert np.abs(read.astype(int) - wanted).mean() < limit


def test_one_bit_is_black_and_white() -> None:
    bits = GREY > 100
    read = read_image(encode(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(read, np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2))


def test_cmyk_jpeg() -> None:
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    assert np.abs(read_image(encode(cmyk, "JPEG", quality=95)).astype(int) - PHOTO).mean() < 4


def test_what_is_transparent_shows_white() -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    wanted = [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]]
    for source in (pixels, Image.fromarray(pixels), encode(pixels, "PNG"), encode(pixels, "TIFF")):
        np.testing.assert_allclose(read_image(source), wanted, atol=1)


def test_grey_and_alpha() -> None:
    pixels = np.array([[[90, 255], [90, 0]]], np.uint8)
    for source in (pixels, encode(Image.fromarray(pixels, "LA"), "PNG")):
        np.testing.assert_array_equal(read_image(source)[0], [[90] * 3, [255] * 3])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_palette_with_transparency(transparency: Any) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encode(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(read_image(data)[0], [[10, 20, 30], [255] * 3, [70, 80, 90]])


@pytest.mark.parametrize(("mode", "key"), [("RGB", (40, 30, 120)), ("L", 40)])
def test_one_colour_as_transparent(mode: str, key: Any) -> None:
    image = Image.fromarray(PHOTO if mode == "RGB" else GREY)
    read = read_image(encode(image, "PNG", transparency=key))
    assert read[0, 0].tolist() == [255] * 3
    np.testing.assert_array_equal(read[-1, -1], PHOTO[-1, -1] if mode == "RGB" else [GREY[-1, -1]] * 3)


@pytest.mark.parametrize("key", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(key: str) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    options = {"lossless": True} if key == "WEBP" else {}
    data = encode(first, key, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert read_image(data)[0, 0].tolist() == [255, 0, 0]
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert read_image(image)[0, 0].tolist() == [0, 0, 255], "a PIL image gives the frame it stands at"


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
"""How EXIF says that an upright image is stored: where its first row and column are seen."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("key", ["PNG", "TIFF", "WEBP"])
def test_images_are_turned_upright(orientation: int, key: str) -> None:
    stored = np.ascontiguousarray(STORED[orientation](PHOTO))
    options = {"lossless": True} if key == "WEBP" else {}
    data = encode(stored, key, exif=exif_of(orientation), **options)
    np.testing.assert_array_equal(read_image(data), PHOTO)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), PHOTO)


def test_a_turned_jpeg_has_the_upright_size_and_greys_are_turned_too() -> None:
    assert read_image(encode(PHOTO, "JPEG", exif=exif_of(6))).shape == (33, 24, 3)
    assert read_image(encode(GREY.astype(np.uint16), "PNG", exif=exif_of(8))).shape == (33, 24, 3)


@pytest.mark.parametrize("orientation", [0, 9, 777])
def test_an_orientation_that_means_nothing_is_passed_over(orientation: int) -> None:
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
def test_damaged_exif_neither_warns_nor_loses_the_image(key: str, exif: bytes) -> None:
    assert read_image(encode(PHOTO, key, exif=exif)).shape == PHOTO.shape


def test_one_pixel() -> None:
    for key in ("PNG", "BMP", "GIF"):
        read = read_image(encode(np.full((1, 1, 3), 255, np.uint8), key))
        np.testing.assert_array_equal(read, np.full((1, 1, 3), 255))


# ------------------------------------------------------------------ what cannot be read


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty; fetch or save the image again"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="the bytes object of 0 bytes is empty"):
        read_image(b"")


def test_not_a_image(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("dear diary")
    with pytest.raises(
        ImageError, match=r"notes\.jpg is not an image: it begins with b'dear diary', .* one of JPEG,"
    ):
        read_image(tmp_path / "notes.jpg")


def test_formats_that_are_no_photographs_are_not_opened() -> None:
    with pytest.raises(ImageError, match=r"is not an image: it begins with b'%!PS"):
        read_image(encode(PHOTO, "EPS"))


def test_a_format_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.setitem(Image.OPEN, "AVIF", (None, lambda prefix: "AVIF support not installed"))
    with pytest.raises(
        ImageError, match=r"cannot be read: AVIF support not installed; save the image as JPEG or PNG"
    ):
        read_image(encode(PHOTO, "AVIF"))


WHOLE = {
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


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_anywhere_is_refused_or_whole(kind: str) -> None:
    data, whole = WHOLE[kind], read_image(WHOLE[kind])
    refused = 0
    for length in {*range(0, len(data), 11), *range(len(data) - 40, len(data))}:
        read, error = outcome(read_image, data[:length])
        if read is None:
            assert error.startswith(f"the bytes object of {length} bytes ")
            refused += 1
        else:
            np.testing.assert_array_equal(read, whole, err_msg=f"{kind}, cut after {length} of {len(data)}")
    assert refused > len(data) // 11 // 2


def test_a_image_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(WHOLE["PNG"][:-60])
    with pytest.raises(
        ImageError, match=r"cut\.png cannot be read: .*; if it is damaged or cut off fetch it again"
    ):
        read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, progressive", "JPEG2000"])
def test_a_tail_of_zeros_is_a_missing_tail(kind: str) -> None:
    data = WHOLE[kind]
    with pytest.raises(
        ImageError, match="is cut off: its last part is missing or was never written; fetch it again"
    ):
        read_image(data[: len(data) * 3 // 4].ljust(len(data), b"\0"))


def test_a_jpeg_may_be_followed_by_anything() -> None:
    np.testing.assert_array_equal(read_image(WHOLE["JPEG"] + bytes(500)), read_image(WHOLE["JPEG"]))


def enormous(width: int, height: int) -> bytes:
    """A PNG whose header promises that size; there is nothing behind it."""
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_001), (2**31 - 1, 2**31 - 1)])
def test_enormous_images_are_refused_by_their_header(width: int, height: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(enormous(width, height))
    pixels = width * height
    wanted = (
        f"is {width}x{height}, {pixels} pixels, and the limit is {MAX_PIXELS}; .* pass max_pixels={pixels} if"
    )
    with pytest.raises(ImageError, match=f"huge.png {wanted}"):
        read_image(path)


def test_pillows_limit_is_neither_used_nor_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_image(encode(PHOTO, "PNG")), PHOTO)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_limit_on_pixels_is_the_callers() -> None:
    count = PHOTO.shape[0] * PHOTO.shape[1]
    for source in (encode(PHOTO, "PNG"), Image.fromarray(PHOTO)):
        np.testing.assert_array_equal(read_image(source, max_pixels=count), PHOTO)
        with pytest.raises(ImageError, match=f"is 33x24, {count} pixels, and the limit is {count - 1}"):
            read_image(source, max_pixels=count - 1)
    np.testing.assert_array_equal(read_image(PHOTO, max_pixels=1), PHOTO)


def test_pillows_own_refusal_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        ImageError, match=r"refused by Pillow's own limit: .*raise that limit, PIL.Image.MAX_IMAGE_PIXELS"
    ):
        read_image(encode(PHOTO, "WEBP"))


def test_a_pil_image_that_was_closed_or_has_no_pixels() -> None:
    image = Image.open(io.BytesIO(WHOLE["PNG"]))
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


def test_pillows_switches_and_the_filters_for_warnings_stay() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    with ThreadPoolExecutor(8) as pool:
        damaged = encode(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
        read = list(pool.map(read_image, [damaged, WHOLE["TIFF"]] * 100))
    assert {image.shape for image in read} == {PHOTO.shape}
    with pytest.raises(ImageError):
        read_image(WHOLE["TIFF"][:100])
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_other_peoples_warnings_pass_while_a_image_is_read() -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            warnings.resetwarnings()
            warnings.warn("from the file", UserWarning, stacklevel=1)
            return super().read(size)

    with warnings.catch_warnings(record=True) as caught:
        read_image(Image.open(File(WHOLE["PNG"])))
    assert {str(warning.message) for warning in caught} == {"from the file"}


# ------------------------------------------------------------------ arrays


def test_an_array_that_is_right_already_is_not_copied() -> None:
    assert read_image(PHOTO) is PHOTO


def test_views_become_contiguous() -> None:
    read = read_image(PHOTO[::2, ::-1, ::-1])
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, PHOTO[::2, ::-1, ::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("form", ["h w", "h w 1", "1 h w", "h w 3", "3 h w", "h w 4"])
def test_arrays_of_every_type_and_form(dtype: Any, form: str) -> None:
    scale = {"u": {1: 1, 2: 257}, "f": dict.fromkeys((2, 4, 8), 1 / 255)}[np.dtype(dtype).kind]
    opaque = np.dstack([PHOTO, np.full_like(GREY, 255)])
    levels = {"h w": GREY, "h w 1": GREY[:, :, None], "1 h w": GREY[None], "h w 4": opaque}
    levels |= {"h w 3": PHOTO, "3 h w": PHOTO.transpose(2, 0, 1)}
    array = (levels[form].astype(np.float64) * scale[np.dtype(dtype).itemsize]).astype(dtype)
    wanted = PHOTO if form in ("h w 3", "3 h w", "h w 4") else np.dstack([GREY] * 3)
    read = read_image(array)
    np.testing.assert_array_equal(read, wanted)
    assert read.flags.c_contiguous


def test_bools_are_black_and_white() -> None:
    assert read_image(np.array([[True, False]]))[0].tolist() == [[255] * 3, [0] * 3]


def test_the_last_axis_is_the_channels_wherever_it_can_be() -> None:
    rows = np.arange(3 * 50 * 3, dtype=np.uint8).reshape(3, 50, 3)
    assert read_image(rows) is rows


def test_rounding_beyond_the_range_of_floats_is_forgiven() -> None:
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
            r"shape \(7,\) and type uint8 is not an image; it needs the axes \(h w\) or",
        ),
        (np.uint8(7), r"shape \(\) and type uint8 is not an image"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\) and type uint8 has no pixels"),
        (np.zeros((5, 5, 0), np.uint8), r"shape \(5, 5, 0\) and type uint8 has no pixels"),
        (
            np.zeros((4, 9, 9), np.uint8),
            r"shape \(4, 9, 9\) and type uint8 has no axis that is clearly the channels",
        ),
        (np.zeros((9, 9, 9), np.uint8), r"has no axis that is clearly the channels; pass \(h w 3\)"),
        (
            np.zeros((9, 9, 3), np.int64),
            r"and type int64 has an unsuitable type; pass uint8, .*astype\('uint8'\)",
        ),
        (np.zeros((9, 9), complex), r"type complex128 has an unsuitable type"),
        (np.full((9, 9), None), r"type object has an unsuitable type"),
        (np.array([[0.0, 200.0]]), r"has values from 0 to 200, and floats must lie in 0..1; divide levels"),
        (np.array([[-0.5, 0.5]]), r"has values from -0.5 to 0.5, and floats"),
        (np.array([[0.5, np.nan]]), r"has values from nan to nan, and floats"),
        (np.array([[0.5, np.inf]]), r"has values from 0.5 to inf, and floats"),
    ],
)
def test_arrays_that_are_no_images(array: Any, message: str) -> None:
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
def test_any_array_is_a_image_or_an_image_error(array: np.ndarray) -> None:
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
def test_a_file_and_an_array_of_the_same_levels_agree(levels: np.ndarray) -> None:
    stored = levels[:, :, 0] if levels.shape[2] == 1 else levels
    np.testing.assert_array_equal(read_image(encode(np.ascontiguousarray(stored), "PNG")), read_image(levels))


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    where=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
)
def test_damaged_files_are_images_or_image_errors(kind: str, where: float, junk: bytes) -> None:
    data = bytearray(WHOLE[kind])
    start = int(where * len(data))
    data[start : start + len(junk)] = junk
    read, error = outcome(read_image, bytes(data), max_pixels=10**6)
    assert read.dtype == np.uint8 if read is not None else "the bytes object of" in error


# ------------------------------------------------------------------ real photographs


def test_photographs(samples: Path) -> None:
    found = find_images(samples)
    assert len(found) >= 14
    for path in found:
        read = read_image(path)
        assert read.std() > 5
        image = Image.open(path)
        if image.mode == "RGB" and ExifTags.Base.Orientation not in image.getexif():
            np.testing.assert_array_equal(read, np.asarray(image))


def test_photographs_cut_off(samples: Path) -> None:
    for path in find_images(samples / "coco")[:3]:
        data = Path(path).read_bytes()
        for damaged in (data[: len(data) // 2], data[: len(data) // 2].ljust(len(data), b"\0")):
            with pytest.raises(ImageError, match="cut off"):
                read_image(damaged)


@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 7, 8])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    size = read_size(tmp_path / "a.jpg")
    assert (size.height, size.width) == read_image(tmp_path / "a.jpg").shape[:2]


def test_the_size_of_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a.jpg is not an image: it begins with"):
        read_size(tmp_path / "a.jpg")
