"""VitPoseImageProcessor: the seam that users of `transformers` know.

Holds how a model wants its crops and how its maps are read, and applies both to pictures and
outputs of the network. Built on `crop` and `heatmap`; knows no network.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from .boxes import Size, as_rows, as_xyxy, refuse_outside, xyxy_from_xywh
from .conventions import Conventions
from .crop import Warp, crop_all, normalise
from .errors import BoxError, CheckpointError, InputError, UnknownNameError
from .files import write_json
from .heatmap import Decoding, decode
from .hub import read_json
from .images import read_image

if TYPE_CHECKING:
    import torch

PROCESSOR_FILE = "preprocessor_config.json"
_OF_THE_DECODING = ("decode", "blur_sigma", "border", "max_step", "shift_heatmap")
_OWN_KEYS = ("warp", "aspect", *_OF_THE_DECODING)  # what `transformers` does not know
INPUT_SIZE = Size(width=192, height=256)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


@dataclass(frozen=True, kw_only=True)
class VitPoseImageProcessor:
    """How a model wants its crops, and how its heat maps are read.

    Attributes:
        do_affine_transform: Cut each box out of its picture; False takes the pictures as crops.
        size: Size of the crops; also a mapping {"height": …, "width": …}.
        do_rescale: Multiply the pixels by `rescale_factor`.
        rescale_factor: Usually 1/255.
        do_normalize: Subtract `image_mean` and divide by `image_std`, channel by channel.
        image_mean: Three means, of rescaled pixels.
        image_std: Three standard deviations, of rescaled pixels.
        warp: "udp" or "plain"; see `vitpose.crop.Warp`.
        aspect: "keep" or "stretch"; see `vitpose.crop.Warp.from_boxes`.
        decode: "dark", "quarter" or "argmax"; see `vitpose.heatmap.Decoding`.
        blur_sigma: DARK's blur, cells; the original's without it (2.0).
        border: What DARK's blur sees outside the map: "zero", "mirror" or "reflect".
        max_step: Longest step of DARK, cells; None trusts it.
        shift_heatmap: Shift the mirrored maps of a flip test by one cell (for the plain warp).
    """

    do_affine_transform: bool = True
    size: Any = INPUT_SIZE
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    warp: str = "udp"
    aspect: str = "keep"
    decode: str = "dark"
    blur_sigma: float | None = None
    border: str = "zero"
    max_step: float | None = 1.0
    shift_heatmap: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size(self.size))
        for name in ("image_mean", "image_std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3:
                raise InputError(f"{name} has {len(values)} values and needs three, one a colour channel")
            object.__setattr__(self, name, values)
        if not all(self.image_std):
            raise InputError(f"image_std {self.image_std} has a zero; every channel is divided by its own")
        self.decoding()  # an impossible choice is refused here and not at the first picture
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

    def with_conventions(self, conventions: Conventions) -> VitPoseImageProcessor:
        """Returns this processor with the warp, aspect, decoding and flip shift of a dataset."""
        return replace(
            self,
            warp=conventions.warp,
            aspect=conventions.aspect,
            decode=conventions.decode,
            shift_heatmap=conventions.shift_heatmap,
        )

    def warp_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Warp:
        """Returns where the crops of xyxy boxes lie."""
        return Warp.from_boxes(boxes, self.size, self.warp, aspect=self.aspect)

    def __call__(self, images: Any, boxes: Any = None, **options: Any) -> BatchFeature:
        """Does the same as `preprocess`."""
        return self.preprocess(images, boxes, **options)

    def preprocess(
        self,
        images: Any,
        boxes: Any = None,
        *,
        return_tensors: str | None = None,
        data_format: str = "channels_first",
        input_data_format: str | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Cuts every box out of its picture and makes it the network's input.

        Args:
            images: One picture or a list: whatever `vitpose.images.read_image` takes.
            boxes: One list of boxes a picture, each box (left, top, width, height) in pixels, COCO's
                form. A picture with an empty list has no crops.
            return_tensors: "pt" for a torch tensor, "np" for a numpy array; a list of arrays without it.
            data_format: "channels_first" or "channels_last", of the result.
            input_data_format: The same of pictures given as arrays; read off their shape without it.
            **overrides: Attributes of the processor that differ for this call; those of the decoding have
                no meaning here.

        Returns:
            `pixel_values`: all crops, in the order of pictures and boxes, n 3 h w.

        Raises:
            ImageError: A picture cannot be read.
            BoxError: The boxes are no boxes, or there is not one list a picture.
            InputError: Pictures taken as crops differ in size.
            UnknownNameError: An option is not known.
        """
        self._refuse_unknown(overrides)
        if overrides:
            options = {name: value for name, value in overrides.items() if value is not None}
            return replace(self, **options).preprocess(
                images,
                boxes,
                return_tensors=return_tensors,
                data_format=data_format,
                input_data_format=input_data_format,
            )
        given = [_channels_last(image, input_data_format) for image in _as_list(images)]
        pictures = [read_image(image) for image in given]
        crops = self._cut(pictures, boxes) if self.do_affine_transform else _stack(pictures, self.size)
        pixels = normalise(crops, *self._unrescaled(given).scale_and_offset)
        return BatchFeature(pixel_values=_packed(pixels, data_format, return_tensors))

    def _unrescaled(self, given: list[Any]) -> VitPoseImageProcessor:
        """Returns a processor that gives pictures of floats, 0 to 1, back as such: they are read as bytes."""
        floats = ["float" in str(getattr(image, "dtype", "")) for image in given]  # of numpy and torch
        if self.do_rescale or not any(floats):
            return self
        if not all(floats):
            raise InputError("with do_rescale=False the pictures must be all of floats or all of bytes")
        return replace(self, do_rescale=True, rescale_factor=1 / 255)

    def _refuse_unknown(self, overrides: Mapping[str, Any]) -> None:
        known = [f.name for f in fields(self) if f.name not in _OF_THE_DECODING]
        for name in overrides:
            if name not in known:
                raise UnknownNameError("option of the image processor", name, known)

    def _cut(self, pictures: list[np.ndarray], boxes: Any) -> np.ndarray:
        if boxes is None:
            raise BoxError(
                "boxes are missing: give one list of (left, top, width, height) a picture, or do_affine_transform=False"
            )
        if len(boxes) != len(pictures):
            raise BoxError(
                f"there are {len(pictures)} pictures and {len(boxes)} lists of boxes; give one list of "
                "(left, top, width, height) a picture, an empty one for a picture without people"
            )
        warps = []
        for picture, own in zip(pictures, boxes, strict=True):
            xyxy = _xyxy_of(own)
            refuse_outside(xyxy, Size.of(picture))
            warps.append(self.warp_boxes(xyxy))
        return crop_all(pictures, warps, self.size)

    def post_process_pose_estimation(
        self,
        outputs: Any,
        boxes: Any,
        kernel_size: int = 11,
        threshold: float | None = None,
        target_sizes: Any = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Turns the network's maps into keypoints in the pictures.

        Args:
            outputs: Output of the network (anything with `heatmaps`).
            boxes: The boxes as they were given to `preprocess`.
            kernel_size: DARK's blur, cells.
            threshold: Points that score at least this are marked as visible; without it all are. The number of points
                never changes.
            target_sizes: If the boxes are relative, 0 to 1: (height, width) of each picture, or of each box.

        Returns:
            One list a picture with one dictionary a box: `keypoints` (k 2) in pixels, `scores` (k), `labels`
            (k) the indices of the points, `visible` (k), and `bbox` (4), the person's box as (left,
            top, right, bottom) in pixels.

        Raises:
            BoxError: The boxes are no boxes, or not as many as there are maps.
            InputError: There is not one target size a picture or box.
        """
        import torch

        maps = outputs.heatmaps.detach().float().cpu().numpy()
        counts = [len(own) for own in boxes]
        if sum(counts) != len(maps):
            raise BoxError(
                f"there are {sum(counts)} boxes and heat maps for {len(maps)}; give the boxes of `preprocess`"
            )
        xyxy = np.concatenate([np.zeros((0, 4), np.float32), *map(_xyxy_of, boxes)])
        if target_sizes is not None:
            xyxy = xyxy * _scales(target_sizes, counts)
        points, scores = decode(maps, self.decoding(kernel_size))
        grid = Size(width=maps.shape[3], height=maps.shape[2])
        places = self.warp_boxes(xyxy).to_picture(points, grid).astype(np.float32)
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
            "image_mean",
            "image_std",
        )
        table: dict[str, Any] = {name: getattr(self, name) for name in theirs}
        for f in fields(self):
            if f.name not in theirs and f.name != "size" and getattr(self, f.name) != f.default:
                table[f.name] = getattr(self, f.name)
        size = {"height": self.size.height, "width": self.size.width}
        # transformers' factor of 200 has no effect (it divides and multiplies) but its files carry it.
        return {"image_processor_type": type(self).__name__, "normalize_factor": 200.0, "size": size, **table}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> VitPoseImageProcessor:
        """Reads the dictionary of a file; keys that are not the processor's are left aside.

        Raises:
            CheckpointError: It is the configuration of another processor.
        """
        kind = table.get("image_processor_type", table.get("feature_extractor_type", cls.__name__))
        if not str(kind).startswith(cls.__name__):
            raise CheckpointError(
                f"the file describes a {kind!r}, not a {cls.__name__}; give a ViTPose checkpoint"
            )
        for key in table:
            # Files carry many keys of `transformers`; a near miss of one of ours is a slip of the pen.
            if key not in _OWN_KEYS and difflib.get_close_matches(key, _OWN_KEYS, cutoff=0.8):
                raise UnknownNameError("key in the image processor's file", key, _OWN_KEYS)
        own = {f.name: table[f.name] for f in fields(cls) if f.name in table}
        optional = {f.name for f in fields(cls) if f.default is None or f.name == "max_step"}
        return cls(**{name: value for name, value in own.items() if value is not None or name in optional})

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub: Any) -> VitPoseImageProcessor:
        """Reads the processor of a model: a short name, a folder, or a hub repository.

        Raises:
            UnknownNameError: No such model.
            CheckpointError: The file is missing or damaged.
        """
        return cls.from_dict(read_json(name, PROCESSOR_FILE, **hub))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `preprocessor_config.json` into a folder, made if need be.

        Raises:
            OutputError: It cannot be written.
        """
        write_json(Path(folder) / PROCESSOR_FILE, self.to_dict())


