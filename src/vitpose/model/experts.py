"""The split feed-forward layer of ViTPose++, and folding one of its experts into a dense layer.

The layer's output is the shared rows of `fc2` followed by the rows of the sample's expert
(ViTPose++, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import CheckpointError, InputError


@dataclass(frozen=True)
class Routing:
    """The assignment of a batch's samples to experts (or heads).

    Attributes:
        experts: Indices of the experts that occur, each once, ascending.
        rows: For each of them the indices of its samples; None if one expert has the whole batch.
    """

    experts: tuple[int, ...]
    rows: tuple[Tensor, ...] | None


def route(dataset_index: Any, count: int, batch: int | torch.SymInt, what: str = "expert") -> Routing | None:
    """Turns `dataset_index` into a routing; None if there is only one expert.

    Args:
        dataset_index: One index for all samples, or one per sample; a number, list, array or tensor.
        count: Number of experts, or of heads, of the network.
        batch: Number of samples; symbolic while the network is exported.
        what: What is chosen, in error messages: "expert" or "head".

    Raises:
        InputError: The index is missing, not an integer, out of range, or has the wrong length.
    """
    if count == 1:
        return None
    valid = f"0 to {count - 1}"
    if dataset_index is None:
        raise InputError(
            f"this network has {count} {what}s, so dataset_index is required: {valid}, one for all "
            "samples or one per sample (0 is COCO in the released ViTPose++ files)"
        )
    try:
        given = torch.as_tensor(dataset_index).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"dataset_index {dataset_index!r} is not numeric; give integers, {valid}") from error
    indices = given.tolist()
    # bool is a subclass of int, but True is never meant as expert 1.
    wrong = [index for index in indices if type(index) is not int or not 0 <= index < count]
    if wrong:
        raise InputError(
            f"dataset_index {wrong[0]} is not a valid {what} index; this network has {count} {what}s, {valid}"
        )
    if len(indices) not in (1, batch):
        raise InputError(
            f"dataset_index has {len(indices)} entries for a batch of {batch}; give one, or one per sample"
        )
    experts = tuple(sorted(set(indices))) or (0,)  # any expert gives an empty batch its shape
    if len(experts) == 1:
        return Routing(experts, None)
    return Routing(experts, tuple((given == expert).nonzero()[:, 0] for expert in experts))


class Mlp(nn.Module):
    """The dense feed-forward layer."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b t d"], routing: Routing | None) -> Float[Tensor, "b t d"]:
        """Returns the tokens after the layer; the routing is not used."""
        return self.fc2(self.activation(self.fc1(x)))


class ExpertMlp(nn.Module):
    """The feed-forward layer whose last output features are computed by one expert per dataset."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, num_experts: int, part: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, width - part)
        self.experts = nn.ModuleList(nn.Linear(hidden, part) for _ in range(num_experts))

    def forward(self, x: Float[Tensor, "b t d"], routing: Routing) -> Float[Tensor, "b t d"]:
        """Returns the shared features followed by those of each sample's expert."""
        x = self.activation(self.fc1(x))
        return torch.cat([self.fc2(x), self._part(x, routing)], dim=-1)

    def _part(self, x: Float[Tensor, "b t hidden"], routing: Routing) -> Float[Tensor, "b t part"]:
        if routing.rows is None:
            return self.experts[routing.experts[0]](x)
        parts = [
            self.experts[expert](x[rows]) for expert, rows in zip(routing.experts, routing.rows, strict=True)
        ]
        # The parts are grouped by expert; sorting by sample index restores the order of the batch.
        return torch.cat(parts)[torch.cat(routing.rows).argsort()]


def unfold_state(state: Mapping[str, Tensor], experts: int, part: int) -> dict[str, Tensor]:
    """Returns the parameters of a network with identical experts that equals the dense network.

    Every expert is a copy of the last rows of the dense layer (ViTPose++, section 3.2).

    Args:
        state: Parameters of a dense network.
        experts: Number of experts.
        part: Number of rows per expert.
    """
    unfolded = {}
    for name, tensor in state.items():
        splits = ".mlp.fc2." in name and tensor.ndim > 0  # a scalar is rejected later, by its shape
        unfolded[name] = tensor[:-part] if splits else tensor
        if splits:
            for number in range(experts):
                unfolded[name.replace(".mlp.fc2.", f".mlp.experts.{number}.")] = tensor[-part:].clone()
    return unfolded


def fold_state(state: Mapping[str, Tensor], expert: int) -> dict[str, Tensor]:
    """Returns the parameters of the dense network that equals the network with one of its experts.

    Args:
        state: Parameters of a network of `ExpertMlp` layers; unchanged tensors are shared.
        expert: Index of the expert.

    Raises:
        CheckpointError: The expert is missing from a layer, or has the wrong shape there.
    """
    folded = {}
    for name, tensor in state.items():
        if ".mlp.fc2." in name:
            chosen = name.replace(".mlp.fc2.", f".mlp.experts.{expert}.")
            rows = state.get(chosen)
            if (
                rows is None
                or not tensor.ndim
                or (rows.ndim, rows.shape[1:]) != (tensor.ndim, tensor.shape[1:])
            ):
                found = "is missing" if rows is None else f"has the shape {tuple(rows.shape)}"
                raise CheckpointError(
                    f"{chosen} {found}; it must extend {name} of the shape {tuple(tensor.shape)} by rows; "
                    "download the checkpoint again"
                )
            folded[name] = torch.cat([tensor, rows])
        elif ".mlp.experts." not in name:
            folded[name] = tensor
    return folded
