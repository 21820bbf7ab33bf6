"""The Muon optimiser: weight matrices step along the nearest orthogonal matrix of their momentum.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). PyTorch's own
works in bfloat16, which many CPUs lack, and one matrix at a time; here all matrices of a shape go together, in
their own precision. Knows no network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
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
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._step_matrices(group)
        super().step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        pieces: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix in group["params"]:
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
                state["step"] = torch.tensor(0.0)  # AdamW wants one when it reads a state
            mean = state["momentum"]
            mean.lerp_(matrix.grad, 1 - self.momentum)
            ahead = matrix.grad.lerp(mean, self.momentum)
            matrix.grad = None  # AdamW, whose step follows, passes over what has no gradient
            parts = group.get("split", 1)
            for piece, direction in zip(matrix.chunk(parts), ahead.chunk(parts), strict=True):
                pieces[piece.shape].append((piece, direction))
        for (height, width), pairs in pieces.items():
            # A tall matrix moves its outputs as far as a square one would.
            rate = group["lr"] * max(1.0, height / width) ** 0.5
            turned = orthogonalise(torch.stack([direction for _, direction in pairs]))
            for (piece, _), direction in zip(pairs, turned, strict=True):
                piece.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=rate)


def orthogonalise(matrices: Float[Tensor, "n h w"], steps: int = 5) -> Float[Tensor, "n h w"]:
    """Returns matrices with the same singular vectors whose singular values are roughly one.

    Args:
        matrices: Any matrices; zero stays zero.
        steps: Newton-Schulz steps.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
