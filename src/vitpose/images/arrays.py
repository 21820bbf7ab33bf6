"""Arrays and tensors -> RGB uint8 (h w 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from ..errors import ImageError

_HALF_A_LEVEL = 0.5 / 255


def array_from(source: Any) -> Shaped[np.ndarray, "..."]:
    """Converts an array or tensor of any library to a NumPy array.

    Raises:
        ImageError: The source cannot be converted.
    """
    try:
        return np.asarray(source.detach().cpu().numpy() if hasattr(source, "cpu") else source)
    except Exception as error:  # array libraries have no common error class
        raise ImageError(
            f"the {type(source).__name__} cannot be read as an array: {error}; convert it to uint8 first"
        ) from error


def rgb_from_array(array: Shaped[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Converts an array of a shape and type that `read_image` accepts to RGB.

    Args:
        array: The array; returned as it is if it is contiguous, writable RGB uint8.
        name: Name of the array in messages.

    Raises:
        ImageError: The array has another shape or type, or values out of range.
    """
    levels = _eight_bit(_channels_last(array, name), name)
    channels = levels.shape[2]
    if channels == 1:
        return np.repeat(levels, 3, axis=2)
    if channels == 3:
        return np.require(levels, requirements=["C", "W"])
    return np.array(flatten(Image.fromarray(levels)))


def _channels_last(array: Shaped[np.ndarray, "..."], name: str) -> Shaped[np.ndarray, "h w c"]:
    if array.ndim == 4:
        raise ImageError(f"{name} has four axes, like a batch; pass one image at a time")
    if array.ndim not in (2, 3):
        raise ImageError(f"{name} is not an image; its axes must be (h w) or (h w 3)")
    if not array.size:
        raise ImageError(f"{name} has no pixels; its width and height must be at least 1")
    if array.ndim == 2:
        return array[:, :, None]
    if array.shape[2] <= 4:
        return array
    if array.shape[0] in (1, 3):
        return np.moveaxis(array, 0, 2)
    raise ImageError(f"{name} has no axis that is clearly the channels; pass one image with the axes (h w 3)")


def _eight_bit(array: np.ndarray, name: str) -> UInt8[np.ndarray, "h w c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ImageError(
            f"{name} has an unsupported type; pass uint8, uint16, bool or floats in 0..1 "
            "(convert values 0..255 of another type with image.astype('uint8'))"
        )
    low, high = array.min(), array.max()
    # Negated so that NaN raises too. Rounding may overshoot by half a level.
    if not (low >= -_HALF_A_LEVEL and high <= 1 + _HALF_A_LEVEL):
        raise ImageError(
            f"{name} has values from {low:.6g} to {high:.6g}, but floats must be in 0..1; divide values "
            "0..255 by 255, and undo a normalisation first"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def levels_of_integers(levels: Shaped[np.ndarray, "h w"], name: str) -> Shaped[np.ndarray, "h w"]:
    """Converts Pillow's 32-bit integers to the 16-bit levels stored in PNG, PGM and TIFF files.

    Raises:
        ImageError: A value is outside the range of 16 bits.
    """
    if levels.dtype != np.int32:
        return levels
    if levels.min() < 0 or levels.max() > 65535:
        raise ImageError(
            f"{name} contains integers from {levels.min()} to {levels.max()}, but grey levels must be in "
            "0..65535; scale it and save it with 8 or 16 bits"
        )
    return levels.astype(np.uint16)


def flatten(image: Image.Image) -> Image.Image:
    """Converts a PIL image to RGB, with transparent pixels composited on white."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")
