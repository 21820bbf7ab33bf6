"""`vitpose convert`: any supported checkpoint to a directory that `transformers` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, OutputError, require
from ..files.paths import user_path
from .options import read_dataset


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            show_default=False,
            help="Checkpoint: an original .pth file, a directory, a hub repository, or a short name (see "
            "'vitpose models').",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", show_default=False, help="Output directory, created if it does not exist."
        ),
    ],
    dtype: Annotated[
        str,
        typer.Option(help="Data type: float32, float16, bfloat16, float64; auto: as in the checkpoint."),
    ] = "auto",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            help="Dataset, by name or number: coco, aic, mpii, ap10k, apt36k, coco-wholebody. Of a ViTPose++ model, "
            "the dense model for this dataset is written. Of an original file with one head, this is the dataset that "
            "it was trained on.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write to a directory that is not empty; existing files are replaced."),
    ] = False,
) -> None:
    """Convert a checkpoint to a directory that vitpose and transformers read.

    Writes config.json, model.safetensors and preprocessor_config.json. Further
    heads of a ViTPose++ model are written to heads.safetensors, which
    transformers ignores.

    Raises:
        InputError: The output directory is not empty, or the dataset or data type is invalid.
        OutputError: Files cannot be written.
        CheckpointError: The checkpoint is missing or damaged.
        MissingDependencyError: torch is not installed.
    """
    from .target import refuse_unwritable

    directory = user_path(out, OutputError)
    refuse_unwritable(directory)
    if directory.is_dir() and any(directory.iterdir()) and not force:
        raise InputError(
            f"the directory {directory} is not empty; choose another, or replace its files with --force"
        )

    require("torch", None, "to convert checkpoints")
    from ..files.hub import resolve
    from ..model.checkpoint import read_checkpoint, read_spec
    from ..model.pose import VitPoseForPoseEstimation

    files = resolve(source)
    checkpoint = read_checkpoint(files, dataset=read_dataset(dataset))
    network = VitPoseForPoseEstimation.from_checkpoint(checkpoint, dtype=dtype)
    network.config = network.config.with_spec(read_spec(files, network.config))
    network.save_pretrained(directory)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    dtype_name = str(network.dtype).removeprefix("torch.")
    keypoints = " + ".join(str(len(head.skeleton)) for head in network.config.heads)
    typer.echo(f"{millions:.1f} M parameters, {keypoints} keypoints, {dtype_name}; written to {directory}")
