"""The index of a pack: what `pack.json` says, and how far the crops of the pack reach around their people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from ..errors import InputError
from ..files.schemas import Row, Schema, check, parse_json
from ..geometry.boxes import Size
from ..processing.image_processor import INPUT_SIZE, VitPoseImageProcessor
from .annotations import TrainingAnnotations
from .augment import Augmentation

INDEX_FILE = "pack.json"
VERSION = 2

STILL = Augmentation(
    flip=0.0, half_body=0.0, scale_sigma=0.0, rotation_probability=0.0, shift_probability=0.0
)
"""Varies nothing."""

_OF_THE_REACH = (
    "half_body",
    "half_body_padding",
    "scale_sigma",
    "scale_limit",
    "shift_probability",
    "shift",
)


class _SizeForm(Schema):
    height: Annotated[int, Field(ge=2, le=100_000)]
    width: Annotated[int, Field(ge=2, le=100_000)]


class MarginForm(Schema):
    """The table of a margin."""

    augmentation: dict[str, Any]
    size: _SizeForm
    aspect: Literal["keep", "stretch"]


class _SourceForm(Schema):
    file: str
    people: Annotated[int, Field(ge=1)]
    problems: dict[str, Row[str]]


class _PartForm(Schema):
    file: Annotated[str, Field(pattern=r"^part-\d{4,}\.safetensors$")]
    people: Annotated[int, Field(ge=1)]


class PackIndex(Schema):
    """What `pack.json` holds."""

    version: int
    skeleton: dict[str, Any]
    sources: Row[_SourceForm]
    margin: MarginForm
    side: int
    quality: int | None
    parts: Annotated[Row[_PartForm], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Margin:
    """How far the crops of a pack reach around their people.

    Attributes:
        augmentation: As far as this can look.
        size: In crops of this aspect.
        aspect: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    size: Size = INPUT_SIZE
    aspect: str = "keep"

    def reach(self, people: TrainingAnnotations) -> Float[np.ndarray, "n 4"]:
        """Returns boxes (xyxy, px) that no view of a person looks beyond."""
        return self.augmentation.reach(people, self.size, self.aspect)

    def count_short(self, people: TrainingAnnotations, sizes: Int[np.ndarray, "n 2"], wanted: Margin) -> int:
        """Returns for how many people a crop of this margin ends before another one, within the image.

        Args:
            people: The people, in px of their crops.
            sizes: Width and height of the crops, px.
            wanted: The other margin.
        """
        low, high = np.split(self.reach(people), 2, axis=1)
        wanted_low, wanted_high = np.split(wanted.reach(people), 2, axis=1)
        # A crop that does not begin at its reach was cut off at the border of its image, beyond which everything is
        # black. Half a pixel is rounding.
        before = (wanted_low < low - 0.5) & (low > -0.5)
        behind = (wanted_high > high + 0.5) & (high < sizes - 0.5)
        return int((before | behind).any(axis=1).sum())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, all of them."""
        size = {"height": self.size.height, "width": self.size.width}
        return {"augmentation": asdict(self.augmentation), "size": size, "aspect": self.aspect}

    @classmethod
    def of(cls, augmentation: Augmentation | None, processor: VitPoseImageProcessor) -> Margin:
        """Returns what a training run needs; without an augmentation nothing is varied."""
        return cls(augmentation=augmentation or STILL, size=processor.size, aspect=processor.aspect)

    @classmethod
    def from_form(cls, form: MarginForm, source: str) -> Margin:
        """Returns the margin that a pack's index tells."""
        augmentation = check(Augmentation, form.augmentation, f"{source}, margin.augmentation")
        return cls(
            augmentation=augmentation,
            size=Size(width=form.size.width, height=form.size.height),
            aspect=form.aspect,
        )

    def differences(self, other: Margin) -> str:
        """Returns what differs, as far as it changes the reach, for messages."""
        own, theirs = self._flat(), other._flat()
        return ", ".join(
            f"{key} {own[key]} in the pack, {theirs[key]} here" for key in own if own[key] != theirs[key]
        )

    def _flat(self) -> dict[str, Any]:
        varied = {key: getattr(self.augmentation, key) for key in _OF_THE_REACH}
        return {**varied, "size": str(self.size), "aspect": self.aspect}


def read_index(folder: Path) -> PackIndex:
    """Reads the index of a pack.

    Raises:
        InputError: There is none, it is damaged, or it is of another version.
    """
    path = folder / INDEX_FILE
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # the latter for names that no file can have
        raise InputError(
            f"{folder} holds no whole pack ({error}); make one with: vitpose data pack"
        ) from error
    table = parse_json(content, path)
    version = table.get("version") if isinstance(table, dict) else None
    if version in range(1, VERSION):
        raise InputError(
            f"{folder} is a pack of version {version}, which does not say how far its crops reach; pack it again"
        )
    if isinstance(version, int) and version != VERSION:
        raise InputError(
            f"{folder} is a pack of version {version}, and this is read: {VERSION}; pack it again"
        )
    return check(PackIndex, table, path)
