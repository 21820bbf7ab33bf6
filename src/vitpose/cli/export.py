"""`vitpose export`: a model as a file that other runtimes run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import Dataset, read_dataset


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A short name (see 'vitpose models'), a folder, a hub repository, or an original .pth file.",
        ),
    ],
    to: Annotated[str, typer.Option(help="onnx, openvino, torch-export, tensorrt.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="the model's name in this folder",
            help="The file to write: .onnx, .xml (with a .bin beside it), .pt2 or .engine.",
        ),
    ] = None,
    dataset: Dataset = None,
    skeleton: Annotated[
        str | None,
        typer.Option(help="Name or .toml file of the keypoints, where the model's own are not wanted."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to int8 (onnx and openvino); needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="People to measure int8's ranges on: annotations (FILE, or FILE=FOLDER with the folder of the "
            "images), or images of one person each (a folder, a glob). 256 of them are taken.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write a model as a file that other runtimes run.

    'vitpose predict --model FILE' needs nothing beside the file, and for onnx
    and openvino no torch. It takes any number of people at a time. It is run,
    and compared with torch, before it is written.
    """
    if int8 and calibrate is None:
        raise InputError("--int8 measures the ranges of its numbers on people; name some with --calibrate")
    if calibrate is not None and not int8:
        raise InputError(f"--calibrate {calibrate} is only used by --int8; add it, or leave this out")
    from .job import say_while
    from .output import refuse_unwritable

    if out is not None:
        refuse_unwritable(out.expanduser().parent)
    from ..inference.loading import export as write

    with say_while(f"exporting {model}"):
        written = write(
            model,
            to,
            out,
            skeleton=skeleton,
            dataset=read_dataset(dataset),
            calibrate=calibrate,
            force=force,
        )
    facts = f"{written.size_bytes / 1e6:.1f} MB, maps {written.difference:.2g} from torch's (relative norm)"
    typer.echo(f"{facts}; written to {written.path}")
