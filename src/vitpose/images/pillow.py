"""Decoding with Pillow: formats, memory limits, and PIL images -> RGB uint8 (h w 3).

Pillow's warnings are suppressed and its errors converted to ImageError here.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, TiffImagePlugin

from ..errors import ImageError
from .arrays import flatten, levels_of_integers, rgb_from_array

MAX_PIXELS = 200_000_000
"""Default limit on the pixels of an image. The largest sensors of phones have 200 million (16320x12240): 0.6 GB
as RGB, and about 1.4 GB while decoding."""

BYTES_PER_PIXEL = 10
"""Limit on the memory for decoding, in bytes for each pixel of the pixel limit; 2 GB by default."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
"""Supported formats of photographs, by Pillow's names. HEIF requires a plugin such as pillow-heif. Icons, vector
graphics, and formats whose plugin starts other programs (EPS) are unsupported on purpose."""

# A filter in the format of `warnings.filters`: action, message, category, module, line.
_PILLOW_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_STRIP_PIXELS = 2**20

_DECODER_BYTES = {"WEBP": 12, "AVIF": 8, "HEIF": 8}
_JPEG2000_BYTES, _PROGRESSIVE_BYTES = 5, 2
_CONVERSION_BYTES = {"F": 12, "I": 8, "I;16": 6, "I;16B": 6, "I;16L": 6, "I;16N": 6}
# Bytes that decoders hold beside the image, for each pixel (for JPEG, each pixel and band), and that the conversion to
# RGB takes beside it (measured: benchmarks/decoding_memory.py).


@contextmanager
def contain_pillow(name: str) -> Iterator[None]:
    """Converts Pillow's errors to ImageError and suppresses its warnings about metadata.

    Args:
        name: Name of the image in messages.

    Raises:
        ImageError: Pillow raised an error in the block.
    """
    # Not `warnings.catch_warnings`: it restores all filters, so that with several threads the filter of one could
    # remain. Each call adds one entry and removes it again.
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, _PILLOW_IGNORED)
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} exceeds a limit of Pillow: {error} If you trust the image, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # plugins raise almost anything on damaged files
        raise ImageError(
            f"{name} cannot be read: {error or type(error).__name__}; if it is damaged or truncated, download it "
            "again, otherwise save it as an RGB image in JPEG or PNG"
        ) from error
    finally:
        with suppress(ValueError):  # another thread has reset all filters
            filters.remove(_PILLOW_IGNORED)


def find_opener(start: bytes, name: str) -> Callable[[io.BufferedIOBase, str], Image.Image]:
    """Returns Pillow's plugin for a file by its first bytes.

    `PIL.Image.open` does this too, but rejects large images by a global limit, which cannot be changed for one call,
    and before the size is known for the message.

    Args:
        start: The first 16 bytes of the file.
        name: Name of the file in messages.

    Raises:
        ImageError: The format is not one of `FORMATS`, or the library to read it is not installed.
    """
    Image.init()
    for opener, accept in (Image.OPEN[key] for key in FORMATS if key in Image.OPEN):
        accepted = accept(start) if accept else False
        if isinstance(accepted, str):  # the library of this format is not installed
            raise ImageError(f"{name} cannot be read: {accepted}; save the image as JPEG or PNG")
        if accepted:
            return cast("Callable[[io.BufferedIOBase, str], Image.Image]", opener)
    raise ImageError(
        f"{name} is not an image: it starts with {start!r}; supported formats are {', '.join(FORMATS)}"
    )


def rgb_from_pillow(image: Image.Image, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a PIL image without rotation, in strips, which limits the memory for conversions.

    Args:
        image: The image, loaded or not.
        name: Name of the image in messages.
        max_pixels: As in `read_image`.

    Raises:
        ImageError: The image has no pixels or too many, or would take too much memory.
    """
    _refuse_large(image, name, max_pixels)
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        return rgb_from_array(levels_of_integers(np.asarray(image), name), name)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        # Not `crop`, which applies Pillow's global limit. Without a change of size this copies pixels.
        strip = image.resize(
            (image.width, bottom - top), Image.Resampling.NEAREST, (0, top, image.width, bottom)
        )
        rgb[top:bottom] = np.asarray(flatten(strip))
    return rgb


def _refuse_large(image: Image.Image, name: str, max_pixels: int) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise ImageError(f"{name} has no pixels; its width and height must be at least 1")
    if pixels > max_pixels:
        raise ImageError(
            f"{name} has {image.width}x{image.height} = {pixels} pixels; the limit is {max_pixels}. "
            f"Resize it, or pass max_pixels={pixels} if you trust it"
        )
    needed = _bytes_while_decoding(image)
    if needed > BYTES_PER_PIXEL * max_pixels:
        raise ImageError(
            f"{name} of {image.width}x{image.height} pixels requires about {needed} bytes to decode {image.format} of "
            f"mode {image.mode}; the limit is {BYTES_PER_PIXEL * max_pixels}. Resize it, save it as JPEG or PNG, or "
            f"pass max_pixels={-(-needed // BYTES_PER_PIXEL)} if you trust it"
        )


def _bytes_while_decoding(image: Image.Image) -> int:
    """Returns an estimate of the memory for decoding and conversion to RGB, from the header of an image."""
    bands = len(image.getbands())
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if image.format == "JPEG2000":
        decoder = _JPEG2000_BYTES * bands
    elif image.info.get("progressive"):  # JPEG: all coefficients are in memory
        decoder = _PROGRESSIVE_BYTES * bands
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    pixels = image.width * image.height
    beside = max(pixels * decoder, _tiff_block_bytes(image))
    return pixels * stored + max(beside, pixels * _CONVERSION_BYTES.get(image.mode, 3))


def _tiff_block_bytes(image: Image.Image) -> int:
    """Returns the bytes of a strip or tile of a TIFF, which is decoded as a whole and may be larger than the image."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if not tags:
        return 0
    width = tags.get(TiffImagePlugin.TILEWIDTH, image.width)
    rows = min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
    return (
        width
        * tags.get(TiffImagePlugin.TILELENGTH, rows)
        * sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        // 8
    )


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation of a loaded image, 1 to 8; default: 1, upright."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata may raise any error; the image itself is readable
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def turn_upright(stored: UInt8[np.ndarray, "_ _ 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Rotates and mirrors stored pixels by an EXIF orientation (EXIF 2.32, tag 0x0112).

    Not `PIL.ImageOps.exif_transpose`, which also writes the metadata again and fails if another entry is damaged, and
    holds two images of 4 bytes a pixel.
    """
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(stored[::down, ::right])
