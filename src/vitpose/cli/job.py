"""The work of `vitpose predict`: look for the images, load, go through them, say how it went.

Owns what the user sees while it runs and at its end. What is written is `output`'s business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

import vitpose

from ..errors import VitPoseError
from ..inference.pipeline import Pipeline
from .output import Writer, choose_kinds, refuse_unwritable

DONE, FAILED = 0, 1
"""Exit codes."""


@dataclass(frozen=True)
class Job:
    """One run of `vitpose predict`.

    Attributes:
        out: Folder for the results.
        save: Which of them, separated by commas.
        threshold: Keypoints that score less are not drawn.
        loading: Arguments of `vitpose.load`.
        running: Arguments of `Pipeline.each`.
        failures: What failed so far, and why.
    """

    out: Path
    save: str
    threshold: float
    loading: dict[str, Any]
    running: dict[str, Any]
    failures: list[tuple[str, str]] = field(default_factory=list)

    def run(self, arguments: Sequence[str]) -> int:
        """Does the work and returns the exit code.

        Args:
            arguments: Files, folders, globs and addresses, as typed.

        Raises:
            VitPoseError: Something is wrong that concerns all images; most of it is said before any work.
        """
        start = time.perf_counter()
        kinds = choose_kinds(self.save)
        refuse_unwritable(self.out)
        sources = self._find(arguments)
        if not sources:
            print_failures(self.failures)
            return FAILED
        writer = Writer(self.out, kinds, sources, self.threshold)
        with say_while("loading the model"):
            pipe = vitpose.load(**self.loading)
        try:
            self._go_through(sources, pipe, writer)
        finally:  # after Ctrl-C too
            self._print_summary(writer, len(sources), time.perf_counter() - start, pipe)
            print_failures(self.failures)
        return FAILED if self.failures else DONE

    def _find(self, arguments: Sequence[str]) -> list[str | Path]:
        """Looks up the sources; those that cannot be found are failures."""
        found: dict[str, str | Path] = {}
        for argument in arguments:
            try:
                images = vitpose.find_images(argument)
                if _comes_across(argument, self.out):
                    images = _outside(self.out, images)
                    if not images:
                        where = f"the output folder {self.out}"
                        raise vitpose.ImageError(f"{argument} gives only images in {where}; add others")
            except VitPoseError as error:
                self._fail(argument, error)
                continue
            for image in images:
                found.setdefault(_identity(image), image)
        return list(found.values())

    def _go_through(self, sources: Sequence[str | Path], pipe: Pipeline, writer: Writer) -> None:
        with writer, show_progress() as advance:
            for index, prediction in enumerate(pipe.each(sources, **self.running)):
                try:
                    writer.add(index, prediction)
                except VitPoseError as error:
                    self._fail(prediction.name, error)
                advance(index + 1, len(sources))

    def _fail(self, name: str, error: VitPoseError) -> None:
        reason = " ".join(str(error).split())
        # Most messages begin with the name, which has a column of its own.
        self.failures.append((name, reason.removeprefix(name).lstrip()))

    def _print_summary(self, writer: Writer, wanted: int, seconds: float, pipe: Pipeline) -> None:
        done = "" if writer.images == wanted else f"{writer.images} of "
        counts = [done + counted(wanted, "image"), counted(writer.poses, "pose")]
        if self.failures:
            counts.append(counted(len(self.failures), "failure"))
        line = f"{', '.join(counts)} in {seconds:.1f} s with {pipe.estimator.runs_on}; results in {self.out}"
        style = "yellow" if done or self.failures else "green"
        Console(highlight=False).print(Text(line, style=style), soft_wrap=True)


def print_failures(failures: Sequence[tuple[str, str]]) -> None:
    """Prints a table of what failed and why, if anything did."""
    if not failures:
        return
    console = Console(stderr=True)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold red")
    table.add_column("failed", overflow="fold", max_width=max(20, console.width // 2))
    table.add_column("why", overflow="fold")
    for name, reason in failures:
        table.add_row(Text(name), Text(reason))
    console.print(table)


def _identity(image: str | Path) -> str:
    return image if isinstance(image, str) else os.path.normpath(image.absolute())


def _comes_across(argument: str, folder: Path) -> bool:
    """Tells whether looking for images from the argument on leads into the folder."""
    place = Path(argument).expanduser()
    if not place.is_dir():
        place = next(parent for parent in place.parents if parent.is_dir())
    return place.resolve() in folder.resolve().parents


def _outside(folder: Path, images: Sequence[str | Path]) -> list[str | Path]:
    inside = folder.resolve()
    return [one for one in images if isinstance(one, str) or not one.resolve().is_relative_to(inside)]


def counted(number: int, one: str, several: str = "") -> str:
    """Returns a number with its noun: "1 image", "2 people"."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


@contextmanager
def say_while(what: str) -> Iterator[None]:
    """Says on a terminal what takes long; says nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


class _Rate(ProgressColumn):
    """So many a second, of late."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.1f}/s")


@contextmanager
def show_progress(what: str = "images") -> Iterator[Callable[[int, int | None], None]]:
    """Shows a bar on a terminal, which what this yields moves on: done, of all; shows nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
