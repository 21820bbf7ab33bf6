"""From images to a network's input, in the forms that `transformers` takes and gives.

Owns the reading of images and boxes in those forms, and the form of the result. Knows no processor and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from ..errors import BoxError, ImageError, InputError, UnknownNameError
from ..geometry.boxes import Size, as_rows, as_xyxy, refuse_outside, xyxy_from_xywh
from ..geometry.warp import Pixels
from ..images import read_image

_FORMATS = ("channels_first", "channels_last")


class BatchFeature(dict[str, Any]):
    """The inputs of a network by name; also read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no {name!r}; it has {list(self)}") from None

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Moves every tensor, as `torch.Tensor.to` does; integers keep their type."""
        for name, value in self.items():
            if hasattr(value, "to"):
                moved = value.to(*args, **kwargs)
                self[name] = moved if value.is_floating_point() else value.to(moved.device)
        return self


def read_images(images: Any, input_data_format: str | None, rescaled: bool) -> list[Pixels]:
    """Reads one image or several.

    Args:
        images: Whatever `read_image` takes, one or a list, or an array or tensor of four axes. Arrays of floats are
            as in `transformers`: levels from 0 to 255 that are rescaled like bytes, or anything if they are not.
        input_data_format: "channels_first" or "channels_last", of arrays; default: read off their shape.
        rescaled: Whether the pixels will be rescaled.

    Raises:
        ImageError: An image cannot be read, or floats from 0 to 1 would be rescaled.
        InputError: Bytes and floats are given together although they are not rescaled.
        UnknownNameError: There is no such format.
    """
    several = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
    given = [_channels_last(image, input_data_format) for image in (images if several else [images])]
    read = [_read_floats(image, rescaled) if _is_float(image) else read_image(image) for image in given]
    kinds = {image.dtype for image in read}
    if len(kinds) > 1 and not rescaled:
        raise InputError(
            "with do_rescale=False the images must be all of floats or all of bytes; convert some"
        )
    return [image.astype(np.float32) for image in read] if len(kinds) > 1 else read


def _is_float(image: Any) -> bool:
    return "float" in str(getattr(image, "dtype", ""))  # of NumPy and torch


def _read_floats(image: Any, rescaled: bool) -> Float32[np.ndarray, "_ _ 3"]:
    tensor = image.detach().float().cpu() if hasattr(image, "detach") else image
    array = np.asarray(tensor, np.float32)
    name = f"the array of shape {array.shape} and type {image.dtype}"
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise ImageError(
            f"{name} is no image; floats need the axes (h w), (h w 1) or (h w 3), or channels first"
        )
    if not np.isfinite(array).all():
        raise ImageError(f"{name} has values that are not finite; correct its source")
    if rescaled and 0 < array.max() <= 1:
        raise ImageError(
            f"{name} has values up to {array.max():.6g}, and floats are levels from 0 to 255 here as in transformers; "
            "give do_rescale=False for an image from 0 to 1"
        )
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)


def _channels_last(image: Any, data_format: str | None) -> Any:
    _refuse_format(data_format)
    shape = tuple(getattr(image, "shape", ()))
    if data_format is None or len(shape) != 3:
        return image
    channels = shape[0 if data_format == "channels_first" else 2]
    if channels > 4:
        raise InputError(
            f"an image of the shape {shape} is not {data_format}: it would have {channels} channels"
        )
    return np.moveaxis(np.asarray(image), 0, -1) if data_format == "channels_first" else image


def _refuse_format(data_format: str | None) -> None:
    if data_format not in (None, *_FORMATS):
        raise UnknownNameError("data format", data_format, _FORMATS)


def read_boxes_inside(boxes: Any, images: Sequence[Pixels]) -> list[Float[np.ndarray, "_ 4"]]:
    """Returns the boxes of each image, xyxy in pixels.

    Args:
        boxes: One list of (left, top, width, height) an image.
        images: The images.

    Raises:
        BoxError: There is not one list an image, or a box has no area or lies outside its image.
    """
    if boxes is None:
        raise BoxError(
            "boxes are missing: give one list of (left, top, width, height) an image, or do_affine_transform=False"
        )
    if len(boxes) != len(images):
        raise BoxError(
            f"there are {len(images)} images and {len(boxes)} lists of boxes; give one list of "
            "(left, top, width, height) an image, an empty one for an image without people"
        )
    read = [read_boxes(rows) for rows in boxes]
    for xyxy, image in zip(read, images, strict=True):
        refuse_outside(xyxy, Size.of(image))
    return read


def read_boxes(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Returns one image's boxes, given as (left, top, width, height), as xyxy.

    Raises:
        BoxError: They are not n boxes with an area.
    """
    array = as_rows(boxes)
    bad = (array[:, 2:] <= 0).any(axis=1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise BoxError(
            f"box {index}, {array[index].tolist()}, has no area: (left, top, width, height) needs both sides positive"
        )
    return as_xyxy(xyxy_from_xywh(array))


def stack_crops(images: Sequence[Pixels], size: Size) -> np.ndarray:
    """Returns images that are crops already as one batch (n hc wc 3).

    Raises:
        InputError: One has another size.
    """
    for image in images:
        if Size.of(image) != size:
            raise InputError(
                f"with do_affine_transform=False every image must be a crop of {size} px, not {Size.of(image)}"
            )
    return np.stack(images) if images else np.zeros((0, size.height, size.width, 3), np.uint8)


def scales_of_boxes(target_sizes: Any, counts: Sequence[int]) -> Float[np.ndarray, "n 4"]:
    """Returns (width, height, width, height) for every box.

    Args:
        target_sizes: (height, width) of every image, or of every box.
        counts: Number of boxes of every image.

    Raises:
        InputError: There is not one size an image or box.
    """
    sizes = np.asarray([[float(side) for side in pair] for pair in target_sizes]).reshape(-1, 2)
    if len(sizes) == len(counts):
        sizes = np.repeat(sizes, counts, axis=0)
    if len(sizes) != sum(counts):
        raise InputError(
            f"there are {len(sizes)} target_sizes for {len(counts)} images with {sum(counts)} boxes; give one "
            "(height, width) an image, or one a box"
        )
    return sizes[:, [1, 0, 1, 0]].astype(np.float32)


def pack(pixels: Float32[np.ndarray, "n 3 hc wc"], data_format: str, return_tensors: str | None) -> Any:
    """Returns pixels as they are wanted: a tensor ("pt"), an array ("np") or a list of arrays (None).

    Raises:
        UnknownNameError: There is no such format or kind of tensors.
    """
    _refuse_format(data_format)
    if data_format == "channels_last":
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if return_tensors == "pt":
        import torch

        return torch.from_numpy(pixels)
    if return_tensors not in (None, "np"):
        raise UnknownNameError("kind of tensors", return_tensors, ("pt", "np"))
    return pixels if return_tensors == "np" else list(pixels)
