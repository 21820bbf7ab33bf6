"""`preprocessor_config.json`: the file in which `transformers` stores what a `ModelSpec` declares.

Owns its keys, defaults and checks. vitpose reads it only if `config.json` has no spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from ..errors import InputError, UnknownNameError
from ..files.limits import MAX_INPUT_SIDE_PX
from ..files.settings import Settings
from ..geometry.boxes import Size
from ..geometry.heatmaps import BORDERS, REFINEMENTS
from ..geometry.warp import ASPECTS, WARPS
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.model_spec import IMAGENET_MEAN, IMAGENET_STD, INPUT_SIZE, ModelSpec

if TYPE_CHECKING:
    from typing import Self

PROCESSOR_FILE = "preprocessor_config.json"
NORMALIZE_FACTOR = 200.0
"""Factor by which `transformers` divides and multiplies boxes; with any other value, crops and keypoints disagree."""

_KIND = "VitPoseImageProcessor"
_SHARED = ("do_affine_transform", "do_rescale", "rescale_factor", "do_normalize", "normalize_factor")
"""Attributes that are written to every file, besides size, mean and std."""
_CONVENTIONS = ("warp", "aspect", "decode", "shift_heatmap")
"""Attributes that a dataset declares too."""
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


_INPUT_SIZE = CropSize(width=INPUT_SIZE.width, height=INPUT_SIZE.height)


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
class PreprocessorConfig(Settings):
    """The content of a `preprocessor_config.json`.

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
    size: Annotated[Size, BeforeValidator(_crop_size)] = _INPUT_SIZE
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
        choices = {"warp": WARPS, "aspect": ASPECTS, "decode": REFINEMENTS, "border": BORDERS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                kind = "decoding" if name == "decode" else name
                raise UnknownNameError(kind, getattr(self, name), known)

    def to_spec(self, dataset: DatasetSpec) -> ModelSpec:
        """Returns the spec of a network, with warp, aspect, decoding and flip shift of this file.

        Args:
            dataset: The dataset of the network.
        """
        # The spec is of pixel values from 0 to 1.
        unit = 255 * (self.rescale_factor if self.do_rescale else 1.0)
        mean = self.image_mean if self.do_normalize else (0.0, 0.0, 0.0)
        std = self.image_std if self.do_normalize else (1.0, 1.0, 1.0)
        conventions = {name: getattr(self, name) for name in _CONVENTIONS}
        return ModelSpec(
            dataset=replace(dataset, **conventions),
            input_size=Size(width=self.size.width, height=self.size.height),
            mean=(mean[0] / unit, mean[1] / unit, mean[2] / unit),
            std=(std[0] / unit, std[1] / unit, std[2] / unit),
            blur_sigma=self.blur_sigma,
            border=self.border,
            max_step=self.max_step,
        )

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> Self:
        """Returns the content of the file for a spec."""
        return cls(
            size=spec.input_size,
            image_mean=spec.mean,
            image_std=spec.std,
            blur_sigma=spec.blur_sigma,
            border=spec.border,
            max_step=spec.max_step,
        ).with_dataset(spec.dataset)

    def with_dataset(self, dataset: DatasetSpec) -> Self:
        """Returns a copy with the warp, aspect, decoding and flip shift of a dataset."""
        return replace(self, **{name: getattr(dataset, name) for name in _CONVENTIONS})

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary of a `preprocessor_config.json` that `transformers` reads.

        Attributes that only vitpose has are written if they differ from the default.
        """
        table = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name in _SHARED or getattr(self, f.name) != f.default
        }
        table["size"] = {"height": self.size.height, "width": self.size.width}
        table |= {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}
        return {"image_processor_type": _KIND, **table}

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        kind = table.get("image_processor_type", table.get("feature_extractor_type", _KIND))
        if not str(kind).startswith(_KIND):  # suffixes: Fast, Pil
            raise InputError(f"it is for a {kind!r}, not a {_KIND}; give a ViTPose checkpoint")
        return super()._values_of(table)
