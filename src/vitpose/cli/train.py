"""`vitpose train`: a recipe, with keys overridden on the command line."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, require
from .interruption import INTERRUPTED, stop_on_signal
from .terminal import StderrHandler

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The recipe's keys are accepted as options but not declared: there are too many to list in the help."""


def _list_keys(requested: bool) -> None:
    if requested:
        from ..training.recipe_keys import list_keys

        typer.echo(list_keys())
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", show_default=False, help="Recipe, a TOML file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="runs/ and the recipe's name",
            help="Directory of the training run. If it contains an unfinished run, that run resumes.",
        ),
    ] = None,
    keys: Annotated[
        bool,
        typer.Option(
            "--keys", callback=_list_keys, is_eager=True, help="List the keys of a recipe and exit."
        ),
    ] = False,
) -> None:
    """Train a network, or resume a training run.

    Keys of the recipe can be overridden by options with their dotted names, after
    the recipe: --loop.epochs 10 --optimizer.lr 1e-4.

    Checkpoints are written to the directory of the run, named by their step;
    vitpose and transformers read them.

    Raises:
        MissingDependencyError: torch or Lightning is not installed.
        InputError: The recipe, an option or the data is invalid.
        Exit: The training run was stopped by a signal.
    """
    require("torch", None, "for training")
    rank_zero_only = require("lightning.pytorch.utilities", "train", "for training").rank_zero_only
    from ..training.loop import train as run
    from ..training.recipe import read_recipe

    is_first = not getattr(rank_zero_only, "rank", 0)
    _configure_logging(is_first)
    table = read_recipe(recipe, _read_overrides(context.args))
    with stop_on_signal("writing a checkpoint") as stop:
        folder = run(table, out or Path("runs") / table.name, stop.is_set)
    if is_first:
        _print_result(folder)
    if stop.is_set():
        raise typer.Exit(INTERRUPTED)


def _configure_logging(is_first: bool) -> None:
    """Show the log of vitpose in the first process, and of Lightning only warnings of its logger."""
    logger = logging.getLogger("vitpose")
    logger.setLevel(logging.INFO if is_first else logging.ERROR)
    if not logger.handlers:
        logger.addHandler(StderrHandler())
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.")


def _print_result(folder: Path) -> None:
    """Print the paths of the last and the best checkpoint."""
    from ..training.run_directory import BEST, read_numbers

    typer.echo(f"last checkpoint: {folder}")
    if found := read_numbers(best := folder.parent / BEST):
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in found["numbers"].items())
        typer.echo(f"best checkpoint: {best} (step {found['step']}, {numbers})")


def _read_overrides(arguments: list[str]) -> dict[str, str]:
    """Read `--key value` and `--key=value`.

    Raises:
        InputError: An argument is not an option, or has no value.
    """
    overrides, rest = {}, list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise InputError(
                f"{option!r} is not an option; give the recipe first, then its keys, as in --loop.epochs 10"
            )
        key, equals, value = option[2:].partition("=")
        if not equals:
            if not rest:
                raise InputError(f"{option} has no value; give one, as in --loop.epochs 10")
            value = rest.pop(0)
        overrides[key] = value
    return overrides
