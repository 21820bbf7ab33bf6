"""What an exported file says about itself, so that it alone is enough to find poses.

Owns the form of it. Where it lies in a file is the business of each kind of file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from ..errors import CheckpointError, InputError, VitPoseError
from ..files.schemas import Schema, check, parse_json
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.skeleton import Skeleton
from ..processing.image_processor import VitPoseImageProcessor
from .protocol import Engine

KEY = "vitpose"
"""Under which name a file keeps it."""
INPUT, OUTPUT = "pixel_values", "heatmaps"
"""What every exported network calls its input (b 3 hc wc, normalised) and its output (b k hm wm)."""
FORMAT = 1
_MOST_BYTES = 2**20
"""Size of the largest metadata; those of 133 keypoints have some 20 kB."""
_HINT = "'vitpose export' writes files that have them"


class _Declaration(BaseModel):
    """A dataset's declaration; `DatasetSpec` knows the rest of it."""

    model_config = ConfigDict(extra="allow", strict=True)
    skeleton: dict[str, Any]  # in the file itself: it may not name a file of this machine


class _Sheet(Schema):
    """The form of the metadata; processor, skeleton and dataset have schemas of their own."""

    format: int
    model: Annotated[str, Field(max_length=1000)]
    precision: Literal["float32", "float16", "bfloat16", "int8"]
    processor: dict[str, Any]
    skeleton: dict[str, Any]
    dataset: _Declaration | None = None


@dataclass(frozen=True)
class Metadata:
    """What is needed beside a network to find poses with it.

    Attributes:
        model: What was exported, for people.
        precision: What it computes in, for people: "float32", "int8".
        processor: How it wants its crops and its maps read.
        skeleton: What the maps stand for.
        dataset: What the network was trained on, where that is known.
    """

    model: str
    precision: str
    processor: VitPoseImageProcessor
    skeleton: Skeleton
    dataset: DatasetSpec | None = None

    @property
    def dataset_spec(self) -> DatasetSpec:
        """The dataset's conventions; those of nothing but the skeleton where it is not known."""
        return self.dataset or DatasetSpec(name=self.skeleton.name, skeleton=self.skeleton)

    def to_json(self) -> str:
        """Returns it as text."""
        table = {
            "format": FORMAT,
            "model": self.model,
            "precision": self.precision,
            "processor": self.processor.to_dict(),
            "skeleton": self.skeleton.to_dict(),
        }
        if self.dataset is not None:
            table["dataset"] = self.dataset.to_dict()
        return json.dumps(table)

    @classmethod
    def from_json(cls, text: str | None, source: object) -> Metadata:
        """Reads what `to_json` returned.

        Args:
            text: The text; None where the file has none.
            source: How messages call the file.

        Raises:
            CheckpointError: There is none, it is damaged or of a later format, or parts are missing.
        """
        if not text:
            raise CheckpointError(
                f"{source} does not say how it is to be used: it has no entry {KEY!r} with the skeleton, the size of "
                f"the crops, mean and std, and the way the maps are read; {_HINT}"
            )
        try:
            table = parse_json(text, "it", max_bytes=_MOST_BYTES)
            number = table.get("format") if isinstance(table, dict) else None
            if type(number) is int and number != FORMAT:
                raise InputError(f"it is of format {number}, this vitpose reads {FORMAT}; update vitpose")
            return cls._from_sheet(check(_Sheet, table, "it"))
        except VitPoseError as error:
            raise CheckpointError(
                f"the entry {KEY!r} of {source} cannot be used: {error}; {_HINT}"
            ) from error

    @classmethod
    def _from_sheet(cls, sheet: _Sheet) -> Metadata:
        declared = sheet.dataset
        return cls(
            sheet.model,
            sheet.precision,
            VitPoseImageProcessor.from_dict(sheet.processor),
            Skeleton.from_dict(sheet.skeleton),
            None if declared is None else DatasetSpec.from_dict(declared.model_dump(), "its dataset"),
        )

    def check_shapes(
        self, inputs: Sequence[tuple[str, Any]], outputs: Sequence[tuple[str, Any]], source: object
    ) -> tuple[int, int, int]:
        """Makes sure that a network takes and gives what this describes.

        Args:
            inputs: Name and shape of each input; a side that may be anything is no number.
            outputs: The same of each output.
            source: How messages call the file.

        Returns:
            Keypoints, height and width of the maps.

        Raises:
            CheckpointError: It does not.
        """
        size, count = self.processor.size, len(self.skeleton)
        taken = [(name, list(shape)[1:]) for name, shape in inputs]
        given = [(name, list(shape)[1:-2]) for name, shape in outputs]
        if taken != [(INPUT, [3, size.height, size.width])] or given != [(OUTPUT, [count])]:
            raise CheckpointError(
                f"{source} takes {_described(inputs)} and gives {_described(outputs)}, but its metadata promises "
                f"{INPUT} b x 3 x {size.height} x {size.width} and {OUTPUT} b x {count} x height x width; "
                "export the model again"
            )
        batches = [next(iter(shape)) for _, shape in (*inputs, *outputs)]
        height, width = outputs[0][1][-2:]
        if any(type(batch) is int and batch >= 0 for batch in batches) or not (
            _is_side(height, size.height) and _is_side(width, size.width)
        ):
            raise CheckpointError(
                f"{source} takes {_described(inputs)} and gives {_described(outputs)}; a network here takes any "
                f"number of crops and gives heatmaps of a fixed size, {size} at most; export the model again"
            )
        return count, int(height), int(width)


def _is_side(side: Any, most: int) -> bool:
    return type(side) is int and 1 <= side <= most


def _described(arguments: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in arguments)


class ExportedEngine(Engine, Protocol):
    """An engine that runs a file, and knows what the file says of itself."""

    metadata: Metadata


def no_maps(shape: tuple[int, int, int]) -> Float[np.ndarray, "0 k hm wm"]:
    """Returns the maps of no crops, which not every runtime can be asked for."""
    return np.zeros((0, *shape), np.float32)
