"""Paths, URLs, bytes, streams and PIL images -> upright RGB uint8 (h w 3)."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from ..errors import ImageError
from ..files.download import without_credentials
from ..files.paths import user_path
from ..geometry.boxes import Size
from .arrays import array_from, rgb_from_array
from .download import MAX_DOWNLOAD_BYTES, download, is_url
from .find import missing_file
from .pillow import MAX_PIXELS, contain_pillow, find_opener, orientation_of, rgb_from_pillow, turn_upright

_JPEG_END = b"\xff\xd9"
_BLOCK_BYTES = 2**20


def read_image(source: Any, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an image from any source and returns it as upright RGB.

    Args:
        source: One image, as one of:

            - a path (`~` is expanded) or an `http(s)://` URL;
            - the bytes of an image file, or a binary file object (read from its start if it is seekable, else
              from its current position);
            - a PIL image (the current frame of several);
            - an array or tensor: (h w), (h w 1), (h w 2) grey and alpha, (h w 3) RGB or (h w 4) RGBA,
              of uint8, of uint16 (scaled to 8 bits), of bool, or of floats in 0..1. Channels first,
              (1 h w) or (3 h w), is supported if the last axis cannot be the channels. Channels must be
              RGB: convert OpenCV's BGR first.
        max_pixels: Largest width x height to decode; decoding may take `BYTES_PER_PIXEL` times as many bytes of memory.
            Larger files are rejected by their header, before their pixels are decoded. Arrays are not limited.

    Returns:
        The image, C-contiguous and writable. An array that already is such an image is returned without a copy. Files
        and PIL images are rotated by their EXIF orientation. Transparent pixels are composited on white. 16 bits are
        reduced to the high 8. An animation gives its first frame.

    Raises:
        ImageError: The image does not exist, is damaged, truncated, too large, or not of a supported form. The message
            names the source.
    """
    if isinstance(source, Image.Image):
        name = f"the PIL image ({source.mode}, {source.width}x{source.height})"
        with contain_pillow(name):
            return turn_upright(rgb_from_pillow(source, name, max_pixels), orientation_of(source))
    if hasattr(source, "cpu") or hasattr(source, "__array__"):
        array = array_from(source)
        return rgb_from_array(array, f"the array of shape {array.shape} and type {array.dtype}")
    file, name = _open(source)
    with file:
        return _decode(file, name, max_pixels)


def read_size(path: str | os.PathLike[str]) -> Size:
    """Returns the size of an image file after rotation by its EXIF orientation, from its header alone.

    Raises:
        ImageError: The image does not exist, or its header is damaged.
    """
    file, name = _open(path)
    with file, contain_pillow(name):
        opener = find_opener(file.read(16), name)
        file.seek(0)
        image = opener(file, "")
        width, height = image.size
        swapped = (
            image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        )  # rotated by 90 degrees, mirrored or not
    return Size(height, width) if swapped else Size(width, height)


def _open(source: Any) -> tuple[io.BufferedIOBase, str]:
    """Returns a seekable file at its start, and its name in messages."""
    if is_url(source):
        return io.BytesIO(download(source)), without_credentials(source)
    if isinstance(source, (str, os.PathLike)):
        path = user_path(source, ImageError)
        return _open_path(path), str(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return io.BytesIO(data), f"the bytes object of {len(data)} bytes"
    if hasattr(source, "read"):
        name = f"the file object {getattr(source, 'name', None) or type(source).__name__}"
        return io.BytesIO(_bytes_from_stream(source, name)), name
    raise ImageError(
        f"{source!r:.200} of type {type(source).__name__} is not an image; pass one path, http(s) URL, "
        "bytes object, binary file object, PIL image, array or tensor at a time"
    )


def _open_path(path: Path) -> io.BufferedIOBase:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a directory; list its images with vitpose.find_images") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be opened: {error}; check its name and permissions") from error
    if file.seekable():
        return file
    with file:  # a pipe, such as /dev/stdin
        return io.BytesIO(_bytes_from_stream(file, str(path)))


def _bytes_from_stream(file: Any, name: str) -> bytes:
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        data = file.read(MAX_DOWNLOAD_BYTES + 1)
    except Exception as error:  # user-defined streams may raise any error
        raise ImageError(f"{name} cannot be read: {error}; pass one that is open for reading") from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"{name} returns {type(data).__name__}, not bytes; open the file in binary mode: open(path, 'rb')"
        )
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise ImageError(
            f"{name} is larger than the limit of {MAX_DOWNLOAD_BYTES} bytes for streams; pass the path of a file"
        )
    return data


def _decode(file: io.BufferedIOBase, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    with contain_pillow(name):
        start = file.read(16)
        if not start:
            raise ImageError(f"{name} is empty; download or save the image again")
        opener = find_opener(start, name)
        file.seek(0)
        image = opener(file, "")
        if image.format in ("JPEG", "JPEG2000"):
            _refuse_truncated(file, name)
        rgb = rgb_from_pillow(image, name, max_pixels)
        orientation = orientation_of(image)
        del image  # free its memory before the pixels are copied again
        return turn_upright(rgb, orientation)


def _refuse_truncated(file: io.BufferedIOBase, name: str) -> None:
    """Raises if a JPEG has no end marker.

    Pillow detects a file that is too short, but not one that is padded with zeros, as an interrupted copy may be: it
    returns the rest of the image in grey. The marker cannot occur in the data of a scan.
    """
    last = b""
    while block := file.read(_BLOCK_BYTES):
        if _JPEG_END in last + block:
            return
        last = block[-1:]
    raise ImageError(f"{name} is truncated: it has no end marker; download or copy it again")
