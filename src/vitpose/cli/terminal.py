"""What the commands print: lines, errors, tables of failures, progress.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Task

DONE, FAILED, MISUSED = 0, 1, 2
"""Exit codes: success, a failure, an invalid command line."""

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TORCH_LOGS": "-all",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables of libraries that reduce their messages to errors."""


class StderrHandler(logging.Handler):
    """Prints to the current `sys.stderr`, which a progress bar replaces to keep its line at the bottom."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        print(self.format(record), file=sys.stderr)


def silence_libraries() -> None:
    """Keep the warnings, logs and progress bars of other libraries off the terminal, and print those of vitpose.

    For programs, not for libraries: it changes the warning filters, the root logger and the environment. A library
    whose variable is set in the environment already is not silenced.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger().addHandler(logging.NullHandler())  # otherwise warnings of any logger go to stderr
    logging.getLogger("vitpose").addHandler(StderrHandler())
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"vitpose\.")


def print_line(line: str, style: str = "") -> None:
    """Print a line, which is not wrapped."""
    Console(highlight=False).print(Text(line, style=style), soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error: wrapped at words on a terminal, one line in a file."""
    console = Console(stderr=True, highlight=False)
    line = Text.assemble(("error: ", "bold red"), (" ".join(message.split()), "red"))
    console.print(line, soft_wrap=not console.is_terminal)


def print_failures(failures: Sequence[tuple[str, str]]) -> None:
    """Print a table of the failures and their reasons, if there are any."""
    if not failures:
        return
    from rich import box
    from rich.table import Table

    console = Console(stderr=True)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold red")
    table.add_column("failed", overflow="fold", max_width=max(20, console.width // 2))
    table.add_column("reason", overflow="fold")
    for name, reason in failures:
        table.add_row(Text(name), Text(reason))
    console.print(table)


@contextmanager
def show_status(status: str) -> Iterator[None]:
    """Show a status with a spinner on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(status):
        yield


@contextmanager
def show_progress(unit: str = "images") -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on a terminal; nothing elsewhere.

    Yields:
        A function that updates the bar with the number of finished items and the total, None if unknown.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        """Items per second."""

        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{task.speed:.1f}/s")

    console = Console(stderr=True)
    columns = (TextColumn(unit), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
