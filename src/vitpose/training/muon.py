"""The Muon optimiser: the update of a weight matrix is its orthogonalised momentum.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). PyTorch's implementation
computes in bfloat16, which many CPUs do not support, and one matrix at a time; here all matrices of a shape are
stacked and distributed over processes, and bfloat16 is a choice. Independent of the network.
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
"""Coefficients of the Newton-Schulz iteration, tuned for five steps to singular values of about one (ibid.)."""


class Muon(torch.optim.AdamW):
    """Muon for parameter groups with `orthogonal`, AdamW for all others.

    Args:
        groups: Parameter groups; all parameters of groups with `orthogonal` are matrices. Those of groups with `split`
            consist of that many stacked matrices (3 for a fused qkv), which are orthogonalised separately.
        lr: Learning rate of groups without one.
        betas: Decay rates of AdamW's moments.
        momentum: Momentum of Muon.
        dtype: Type to orthogonalise in. Default: that of the matrices.
    """

    def __init__(
        self,
        groups: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.momentum, self.dtype = momentum, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step; `closure` computes the loss and its gradients, and the loss is returned."""
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
                matrix.grad = None  # AdamW, whose step follows, skips parameters without gradients
                parts = group.get("split", 1)
                for piece, direction in zip(matrix.chunk(parts), ahead.chunk(parts), strict=True):
                    tall = piece.shape[0] > piece.shape[1]
                    move = _Move(*((piece.mT, direction.mT) if tall else (piece, direction)), tall, group)
                    moves[tuple(move.direction.shape)].append(move)
        for same_shape in moves.values():
            updates = _share_work([move.direction for move in same_shape], self.dtype)
            for move, update in zip(same_shape, updates, strict=True):
                move.apply(update)

    def _look_ahead(self, matrix: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient with Nesterov momentum."""
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
            state["step"] = torch.tensor(0.0)  # required by AdamW's load_state_dict
        mean = state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(mean, self.momentum)


class _Move(NamedTuple):
    """A matrix or a part of one, transposed if it is higher than wide, and its update before orthogonalisation."""

    matrix: Tensor
    direction: Tensor
    tall: bool
    group: dict[str, Any]

    def apply(self, update: Tensor) -> None:
        """Apply the orthogonalised update; tall matrices are scaled to change their outputs like square ones."""
        rate, (low, long) = self.group["lr"], self.matrix.shape
        self.matrix.mul_(1 - rate * self.group["weight_decay"])
        self.matrix.sub_(update, alpha=rate * ((long / low) ** 0.5 if self.tall else 1.0))


def _share_work(directions: list[Tensor], dtype: torch.dtype | None) -> Tensor:
    """Orthogonalise matrices of one shape, n h w; distributed processes compute a share each and exchange them."""
    stacked = torch.stack(directions)
    if not (dist.is_available() and dist.is_initialized()):
        return orthogonalise(stacked, dtype)
    share = math.ceil(len(stacked) / dist.get_world_size())
    padded = F.pad(stacked, (0, 0, 0, 0, 0, share * dist.get_world_size() - len(stacked)))
    shares = list(padded.split(share))
    dist.all_gather(shares, orthogonalise(shares[dist.get_rank()], dtype))  # writes into `padded`
    return padded[: len(stacked)]


def orthogonalise(
    matrices: Float[Tensor, "n h w"], dtype: torch.dtype | None = None, steps: int = 5
) -> Float[Tensor, "n h w"]:
    """Return matrices with the same singular vectors and singular values of about one.

    Args:
        matrices: Any matrices; fastest if they are not higher than wide. Zero matrices stay zero.
        dtype: Type to compute in. Default: that of the matrices, which the result has too.
        steps: Number of Newton-Schulz steps.
    """
    a, b, c = QUINTIC
    x = (matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)).to(dtype)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.to(matrices.dtype)
