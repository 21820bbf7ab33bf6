"""The engine that runs the programs of torch.export, `.pt2` files.

torch's loader runs whatever code a file asks for: it unpickles, imports by name and evaluates what stands in it.
Nothing here tries to tell good files from bad ones, which would need a second reader that agrees with torch's in
every case; `open_engine` opens none without the caller's trust.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.export.passes import move_to_device_pass

from ..errors import CheckpointError, InputError
from ..hardware.devices import choose_device
from .metadata import KEY, OUTPUT, Metadata, no_maps
from .side_by_side import one_thread_if_forked

ENTRY = f"{KEY}.json"
"""The extra file inside that holds the metadata."""


class ProgramEngine:
    """Runs an exported `.pt2` file with PyTorch.

    Args:
        path: The file, of a maker who is trusted: loading it runs the code in it.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto"; the types in the file are what it runs in.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: There is no such device, or another type is asked for than the file's.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise CheckpointError(f"there is no file {file}; give the path of an exported .pt2 file")
        place, texts = choose_device(device), {ENTRY: ""}
        try:
            program = move_to_device_pass(torch.export.load(file, extra_files=texts), place)
            self._network = program.module()
        except Exception as error:  # whatever is wrong with it, torch says so in its own ways
            raise CheckpointError(
                f"{path} is not a whole program of torch.export: {error}; export it again"
            ) from error
        self.metadata = Metadata.from_json(texts[ENTRY], path)
        if dtype not in ("auto", self.metadata.precision):
            raise InputError(
                f"{path} runs in {self.metadata.precision}, not in {dtype}; leave dtype at 'auto', or load the "
                "checkpoint that it was exported from"
            )
        scale, offset = self.metadata.processor.scale_and_offset
        self._scale, self._offset = torch.from_numpy(scale).to(place), torch.from_numpy(offset).to(place)
        self._shape = self.metadata.check_shapes(*_shapes(program), path)
        self.description = f"torch.export, {place}, {self.metadata.precision}"

    @one_thread_if_forked()
    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of RGB crops."""
        if not len(crops):
            return no_maps(self._shape)
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