def _size(size: Any) -> Size:
    if isinstance(size, Mapping):
        if not {"height", "width"} <= size.keys():
            raise InputError(f"size must have 'height' and 'width', not {dict(size)}")
        size = Size(width=int(size["width"]), height=int(size["height"]))
    if not isinstance(size, Size) or size.width < 2 or size.height < 2:
        raise InputError(
            f"size must be Size(width=…, height=…) or {{'height': …, 'width': …}} of at least 2 px, not {size!r}"
        )
    return size


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return list(images)
    if getattr(images, "ndim", 0) == 4:
        return list(images)
    return [images]


def _channels_last(image: Any, data_format: str | None) -> Any:
    _refuse_format(data_format)
    shape = tuple(getattr(image, "shape", ()))
    if data_format is None or len(shape) != 3:
        return image
    channels = shape[0 if data_format == "channels_first" else 2]
    if channels > 4:
        raise InputError(
            f"a picture of the shape {shape} is not {data_format}: it would have {channels} channels"
        )
    return np.moveaxis(np.asarray(image), 0, -1) if data_format == "channels_first" else image


def _refuse_format(data_format: str | None) -> None:
    if data_format not in (None, "channels_first", "channels_last"):
        raise UnknownNameError("data format", data_format, ("channels_first", "channels_last"))


