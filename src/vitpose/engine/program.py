"""The engine that runs the programs of torch.export, `.pt2` files.

torch's own loader would run code that a made-up file asks for, so a file is looked through first: only what
`vitpose export` writes passes.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.export.passes import move_to_device_pass

from ..device import choose_device
from ..errors import CheckpointError, InputError
from .metadata import KEY, OUTPUT, Metadata, no_maps

ENTRY = f"{KEY}.json"
"""The extra file inside that holds the metadata."""

_FILES = re.compile(
    r"[^/]+/(?:\.data/\w+|\.format_version|archive_format|archive_version|version|byteorder|extra/vitpose\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt|data/(?:weights|constants)/(?:weight_\d+|tensor_\d+"
    r"|model_(?:weights|constants)_config\.json))"
)
# torch looks up or evaluates what stands under these keys of the program, and under every name of a range.
_OPERATION = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.getitem")
_HARMLESS = {
    "target": _OPERATION,
    "as_operator": _OPERATION,
    "expr_str": re.compile(r"[A-Za-z]\w*|-?\d+|Symbol\('\w+'(?:, \w+=\w+)*\)"),
    "guards_code": re.compile(r"(?!)"),
    "use_pickle": re.compile("False"),
    "a name": re.compile(r"[\w.]*"),
}
_ANYTHING = re.compile(r"(?s:.*)")


class ProgramEngine:
    """Runs an exported `.pt2` file with PyTorch.

    Args:
        path: The file.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
        dtype: "auto"; the types in the file are what it runs in.

    Raises:
        CheckpointError: The file is missing, damaged, not exported by vitpose, or could run foreign code.
        InputError: There is no such device, or another type is asked for than the file's.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        file = Path(path).expanduser()
        self.metadata = Metadata.from_json(_look_through(file), path)
        if dtype not in ("auto", self.metadata.precision):
            raise InputError(
                f"{path} runs in {self.metadata.precision}, not in {dtype}; leave dtype at 'auto', or load the "
                "checkpoint that it was exported from"
            )
        place = choose_device(device)
        try:
            program = move_to_device_pass(torch.export.load(file), place)
            self._network = program.module()
        except Exception as error:  # whatever is wrong with it, torch says so in its own ways
            raise CheckpointError(
                f"{path} is not a whole program of torch.export: {error}; export it again"
            ) from error
        scale, offset = self.metadata.processor.scale_and_offset
        self._scale, self._offset = torch.from_numpy(scale).to(place), torch.from_numpy(offset).to(place)
        self._shape = self.metadata.check_shapes(*_shapes(program), path)
        self.description = f"torch.export, {place}, {self.metadata.precision}"

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


def _look_through(path: Path) -> str | None:
    """Returns the metadata of a file in which nothing would run but tensor operations.

    Raises:
        CheckpointError: The file is missing or damaged, or something else would.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of an exported .pt2 file")
    try:
        with zipfile.ZipFile(path) as archive:
            foreign = _foreign(archive)
            if foreign:
                raise CheckpointError(
                    f"{path} holds more than tensors and operations on them ({foreign}) and is refused, because "
                    "loading it could run foreign code; export the model with 'vitpose export'"
                )
            entries = [name for name in archive.namelist() if name.endswith(f"/extra/{ENTRY}")]
            return archive.read(entries[0]).decode() if entries else None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is not a whole program of torch.export: {error}; export it again"
        ) from error


def _foreign(archive: zipfile.ZipFile) -> str | None:
    """Returns what in an archive is not written by `vitpose export`, or None."""
    for name in archive.namelist():
        if not _FILES.fullmatch(name):
            return f"the file {name}"
        if name.endswith("/model.pt"):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception:
                return f"a pickle in {name}"
        if name.endswith(".json") and not name.endswith(ENTRY):
            for key, value in _entries(json.loads(archive.read(name))):
                if not _HARMLESS.get(key, _ANYTHING).fullmatch(str(value)):
                    return f"{key} {value!r} in {name}"
    return None


def _entries(tree: Any, key: str = "top") -> Iterator[tuple[str, Any]]:
    """Yields every plain value of a JSON file with the key that it, or the list that it is in, stands under."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield "a name", name
            yield from _entries(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _entries(value, key)
    else:
        yield key, tree
