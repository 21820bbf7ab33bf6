"""VitPoseImageProcessor: preprocessing and postprocessing with the interface of `transformers`.

Holds the settings of a model's crops and of the decoding of its heatmaps, and applies them to images and to outputs of
the network. Reads and writes `preprocessor_config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import BeforeValidator, Field

from ..errors import BoxError, InputError, UnknownNameError
from ..files.limits import MAX_INPUT_SIDE_PX
from ..files.settings import Settings
from ..geometry.boxes import Size
from ..geometry.heatmaps import Decoding, decode
from ..geometry.warp import Warp, crop_all, normalise
from ..keypoints.dataset_spec import DatasetSpec
from .pixel_values import (
    BatchFeature,
    pack,
    read_boxes,
    read_boxes_inside,
    read_images,
    scales_of_boxes,
    stack_crops,
)

if TYPE_CHECKING:
    import torch

__all__ = ["PROCESSOR_FILE", "BatchFeature", "CropSize", "VitPoseImageProcessor"]

PROCESSOR_FILE = "preprocessor_config.json"
_DECODING_FIELDS = ("decode", "blur_sigma", "border", "max_step", "shift_heatmap")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALIZE_FACTOR = 200.0
"""Factor by which `transformers` divides and multiplies boxes; with any other value, crops and keypoints disagree."""

_SMALLEST, _LARGEST = 1e-6, 1e6


class CropSize(Size):
    """A size that can also be read and compared as a dictionary, as in `transformers`."""

    __slots__ = ()

    def __getitem__(self, key: str) -> int:
        if key not in self.keys():
            raise KeyError(key)
        return int(getattr(self, key))

    def keys(self) -> tuple[str, str]:
        """Returns ("height", "width"), so that `dict(size)` works."""
        return ("height", "width")

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Size):
            return (self.width, self.height) == (other.width, other.height)
        return dict(self) == other

    __hash__ = Size.__hash__


INPUT_SIZE = CropSize(width=192, height=256)


def _crop_size(value: Any) -> CropSize:
    if isinstance(value, int) and not isinstance(value, bool):
        width = height = value
    elif isinstance(value, Size):
        width, height = value.width, value.height
    elif isinstance(value, Mapping) and value.keys() == {"height", "width"}:
        width, height = value["width"], value["height"]
    else:
        raise ValueError(
            f"{str(value)[:80]!r} is not a size; give {{'height': …, 'width': …}}, Size(width=…, height=…), "
            "or one number"
        )
    for side in (width, height):
        if type(side) is not int or not 2 <= side <= MAX_INPUT_SIDE_PX:
            raise ValueError(
                f"a side is {str(side)[:20]!r}; sides are integers from 2 to {MAX_INPUT_SIDE_PX} px"
            )
    return CropSize(width=width, height=height)


def _per_channel(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 3:
            raise ValueError(
                f"{len(value)} values; give three, one per colour channel, or one for all channels"
            )
        return tuple(value)
    return (value,) * 3


def _only_200(value: Any) -> Any:
    if value != NORMALIZE_FACTOR:
        raise ValueError(
            f"{str(value)[:20]!r} is unsupported, because crops and keypoints would disagree; leave it out"
        )
    return NORMALIZE_FACTOR


Choice = Annotated[str, Field(max_length=64)]
Mean = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Deviation = Annotated[float, Field(ge=_SMALLEST, le=_LARGEST)]


@dataclass(frozen=True)
class VitPoseImageProcessor(Settings):
    """Turns images and boxes into a model's input, and its heatmaps into keypoints.

    None selects the default of every attribute except `max_step` and `blur_sigma`.

    Attributes:
        do_affine_transform: Crop each box from its image; False treats the images as crops.
        size: Size of the crops: a `Size`, a mapping {"height": …, "width": …}, or one number for a square.
        do_rescale: Multiply the pixels by `rescale_factor`.
        rescale_factor: Factor of the pixel values; default: 1/255.
        do_normalize: Subtract `image_mean` and divide by `image_std`, per channel.
        image_mean: Means of the rescaled pixels, three or one for all channels.
        image_std: Standard deviations of the rescaled pixels, three or one for all channels.
        normalize_factor: 200; accepted for compatibility with `transformers`.
        do_convert_rgb: Accepted for compatibility with `transformers`; every image is converted to RGB.
        warp: "udp" or "plain"; see `vitpose.geometry.warp.Warp`.
        aspect: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        decode: "dark", "quarter" or "argmax"; see `vitpose.geometry.heatmaps.Decoding`.
        blur_sigma: Standard deviation of DARK's blur, cells; default: the original's (2.0 for a kernel of 11).
        border: Padding of the heatmap for DARK's blur: "zero", "mirror" or "reflect".
        max_step: Largest step of DARK, cells; None does not limit it.
        shift_heatmap: Shift the mirrored heatmaps of a flip test by one cell (for the plain warp).

    Raises:
        InputError: A value is invalid; the message names it.
        UnknownNameError: An attribute, or the warp, aspect, decoding or border is unknown.
    """

    do_affine_transform: bool = True
    size: Annotated[Size, BeforeValidator(_crop_size)] = INPUT_SIZE
    do_rescale: bool = True
    rescale_factor: Annotated[float, Field(ge=_SMALLEST, le=_LARGEST)] = 1 / 255
    do_normalize: bool = True
    image_mean: Annotated[tuple[Mean, Mean, Mean], BeforeValidator(_per_channel)] = IMAGENET_MEAN
    image_std: Annotated[tuple[Deviation, Deviation, Deviation], BeforeValidator(_per_channel)] = IMAGENET_STD
    _: KW_ONLY
    normalize_factor: Annotated[float, BeforeValidator(_only_200)] = NORMALIZE_FACTOR
    do_convert_rgb: bool = True
    warp: Choice = "udp"
    aspect: Choice = "keep"
    decode: Choice = "dark"
    blur_sigma: Annotated[float, Field(gt=0, le=_LARGEST)] | None = None
    border: Choice = "zero"
    max_step: Annotated[float, Field(ge=0, le=_LARGEST)] | None = 1.0
    shift_heatmap: bool = False

    FILE = PROCESSOR_FILE

    def _complete(self) -> None:
        self.decoding()  # so that an invalid value raises here and not at the first image
        self.warp_boxes(np.zeros((0, 4)))

    def decoding(self, kernel_size: int = 11) -> Decoding:
        """Returns the settings of the decoding of heatmaps.

        Args:
            kernel_size: Side of DARK's blur kernel, cells; odd.

        Raises:
            InputError: The kernel size is not odd and positive.
        """
        return Decoding(self.decode, kernel_size, self.blur_sigma, self.border, self.max_step)

    @property
    def scale_and_offset(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """Scale and offset of each channel: a network's input is crop x scale + offset, float32."""
        rescale = self.rescale_factor if self.do_rescale else 1.0
        mean = np.array(self.image_mean if self.do_normalize else (0, 0, 0))
        std = np.array(self.image_std if self.do_normalize else (1, 1, 1))
        return (rescale / std).astype(np.float32), (-mean / std).astype(np.float32)

    def with_dataset(self, dataset_spec: DatasetSpec) -> VitPoseImageProcessor:
        """Returns a copy with the warp, aspect, decoding and flip shift of a dataset."""
        return replace(
            self,
            warp=dataset_spec.warp,
            aspect=dataset_spec.aspect,
            decode=dataset_spec.decode,
            shift_heatmap=dataset_spec.shift_heatmap,
        )

    def warp_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Warp:
        """Returns the warp from xyxy boxes, px of the image, to crops."""
        return Warp.from_boxes(boxes, self.size, self.warp, aspect=self.aspect)

    def __call__(self, images: Any, boxes: Any = None, *options: Any, **named: Any) -> BatchFeature:
        """Calls `preprocess`."""
        return self.preprocess(images, boxes, *options, **named)

    def preprocess(
        self,
        images: Any,
        boxes: Any = None,
        do_affine_transform: bool | None = None,
        size: Any = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: Any = None,
        image_std: Any = None,
        return_tensors: str | None = None,
        data_format: str | None = None,
        input_data_format: str | None = None,
        **others: Any,
    ) -> BatchFeature:
        """Crops every box from its image and turns it into the network's input.

        Args:
            images: One image or a list, in any form that `vitpose.images.read_image` accepts. Arrays of floats have
                values from 0 to 255, as in `transformers`, or any range with do_rescale=False.
            boxes: One list of boxes per image, each box (left, top, width, height) in pixels, as in COCO. An image
                with an empty list has no crops.
            do_affine_transform: Replaces the attribute for this call, as do the next six.
            size: Size of the crops.
            do_rescale: Multiply by `rescale_factor`.
            rescale_factor: Factor of the pixel values.
            do_normalize: Subtract the mean and divide by the standard deviation.
            image_mean: Means.
            image_std: Standard deviations.
            return_tensors: "pt" for a torch tensor, "np" for a NumPy array; default: a list of arrays.
            data_format: Layout of the result, "channels_first" (default) or "channels_last".
            input_data_format: Layout of images given as arrays; default: inferred from their shape.
            **others: Other attributes to replace for this call, except those of the decoding.

        Returns:
            `pixel_values`: all crops, in the order of images and boxes, (n 3 hc wc).

        Raises:
            ImageError: An image cannot be read, or has floats from 0 to 1 that would be rescaled.
            BoxError: The boxes are invalid, or there is not one list per image.
            InputError: A value is invalid, or images treated as crops differ from `size`.
            UnknownNameError: An option is unknown.
        """
        changes = {
            "do_affine_transform": do_affine_transform,
            "size": size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            **self._call_options(others),
        }
        used = self.changed({name: value for name, value in changes.items() if value is not None})
        pixels = used._crop(images, boxes, input_data_format)
        return BatchFeature(pixel_values=pack(pixels, data_format or "channels_first", return_tensors))

    def _call_options(self, others: Mapping[str, Any]) -> Mapping[str, Any]:
        known = [f.name for f in fields(self) if f.name not in _DECODING_FIELDS]
        for name in others:
            if name not in known:
                raise UnknownNameError("option of the image processor", name, known)
        return others

    def _crop(self, images: Any, boxes: Any, input_data_format: str | None) -> Float[np.ndarray, "n 3 hc wc"]:
        read = read_images(images, input_data_format, self.do_rescale)
        if not self.do_affine_transform:
            return normalise(stack_crops(read, self.size), *self.scale_and_offset)
        warps = [self.warp_boxes(xyxy) for xyxy in read_boxes_inside(boxes, read)]
        return normalise(crop_all(read, warps, self.size), *self.scale_and_offset)

    def post_process_pose_estimation(
        self,
        outputs: Any,
        boxes: Any,
        kernel_size: int = 11,
        threshold: float | None = None,
        target_sizes: Any = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Decodes the network's heatmaps into keypoints in pixels of the images.

        Args:
            outputs: Output of the network (any object with `heatmaps`, n k hm wm).
            boxes: The boxes given to `preprocess`.
            kernel_size: Side of DARK's blur kernel, cells; odd.
            threshold: Keypoints with at least this score are marked as visible; default: all are. The number of
                keypoints does not depend on it.
            target_sizes: (height, width) in pixels of each image, or of each box, if the boxes are relative, 0 to 1.

        Returns:
            One list per image with one dictionary per box: `keypoints` (k 2) as (x, y) in pixels of the image,
            `scores` (k), `labels` (k), the indices of the keypoints, `visible` (k), and `bbox` (4), the box as
            (left, top, right, bottom) in pixels.

        Raises:
            BoxError: The boxes are invalid, or their number is not that of the heatmaps.
            InputError: There is not one target size per image or box, or the heatmaps hold NaN or infinity.
        """
        import torch

        heatmaps = outputs.heatmaps.detach().float().cpu().numpy()
        counts = [len(rows) for rows in boxes]
        if sum(counts) != len(heatmaps):
            raise BoxError(
                f"there are {sum(counts)} boxes but heatmaps for {len(heatmaps)}; give the boxes given to `preprocess`"
            )
        xyxy = np.concatenate([np.zeros((0, 4), np.float32), *map(read_boxes, boxes)])
        if target_sizes is not None:
            xyxy = xyxy * scales_of_boxes(target_sizes, counts)
        cells, scores = decode(heatmaps, self.decoding(kernel_size))
        grid = Size(width=heatmaps.shape[3], height=heatmaps.shape[2])
        keypoints = self.warp_boxes(xyxy).to_image(cells, grid).astype(np.float32)
        visible = scores >= (-np.inf if threshold is None else threshold)
        rows = [
            {
                "keypoints": torch.from_numpy(keypoints[row]),
                "scores": torch.from_numpy(scores[row]),
                "labels": torch.arange(heatmaps.shape[1]),
                "visible": torch.from_numpy(visible[row]),
                "bbox": torch.from_numpy(xyxy[row].astype(np.float32)),
            }
            for row in range(len(heatmaps))
        ]
        ends = np.cumsum(counts)
        return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary of a `preprocessor_config.json` that `transformers` reads.

        Attributes that only vitpose has are written if they differ from the default.
        """
        shared = (
            "do_affine_transform",
            "do_rescale",
            "rescale_factor",
            "do_normalize",
            "normalize_factor",
        )
        table: dict[str, Any] = {name: getattr(self, name) for name in shared}
        table |= {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        table["size"] = {"height": self.size.height, "width": self.size.width}
        for f in fields(self):
            if f.name not in table and getattr(self, f.name) != f.default:
                table[f.name] = getattr(self, f.name)
        return {"image_processor_type": type(self).__name__, **table}

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        kind = table.get("image_processor_type", table.get("feature_extractor_type", cls.__name__))
        if not str(kind).startswith(cls.__name__):  # suffixes: Fast, Pil
            raise InputError(f"it is for a {kind!r}, not a {cls.__name__}; give a ViTPose checkpoint")
        return super()._values_of(table)
