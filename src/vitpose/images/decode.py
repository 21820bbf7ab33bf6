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
from ..geometry.boxes import Size
from .arrays import array_from, rgb_from_array
from .download import MAX_DOWNLOAD_BYTES, download, is_url
from .find import missing_file, path_from
from .pillow import MAX_PIXELS, contain_pillow, find_opener, orientation_of, rgb_from_pillow, turn_upright

_JPEG_END = b"\xff\xd9"
_BLOCK_BYTES = 2**20


def read_image(source: Any, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """Reads an image from wherever it is and returns it as upright RGB.

    Args:
        source: One image, as one of:

            - a path (`~` is expanded) or an `http(s)://` address;
            - the bytes of an image file, or a binary file object (read from its start where it can
              be rewound, else from where it stands);
            - a PIL image (of several frames, the one it stands at);
            - an array or tensor: (h w), (h w 1), (h w 2) grey and alpha, (h w 3) RGB or (h w 4) RGBA,
              of uint8, of uint16 (scaled to 8 bit), of bool, or of floats in 0..1. Channels first,
              (1 h w) or (3 h w), are understood unless the last axis could be the channels too, in
              which case it is. The colours are taken as RGB: turn OpenCV's BGR first.
        max_pixels: The largest width x height that is decoded, in `BYTES_A_PIXEL` times as many bytes of memory.
            A file is refused by its header, before its pixels cost memory. Arrays, already in memory, are not
            limited.

    Returns:
        The image, C-contiguous and writable. An array that already has this form is returned itself. Files and
        PIL images are turned upright as their EXIF says. What is transparent shows white, as in most viewers. 16 bits
        become 8 by dropping the low ones, without stretching the contrast. An animation gives its first frame.

    Raises:
        ImageError: There is no such image, it is damaged, cut off, too large, or of a form not
            listed here. The message names the source.
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
    """Returns the size of an image file, upright, by its header alone.

    Raises:
        ImageError: There is no such image, or its header is damaged.
    """
    file, name = _open(path)
    with file, contain_pillow(name):
        opener = find_opener(file.read(16), name)
        file.seek(0)
        image = opener(file, "")
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # a quarter turn, mirrored or not
    return Size(height, width) if turned else Size(width, height)


def _open(source: Any) -> tuple[io.BufferedIOBase, str]:
    """Returns a file to decode, seekable and at its start, and how messages shall call it."""
    if is_url(source):
        return io.BytesIO(download(source)), source
    if isinstance(source, (str, os.PathLike)):
        path = path_from(source)
        return _open_path(path), str(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return io.BytesIO(data), f"the bytes object of {len(data)} bytes"
    if hasattr(source, "read"):
        name = f"the file object {getattr(source, 'name', None) or type(source).__name__}"
        return io.BytesIO(_bytes_from_stream(source, name)), name
    raise ImageError(
        f"{source!r:.200} of type {type(source).__name__} is not an image; pass one path, http(s) address, "
        "bytes object, binary file object, PIL image, array or tensor at a time"
    )


def _open_path(path: Path) -> io.BufferedIOBase:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; vitpose.find_images lists the images in it") from error
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
    except Exception as error:  # whoever wrote the stream's class raises what they like
        raise ImageError(f"{name} cannot be read: {error}; pass one that is open for reading") from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"{name} gives {type(data).__name__}, not bytes; open the file in binary mode: open(path, 'rb')"
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
            raise ImageError(f"{name} is empty; fetch or save the image again")
        opener = find_opener(start, name)
        file.seek(0)
        image = opener(file, "")
        if image.format in ("JPEG", "JPEG2000"):
            _refuse_without_end(file, name)
        rgb = rgb_from_pillow(image, name, max_pixels)
        orientation = orientation_of(image)
        del image  # before its pixels are copied once more
        return turn_upright(rgb, orientation)


def _refuse_without_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuses a JPEG without the marker that ends it.

    Pillow notices a file that stops early, but not one whose tail was never written and reads as zeros:
    there it returns half an image and a grey rest. In the data of a scan the marker cannot occur.
    """
    last = b""
    while block := file.read(_BLOCK_BYTES):
        if _JPEG_END in last + block:
            return
        last = block[-1:]
    raise ImageError(f"{name} is cut off: its last part is missing or was never written; fetch it again")
