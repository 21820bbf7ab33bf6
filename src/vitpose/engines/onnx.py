"""The engine that runs exported ONNX files with ONNX Runtime. Does not require torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..geometry.warp import normalise
from ..hardware.onnx_session import open_session
from .metadata import INPUT, KEY, Metadata, check_dtype, empty_heatmaps


class OnnxEngine:
    """An engine that runs an exported `.onnx` file with ONNX Runtime.

    Args:
        path: The file.
        device: "cpu", "cuda", "cuda:1"; "auto": CUDA if ONNX Runtime supports it, else the CPU.
        dtype: "auto" or the dtype of the file, in which it runs.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: The device is unknown or unavailable, or the dtype is not that of the file.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        self._session = open_session(path, device)
        self.metadata = Metadata.from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)
        check_dtype(path, dtype, self.metadata.precision, "onnxruntime")
        self._shape = self.metadata.check_shapes(
            [(one.name, one.shape) for one in self._session.get_inputs()],
            [(one.name, one.shape) for one in self._session.get_outputs()],
            path,
        )
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        self.description = f"ONNX Runtime, {provider}, {self.metadata.precision}"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops."""
        if not len(crops):
            return empty_heatmaps(self._shape)
        pixels = normalise(crops, *self.metadata.spec.scale_and_offset)
        return self._session.run(None, {INPUT: pixels})[0]
