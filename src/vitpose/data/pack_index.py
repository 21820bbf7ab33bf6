"""The index of a pack (`pack.json`), and the margin of its crops."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from ..errors import InputError
from ..files.schemas import Row, Schema, check, parse_json
from ..geometry.boxes import Size
from ..keypoints.model_spec import INPUT_SIZE, ModelSpec
from .annotations import TrainingAnnotations
from .augment import Augmentation

INDEX_FILE = "pack.json"
VERSION = 3

STILL = Augmentation(
    flip=0.0, half_body=0.0, scale_sigma=0.0, rotation_probability=0.0, shift_probability=0.0
)
"""The augmentation without any change."""

_AFFECTING_REACH = (
    "half_body",
    "half_body_padding",
    "scale_sigma",
    "scale_limit",
    "shift_probability",
    "shift",
)


class _SourceSchema(Schema):
    file: str
    instances: Annotated[int, Field(ge=1)]
    problems: dict[str, Row[str]]


class _PartSchema(Schema):
    file: Annotated[str, Field(pattern=r"^part-\d{4,}\.safetensors$")]
    instances: Annotated[int, Field(ge=1)]


class PackIndex(Schema):
    """The contents of `pack.json`."""

    version: int
    skeleton: dict[str, Any]
    sources: Row[_SourceSchema]
    margin: dict[str, Any]
    side: int
    quality: int | None
    parts: Annotated[Row[_PartSchema], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Margin of the crops of a pack around their instances: they contain every view of an augmentation.

    Attributes:
        augmentation: The augmentation.
        size: Size of the views; only its aspect matters.
        aspect: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.

    Raises:
        InputError: The size is below 2 px.
    """

    __pydantic_config__ = Schema.model_config

    augmentation: Augmentation = field(default_factory=Augmentation)
    size: Size = INPUT_SIZE
    aspect: Annotated[str, Field(pattern="^(keep|stretch)$")] = "keep"

    def __post_init__(self) -> None:
        if min(self.size.width, self.size.height) < 2:
            raise InputError(f"the size of a margin is {self.size}; it must be 2x2 px or more")

    def reach(self, instances: TrainingAnnotations) -> Float[np.ndarray, "n 4"]:
        """Return boxes (xyxy, px of the image) that contain every view of each instance."""
        return self.augmentation.reach(instances, self.size, self.aspect)

    def count_short(
        self, instances: TrainingAnnotations, sizes: Int[np.ndarray, "n 2"], wanted: Margin
    ) -> int:
        """Return for how many instances crops with this margin lack pixels of the image that another margin requires.

        Args:
            instances: The instances, in px of their crops.
            sizes: Width and height of the crops, px.
            wanted: The required margin.
        """
        low, high = np.split(self.reach(instances), 2, axis=1)
        wanted_low, wanted_high = np.split(wanted.reach(instances), 2, axis=1)
        # A crop that ends before its reach was cut off at the border of its image, beyond which views are black.
        # Half a pixel of tolerance for rounding.
        short_low = (wanted_low < low - 0.5) & (low > -0.5)
        short_high = (wanted_high > high + 0.5) & (high < sizes - 0.5)
        return int((short_low | short_high).any(axis=1).sum())

    @classmethod
    def of(cls, augmentation: Augmentation | None, spec: ModelSpec) -> Margin:
        """Return the margin that a training run requires; None for no augmentation."""
        return cls(augmentation=augmentation or STILL, size=spec.input_size, aspect=spec.dataset.aspect)

    def differences(self, other: Margin) -> str:
        """Return the differences from the required margin that affect its reach, for messages."""
        packed, required = self._flat(), other._flat()
        return ", ".join(
            f"{key} {value} in the pack, {required[key]} here"
            for key, value in packed.items()
            if value != required[key]
        )

    def _flat(self) -> dict[str, Any]:
        values = {key: getattr(self.augmentation, key) for key in _AFFECTING_REACH}
        return {**values, "size": str(self.size), "aspect": self.aspect}


def read_index(directory: Path) -> PackIndex:
    """Read the index of a pack.

    Args:
        directory: Directory of the pack.

    Raises:
        InputError: The index is missing or damaged, or has another version.
    """
    path = directory / INDEX_FILE
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(
            f"{directory} does not contain a complete pack ({error}); create one with: vitpose data pack"
        ) from error
    table = parse_json(content, path)
    version = table.get("version") if isinstance(table, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise InputError(
            f"{directory} is a pack of version {version}; the supported version is {VERSION}; pack the dataset again"
        )
    return check(PackIndex, table, path)
