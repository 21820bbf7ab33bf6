"""Strict loading of parameters into a network: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from .names import State


class Misfits(NamedTuple):
    """The differences between a network's parameters and those of a file.

    Attributes:
        missing: Names only in the network.
        unexpected: Names only in the file.
        mismatched: Names with different shapes, or floating-point on one side only.
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]


def compare(model: torch.nn.Module, state: Mapping[str, Tensor]) -> Misfits:
    """Compares the parameters of a network, which may be on the meta device, with those of a file."""
    expected = model.state_dict()
    # A counter for training, which some files do not contain.
    required = {name for name in expected if not name.endswith("num_batches_tracked")}
    return Misfits(
        sorted(required - state.keys()),
        sorted(state.keys() - expected.keys()),
        sorted(
            name for name in expected.keys() & state.keys() if _kind(expected[name]) != _kind(state[name])
        ),
    )


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return (*tensor.shape, tensor.is_floating_point())


def check_fit(model: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raises an error with three lists if parameters do not fit a network.

    Args:
        model: The network, which may be on the meta device.
        state: The parameters.
        source: Name of the file in the error message.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    misfits, expected = compare(model, state), model.state_dict()
    shapes = [
        f"{name}: {_describe(expected[name])} in the model, {_describe(state[name])} in the file"
        for name in misfits.mismatched
    ]
    lists = {
        "only in the model": misfits.missing,
        "only in the file": misfits.unexpected,
        "different shape": shapes,
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
    """Loads parameters into a network; it shares their memory.

    Args:
        model: The network.
        state: Its parameters; only counters for training may be missing, which are set to 0.
        source: Name of the file in the error message.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    check_fit(model, state, source)
    counters = {name: torch.zeros((), dtype=torch.long) for name in model.state_dict() if name not in state}
    model.load_state_dict(state | counters, assign=True)
