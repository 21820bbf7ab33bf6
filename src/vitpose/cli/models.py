"""`vitpose models` and `vitpose download`: the models and detectors with short names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..errors import UnknownNameError, VitPoseError
from ..files import cache
from ..files.download import Report
from ..files.registry import (
    DEFAULT_DETECTOR,
    DEFAULT_MODEL,
    Card,
    DetectorCard,
    list_detectors,
    list_models,
)
from .terminal import DONE, FAILED, print_failures, print_line

_MODEL = ("model", "params", "input", "skeleton", "experts", "licence")
_DETECTOR = ("detector", "params", "input", "classes", "licence")
_RIGHT_ALIGNED = {"params", "input", "experts"}


def models() -> None:
    """List the models and detectors with short names, and where their files are."""
    models, detectors = list_models().values(), list_detectors().values()
    notes = [f"{_where(card)}: {card.note}" for card in (*models, *detectors)]
    size = "{:.1f} M".format
    _print_table(
        _MODEL,
        [(c.name, size(c.parameters), c.input, c.skeleton, str(c.experts), c.licence) for c in models],
        notes[: len(models)],
    )
    _print_table(
        _DETECTOR,
        [(c.name, size(c.parameters), c.input, c.classes, c.licence) for c in detectors],
        notes[len(models) :],
    )
    print_line(f"Default: {DEFAULT_MODEL} and {DEFAULT_DETECTOR}.")
    print_line("Files are downloaded by 'vitpose download NAME', or when a name is first used.")


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            show_default=False,
            help="Short names of models and detectors; 'vitpose models' lists them.",
        ),
    ],
) -> None:
    """Download models and detectors into the cache, for use without a network.

    A download that fails does not stop the others; the exit code is then 1.

    Raises:
        Exit: With the exit code.
        UnknownNameError: There is no such model or detector.
    """
    known: dict[str, Card] = {**list_models(), **list_detectors()}
    for name in names:
        if name not in known:
            raise UnknownNameError("model or detector", name, known)
    if Console(stderr=True).is_terminal:  # the hub's client reads this when it is imported
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"
    failures: list[tuple[str, str]] = []
    for card in (known[name] for name in dict.fromkeys(names)):
        before = cache.find_local_files(card)
        try:
            with _show_progress(card) as report:
                paths = cache.download(card, report)
        except VitPoseError as error:
            failures.append((card.name, str(error)))
            continue
        state = _where(card) if before else f"downloaded, {_size_of(paths)}"
        print_line(f"{card.name}: {state}: {paths[-1]}")
    print_failures(failures)
    raise typer.Exit(FAILED if failures else DONE)


@contextmanager
def _show_progress(card: Card) -> Iterator[Report | None]:
    """Show the progress of a download on a terminal; nothing elsewhere, nor for the hub's client, which does so."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if card.in_repository or not console.is_terminal:
        yield None
        return
    columns = (TextColumn(card.name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], notes: Sequence[str]) -> None:
    """Print a table, with a note below each row, and an empty line."""
    heading, *lines = _align([headings, *rows])
    print_line(heading, "bold")
    for line, note in zip(lines, notes, strict=True):
        print_line(line, "cyan")
        # On a second line, since it does not fit into 80 columns with the other cells.
        Console(highlight=False).print(Padding(Text(note), (0, 0, 0, 2), expand=False))
    print_line("")


def _where(card: Card) -> str:
    """Return where the files of a card are, and their size."""
    if card.in_package:
        return "in the package"
    paths = cache.find_local_files(card)
    if paths:
        return f"in the cache, {_size_of(paths)}"
    size = card.size_bytes if isinstance(card, DetectorCard) else 0
    return f"not downloaded, {(size or card.parameters * 4e6) / 1e6:.0f} MB"  # the hub's files are in float32


def _size_of(paths: Sequence[Path]) -> str:
    return f"{sum(path.stat().st_size for path in paths) / 1e6:.0f} MB"


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return each row as a line of aligned columns; the first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _RIGHT_ALIGNED else cell.ljust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
