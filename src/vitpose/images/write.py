"""Arrays -> image files."""

from __future__ import annotations

import os
from typing import Any

from PIL import Image

from ..errors import ImageError, OutputError, UnknownNameError
from ..files.paths import user_path
from ..files.writing import replace_file
from .decode import read_image

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # No chroma subsampling, which would blur the thin coloured lines of drawn poses.
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "quality": 95},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
}

SAVED_SUFFIXES = frozenset(_SAVE_OPTIONS)
"""Suffixes of the formats that `save_image` writes."""


def save_image(path: str | os.PathLike[str], image: Any) -> None:
    """Writes an image in the format of the path's suffix, and creates missing directories.

    Args:
        path: Path of the file (`~` is expanded), ending in .jpg, .jpeg (quality 95, full colour resolution), .png,
            .webp (quality 95), .bmp, .tif or .tiff.
        image: RGB uint8 (h w 3), or any other array that `read_image` takes.

    Raises:
        UnknownNameError: The suffix is not one of these.
        ImageError: The array is not an image, or the file cannot be written.
    """
    path = user_path(path, ImageError)
    if path.suffix.lower() not in _SAVE_OPTIONS:
        hint = f"The suffix of {path} selects the format."
        raise UnknownNameError("image suffix", path.suffix, _SAVE_OPTIONS, hint)
    pixels = Image.fromarray(read_image(image))
    try:
        with replace_file(path) as partial:
            pixels.save(partial, **_SAVE_OPTIONS[path.suffix.lower()])
    except (OSError, ValueError) as error:
        reason = error.__cause__ if isinstance(error, OutputError) else error
        raise ImageError(
            f"{path} cannot be written: {reason}; choose another path, or another format if the "
            f"image of {pixels.width}x{pixels.height} pixels is too large for this one"
        ) from error