def _stack(pictures: list[np.ndarray], size: Size) -> np.ndarray:
    for picture in pictures:
        if Size.of(picture) != size:
            raise InputError(
                f"with do_affine_transform=False every picture must be a crop of {size} px, not {Size.of(picture)}"
            )
    return np.stack(pictures) if pictures else np.zeros((0, size.height, size.width, 3), np.uint8)


def _xyxy_of(boxes: Any) -> Float[np.ndarray, "n 4"]:
    """Checks one picture's boxes (left, top, width, height) and turns them into xyxy."""
    array = as_rows(boxes)
    bad = (array[:, 2:] <= 0).any(axis=1)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise BoxError(
            f"box {index}, {array[index].tolist()}, has no area: (left, top, width, height) needs both sides positive"
        )
    return as_xyxy(xyxy_from_xywh(array))


def _scales(target_sizes: Any, counts: Sequence[int]) -> Float[np.ndarray, "n 4"]:
    """Returns (width, height, width, height) for every box."""
    sizes = np.asarray([[float(side) for side in pair] for pair in target_sizes]).reshape(-1, 2)
    if len(sizes) == len(counts):
        sizes = np.repeat(sizes, counts, axis=0)
    if len(sizes) != sum(counts):
        raise InputError(
            f"there are {len(sizes)} target_sizes for {len(counts)} pictures with {sum(counts)} boxes; give one "
            "(height, width) a picture, or one a box"
        )
    return sizes[:, [1, 0, 1, 0]].astype(np.float32)


def _packed(pixels: np.ndarray, data_format: str, return_tensors: str | None) -> Any:
    _refuse_format(data_format)
    if data_format == "channels_last":
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    if return_tensors == "pt":
        import torch

        return torch.from_numpy(pixels)
    if return_tensors not in (None, "np"):
        raise UnknownNameError("kind of tensors", return_tensors, ("pt", "np"))
    return pixels if return_tensors == "np" else list(pixels)
