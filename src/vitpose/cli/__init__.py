"""The command line: `vitpose predict`, `evaluate`, `train`, `models`, `download`, `convert`, `export`,
`benchmark`, `data`.

There is one module for each command; none imports a network before it runs one, so that `vitpose --help` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import benchmark, convert, data, evaluate, export, models, predict, train
from .command import Command, CommandGroup
from .terminal import silence_libraries


def _print_version(requested: bool) -> bool:
    if requested:
        from .. import __version__

        typer.echo(f"vitpose {__version__}")
        raise typer.Exit
    return requested


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help="ViTPose and ViTPose++: keypoints of people and animals in images and videos.")
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Declare the options before a command."""


_INFERENCE, _MODELS, _TRAINING = "Inference", "Models", "Training and evaluation"
app.command(cls=Command, rich_help_panel=_INFERENCE)(predict.predict)
app.command(cls=Command, rich_help_panel=_INFERENCE)(benchmark.benchmark)
app.command(cls=Command, rich_help_panel=_MODELS)(models.models)
app.command(cls=Command, rich_help_panel=_MODELS, no_args_is_help=True)(models.download)
app.command(cls=Command, rich_help_panel=_MODELS)(convert.convert)
app.command(cls=Command, rich_help_panel=_MODELS)(export.export)
app.command(cls=Command, rich_help_panel=_TRAINING, context_settings=train.SETTINGS)(train.train)
app.command(cls=Command, rich_help_panel=_TRAINING)(evaluate.evaluate)
app.add_typer(data.data, name="data", rich_help_panel=_TRAINING)


def main() -> None:
    """Run the program `vitpose`, without messages of other libraries.

    Raises:
        SystemExit: Always, with the exit code.
    """
    silence_libraries()
    app(prog_name="vitpose")
