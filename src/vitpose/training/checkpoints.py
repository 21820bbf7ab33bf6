"""CheckpointWriter: when checkpoints are written, their contents, and which of them are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from ..errors import InputError, OutputError, require
from ..files.writing import remove_folder, replace_folder
from .module import PoseModule
from .run_directory import STATE_FILE, find_checkpoints, find_last
from .validation import Validator

require("lightning", "train", "for training")
import lightning as L  # noqa: E402

KEPT_CHECKPOINTS = 2
"""How many of the last checkpoints are kept."""


class CheckpointWriter(L.Callback):
    """Write checkpoints when they are due, and have them evaluated.

    Args:
        directory: Directory of the checkpoints.
        every: Optimiser steps between two checkpoints.
        validator: Evaluates checkpoints.
        is_over: Called after every step; if it returns True, training stops with a checkpoint.
    """

    def __init__(
        self, directory: Path, every: int, validator: Validator, is_over: Callable[[], bool]
    ) -> None:
        self.directory, self.every, self.validator, self.is_over = directory, every, validator, is_over

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if one is due.

        Raises:
            InputError: The weights are NaN or infinite.
            OutputError: The checkpoint cannot be written.
        """
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # between two optimiser steps
        over = self.is_over()
        if trainer.world_size > 1:
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over or step % self.every == 0 or step == trainer.max_steps or self.validator.is_due(step):
            self._check_weights(module, step)
            checkpoint = self.write(trainer, module, step)
            self.validator.evaluate_if_due(checkpoint)
        if over:
            trainer.should_stop = True

    def _check_weights(self, module: PoseModule, step: int) -> None:
        """Stop if weights are NaN or infinite, before a checkpoint of them replaces a good one."""
        norm = get_total_norm(module.parameters())
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not norm.isfinite():
            last = find_last(self.directory) or "none"
            raise InputError(
                f"the norm of the weights is {float(norm)} after step {step}: the training run has diverged; the last "
                f"good checkpoint is {last}. Start again in another directory, with a smaller optimizer.lr or more "
                "optimizer.warmup_steps"
            )

    def write(self, trainer: L.Trainer, module: PoseModule, step: int) -> Path:
        """Write the checkpoint of a step: the directory of the model, with the trainer's state; returns its path.

        Raises:
            OutputError: It cannot be written.
        """
        whole = self.directory / f"step-{step:08d}"
        partial = whole.with_suffix(".part")
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
        module.save_result(partial)
        try:
            trainer.save_checkpoint(partial / STATE_FILE)
        except OSError as error:
            raise OutputError(
                f"the checkpoint {whole} cannot be written ({error}); free disk space, and run the same command again"
            ) from error
        if trainer.is_global_zero:
            replace_folder(whole, partial)
            for old in find_checkpoints(self.directory)[:-KEPT_CHECKPOINTS]:
                remove_folder(old)
        trainer.strategy.barrier()
        return whole
