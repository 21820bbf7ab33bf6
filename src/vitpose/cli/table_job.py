"""`vitpose predict` with `--out NAME.parquet`: progress, shutdown on a signal, and how to resume."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..batch.job import Counts, Progress, failures_of, predict_many
from ..errors import InputError, counted
from ..video.reading import is_video
from .interruption import INTERRUPTED, stop_on_signal
from .job import describe_run
from .terminal import DONE, FAILED, print_line, show_progress


@dataclass(frozen=True)
class TableJob:
    """One run of `vitpose predict` that writes one table.

    Attributes:
        out: Directory of the table, a path or a URL.
        options: Arguments of `predict_many`.
    """

    out: str
    options: dict[str, Any]

    def run(self, sources: Sequence[str]) -> int:
        """Run, and return the exit code.

        Args:
            sources: Files, directories, globs and URLs.

        Raises:
            InputError: A source is a video.
            VitPoseError: An option is invalid, the model cannot be loaded, or the table cannot be written.
        """
        for source in sources:
            if is_video(source):
                raise InputError(
                    f"{source} is a video, but --out {self.out} is a table of images; give --out DIRECTORY with "
                    "--save parquet"
                )
        start = time.perf_counter()
        with stop_on_signal("finishing the shards in progress") as stop, show_progress() as advance:
            progress = predict_many(
                sources,
                self.out,
                stop=stop.is_set,
                report=lambda progress: advance(progress.done.images, progress.images),
                **self.options,
            )
        self._print_summary(progress, time.perf_counter() - start)
        if not progress.complete:
            return INTERRUPTED
        return FAILED if progress.run.failed else DONE

    def _print_summary(self, progress: Progress, seconds: float) -> None:
        ran = f" with {describe_run(self.options['loading'], progress.runs_on)}" if progress.runs_on else ""
        line = f"{self._count(progress.run)} in {seconds:.1f} s{ran}; results in {self.out}"
        if progress.earlier.images or not progress.complete:
            whole = f"{progress.done.images} of {counted(progress.images, 'image')}"
            counts = self._count(progress.done).partition(", ")[2]
            line = f"this run: {line}\nwhole job: {whole}, {counts}"
        print_line(line, "green" if progress.complete and not progress.run.failed else "yellow")
        if not progress.complete:
            print_line(f"resume with: {shlex.join(['vitpose', *sys.argv[1:]])}")

    def _count(self, counts: Counts) -> str:
        parts = [counted(counts.images, "image"), counted(counts.instances, "instance")]
        if counts.failed:
            parts.append(f"{counted(counts.failed, 'failure')} listed in {failures_of(self.out)}")
        return ", ".join(parts)
