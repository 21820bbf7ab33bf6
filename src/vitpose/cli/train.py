"""`vitpose train`: a recipe, and keys of it that differ."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, require
from .interruption import INTERRUPTED, stop_when_asked

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The recipe's keys are flags too, and too many to be listed."""


def _list_keys(wanted: bool) -> None:
    if wanted:
        from ..training.keys import list_keys

        typer.echo(list_keys())
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", show_default=False, help="A recipe, in TOML.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="runs/ and the recipe's name",
            help="Folder of the training. One that was stopped goes on there.",
        ),
    ] = None,
    keys: Annotated[
        bool,
        typer.Option(
            "--keys", callback=_list_keys, is_eager=True, help="List the keys of a recipe, and end."
        ),
    ] = False,
) -> None:
    """Train a network, or go on with a training that was stopped.

    Every key of the recipe is a flag by its dotted name, after it: --loop.epochs 10 --optimizer.lr 1e-4.
    The folder gets checkpoints that vitpose and transformers read, named by their step.
    """
    require("torch", None, "for training")
    rank_zero_only = require("lightning.pytorch.utilities", "train", "for training").rank_zero_only
    from ..training.loop import train as run
    from ..training.recipe import read_recipe

    first = not getattr(rank_zero_only, "rank", 0)
    _speak(first)
    table = read_recipe(recipe, _changes(context.args))
    with stop_when_asked("a checkpoint is written first") as asked:
        folder = run(table, out or Path("runs") / table.name, asked.is_set)
    if first:
        _tell(folder)
    if asked.is_set():
        raise typer.Exit(INTERRUPTED)


def _speak(first: bool) -> None:
    """Shows what the first process says of data, start and steps, and not what Lightning says of itself."""
    ours = logging.getLogger("vitpose")
    ours.setLevel(logging.INFO if first else logging.ERROR)
    if not ours.handlers:
        ours.addHandler(_Speaker())
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.")


def _tell(folder: Path) -> None:
    """Says where the result lies."""
    from ..training.validation import BEST, read_numbers

    typer.echo(f"the model is in {folder}")
    if found := read_numbers(best := folder.parent / BEST):
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in found["numbers"].items())
        typer.echo(f"the best one is in {best}: step {found['step']}, {numbers}")


class _Speaker(logging.Handler):
    """Prints to what is the standard error at that moment: above the line that shows the progress."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _changes(words: list[str]) -> dict[str, str]:
    """Reads `--key value` and `--key=value`."""
    changes, rest = {}, list(words)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--"):
            raise InputError(
                f"{flag!r} is no flag; the recipe comes first, then its keys, as --loop.epochs 10"
            )
        key, equals, value = flag[2:].partition("=")
        if not equals:
            if not rest:
                raise InputError(f"{flag} has no value; give one, as in --loop.epochs 10")
            value = rest.pop(0)
        changes[key] = value
    return changes
