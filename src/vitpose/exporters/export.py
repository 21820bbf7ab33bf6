"""Exports models by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..engines import is_exported
from ..engines.metadata import Metadata
from ..errors import InputError, require
from ..files.hub import resolve
from ..files.registry import DEFAULT_MODEL
from ..keypoints.skeleton import Skeleton

if TYPE_CHECKING:
    from .formats import Exported


def export(
    model: str | Path = DEFAULT_MODEL,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    dataset: str | int | None = None,
    skeleton: str | Path | Skeleton | None = None,
    calibrate: str | Path | None = None,
    force: bool = False,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Exported:
    """Writes a model as a self-contained file for another runtime, which `vitpose.load` opens.

    The file takes batches of any size. Before it is written, it is run and its heatmaps are compared with torch's.

    Args:
        model: As in `vitpose.load`, but not an exported file.
        to: "onnx", "openvino", "torch-export" or "tensorrt".
        out: Path of the file; default: the name of the model, with the dataset if one is given, in the working
            directory.
        dataset: Dataset of a ViTPose++ model, by name or index; the file holds its dense network. Default: the first.
        skeleton: As in `vitpose.load`.
        calibrate: Quantise to int8, with ranges measured on these people: annotations (FILE, or FILE=DIRECTORY with
            the directory of the images), or images of one person each (a directory, a glob). Default: no
            quantisation.
        force: Replace an existing file.
        subfolder: As in `vitpose.load`.
        revision: As in `vitpose.load`.
        token: As in `vitpose.load`.
        cache_dir: As in `vitpose.load`.
        local_files_only: As in `vitpose.load`.

    Returns:
        The file that was written, with its deviation from torch.

    Raises:
        UnknownNameError: The model, dataset, skeleton or format is unknown.
        InputError: The file exists or has the wrong suffix, the format has no int8, or `model` is an exported file.
        CheckpointError: The model's files are inconsistent, or the heatmaps of the exported file differ from torch's.
        MissingDependencyError: The package that writes the format is not installed.
        OutputError: The file cannot be written.
    """
    if is_exported(model):
        raise InputError(f"{model} is already exported; pass the checkpoint it was exported from")
    require("torch", None, f"to load the checkpoint {model}; .onnx and .xml files run without it")
    from ..model.checkpoint import read_parts, read_spec
    from ..model.pose import VitPoseForPoseEstimation
    from .calibration import read_crops
    from .formats import Plan

    plan = Plan.make(to, out, str(model), calibrate is not None, force, dataset)
    files = resolve(
        model,
        subfolder=subfolder,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    (part,) = read_parts(files, dataset)
    device = "cuda" if to == "tensorrt" else "cpu"
    network = VitPoseForPoseEstimation.from_checkpoint(part, device=device)
    spec = read_spec(files, network.config)
    if skeleton is not None:
        spec = spec.with_skeleton(Skeleton.load(skeleton))
    crops = None if calibrate is None else read_crops(calibrate, spec)
    # The file records the name of a local model, but no path of this machine.
    name = Path(model).resolve().name if Path(model).exists() else str(model)
    return plan.write(network, Metadata(name, "float32", spec), crops)
