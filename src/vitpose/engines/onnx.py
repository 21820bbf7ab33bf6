"""The engine that runs exported ONNX files with ONNX Runtime. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import InputError
from ..geometry.warp import normalise
from ..hardware.onnx_session import open_session
from .metadata import INPUT, KEY, Metadata, no_maps


class OnnxEngine:
    """Runs an exported `.onnx` file with ONNX Runtime.

    Args:
        path: The file.
        device: "cpu", "cuda", "cuda:1"; "auto" is cuda where ONNX Runtime has it.
        dtype: "auto"; the types in the file are what it runs in.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: There is no such device, or another type is asked for than the file's.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        self._session = open_session(path, device)
        self.metadata = Metadata.from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)
        check_dtype(path, dtype, self.metadata.precision)
        self._shape = self.metadata.check_shapes(
            [(one.name, one.shape) for one in self._session.get_inputs()],
            [(one.name, one.shape) for one in self._session.get_outputs()],
            path,
        )
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        self.description = f"ONNX Runtime, {provider}, {self.metadata.precision}"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of RGB crops."""
        if not len(crops):
            return no_maps(self._shape)
        pixels = normalise(crops, *self.metadata.processor.scale_and_offset)
        return self._session.run(None, {INPUT: pixels})[0]


def check_dtype(what: str | Path, dtype: str, precision: str) -> None:
    """Refuses another type than that of the file, which is what ONNX Runtime computes in.

    Args:
        what: What shall be run, for the message.
        dtype: "auto" or the name of a type.
        precision: The file's.

    Raises:
        InputError: They differ.
    """
    if dtype not in ("auto", precision):
        raise InputError(
            f"with engine 'onnxruntime' {what} runs in {precision}, not in {dtype}; leave dtype at 'auto', or take a "
            "device and engine that choose the type (OpenVINO, torch)"
        )
