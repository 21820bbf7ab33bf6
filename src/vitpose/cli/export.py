"""`vitpose export`: a model as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, OutputError
from ..files.paths import user_path
from .options import Dataset, read_dataset


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Model: a short name (see 'vitpose models'), a directory, a hub repository, or an original .pth file.",
        ),
    ],
    to: Annotated[str, typer.Option(help="Format: onnx, openvino, torch-export, tensorrt.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="the model's name, in the current directory",
            help="Output file: .onnx, .xml (a .bin is written beside it), .pt2 or .engine.",
        ),
    ] = None,
    dataset: Dataset = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            show_default="the model's", help="Skeleton of the keypoints: a shipped name or a .toml file."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to int8 (onnx and openvino); requires --calibrate.")
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Data that the int8 ranges are calibrated on: annotations (FILE, or FILE=DIR with the directory of "
            "the images), or images of one person each (a directory or a glob). Up to 256 people are used.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Export a model to a file for another runtime.

    The file contains all that 'vitpose predict --model FILE' requires, and accepts
    batches of any size; onnx and openvino run without torch. The exported model
    is run and compared with torch before the file is written.

    Raises:
        InputError: --int8 and --calibrate are not given together, or an option is invalid.
        OutputError: The file exists or cannot be written.
        VitPoseError: The model cannot be loaded or converted.
    """
    if int8 and calibrate is None:
        raise InputError("--int8 requires calibration data; give annotations or images with --calibrate")
    if calibrate is not None and not int8:
        raise InputError(f"--calibrate {calibrate} is only used with --int8; add --int8, or omit --calibrate")
    from .target import refuse_unwritable
    from .terminal import show_status

    if out is not None:
        refuse_unwritable(user_path(out, OutputError).parent)
    from ..exporters.export import export as write

    with show_status(f"exporting {model}"):
        written = write(
            model,
            to,
            out,
            skeleton=skeleton,
            dataset=read_dataset(dataset),
            calibrate=calibrate,
            force=force,
        )
    megabytes = f"{written.size_bytes / 1e6:.1f} MB"
    difference = f"heatmaps differ from torch's by {written.difference:.2g} (relative norm)"
    typer.echo(f"{megabytes}, {difference}; written to {written.path}")
