"""Checkpoints: directories named by their step and written atomically, and the directory of a training run.

Owns when checkpoints are written, their contents, and which of them are kept. Independent of the data.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from ..errors import InputError, OutputError, require
from ..files.schemas import check, parse_json
from ..files.writing import remove_folder, replace_folder, write_json
from .recipe import Recipe

require("lightning", "train", "for training")
import lightning as L  # noqa: E402

if TYPE_CHECKING:
    from .loop import PoseModule
    from .validation import Validator

STATE_FILE = "trainer.ckpt"
RECIPE_FILE = "recipe.json"
KEPT_CHECKPOINTS = 2
"""How many of the last checkpoints are kept."""

_CHANGEABLE = re.compile(
    r"name$|validation\b|loop\.(minutes|workers|devices|nodes|log_every|checkpoint_every|evaluate_every)$"
)
"""Keys that may change when a training run is resumed, as they do not affect the result."""


class CheckpointWriter(L.Callback):
    """Write checkpoints when they are due, and have them evaluated.

    Args:
        folder: Directory of the checkpoints.
        every: Optimiser steps between two checkpoints.
        validator: Evaluates checkpoints.
        is_over: Called after every step; if it returns True, training stops with a checkpoint.
    """

    def __init__(self, folder: Path, every: int, validator: Validator, is_over: Callable[[], bool]) -> None:
        self.folder, self.every, self.validator, self.is_over = folder, every, validator, is_over

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
            last = find_last(self.folder) or "none"
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
        whole = self.folder / f"step-{step:08d}"
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
            for old in find_checkpoints(self.folder)[:-KEPT_CHECKPOINTS]:
                remove_folder(old)
        trainer.strategy.barrier()
        return whole


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a directory, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def find_last(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in a directory, or None."""
    return next(reversed(find_checkpoints(folder)), None)


def step_of(checkpoint: Path | None) -> int:
    """Return the number of optimiser steps before a checkpoint; 0 for None."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def claim_folder(out: Path, recipe: Recipe, processes: int) -> None:
    """Write a recipe into the directory of its training run; raise an error if that has checkpoints of another run.

    Args:
        out: Directory of the training run.
        recipe: The recipe.
        processes: Number of devices of all machines.

    Raises:
        InputError: The directory has checkpoints of another recipe or of another number of devices, or its stored
            recipe is damaged.
        OutputError: The directory cannot be written to.
    """
    table = json.loads(json.dumps(asdict(recipe))) | {"processes": processes}
    started = any(find_checkpoints(folder) for folder in (out, *out.glob("stage-*")))
    stored = _read(out / RECIPE_FILE) if started else {}
    if stored and stored.get("processes") != processes:
        raise InputError(
            f"the training run in {out} uses {stored.get('processes')} devices, not {processes}, which would change "
            "its batches; resume it with the same number (loop.devices, loop.nodes), or choose another directory"
        )
    before, now = _flatten(stored), _flatten(table)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not _CHANGEABLE.match(key)]
    if stored and changed:
        listed = ", ".join(f"{key} {before.get(key)!r} there, {now.get(key)!r} here" for key in changed[:5])
        raise InputError(
            f"{out} contains a training run of another recipe ({listed}); choose another directory, or delete that run"
        )
    write_json(out / RECIPE_FILE, table)


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Lock the directory of a training run against other runs.

    Raises:
        InputError: Another training run is using the directory.
        OutputError: The directory cannot be written to.
    """
    lock = FileLock(out / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another training run is using {out}; wait until it ends, or choose another directory"
        ) from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written to: {error}; choose another directory") from error
    try:
        yield
    finally:
        lock.release()


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values of nested tables and lists by their dotted names."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [_flatten(entry, f"{name}.{key}".removeprefix(".")) for key, entry in rows]
    return {key: entry for part in parts for key, entry in part.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return check(dict[str, Any], parse_json(path.read_bytes(), path, allow_nan=True), path)
    except InputError as error:
        raise InputError(f"{error}; choose another directory, or delete that file") from error
