"""The directory of a training run: checkpoints, their metrics, the stored recipe, and its lock. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import Field

from ..errors import InputError, OutputError, counted
from ..files.schemas import Schema, check, parse_json
from ..files.writing import write_json
from .recipe import Recipe

STATE_FILE = "trainer.ckpt"
NUMBERS_FILE = "validation.json"
RECIPE_FILE = "recipe.json"
BEST = "best"
"""Directory of the checkpoint with the highest score, beside the others."""

_CHANGEABLE = re.compile(
    r"name$|validation\b|loop\.(minutes|workers|devices|nodes|log_every|checkpoint_every|evaluate_every)$"
)
"""Keys that may change when a training run is resumed, as they do not affect the result."""


def find_checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints in a directory, oldest first."""
    return sorted(path for path in directory.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def find_last(directory: Path) -> Path | None:
    """Return the newest complete checkpoint in a directory, or None."""
    return next(reversed(find_checkpoints(directory)), None)


def step_of(checkpoint: Path | None) -> int:
    """Return the number of optimiser steps before a checkpoint; 0 for None."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


class _Numbers(Schema):
    """The file of a checkpoint's metrics, which may be NaN."""

    step: int
    score: Annotated[float, Field(allow_inf_nan=True)]
    numbers: dict[str, Annotated[float, Field(allow_inf_nan=True)]]


def read_numbers(checkpoint: Path) -> dict[str, Any]:
    """Return `step`, `score` and `numbers` (the metrics) of a checkpoint; empty if it has not been evaluated.

    Raises:
        InputError: The file of the metrics is damaged.
    """
    path = checkpoint / NUMBERS_FILE
    if not path.is_file():
        return {}
    return check(_Numbers, parse_json(path.read_bytes(), path, allow_nan=True), path).model_dump()


def claim_directory(out: Path, recipe: Recipe, processes: int) -> None:
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
    started = any(find_checkpoints(directory) for directory in (out, *out.glob("stage-*")))
    stored = _read(out / RECIPE_FILE) if started else {}
    if stored and stored.get("processes") != processes:
        raise InputError(
            f"the training run in {out} uses {counted(stored.get('processes', 0), 'device')}, not {processes}, which "
            "would change its batches; resume it with the same number (loop.devices, loop.nodes), or choose another "
            "directory"
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
def lock_directory(out: Path) -> Iterator[None]:
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
