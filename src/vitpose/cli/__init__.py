"""The command line: `vitpose predict`, `evaluate`, `train`, `models`, `convert`, `export`, `benchmark`, `data`.

Owns the exit codes and messages of errors and interruptions. There is one module for each command; none imports a
network before it runs one, so that `vitpose --help` is quick.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import VitPoseError
from ..hardware.threads import wait_passively
from . import benchmark, convert, data, evaluate, export, models, predict, train
from .interruption import INTERRUPTED


class _Commands(TyperGroup):
    """Prints a `VitPoseError` as one line; other exceptions keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        wait_passively()  # before a command loads torch
        try:
            return super().invoke(ctx)
        except VitPoseError as error:
            _print_error(str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            _print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from error


def _print_error(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    line = Text.assemble(("error: ", "bold red"), (" ".join(message.split()), "red"))
    # Wrapped at words on a terminal, one line in a file.
    console.print(line, soft_wrap=not console.is_terminal)


def _print_version(requested: bool) -> bool:
    if requested:
        from .. import __version__

        typer.echo(f"vitpose {__version__}")
        raise typer.Exit
    return requested


app = typer.Typer(
    cls=_Commands,
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


app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command(context_settings=train.SETTINGS)(train.train)
app.command()(models.models)
app.command()(convert.convert)
app.command()(export.export)
app.command()(benchmark.benchmark)
app.add_typer(data.data, name="data")
