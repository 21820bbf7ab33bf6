"""ModelSpec: everything that turns a network into poses, declared once.

Engines, the estimator, exported files, training and evaluation use the same declaration. It is stored in the
`config.json` of a checkpoint and in the metadata of an exported file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field

from ..errors import CheckpointError, InputError
from ..files.limits import MAX_INPUT_SIDE_PX
from ..files.schemas import Schema, check
from ..geometry.boxes import Size
from ..geometry.heatmaps import Decoding
from ..geometry.warp import Warp
from .dataset_spec import DatasetSpec
from .skeleton import Skeleton

INPUT_SIZE = Size(width=192, height=256)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LARGEST = 1e12
Side = Annotated[int, Field(ge=2, le=MAX_INPUT_SIDE_PX)]
Mean = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Deviation = Annotated[float, Field(ge=1 / _LARGEST, le=_LARGEST)]
_Means = Annotated[tuple[Mean, Mean, Mean], Field(strict=False)]
_Deviations = Annotated[tuple[Deviation, Deviation, Deviation], Field(strict=False)]


class _Sides(Schema):
    width: Side
    height: Side


class _Dataset(BaseModel):
    """A dataset's declaration; its other keys are validated by `DatasetSpec`."""

    model_config = ConfigDict(extra="allow", strict=True)
    skeleton: dict[str, Any]  # a dictionary, so that it cannot be the path of a file on this machine


class _Form(Schema):
    """The schema of a spec's JSON form, except the dataset."""

    input_size: _Sides
    mean: _Means = IMAGENET_MEAN
    std: _Deviations = IMAGENET_STD
    blur_sigma: Annotated[float, Field(gt=0, le=_LARGEST)] | None = None
    border: Annotated[str, Field(max_length=64)] = "zero"
    max_step: Annotated[float, Field(ge=0, le=_LARGEST)] | None = 1.0


class _FormWithDataset(_Form):
    dataset: _Dataset


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The declaration of how a network is used.

    Attributes:
        dataset: The dataset of the network: skeleton, warp, decoding, classes, evaluation protocol.
        input_size: Size of the crops, px.
        mean: Mean of each colour channel, of pixel values from 0 to 1.
        std: Standard deviation of each colour channel, of pixel values from 0 to 1.
        blur_sigma: As in `vitpose.geometry.heatmaps.Decoding`.
        border: As in `Decoding`.
        max_step: As in `Decoding`.

    Raises:
        InputError: A value is invalid.
        UnknownNameError: The border is unknown.
    """

    dataset: DatasetSpec
    input_size: Size = INPUT_SIZE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    blur_sigma: float | None = None
    border: str = "zero"
    max_step: float | None = 1.0

    def __post_init__(self) -> None:
        check(_Form, self.to_dict(with_dataset=False), "the model's spec")
        _ = self.decoding  # so that an unknown border raises here and not at the first image

    @property
    def decoding(self) -> Decoding:
        """How the position of a keypoint is decoded from its heatmap."""
        return Decoding(
            self.dataset.decode, blur_sigma=self.blur_sigma, border=self.border, max_step=self.max_step
        )

    @property
    def scale_and_offset(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """Scale and offset of each channel: a network's input is crop (0 to 255) x scale + offset, float32."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / 255 / std).astype(np.float32), (-mean / std).astype(np.float32)

    @property
    def mirror(self) -> Int[np.ndarray, " k"]:
        """Index of each keypoint's counterpart on the other side, for the flip test.

        Raises:
            InputError: The skeleton has no flip pairs.
        """
        skeleton = self.dataset.skeleton
        if not skeleton.flip_pairs:
            raise InputError(
                f"the skeleton {skeleton.name!r} has no flip_pairs, so a flip test would average left with "
                "right keypoints; omit flip_test, or load the model with a skeleton that has flip_pairs"
            )
        return skeleton.mirror

    def warp_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Warp:
        """Returns the warp from xyxy boxes, px of the image, to crops."""
        return Warp.from_boxes(boxes, self.input_size, self.dataset.warp, aspect=self.dataset.aspect)

    def with_skeleton(self, skeleton: Skeleton) -> ModelSpec:
        """Returns a copy with another skeleton for the same keypoints.

        Raises:
            CheckpointError: It has another number of keypoints.
        """
        known = self.dataset.skeleton
        if len(skeleton) != len(known):
            raise CheckpointError(
                f"the skeleton {skeleton.name!r} has {len(skeleton)} keypoints, the model's, {known.name!r}, has "
                f"{len(known)}; pass the skeleton the model was trained on"
            )
        return replace(self, dataset=replace(self.dataset, skeleton=skeleton))

    @classmethod
    def from_dict(
        cls, table: Mapping[str, Any], source: str = "the model's spec", dataset: DatasetSpec | None = None
    ) -> ModelSpec:
        """Creates a spec from its JSON form.

        Args:
            table: The dictionary.
            source: Name of the dictionary in messages.
            dataset: The dataset, if the dictionary has none.

        Raises:
            InputError: A key is missing, unknown, or has an invalid value.
        """
        form = check(_FormWithDataset if dataset is None else _Form, table, source)
        values = {name: getattr(form, name) for name in _Form.model_fields}
        size = Size(width=form.input_size.width, height=form.input_size.height)
        if dataset is None:
            dataset = DatasetSpec.from_dict(form.dataset.model_dump(), f"{source}, dataset")
        return cls(**{**values, "input_size": size, "dataset": dataset})

    def to_dict(self, with_dataset: bool = True) -> dict[str, Any]:
        """Returns the JSON form.

        Args:
            with_dataset: Include the dataset.
        """
        table = {field.name: getattr(self, field.name) for field in fields(self)}
        table["input_size"] = {"width": self.input_size.width, "height": self.input_size.height}
        table |= {"mean": list(self.mean), "std": list(self.std)}
        dataset = table.pop("dataset")
        return {"dataset": dataset.to_dict(), **table} if with_dataset else table
