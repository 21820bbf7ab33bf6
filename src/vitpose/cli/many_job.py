"""`vitpose predict` with `--out NAME.parquet`: progress, shutdown on a signal, and how to resume."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..batch.job import Progress, failures_of, predict_many
from ..errors import counted
from .interruption import INTERRUPTED, stop_on_signal
from .terminal import DONE, FAILED, print_line, show_progress


@dataclass(frozen=True)
class ManyJob:
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
            VitPoseError: An option is invalid, the model cannot be loaded, or the table cannot be written.
        """
        start = time.perf_counter()
        with (
            stop_on_signal("finishing the shards in progress") as stop,
            show_progress() as advance,
        ):
            progress = predict_many(
                sources,
                self.out,
                stop=stop.is_set,
                report=lambda progress: advance(progress.done, progress.images),
                **self.options,
            )
        self._print_summary(progress, time.perf_counter() - start)
        if not progress.complete:
            return INTERRUPTED
        return FAILED if progress.failed else DONE

    def _print_summary(self, progress: Progress, seconds: float) -> None:
        done = "" if progress.complete else f"{progress.done} of "
        counts = [done + counted(progress.images, "image")]
        counts.append(f"{counted(progress.people, 'pose')} found")
        if progress.failed:
            counts.append(f"{counted(progress.failed, 'failure')} listed in {failures_of(self.out)}")
        line = f"{', '.join(counts)} in {seconds:.1f} s; results in {self.out}"
        print_line(line, "green" if progress.complete and not progress.failed else "yellow")
        if not progress.complete:
            print_line(f"resume with: {shlex.join(['vitpose', *sys.argv[1:]])}")
