"""Options that several commands share, each with one wording."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL_PANEL = "The model"

Model = Annotated[
    str,
    typer.Option(
        help="A short name (see 'vitpose models'), a folder, a hub repository, an original .pth file, or what "
        "'vitpose export' wrote.",
        rich_help_panel=MODEL_PANEL,
    ),
]
FlipTest = Annotated[
    bool,
    typer.Option(
        "--flip-test",
        help="Average with the mirrored image: more accurate, twice the work.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="the model's first, COCO",
        help="Which dataset of a ViTPose++ model: its expert, head, skeleton and conventions (coco, aic, mpii, ap10k, "
        "apt36k, coco-wholebody), by name or number.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="What runs the network: torch, onnxruntime, openvino, tensorrt; auto is what an exported file is made "
        "for, and torch for a checkpoint.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps.", rich_help_panel=MODEL_PANEL),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto (bfloat16 where the device has units for it), float32, float16, bfloat16.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load a .pt2 file, which runs any code that its maker put into it; other files run none.",
        rich_help_panel=MODEL_PANEL,
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="At most this many people at a time.", rich_help_panel=MODEL_PANEL)
]


def read_dataset(text: str | None) -> str | int | None:
    """Returns the name or number of a dataset."""
    return int(text) if text is not None and text.isdigit() else text
