"""Options that several commands share, with the same wording."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from ..errors import InputError

MODEL_PANEL = "Model"

Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
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
Skeleton = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="the model's",
        help="Skeleton of the keypoints: a shipped name or a .toml file.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Engine that runs the network: torch, onnxruntime, openvino, tensorrt; auto: the engine of an exported "
        "file's format, torch for a checkpoint.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Device: cpu, cuda, cuda:1, mps; auto: a GPU if there is one.",
        rich_help_panel=MODEL_PANEL,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
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
    int,
    typer.Option(metavar="N", min=1, help="Maximum number of crops in a batch.", rich_help_panel=MODEL_PANEL),
]


@dataclass(frozen=True)
class RuntimeOptions:
    """How the network runs: arguments of `vitpose.load`."""

    engine: Engine = "auto"
    device: Device = "auto"
    dtype: Dtype = "auto"
    batch_size: BatchSize = 32
    trust: Trust = False


def read_dataset(value: str | None) -> str | int | None:
    """Return the name or number of a dataset."""
    return int(value) if value is not None and value.isdigit() else value


def refuse_given(context: Any, options: type | str, reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        context: The command's context of typer.
        options: A dataclass of options, or the name of one option as a parameter ("max_pixels").
        reason: When they have no effect, and what to do.

    Raises:
        InputError: Such an option is given.
    """
    names = {options} if isinstance(options, str) else {field.name for field in fields(options)}
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names and source is not None and source.name == "COMMANDLINE":
            chosen = param.secondary_opts if context.params[param.name] is False else param.opts
            raise InputError(f"{(chosen or param.opts)[0]} has no effect {reason}")


def given_settings(options: Any) -> dict[str, Any]:
    """Return the fields of a dataclass of options as keyword arguments."""
    return {field.name: getattr(options, field.name) for field in fields(options)}
