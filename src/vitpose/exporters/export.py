"""A network written to a file, checked before anybody sees it.

Owns the kinds of files, what they are called, and the check against torch.
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
from ..files.writing import stage_files
from ..geometry.warp import normalise
from ..model.pose import VitPoseForPoseEstimation
from .conversion import write_onnx, write_openvino, write_program
from .int8 import quantise_onnx, quantise_openvino
from .tensorrt import write_tensorrt

FLOAT_LIMIT = 1e-3
"""Relative norm of the difference that rounding may make; measured: 1e-7 to 1e-6 on a CPU."""
INT8_LIMIT = 0.25
"""The same of int8; measured: 0.04 and 0.05 with settings that serve, 0.4 and more with those that do not; see int8."""
CHECKED = 16
"""Crops that a file is checked with, or fewer; int8 with those it was measured on."""

_Crops = UInt8[np.ndarray, "n hc wc 3"]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: What its names end with.
        needs: Packages that write and check it.
        write: Writes a network.
        quantise: Turns a written file into int8; None where that is not offered.
        beside: What the names of files beside it end with, in place of the suffix.
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
    """What was written.

    Attributes:
        path: The file.
        size_bytes: Its size, with that of the files beside it.
        difference: Norm of the difference to torch's maps over the norm of those.
    """

    path: Path
    size_bytes: int
    difference: float


@dataclass(frozen=True)
class Plan:
    """What shall be written where; everything that can be refused without a network is.

    Attributes:
        format: Of `FORMATS`.
        path: The file.
        int8: Whether it shall be quantised.
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
        """Makes a plan.

        Args:
            to: Name of the format.
            out: The file; None is the names of model and dataset in this folder.
            model: Name of the model.
            int8: Whether to quantise.
            force: Whether files may be replaced.
            dataset: The dataset that was asked for.

        Raises:
            UnknownNameError: No such format.
            InputError: The file's name does not end as it must, exists, or the format has no int8.
            MissingDependencyError: What writes the format is not installed.
        """
        if to not in FORMATS:
            raise UnknownNameError("format to export to", to, FORMATS)
        wanted = FORMATS[to]
        if int8 and wanted.quantise is None:
            able = " and ".join(name for name, own in FORMATS.items() if own.quantise)
            raise InputError(f"there is no int8 for {to}; export to {able}, or leave it out")
        for package in (*wanted.needs, *(("nncf",) if int8 and to == "openvino" else ())):
            extra = "tensorrt" if package == "tensorrt" else "export"
            require_unreported(package, extra, f"to export to {to}")
        words = [_name_of(model), *([] if dataset is None else [str(dataset)]), *["int8"] * int8]
        path = Path("-".join(words) + wanted.suffix) if out is None else Path(out).expanduser()
        if path.suffix != wanted.suffix:
            raise InputError(
                f"a file for {to} must end in {wanted.suffix}, by which it is known again, not {path}"
            )
        for file in (path, *map(path.with_suffix, wanted.beside)):
            if file.is_dir():
                raise OutputError(f"{file} is a folder; give the name of a file")
            if file.exists() and not force:
                raise InputError(f"{file} is there already; choose another name, or replace it with --force")
        return cls(wanted, path, int8)

    def write(
        self, network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops | None = None
    ) -> Exported:
        """Writes the file, unless it does not do what torch does.

        Args:
            network: A dense network of float32.
            metadata: What belongs to it.
            crops: What int8 measures its ranges on.

        Raises:
            CheckpointError: The file gives other maps than torch; nothing is written.
            OutputError: It cannot be written.
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
                    f"the exported file gives maps that differ from torch's by {difference:.2%}, more than "
                    f"{limit:.2%}; nothing was written. Export without int8, or report it with the model's name"
                )
            size = sum(file.stat().st_size for file in path.parent.iterdir())
        return Exported(self.path, size, difference)


def _name_of(model: str) -> str:
    """Returns the last part of a model's name or path, without what a file's name ends with."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else path.name


def compare(path: Path, network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops) -> float:
    """Returns the norm of the difference of a file's maps to torch's, over the norm of torch's.

    The file runs as it will for users, with one crop and with several.
    """
    device = "auto" if path.suffix == ".engine" else "cpu"
    # Trusted, as it was written a moment ago.
    engine = open_engine(path, device=device, dtype=_exact(path), trust=runs_code(path))
    found = np.concatenate([engine.heatmaps(crops[:1]), engine.heatmaps(crops[1:])])
    wanted = _maps_of(network, metadata, crops)
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)


def _exact(path: Path) -> str:
    # OpenVINO would take bfloat16 on some processors, which is its users' choice and no fault of the file.
    return "float32" if path.suffix == ".xml" else "auto"


@torch.inference_mode()
def _maps_of(
    network: VitPoseForPoseEstimation, metadata: Metadata, crops: _Crops
) -> Float[np.ndarray, "n k hm wm"]:
    pixels = torch.from_numpy(normalise(crops, *metadata.processor.scale_and_offset))
    output = network(pixels.to(network.device, network.dtype), return_dict=True)
    return output.heatmaps.float().cpu().numpy()


def _noise(metadata: Metadata) -> _Crops:
    size = metadata.processor.size
    return np.random.default_rng(0).integers(0, 256, (3, size.height, size.width, 3), np.uint8)
