"""`vitpose convert`: any checkpoint that can be loaded, as a folder that `transformers` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, require
from .options import read_dataset


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            show_default=False,
            help="An original .pth file, a folder, a hub repository, or a short name (see 'vitpose models').",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", show_default=False, help="The folder to write; made if need be.")
    ],
    dtype: Annotated[
        str, typer.Option(help="auto (as in the file), float32, float16, bfloat16, float64.")
    ] = "auto",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="all",
            help="Write the dense model that a ViTPose++ model is for one dataset, by name or number: coco, aic, "
            "mpii, ap10k, apt36k, coco-wholebody. Of an original file with one head it says what that was trained on.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
) -> None:
    """Write a checkpoint as a folder that vitpose and transformers read.

    The folder gets config.json, model.safetensors and preprocessor_config.json; if
    there are several heads, all but the first go to heads.safetensors, which
    transformers leaves aside.
    """
    from .output import refuse_unwritable

    folder = folder.expanduser()
    refuse_unwritable(folder)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise InputError(
            f"the folder {folder} is not empty; choose another, or replace its files with --force"
        )

    require("torch", None, "to convert checkpoints")
    from ..inference.loading import load_processor
    from ..model.pose import VitPoseForPoseEstimation

    network = VitPoseForPoseEstimation.from_pretrained(source, dataset=read_dataset(dataset), dtype=dtype)
    processor = load_processor(source, network)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    kind = str(network.dtype).removeprefix("torch.")
    keypoints = " + ".join(str(len(own.skeleton)) for own in network.config.heads)
    facts = f"{millions:.1f} M parameters, {keypoints} keypoints, {kind}"
    typer.echo(f"{facts}; written to {folder}")
