"""VitPoseImageProcessor: the seam that users of `transformers` know.

Holds how a model wants its crops and how its maps are read, and applies both to images and
outputs of the network. Built on `crop` and `heatmap`; knows no network.
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
_OF_THE_DECODING = ("decode", "blur_sigma", "border", "max_step", "shift_heatmap")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALIZE_FACTOR = 200.0
"""What `transformers` divides and multiplies boxes by; other values would only move crops and keypoints apart."""

_SMALLEST, _LARGEST = 1e-6, 1e6


class CropSize(Size):
    """A size that can also be read and compared as the dictionary of `transformers`."""

    __slots__ = ()

    def __getitem__(self, key: str) -> int:
        if key not in self.keys():
            raise KeyError(key)
        return int(getattr(self, key))

    def keys(self) -> tuple[str, str]:
        """Returns the names of the sides, so that `dict(size)` works."""
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
            f"{str(value)[:80]!r} is no size; give {{'height': …, 'width': …}}, Size(width=…, height=…), or one number"
        )
    for side in (width, height):
        if type(side) is not int or not 2 <= side <= MAX_INPUT_SIDE_PX:
            raise ValueError(
                f"a side of {str(side)[:20]} px; sides are whole numbers from 2 to {MAX_INPUT_SIDE_PX}"
            )
    return CropSize(width=width, height=height)


def _per_channel(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 3:
            raise ValueError(f"{len(value)} values; give three, one a colour channel, or one for all of them")
        return tuple(value)
    return (value,) * 3


def _only_200(value: Any) -> Any:
    if value != NORMALIZE_FACTOR:
        raise ValueError(
            f"{str(value)[:20]!r} is unsupported: it would move crops and keypoints apart; leave it out"
        )
    return NORMALIZE_FACTOR


Choice = Annotated[str, Field(max_length=64)]
Mean = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Deviation = Annotated[float, Field(ge=_SMALLEST, le=_LARGEST)]


@dataclass(frozen=True)
class VitPoseImageProcessor(Settings):
    """How a model wants its crops, and how its heatmaps are read.

    None stands for the default of every attribute but `max_step` and `blur_sigma`.

    Attributes:
        do_affine_transform: Cut each box out of its image; False takes the images as crops.
        size: Size of the crops; also a mapping {"height": …, "width": …}, or one number for a square.
        do_rescale: Multiply the pixels by `rescale_factor`.
        rescale_factor: Usually 1/255.
        do_normalize: Subtract `image_mean` and divide by `image_std`, channel by channel.
        image_mean: Three means, of rescaled pixels, or one for all channels.
        image_std: Three standard deviations, of rescaled pixels, or one for all channels.
        normalize_factor: 200, which `transformers` divides and multiplies boxes by.
        do_convert_rgb: Taken for `transformers`; every image is converted to RGB.
        warp: "udp" or "plain"; see `vitpose.geometry.warp.Warp`.
        aspect: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        decode: "dark", "quarter" or "argmax"; see `vitpose.geometry.heatmaps.Decoding`.
        blur_sigma: DARK's blur, cells; default: the original's (2.0).
        border: What DARK's blur sees outside the heatmap: "zero", "mirror" or "reflect".
        max_step: Longest step of DARK, cells; None trusts it.
        shift_heatmap: Shift the mirrored heatmaps of a flip test by one cell (for the plain warp).

    Raises:
        InputError: A value is impossible; the message names it.
        UnknownNameError: There is no such attribute, or no such warp, decoding or border.
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
        self.decoding()  # an impossible choice is refused here and not at the first image
        self.warp_boxes(np.zeros((0, 4)))

    def decoding(self, kernel_size: int = 11) -> Decoding:
        """Returns how maps are read, with a blur of that many cells."""
        return Decoding(self.decode, kernel_size, self.blur_sigma, self.border, self.max_step)

    @property
    def scale_and_offset(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """What every channel of a crop is multiplied by, and what is added then, float32."""
        rescale = self.rescale_factor if self.do_rescale else 1.0
        mean = np.array(self.image_mean if self.do_normalize else (0, 0, 0))
        std = np.array(self.image_std if self.do_normalize else (1, 1, 1))
        return (rescale / std).astype(np.float32), (-mean / std).astype(np.float32)

    def with_dataset(self, dataset_spec: DatasetSpec) -> VitPoseImageProcessor:
        """Returns this processor with the warp, aspect, decoding and flip shift of a dataset."""
        return replace(
            self,
            warp=dataset_spec.warp,
            aspect=dataset_spec.aspect,
            decode=dataset_spec.decode,
            shift_heatmap=dataset_spec.shift_heatmap,
        )

    def warp_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Warp:
        """Returns where the crops of xyxy boxes lie."""
        return Warp.from_boxes(boxes, self.size, self.warp, aspect=self.aspect)

    def __call__(self, images: Any, boxes: Any = None, *options: Any, **named: Any) -> BatchFeature:
        """Does the same as `preprocess`."""
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
        """Cuts every box out of its image and makes it the network's input.

        Args:
            images: One image or a list: whatever `vitpose.images.read_image` takes. Arrays of floats are levels from
                0 to 255, as in `transformers`, or of any range with do_rescale=False.
            boxes: One list of boxes an image, each box (left, top, width, height) in pixels, COCO's
                form. An image with an empty list has no crops.
            do_affine_transform: This and the next six are attributes that differ for this call.
            size: Size of the crops.
            do_rescale: Multiply by `rescale_factor`.
            rescale_factor: Usually 1/255.
            do_normalize: Subtract the mean and divide by the standard deviation.
            image_mean: Means.
            image_std: Standard deviations.
            return_tensors: "pt" for a torch tensor, "np" for a NumPy array; default: a list of arrays.
            data_format: "channels_first" (default) or "channels_last", of the result.
            input_data_format: The same of images given as arrays; default: read off their shape.
            **others: Further attributes that differ for this call; those of the decoding have no meaning here.

        Returns:
            `pixel_values`: all crops, in the order of images and boxes, n 3 h w.

        Raises:
            ImageError: An image cannot be read, or has floats from 0 to 1 that would be rescaled.
            BoxError: The boxes are no boxes, or there is not one list an image.
            InputError: A value is impossible, or images taken as crops differ in size.
            UnknownNameError: An option is not known.
        """
        changes = {
            "do_affine_transform": do_affine_transform,
            "size": size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            **self._for_a_call(others),
        }
        used = self.changed({name: value for name, value in changes.items() if value is not None})
        pixels = used._crop(images, boxes, input_data_format)
        return BatchFeature(pixel_values=pack(pixels, data_format or "channels_first", return_tensors))

    def _for_a_call(self, others: Mapping[str, Any]) -> Mapping[str, Any]:
        known = [f.name for f in fields(self) if f.name not in _OF_THE_DECODING]
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
        """Turns the network's maps into keypoints in the images.

        Args:
            outputs: Output of the network (anything with `heatmaps`).
            boxes: The boxes as they were given to `preprocess`.
            kernel_size: DARK's blur, cells.
            threshold: Points that score at least this are marked as visible; without it all are. The number of points
                never changes.
            target_sizes: If the boxes are relative, 0 to 1: (height, width) of each image, or of each box.

        Returns:
            One list an image with one dictionary a box: `keypoints` (k 2) in pixels, `scores` (k), `labels`
            (k) the indices of the points, `visible` (k), and `bbox` (4), the person's box as (left,
            top, right, bottom) in pixels.

        Raises:
            BoxError: The boxes are no boxes, or not as many as there are maps.
            InputError: There is not one target size an image or box.
        """
        import torch

        maps = outputs.heatmaps.detach().float().cpu().numpy()
        counts = [len(own) for own in boxes]
        if sum(counts) != len(maps):
            raise BoxError(
                f"there are {sum(counts)} boxes and heatmaps for {len(maps)}; give the boxes of `preprocess`"
            )
        xyxy = np.concatenate([np.zeros((0, 4), np.float32), *map(read_boxes, boxes)])
        if target_sizes is not None:
            xyxy = xyxy * scales_of_boxes(target_sizes, counts)
        points, scores = decode(maps, self.decoding(kernel_size))
        grid = Size(width=maps.shape[3], height=maps.shape[2])
        places = self.warp_boxes(xyxy).to_image(points, grid).astype(np.float32)
        visible = scores >= (-np.inf if threshold is None else threshold)
        rows = [
            {
                "keypoints": torch.from_numpy(places[row]),
                "scores": torch.from_numpy(scores[row]),
                "labels": torch.arange(maps.shape[1]),
                "visible": torch.from_numpy(visible[row]),
                "bbox": torch.from_numpy(xyxy[row].astype(np.float32)),
            }
            for row in range(len(maps))
        ]
        ends = np.cumsum(counts)
        return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary of a `preprocessor_config.json` that `transformers` reads.

        What only vitpose knows is written where it differs from the default.
        """
        theirs = (
            "do_affine_transform",
            "do_rescale",
            "rescale_factor",
            "do_normalize",
            "normalize_factor",
        )
        table: dict[str, Any] = {name: getattr(self, name) for name in theirs}
        table |= {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        table["size"] = {"height": self.size.height, "width": self.size.width}
        for f in fields(self):
            if f.name not in table and getattr(self, f.name) != f.default:
                table[f.name] = getattr(self, f.name)
        return {"image_processor_type": type(self).__name__, **table}

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        kind = table.get("image_processor_type", table.get("feature_extractor_type", cls.__name__))
        if not str(kind).startswith(cls.__name__):  # or with a suffix: Fast, Pil
            raise InputError(f"it describes a {kind!r}, not a {cls.__name__}; give a ViTPose checkpoint")
        return super()._values_of(table)
