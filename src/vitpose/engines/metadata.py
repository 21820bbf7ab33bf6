"""The metadata of an exported file: all that estimating poses with the file requires besides the network.

Defines its JSON format. Each engine reads it from its kind of file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from jaxtyping import Float
from pydantic import Field

from ..errors import CheckpointError, InputError, VitPoseError
from ..files.schemas import Schema, check, parse_json
from ..keypoints.model_spec import ModelSpec
from .protocol import Engine

KEY = "vitpose"
"""Name of the entry in a file that holds the metadata."""
INPUT, OUTPUT = "pixel_values", "heatmaps"
"""Names of the input (b 3 hc wc, normalised) and the output (b k hm wm) of every exported network."""
FORMAT = 2
_MAX_BYTES = 2**20
"""Limit on the size of the metadata; with 133 keypoints it has about 20 kB."""
_HINT = "export the model again with 'vitpose export'"


class _MetadataSchema(Schema):
    """The keys of the metadata; the spec is validated by `ModelSpec`."""

    format: int
    model: Annotated[str, Field(max_length=1000)]
    precision: Literal["float32", "float16", "bfloat16", "int8"]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Metadata:
    """What estimating poses requires besides the network.

    Attributes:
        model: Name of the exported model, for display.
        precision: The dtype in which the file computes: "float32", "int8".
        spec: How the network is used.
    """

    model: str
    precision: str
    spec: ModelSpec

    def to_json(self) -> str:
        """Return the metadata as JSON."""
        return json.dumps({"format": FORMAT, **vars(self), "spec": self.spec.to_dict()})

    @classmethod
    def from_json(cls, text: str | None, source: object) -> Metadata:
        """Create metadata from the JSON of a file.

        Args:
            text: The JSON; None if the file has no metadata.
            source: Name of the file, for messages.

        Raises:
            CheckpointError: There is no metadata, it is invalid or of a later format, or keys are missing.
        """
        if not text:
            raise CheckpointError(
                f"{source} has no metadata: its entry {KEY!r} with the skeleton, the crop size, mean and std, and the "
                f"decoding is missing; {_HINT}"
            )
        try:
            table = parse_json(text, "it", max_bytes=_MAX_BYTES)
            number = table.get("format") if isinstance(table, dict) else None
            if type(number) is int and number != FORMAT:
                raise InputError(
                    f"it has format {number}, this vitpose reads format {FORMAT}; update vitpose"
                )
            form = check(_MetadataSchema, table, "it")
            return cls(form.model, form.precision, ModelSpec.from_dict(form.spec, "its spec"))
        except VitPoseError as error:
            raise CheckpointError(f"the metadata {KEY!r} of {source} is invalid: {error}; {_HINT}") from error

    def check_shapes(
        self, inputs: Sequence[tuple[str, Any]], outputs: Sequence[tuple[str, Any]], source: object
    ) -> tuple[int, int, int]:
        """Check that the inputs and outputs of a network are those that the metadata describes.

        Args:
            inputs: Name and shape of each input; a dynamic dimension is not an int, or is negative.
            outputs: Name and shape of each output.
            source: Name of the file, for messages.

        Returns:
            Number of keypoints, height and width of the heatmaps.

        Raises:
            CheckpointError: They differ, the batch is not dynamic, or the size of the heatmaps is not fixed.
        """
        size, count = self.spec.input_size, len(self.spec.dataset.skeleton)
        found_inputs = [(name, list(shape)[1:]) for name, shape in inputs]
        found_outputs = [(name, list(shape)[1:-2]) for name, shape in outputs]
        if found_inputs != [(INPUT, [3, size.height, size.width])] or found_outputs != [(OUTPUT, [count])]:
            raise CheckpointError(
                f"{source} has the input {_described(inputs)} and the output {_described(outputs)}, but its metadata "
                f"describes {INPUT} b x 3 x {size.height} x {size.width} and {OUTPUT} b x {count} x height x width; "
                "export the model again"
            )
        batches = [next(iter(shape)) for _, shape in (*inputs, *outputs)]
        height, width = outputs[0][1][-2:]
        if any(type(batch) is int and batch >= 0 for batch in batches) or not (
            _is_side(height, size.height) and _is_side(width, size.width)
        ):
            raise CheckpointError(
                f"{source} has the input {_described(inputs)} and the output {_described(outputs)}, but its batch must "
                f"be dynamic and its heatmaps of a fixed size, {size} at most; export the model again"
            )
        return count, int(height), int(width)


def _is_side(side: Any, most: int) -> bool:
    return type(side) is int and 1 <= side <= most


def _described(arguments: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in arguments)


class ExportedEngine(Engine, Protocol):
    """An engine that runs an exported file.

    Attributes:
        metadata: The metadata of the file.
    """

    metadata: Metadata


def empty_heatmaps(shape: tuple[int, int, int]) -> Float[np.ndarray, "0 k hm wm"]:
    """Return the heatmaps of zero crops; not every runtime accepts an empty batch."""
    return np.zeros((0, *shape), np.float32)


def check_dtype(what: str | Path, dtype: str, precision: str, engine: str) -> None:
    """Check that a dtype is that of the file, for engines that compute in no other.

    Args:
        what: Name of the model, for the message.
        dtype: "auto" or the name of a dtype.
        precision: The dtype of the file.
        engine: Name of the engine, for the message.

    Raises:
        InputError: They differ.
    """
    if dtype not in ("auto", precision):
        raise InputError(
            f"with engine {engine!r} {what} runs in {precision}, not in {dtype}; leave dtype at 'auto', or use an "
            "engine with a choice of dtype: OpenVINO, or torch with a checkpoint"
        )
