"""Options that several commands share, with the same wording."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL_PANEL = "Model"

Model = Annotated[
    str,
    typer.Option(
        help="Model: a short name (see 'vitpose models'), a directory, a hub repository, an original .pth file, or a "
        "file written by 'vitpose export'.",
        rich_help_panel=MODEL_PANEL,
    ),
]
FlipTest = Annotated[
    bool,
    typer.Option(
        "--flip-test",
        help="Average with the heatmaps of the mirrored crops: more accurate, half the speed.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="the model's first, COCO",
        help="Dataset of a ViTPose++ model (coco, aic, mpii, ap10k, apt36k, coco-wholebody), by name or number: "
        "selects expert, head, skeleton and crops.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="Engine that runs the network: torch, onnxruntime, openvino, tensorrt; auto: the engine of an exported "
        "file's format, torch for a checkpoint.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Device: cpu, cuda, cuda:1, mps; auto: a GPU if there is one.", rich_help_panel=MODEL_PANEL
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Data type of the network: float32, float16, bfloat16; auto: bfloat16 if the hardware supports it.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load a .pt2 file, which can execute arbitrary code. Other files cannot.",
        rich_help_panel=MODEL_PANEL,
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Maximum number of crops in a batch.", rich_help_panel=MODEL_PANEL)
]


def read_dataset(value: str | None) -> str | int | None:
    """Return the name or number of a dataset."""
    return int(value) if value is not None and value.isdigit() else value
