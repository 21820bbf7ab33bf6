"""How a training says how far it is, on a terminal and without one. Knows no network and no data."""

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
"""The loss is fetched this often: on a GPU every fetch waits for the step to end."""

LOG_S = 60.0
"""A line is written this often where there is no terminal."""


class ProgressLine(L.Callback):
    """Shows steps, loss and the time left."""

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
        """Begins with the steps that were taken before."""
        self.bar.disable = not trainer.is_global_zero
        self.bar.reset(self.task, total=trainer.max_steps, completed=trainer.global_step)
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves on."""
        now, over = time.monotonic(), trainer.global_step == trainer.max_steps
        if over or now - self.shown > REFRESH_S:
            loss = f"loss {float(outputs['loss']):.3g}"
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, refresh=over)
            self.shown = now

    def teardown(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        """Takes the line away, after an error too."""
        self.bar.stop()


class ProgressLog(L.Callback):
    """Logs step and loss, once a minute."""

    def __init__(self) -> None:
        self.due = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs a line where one is due."""
        now = time.monotonic()
        if trainer.is_global_zero and now >= self.due:
            loss = float(outputs["loss"])
            logger.info("step %d of %d, loss %.3g", trainer.global_step, trainer.max_steps, loss)
            self.due = now + LOG_S
