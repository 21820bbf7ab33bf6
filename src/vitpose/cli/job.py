"""`vitpose predict` on images: find the images, load the model, predict, print a summary.

Owns the messages during and after the run; the files are written by `output`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitpose

from ..errors import VitPoseError, counted
from ..inference.pipeline import Pipeline
from .output import Writer, choose_kinds, refuse_unwritable
from .terminal import DONE, FAILED, print_failures, print_line, show_progress, show_status


@dataclass(frozen=True)
class Job:
    """One run of `vitpose predict`.

    Attributes:
        out: Output directory.
        save: Kinds of output, separated by commas.
        threshold: Keypoints with a lower score are not drawn.
        loading: Arguments of `vitpose.load`.
        running: Arguments of `Pipeline.each`.
        failures: Names and reasons of the failures so far.
    """

    out: Path
    save: str
    threshold: float
    loading: dict[str, Any]
    running: dict[str, Any]
    failures: list[tuple[str, str]] = field(default_factory=list)

    def run(self, arguments: Sequence[str]) -> int:
        """Run, and return the exit code.

        Args:
            arguments: Files, directories, globs and URLs, as given on the command line.

        Raises:
            VitPoseError: An option is invalid, the model cannot be loaded, or files cannot be written.
        """
        start = time.perf_counter()
        kinds = choose_kinds(self.save)
        refuse_unwritable(self.out)
        sources = self._find(arguments)
        if not sources:
            print_failures(self.failures)
            return FAILED
        writer = Writer(self.out, kinds, sources, self.threshold)
        with show_status("loading the model"):
            pipe = vitpose.load(**self.loading)
        try:
            self._predict(sources, pipe, writer)
        finally:  # also after Ctrl-C
            self._print_summary(writer, len(sources), time.perf_counter() - start, pipe)
            print_failures(self.failures)
        return FAILED if self.failures else DONE

    def _find(self, arguments: Sequence[str]) -> list[str | Path]:
        """Find the images, each once; arguments without images are added to the failures."""
        found: dict[str, str | Path] = {}
        for argument in arguments:
            try:
                images = vitpose.find_images(argument)
                if _searches(argument, self.out):
                    images = _outside(self.out, images)
                    if not images:
                        raise vitpose.ImageError(
                            f"{argument} has no images except those in the output directory {self.out}; give other "
                            "sources, or another --out"
                        )
            except VitPoseError as error:
                self._add_failure(argument, error)
                continue
            for image in images:
                found.setdefault(_key(image), image)
        return list(found.values())

    def _predict(self, sources: Sequence[str | Path], pipe: Pipeline, writer: Writer) -> None:
        with writer, show_progress() as advance:
            for index, prediction in enumerate(pipe.each(sources, **self.running)):
                try:
                    writer.add(index, prediction)
                except VitPoseError as error:
                    self._add_failure(prediction.name, error)
                advance(index + 1, len(sources))

    def _add_failure(self, name: str, error: VitPoseError) -> None:
        reason = " ".join(str(error).split())
        # Most messages start with the name, which the table shows in its first column.
        self.failures.append((name, reason.removeprefix(name).lstrip()))

    def _print_summary(self, writer: Writer, total: int, seconds: float, pipe: Pipeline) -> None:
        done = "" if writer.images == total else f"{writer.images} of "
        counts = [done + counted(total, "image"), counted(writer.poses, "pose")]
        if self.failures:
            counts.append(counted(len(self.failures), "failure"))
        line = f"{', '.join(counts)} in {seconds:.1f} s with {pipe.estimator.runs_on}; results in {self.out}"
        style = "yellow" if done or self.failures else "green"
        print_line(line, style)


def _key(image: str | Path) -> str:
    return image if isinstance(image, str) else os.path.normpath(image.absolute())


def _searches(argument: str, folder: Path) -> bool:
    """Tell whether the search for images that an argument starts includes a directory."""
    start = Path(argument).expanduser()
    if not start.is_dir():
        start = next(parent for parent in start.parents if parent.is_dir())
    return start.resolve() in folder.resolve().parents


def _outside(folder: Path, images: Sequence[str | Path]) -> list[str | Path]:
    inside = folder.resolve()
    return [image for image in images if isinstance(image, str) or not image.resolve().is_relative_to(inside)]
