"""Pillow's part: which formats are opened, how much memory that may take, and PIL images -> RGB uint8 (h w 3).

Pillow's warnings and errors stay in here.
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
"""Images of more pixels are refused unless the caller says otherwise. The largest sensors in phones
make photographs of 200 million (16320x12240); as RGB that is 0.6 GB, and about 1.4 GB while decoding."""

BYTES_A_PIXEL = 10
"""Decoding may take so many bytes of memory for each pixel of the limit, 2 GB by default."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
"""What photographs are kept in, by Pillow's names; no other format is opened. HEIF needs a plugin such as
pillow-heif. Left out on purpose: icons, vector graphics, and formats that start other programs (EPS)."""

# As `warnings.filterwarnings` stores it: action, message, category, module, line.
_PILLOW_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_STRIP_PIXELS = 2**20

_DECODER_BYTES = {"WEBP": 12, "AVIF": 8, "HEIF": 8}
_JPEG2000_BYTES, _PROGRESSIVE_BYTES = 5, 2
_CONVERSION_BYTES = {"F": 12, "I": 8, "I;16": 6, "I;16B": 6, "I;16L": 6, "I;16N": 6}
# What decoders hold beside the image, a pixel, or of JPEG a pixel and band, and what the way to RGB takes beside it
# (measured: benchmarks/decoding_memory.py).


@contextmanager
def contain_pillow(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises into ImageError, and its warnings (odd metadata) into nothing."""
    # Not `warnings.catch_warnings`: it puts back what it found, so with several threads the filter of one
    # could stay in place for ever. Each reader adds an entry of its own and takes that away again.
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, _PILLOW_IGNORED)
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is refused by Pillow's own limit: {error} If you trust it, raise that limit, "
            "PIL.Image.MAX_IMAGE_PIXELS, in your program"
        ) from error
    except Exception as error:  # plugins raise almost anything on damaged files
        raise ImageError(
            f"{name} cannot be read: {error or type(error).__name__}; if it is damaged or cut off fetch it "
            "again, otherwise save it as an RGB image in JPEG or PNG"
        ) from error
    finally:
        with suppress(ValueError):  # another thread reset all filters meanwhile
            filters.remove(_PILLOW_IGNORED)


def find_opener(start: bytes, name: str) -> Callable[[io.BufferedIOBase, str], Image.Image]:
    """Finds the plugin for a file that begins with these bytes.

    `PIL.Image.open` does this too, but refuses large images by a limit for the whole program, which
    could not be raised for one call, and before the size is known for the message.
    """
    Image.init()
    for opener, accept in (Image.OPEN[key] for key in FORMATS if key in Image.OPEN):
        accepted = accept(start) if accept else False
        if isinstance(accepted, str):  # the plugin knows the format and lacks the library to read it
            raise ImageError(f"{name} cannot be read: {accepted}; save the image as JPEG or PNG")
        if accepted:
            return cast("Callable[[io.BufferedIOBase, str], Image.Image]", opener)
    raise ImageError(
        f"{name} is not an image: it begins with {start!r}, and images must be one of {', '.join(FORMATS)}"
    )


def rgb_from_pillow(image: Image.Image, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a PIL image as it is stored, in little more memory than the pixels take.

    Raises:
        ImageError: It has no pixels, too many, or needs too much memory.
    """
    _refuse_large(image, name, max_pixels)
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        return rgb_from_array(levels_of_integers(np.asarray(image), name), name)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        # Not `crop`, which obeys a limit for the whole program. Without a change of size this copies pixels.
        strip = image.resize(
            (image.width, bottom - top), Image.Resampling.NEAREST, (0, top, image.width, bottom)
        )
        rgb[top:bottom] = np.asarray(flatten(strip))
    return rgb


def _refuse_large(image: Image.Image, name: str, max_pixels: int) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise ImageError(f"{name} has no pixels; it needs a width and a height of at least 1")
    if pixels > max_pixels:
        raise ImageError(
            f"{name} is {image.width}x{image.height}, {pixels} pixels, and the limit is {max_pixels}; "
            f"make it smaller, or pass max_pixels={pixels} if you trust it"
        )
    needed = _bytes_while_decoding(image)
    if needed > BYTES_A_PIXEL * max_pixels:
        raise ImageError(
            f"{name} is {image.width}x{image.height}, and {image.format} of mode {image.mode} needs some {needed} "
            f"bytes to be decoded, which is more than the limit of {BYTES_A_PIXEL * max_pixels}; make it smaller, save "
            f"it as JPEG or PNG, or pass max_pixels={-(-needed // BYTES_A_PIXEL)} if you trust it"
        )


def _bytes_while_decoding(image: Image.Image) -> int:
    """Returns about how much memory an image takes until it is RGB, by its header."""
    bands = len(image.getbands())
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if image.format == "JPEG2000":
        decoder = _JPEG2000_BYTES * bands
    elif image.info.get("progressive"):  # of JPEG: all coefficients are held
        decoder = _PROGRESSIVE_BYTES * bands
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    pixels = image.width * image.height
    beside = max(pixels * decoder, _tiff_block_bytes(image))
    return pixels * stored + max(beside, pixels * _CONVERSION_BYTES.get(image.mode, 3))


def _tiff_block_bytes(image: Image.Image) -> int:
    """Returns the size of a strip or tile of a TIFF, which is decoded as a whole and may be larger than the image."""
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
    """Returns the EXIF orientation of a loaded image, 1 to 8; 1 is upright."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata, of which there is no end, must not lose the image
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def turn_upright(stored: UInt8[np.ndarray, "_ _ 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Turns stored pixels as an EXIF orientation says (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(stored[::down, ::right])
