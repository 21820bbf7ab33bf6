"""Writes a network to a file, which is compared with torch before it replaces anything.

Defines the export formats, the default file names, and the comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..engines import open_engine, runs_code
from ..engines.metadata import Metadata
from ..engines.openvino import require_unreported
from ..errors import CheckpointError, InputError, OutputError, UnknownNameError
from ..files.paths import existing_path, user_path
from ..files.writing import stage_files
from ..geometry.warp import normalise
from ..model.pose import VitPoseForPoseEstimation
from .conversion import write_onnx, write_openvino, write_program
from .int8 import quantise_onnx, quantise_openvino
from .tensorrt import write_tensorrt

FLOAT_LIMIT = 1e-3
"""Limit on the relative difference (norm) that rounding may cause; measured: 1e-7 to 1e-6 on a CPU."""
INT8_LIMIT = 0.25
"""The same for int8; measured: 0.04 and 0.05 with the settings used, 0.4 and more with unsuitable ones; see int8.py."""
CHECKED = 16
"""Largest number of crops in the comparison; for int8 they are taken from the calibration."""

_Crops = UInt8[np.ndarray, "n hc wc 3"]


@dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        suffix: Suffix of the file name.
        needs: Packages required for writing and checking a file.
        write: Writes a network to a file.
        quantise: Converts a written file to int8; None if the format does not support int8.
        beside: Suffixes of additional files beside it, in place of the suffix.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[[VitPoseForPoseEstimation, Metadata, Path], None]
    quantise: Callable[[Path, Metadata, _Crops], None] | None = None
    beside: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format(
        ".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, quantise_onnx, (".onnx.data",)
    ),
    "openvino": Format(
        ".xml", ("onnx", "onnxscript", "openvino"), write_openvino, quantise_openvino, (".bin",)
    ),
    "torch-export": Format(".pt2", (), write_program),
    "tensorrt": Format(".engine", ("onnx", "onnxscript", "tensorrt"), write_tensorrt),
}


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: The file.
        size_bytes: Its size, including the files beside it.
        difference: Norm of the difference from torch's heatmaps, divided by their norm.
    """

    path: Path
    size_bytes: int
    difference: float


@dataclass(frozen=True)
class Plan:
    """The format and path of an export, checked as far as possible without the network.

    Attributes:
        format: One of `FORMATS`.
        path: The file.
        int8: Whether to quantise to int8.
    """

    format: Format
    path: Path
    int8: bool

    @classmethod
    def make(
        cls,
        to: str,
        out: str | Path | None,
        model: str,
        int8: bool,
        force: bool,
        dataset: str | int | None = None,
    ) -> Plan:
        """Create a plan.

        Args:
            to: Name of the format.
            out: The file; None: a name made of model and dataset, in the working directory.
            model: Name of the model.
            int8: Whether to quantise to int8.
            force: Whether existing files may be replaced.
            dataset: The requested dataset, if any.

        Raises:
            UnknownNameError: There is no such format.
            InputError: The file's suffix is not that of the format, a file exists, or the format does not support int8.
            OutputError: The path is a directory.
            MissingDependencyError: A package that writes the format is not installed.
        """
        if to not in FORMATS:
            raise UnknownNameError("format to export to", to, FORMATS)
        chosen = FORMATS[to]
        if int8 and chosen.quantise is None:
            supported = " and ".join(name for name, other in FORMATS.items() if other.quantise)
            raise InputError(f"int8 is not supported for {to}; export to {supported}, or leave it out")
        for package in (*chosen.needs, *(("nncf",) if int8 and to == "openvino" else ())):
            extra = "tensorrt" if package == "tensorrt" else "export"
            require_unreported(package, extra, f"to export to {to}")
        words = [_name_of(model), *([] if dataset is None else [str(dataset)]), *["int8"] * int8]
        path = Path("-".join(words) + chosen.suffix) if out is None else user_path(out)
        if path.suffix != chosen.suffix:
            raise InputError(
                f"the name of a file for {to} must end in {chosen.suffix}, not {path}; rename it"
            )
        for file in (path, *map(path.with_suffix, chosen.beside)):
            if file.is_dir():
                raise OutputError(f"{file} is a directory; give the path of a file")
            if file.exists() and not force:
                raise InputError(f"{file} already exists; choose another name, or replace it with --force")
        return cls(chosen, path, int8)

    def write(
        self, network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops | None = None
    ) -> Exported:
        """Write the file if its heatmaps equal those of torch.

        Args:
            network: A dense network in float32.
            metadata: Its metadata.
            crops: The calibration data of int8; None: no int8.

        Raises:
            CheckpointError: The heatmaps differ from torch's, or TensorRT cannot build the network; nothing is written.
            OutputError: The file cannot be written.
        """
        with stage_files(self.path) as path:
            self.format.write(network, metadata, path)
            if crops is not None and self.format.quantise is not None:
                self.format.quantise(path, replace(metadata, precision="int8"), crops)
            difference = compare(
                path, network, metadata, _noise(metadata) if crops is None else crops[:CHECKED]
            )
            limit = FLOAT_LIMIT if crops is None else INT8_LIMIT
            if not difference <= limit:  # also where it is NaN
                raise CheckpointError(
                    f"the heatmaps of the exported file differ from torch's by {difference:.2%}, more than "
                    f"{limit:.2%}; nothing was written. Export without int8, or report this with the model's name"
                )
            size = sum(file.stat().st_size for file in path.parent.iterdir())
        return Exported(self.path, size, difference)


def _name_of(model: str) -> str:
    """Return the last part of a model's name or path, without the suffix of a file."""
    path = existing_path(model) or Path(model)
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else path.name


def compare(path: Path, network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops) -> float:
    """Return the norm of the difference between the heatmaps of a file and of torch, divided by the norm of torch's.

    The file is run by its default engine, with one crop and with several.

    Raises:
        CheckpointError: The file cannot be opened or run.
    """
    device = "auto" if path.suffix == ".engine" else "cpu"
    # Trusted because this process wrote it.
    engine = open_engine(path, device=device, dtype=_exact_dtype(path), trust=runs_code(path))
    found = np.concatenate([engine.heatmaps(crops[:1]), engine.heatmaps(crops[1:])])
    expected = _heatmaps_of(network, metadata, crops)
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)


def _exact_dtype(path: Path) -> str:
    # With "auto" OpenVINO uses bfloat16 on some CPUs, whose rounding exceeds the limit.
    return "float32" if path.suffix == ".xml" else "auto"


@torch.inference_mode()
def _heatmaps_of(
    network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops
) -> Float[np.ndarray, "n k hm wm"]:
    pixels = torch.from_numpy(normalise(crops, *metadata.spec.scale_and_offset))
    output = network(pixels.to(network.device, network.dtype), return_dict=True)
    return output.heatmaps.float().cpu().numpy()


def _noise(metadata: Metadata) -> _Crops:
    size = metadata.spec.input_size
    return np.random.default_rng(0).integers(0, 256, (3, size.height, size.width, 3), np.uint8)
