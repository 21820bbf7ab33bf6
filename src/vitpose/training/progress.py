"""Progress of a training run, on a terminal or in a log. Independent of the network and the data."""

from __future__ import annotations

import logging
import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..errors import require

require("lightning", "train", "for training")
import lightning as L  # noqa: E402

logger = logging.getLogger(__name__)

REFRESH_S = 0.5
"""Interval at which the loss is read: on a GPU, reading it waits for the step to end."""

LOG_S = 60.0
"""Interval of log lines without a terminal."""


class ProgressLine(L.Callback):
    """Show a progress line with steps, loss and remaining time."""

    def __init__(self) -> None:
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("", loss="")
        self.shown = 0.0

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Show the line, starting at the steps of previous runs."""
        self.bar.disable = not trainer.is_global_zero
        self.bar.reset(self.task, total=trainer.max_steps, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the line, if the interval has passed."""
        now, over = time.monotonic(), trainer.global_step == trainer.max_steps
        if over or now - self.shown > REFRESH_S:
            loss = f"loss {float(outputs['loss']):.3g}"
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, refresh=over)
            self.shown = now

    def teardown(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        """Remove the line, also after an error."""
        self.bar.stop()


class ProgressLog(L.Callback):
    """Log step and loss once a minute."""

    def __init__(self) -> None:
        self.due = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log a line, if the interval has passed."""
        now = time.monotonic()
        if trainer.is_global_zero and now >= self.due:
            loss = float(outputs["loss"])
            logger.info("step %d of %d, loss %.3g", trainer.global_step, trainer.max_steps, loss)
            self.due = now + LOG_S
