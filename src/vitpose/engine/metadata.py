"""What an exported file says about itself, so that it alone is enough to find poses.

Owns the form of it. Where it lies in a file is the business of each kind of file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from ..conventions import Conventions
from ..errors import CheckpointError, UnknownNameError, VitPoseError
from ..processing import VitPoseImageProcessor
from ..skeleton import Skeleton
from .protocol import Engine

KEY = "vitpose"
"""Under which name a file keeps it."""
INPUT, OUTPUT = "pixel_values", "heatmaps"
"""What every exported network calls its input (b 3 hc wc, normalised) and its output (b k hm wm)."""
FORMAT = 1
_HINT = "'vitpose export' writes files that have them"


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
    dataset: Conventions | None = None

    @property
    def conventions(self) -> Conventions:
        """The data set's conventions; those of nothing but the skeleton where it is not known."""
        return self.dataset or Conventions(name=self.skeleton.name, skeleton=self.skeleton)

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
            return cls._from_table(json.loads(text), source)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise CheckpointError(f"the entry {KEY!r} of {source} is damaged ({error!r}); {_HINT}") from error

    @classmethod
    def _from_table(cls, table: dict[str, Any], source: object) -> Metadata:
        if table["format"] != FORMAT:
            raise CheckpointError(
                f"{source} has metadata of format {table['format']!r}, this vitpose reads {FORMAT}; "
                "update vitpose, or export the model again"
            )
        parts = ("format", "model", "precision", "processor", "skeleton")
        missing = [part for part in parts if part not in table]
        if missing:
            raise CheckpointError(f"the entry {KEY!r} of {source} lacks {', '.join(missing)}; {_HINT}")
        try:
            for part in table:
                if part not in (*parts, "dataset"):
                    raise UnknownNameError("part", part, (*parts, "dataset"))
            processor = VitPoseImageProcessor.from_dict(table["processor"])
            skeleton = Skeleton.from_dict(table["skeleton"])
            own = Conventions.from_dict(table["dataset"], "its data set") if "dataset" in table else None
        except VitPoseError as error:
            raise CheckpointError(f"the entry {KEY!r} of {source} cannot be used: {error}") from error
        return cls(table["model"], table["precision"], processor, skeleton, own)

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
        wanted_in, wanted_out = [3, size.height, size.width], [count]
        if [(name, list(shape)[1:]) for name, shape in inputs] != [(INPUT, wanted_in)] or [
            (name, list(shape)[1:-2]) for name, shape in outputs
        ] != [(OUTPUT, wanted_out)]:
            raise CheckpointError(
                f"{source} takes {_described(inputs)} and gives {_described(outputs)}, but its metadata promises "
                f"{INPUT} b x 3 x {size.height} x {size.width} and {OUTPUT} b x {count} x height x width; "
                "export the model again"
            )
        height, width = outputs[0][1][-2:]
        return count, int(height), int(width)


def _described(arguments: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in arguments)


class ExportedEngine(Engine, Protocol):
    """An engine that runs a file, and knows what the file says of itself."""

    metadata: Metadata


def no_maps(shape: tuple[int, int, int]) -> Float[np.ndarray, "0 k hm wm"]:
    """Returns the maps of no crops, which not every runtime can be asked for."""
    return np.zeros((0, *shape), np.float32)
