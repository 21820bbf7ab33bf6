"""Conversion of images and boxes from the input formats of `transformers`, and of crops to its output formats."""

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
    """The inputs of a network by name, also available as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no {name!r}; it has {list(self)}") from None

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Moves every tensor in place as `torch.Tensor.to` does; integer tensors keep their dtype."""
        for name, value in self.items():
            if hasattr(value, "to"):
                moved = value.to(*args, **kwargs)
                self[name] = moved if value.is_floating_point() else value.to(moved.device)
        return self


def read_images(images: Any, input_data_format: str | None, rescaled: bool) -> list[Pixels]:
    """Reads one image or several.

    Args:
        images: One image or a list, in any form that `read_image` accepts, or an array or tensor with four axes.
            Arrays of floats are as in `transformers`: values from 0 to 255 if they will be rescaled, else any.
        input_data_format: Layout of arrays, "channels_first" or "channels_last"; default: inferred from their shape.
        rescaled: Whether the pixels will be rescaled.

    Raises:
        ImageError: An image cannot be read, or floats from 0 to 1 would be rescaled.
        InputError: Images of bytes and of floats are given together without rescaling, or an image does not have the
            given layout.
        UnknownNameError: The layout is unknown.
    """
    several = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
    given = [_channels_last(image, input_data_format) for image in (images if several else [images])]
    read = [_read_floats(image, rescaled) if _is_float(image) else read_image(image) for image in given]
    kinds = {image.dtype for image in read}
    if len(kinds) > 1 and not rescaled:
        raise InputError(
            "with do_rescale=False the images must be all of floats or all of bytes; convert them to one dtype"
        )
    return [image.astype(np.float32) for image in read] if len(kinds) > 1 else read


def _is_float(image: Any) -> bool:
    return "float" in str(getattr(image, "dtype", ""))  # NumPy's or torch's


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
            f"{name} is not an image; arrays of floats require the axes (h w), (h w 1), (h w 3), or channels first"
        )
    if not np.isfinite(array).all():
        raise ImageError(f"{name} contains NaN or infinity; correct its source")
    if rescaled and 0 < array.max() <= 1:
        raise ImageError(
            f"{name} has values up to {array.max():.6g}, but floats are expected from 0 to 255, as in transformers; "
            "give do_rescale=False for values from 0 to 1"
        )
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)


def _channels_last(image: Any, data_format: str | None) -> Any:
    _check_format(data_format)
    shape = tuple(getattr(image, "shape", ()))
    if data_format is None or len(shape) != 3:
        return image
    channels = shape[0 if data_format == "channels_first" else 2]
    if channels > 4:
        raise InputError(
            f"an image of the shape {shape} is not {data_format}, as it would have {channels} channels; "
            "correct input_data_format"
        )
    return np.moveaxis(np.asarray(image), 0, -1) if data_format == "channels_first" else image


def _check_format(data_format: str | None) -> None:
    if data_format not in (None, *_FORMATS):
        raise UnknownNameError("data format", data_format, _FORMATS)


def read_boxes_inside(boxes: Any, images: Sequence[Pixels]) -> list[Float[np.ndarray, "_ 4"]]:
    """Returns the boxes of each image, xyxy in pixels.

    Args:
        boxes: One list of (left, top, width, height), px, per image.
        images: The images.

    Raises:
        BoxError: There is not one list per image, or a box has no area or lies outside its image.
    """
    if boxes is None:
        raise BoxError(
            "boxes are missing: give one list of (left, top, width, height) per image, or do_affine_transform=False"
        )
    if len(boxes) != len(images):
        raise BoxError(
            f"there are {len(images)} images and {len(boxes)} lists of boxes; give one list of "
            "(left, top, width, height) per image, an empty one for an image without people"
        )
    read = [read_boxes(rows) for rows in boxes]
    for xyxy, image in zip(read, images, strict=True):
        refuse_outside(xyxy, Size.of(image))
    return read


def read_boxes(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Converts one image's boxes from (left, top, width, height) to xyxy, in the same unit.

    Raises:
        BoxError: The boxes are not n rows of four finite numbers, or a box has no area.
    """
    array = as_rows(boxes)
    bad = (array[:, 2:] <= 0).any(axis=1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise BoxError(
            f"box {index}, {array[index].tolist()}, has no area: width and height of (left, top, width, height) "
            "must be positive"
        )
    return as_xyxy(xyxy_from_xywh(array))


def stack_crops(images: Sequence[Pixels], size: Size) -> np.ndarray:
    """Stacks images that are already crops into one batch (n hc wc 3).

    Raises:
        InputError: An image has another size.
    """
    for image in images:
        if Size.of(image) != size:
            raise InputError(
                f"with do_affine_transform=False every image must be a crop of {size} px, not {Size.of(image)} px; "
                "resize it"
            )
    return np.stack(images) if images else np.zeros((0, size.height, size.width, 3), np.uint8)


def scales_of_boxes(target_sizes: Any, counts: Sequence[int]) -> Float[np.ndarray, "n 4"]:
    """Returns (width, height, width, height), px, for every box.

    Args:
        target_sizes: (height, width), px, of every image or of every box.
        counts: Number of boxes of every image.

    Raises:
        InputError: There is not one size per image or box.
    """
    sizes = np.asarray([[float(side) for side in pair] for pair in target_sizes]).reshape(-1, 2)
    if len(sizes) == len(counts):
        sizes = np.repeat(sizes, counts, axis=0)
    if len(sizes) != sum(counts):
        raise InputError(
            f"there are {len(sizes)} target_sizes for {len(counts)} images with {sum(counts)} boxes; give one "
            "(height, width) per image, or one per box"
        )
    return sizes[:, [1, 0, 1, 0]].astype(np.float32)


def pack(pixels: Float32[np.ndarray, "n 3 hc wc"], data_format: str, return_tensors: str | None) -> Any:
    """Converts crops to the requested layout and container.

    Args:
        pixels: The normalised crops.
        data_format: "channels_first" or "channels_last".
        return_tensors: "pt" for a tensor, "np" for an array, None for a list of arrays.

    Raises:
        UnknownNameError: The layout or the kind of tensors is unknown.
    """
    _check_format(data_format)
    if data_format == "channels_last":
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if return_tensors == "pt":
        import torch

        return torch.from_numpy(pixels)
    if return_tensors not in (None, "np"):
        raise UnknownNameError("kind of tensors", return_tensors, ("pt", "np"))
    return pixels if return_tensors == "np" else list(pixels)
