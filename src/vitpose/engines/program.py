"""The engine that runs programs of torch.export, `.pt2` files.

torch's loader can run arbitrary code from a file: it unpickles, imports by name and evaluates expressions. Nothing here
checks the content of a file, which would require a second parser that agrees with torch's in every case; instead,
`open_engine` opens none without the caller's trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.export.passes import move_to_device_pass

from ..errors import CheckpointError
from ..files.paths import user_path
from ..hardware.devices import choose_device
from .cpu_threads import one_thread_if_forked
from .metadata import KEY, OUTPUT, Metadata, check_dtype, empty_heatmaps

ENTRY = f"{KEY}.json"
"""Name of the extra file in the archive that holds the metadata."""


class ProgramEngine:
    """An engine that runs an exported `.pt2` file with PyTorch.

    Args:
        path: The file, from a trusted author: loading it can run arbitrary code contained in it.
        device: "cpu", "cuda", "cuda:1"; "auto": a GPU if there is one, else the CPU.
        dtype: "auto" or the dtype of the file, in which it runs.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        UnknownNameError: There is no such device.
        InputError: This machine does not have the device, or the dtype is not that of the file.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        file = user_path(path, CheckpointError)
        if not file.is_file():
            raise CheckpointError(f"there is no file {file}; give the path of an exported .pt2 file")
        torch_device, extra_files = choose_device(device), {ENTRY: ""}
        try:
            program = move_to_device_pass(torch.export.load(file, extra_files=extra_files), torch_device)
            self._network = program.module()
        except Exception as error:  # the errors of torch's loader share no base class
            raise CheckpointError(
                f"{path} is not a complete program of torch.export: {error}; export the model again"
            ) from error
        self.metadata = Metadata.from_json(extra_files[ENTRY], path)
        check_dtype(path, dtype, self.metadata.precision, "torch")
        parts = self.metadata.spec.scale_and_offset
        self._scale, self._offset = (torch.from_numpy(part).to(torch_device) for part in parts)
        self._shape = self.metadata.check_shapes(*_shapes(program), path)
        self.description = f"torch.export, {torch_device}, {self.metadata.precision}"

    @one_thread_if_forked()
    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops."""
        if not len(crops):
            return empty_heatmaps(self._shape)
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._scale.device)
        pixels = (pixels * self._scale + self._offset).permute(0, 3, 1, 2).contiguous()
        return self._network(pixels).float().cpu().numpy()


def _shapes(program: torch.export.ExportedProgram) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
    found = [[tuple(values[str(name)].shape) for name in names] for names in (inputs, outputs)]
    return [(str(name), shape) for name, shape in zip(inputs, found[0], strict=True)], [
        (OUTPUT, shape) for shape in found[1]
    ]
