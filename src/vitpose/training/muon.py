"""The Muon optimiser: weight matrices step along the nearest orthogonal matrix of their momentum.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). PyTorch's own
works in bfloat16, which many CPUs lack, and one matrix at a time; here all matrices of a shape go together, in
their own precision, and several processes share them. Knows no network.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration; they drive singular values to about one as fast as five steps can (ibid.)."""


class Muon(torch.optim.AdamW):
    """Muon for the groups that ask for it by `orthogonal`, AdamW for all others.

    Args:
        groups: Parameter groups; in one with `orthogonal` all parameters are matrices. A matrix whose height is a
            multiple of its width by `split` (query, key and value in one) is stepped as so many matrices.
        lr: Learning rate of groups that have none.
        betas: Of AdamW.
        momentum: Of Muon.
    """

    def __init__(
        self, groups: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), momentum: float = 0.95
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step; `closure` computes the loss and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_matrices([group for group in self.param_groups if group.get("orthogonal")])
        super().step()
        return loss

    def _step_matrices(self, groups: list[dict[str, Any]]) -> None:
        moves: defaultdict[tuple[int, ...], list[_Move]] = defaultdict(list)
        for group in groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                ahead = self._look_ahead(matrix, matrix.grad)
                matrix.grad = None  # AdamW, whose step follows, passes over what has no gradient
                parts = group.get("split", 1)
                for piece, direction in zip(matrix.chunk(parts), ahead.chunk(parts), strict=True):
                    tall = piece.shape[0] > piece.shape[1]
                    own = _Move(*((piece.mT, direction.mT) if tall else (piece, direction)), tall, group)
                    moves[tuple(own.direction.shape)].append(own)
        for alike in moves.values():
            for move, turned in zip(alike, _share_work([move.direction for move in alike]), strict=True):
                move.take(turned)

    def _look_ahead(self, matrix: Tensor, gradient: Tensor) -> Tensor:
        """Returns the gradient with Nesterov's momentum."""
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
            state["step"] = torch.tensor(0.0)  # AdamW wants one when it reads a state
        mean = state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(mean, self.momentum)


class _Move(NamedTuple):
    """A matrix, or a part of one, no higher than wide, and where it shall go."""

    matrix: Tensor
    direction: Tensor
    tall: bool
    group: dict[str, Any]

    def take(self, turned: Tensor) -> None:
        """Moves along the direction turned orthogonal. A tall matrix moves its outputs as far as a square one."""
        rate, (low, long) = self.group["lr"], self.matrix.shape
        self.matrix.mul_(1 - rate * self.group["weight_decay"])
        self.matrix.sub_(turned, alpha=rate * ((long / low) ** 0.5 if self.tall else 1.0))


def _share_work(directions: list[Tensor]) -> Tensor:
    """Turns directions of one shape orthogonal, n h w; of several processes each does its share for all."""
    together = torch.stack(directions)
    if not (dist.is_available() and dist.is_initialized()):
        return orthogonalise(together)
    share = math.ceil(len(together) / dist.get_world_size())
    padded = F.pad(together, (0, 0, 0, 0, 0, share * dist.get_world_size() - len(together)))
    shares = list(padded.split(share))
    dist.all_gather(shares, orthogonalise(shares[dist.get_rank()]))  # into the parts of `padded`
    return padded[: len(together)]


def orthogonalise(matrices: Float[Tensor, "n h w"], steps: int = 5) -> Float[Tensor, "n h w"]:
    """Returns matrices with the same singular vectors whose singular values are roughly one.

    Args:
        matrices: Any matrices, fastest if no higher than wide; zero stays zero.
        steps: Newton-Schulz steps.
    """
    a, b, c = QUINTIC
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x
