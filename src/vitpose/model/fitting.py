"""Whether parameters are those of a network, and giving them to it: all of them or none. Knows no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from .names import State


class Misfits(NamedTuple):
    """In what a network and parameters differ.

    Attributes:
        missing: Names that only the network has.
        unexpected: Names that only the file has.
        mismatched: Names of different shapes or kinds of numbers.
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]


def compare(model: torch.nn.Module, state: Mapping[str, Tensor]) -> Misfits:
    """Returns in what a network, which may be without memory, and parameters differ."""
    own = model.state_dict()
    # A counter for training, which some files leave out.
    required = {name for name in own if not name.endswith("num_batches_tracked")}
    return Misfits(
        sorted(required - state.keys()),
        sorted(state.keys() - own.keys()),
        sorted(name for name in own.keys() & state.keys() if _kind(own[name]) != _kind(state[name])),
    )


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return (*tensor.shape, tensor.is_floating_point())


def check_fit(model: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuses parameters that are not those of a network, in three lists.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    misfits, own = compare(model, state), model.state_dict()
    shapes = [
        f"{name}: {_describe(own[name])} in the model, {_describe(state[name])} in the file"
        for name in misfits.mismatched
    ]
    lists = {
        "only in the model": misfits.missing,
        "only in the file": misfits.unexpected,
        "other shapes": shapes,
    }
    if any(lists.values()):
        parts = [f"{what} ({len(rows)}): {_shorten(rows)}" for what, rows in lists.items() if rows]
        raise CheckpointError(f"{source} does not fit the model; " + "; ".join(parts))


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _shorten(rows: list[str], most: int = 8) -> str:
    cut = [row[:300] for row in rows[:most]]
    return ", ".join(cut) + (f", and {len(rows) - most} more" if len(rows) > most else "")


def load_strictly(model: torch.nn.Module, state: State, source: str) -> None:
    """Gives a network its parameters, all of them.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    check_fit(model, state, source)
    counters = {name for name in model.state_dict() if name not in state}
    state |= {name: torch.zeros((), dtype=torch.long) for name in counters}
    model.load_state_dict(state, assign=True)
