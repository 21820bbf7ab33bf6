"""Checkpoints: folders named by their step, there whole or not at all; and the folder that holds them.

Owns when one is written, what is in it and which are kept. Knows no data.
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
KEPT = 2
"""So many of the last checkpoints stay on the disk."""

_OF_THE_RUN = re.compile(
    r"name$|validation\b|loop\.(minutes|workers|devices|nodes|log_every|checkpoint_every|evaluate_every)$"
)
"""What may differ when a training is resumed: it changes nothing that is learnt."""


class Keeper(L.Callback):
    """Writes checkpoints when they are due, and has them measured.

    Args:
        folder: Where they go.
        every: Optimiser steps between two.
        validator: Measures some of them.
        is_over: Tells, after every step, whether the training shall stop there, with a checkpoint.
    """

    def __init__(self, folder: Path, every: int, validator: Validator, is_over: Callable[[], bool]) -> None:
        self.folder, self.every, self.validator, self.is_over = folder, every, validator, is_over

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint where one is due."""
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # between two optimiser steps
        over = self.is_over()
        if trainer.world_size > 1:
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over or step % self.every == 0 or step == trainer.max_steps or self.validator.is_due(step):
            self._refuse_divergence(module, step)
            checkpoint = self.write(trainer, module, step)
            self.validator.catch_up(checkpoint)
        if over:
            trainer.should_stop = True

    def _refuse_divergence(self, module: PoseModule, step: int) -> None:
        """Stops a training whose weights are no numbers any more, before they take the place of better ones."""
        norm = get_total_norm(module.parameters())
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not norm.isfinite():
            last = find_last(self.folder) or "none"
            raise InputError(
                f"the weights are {float(norm)} after step {step}: the training has diverged; the last good checkpoint "
                f"is {last}. Begin in another folder with a smaller optimizer.lr, or more optimizer.warmup_steps"
            )

    def write(self, trainer: L.Trainer, module: PoseModule, step: int) -> Path:
        """Writes the checkpoint of a step: the model's folder with the trainer's state in it."""
        whole = self.folder / f"step-{step:08d}"
        partial = whole.with_suffix(".part")
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
        module.save_result(partial)
        try:
            trainer.save_checkpoint(partial / STATE_FILE)
        except OSError as error:
            raise OutputError(
                f"the checkpoint {whole} cannot be written ({error}); make room, and give the same command again"
            ) from error
        if trainer.is_global_zero:
            replace_folder(whole, partial)
            for old in find_checkpoints(self.folder)[:-KEPT]:
                remove_folder(old)
        trainer.strategy.barrier()
        return whole


def find_checkpoints(folder: Path) -> list[Path]:
    """Returns the whole checkpoints of a training, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def find_last(folder: Path) -> Path | None:
    """Returns the newest whole checkpoint of a training; None where there is none."""
    return next(reversed(find_checkpoints(folder)), None)


def step_of(checkpoint: Path | None) -> int:
    """Returns how many steps were taken before a checkpoint; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def claim_folder(out: Path, recipe: Recipe, processes: int) -> None:
    """Makes a folder that of a training, or finds that it is; without a checkpoint in it, it is anybody's.

    Args:
        out: The folder.
        recipe: The training.
        processes: On how many devices of all machines it runs.

    Raises:
        InputError: It holds a training of another recipe, or one on another number of devices, or its note of the
            recipe is damaged.
    """
    own = json.loads(json.dumps(asdict(recipe))) | {"processes": processes}
    begun = any(find_checkpoints(folder) for folder in (out, *out.glob("stage-*")))
    there = _read(out / RECIPE_FILE) if begun else {}
    if there and there.get("processes") != processes:
        raise InputError(
            f"the training in {out} runs on {there.get('processes')} devices, not on {processes}, which would change "
            "its batches; resume it on as many (loop.devices, loop.nodes), or choose another folder"
        )
    before, now = _flat(there), _flat(own)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not _OF_THE_RUN.match(key)]
    if there and changed:
        list_of = ", ".join(f"{key} {before.get(key)!r} there, {now.get(key)!r} here" for key in changed[:5])
        raise InputError(
            f"{out} holds a training of another recipe ({list_of}); choose another folder, or delete that one"
        )
    write_json(out / RECIPE_FILE, own)


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Keeps every other training out of a folder while this one runs.

    Raises:
        InputError: Another one runs there.
        OutputError: It cannot be written to.
    """
    lock = FileLock(out / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another training runs in {out}; wait for its end, or choose another folder"
        ) from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written to: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Returns the values of nested tables and lists by their dotted names."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [_flat(entry, f"{name}.{key}".removeprefix(".")) for key, entry in rows]
    return {key: entry for part in parts for key, entry in part.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return check(dict[str, Any], parse_json(path.read_bytes(), path, allow_nan=True), path)
    except InputError as error:
        raise InputError(f"{error}; choose another folder, or delete that one") from error
