"""The work of `vitpose predict` with `--out NAME.parquet`: show how far it is, stop well, say how to go on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from ..batch.job import Progress, failures_of, predict_many
from .interruption import INTERRUPTED, stop_when_asked
from .job import DONE, FAILED, counted, show_progress


@dataclass(frozen=True)
class ManyJob:
    """One run of `vitpose predict` into one table.

    Attributes:
        out: The folder of the table, a path or an address.
        options: Arguments of `many.job.predict_many`.
    """

    out: str
    options: dict[str, Any]

    def run(self, sources: Sequence[str]) -> int:
        """Does the work and returns the exit code.

        Args:
            sources: Files, folders, globs and addresses.

        Raises:
            VitPoseError: Something is wrong that concerns all images.
        """
        start = time.perf_counter()
        with (
            stop_when_asked("the shards in flight are finished first") as stop,
            show_progress() as advance,
        ):
            progress = predict_many(
                sources,
                self.out,
                stop=stop.is_set,
                report=lambda progress: advance(progress.done, progress.images),
                **self.options,
            )
        self._say(progress, time.perf_counter() - start)
        if not progress.complete:
            return INTERRUPTED
        return FAILED if progress.failed else DONE

    def _say(self, progress: Progress, seconds: float) -> None:
        done = "" if progress.complete else f"{progress.done} of "
        counts = [done + counted(progress.images, "image")]
        counts.append(f"{counted(progress.people, 'pose')} found")
        if progress.failed:
            counts.append(f"{counted(progress.failed, 'failure')} listed in {failures_of(self.out)}")
        line = f"{', '.join(counts)} in {seconds:.1f} s; results in {self.out}"
        console = Console(highlight=False)
        console.print(
            Text(line, style="green" if progress.complete and not progress.failed else "yellow"),
            soft_wrap=True,
        )
        if not progress.complete:
            console.print(Text(f"go on with: {shlex.join(['vitpose', *sys.argv[1:]])}"), soft_wrap=True)
