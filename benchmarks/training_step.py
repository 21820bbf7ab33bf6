"""Measure what training on a CPU in bfloat16 gains from attention as two products, and from Muon in bfloat16.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py

Both sides of each comparison alternate in the same process; the ratio is of the smallest CPU times. Takes about half a
minute on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from vitpose.model.backbone import Attention
from vitpose.model.config import VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.training.muon import orthogonalise

PRODUCTS = Attention.forward


def fused(self: Attention, x: torch.Tensor, with_weights: bool = False) -> tuple[torch.Tensor, None]:
    """Attention by the fused kernel, as in float32."""
    parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
    return self.proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)), None


def compare(title: str, sides: dict[str, Callable[[], Any]], rounds: int) -> None:
    """Print the smallest CPU time of each side, and their ratio."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            side()
            times[name].append(time.process_time() - start)
    (slow, old), (quick, new) = ((name, min(seconds)) for name, seconds in times.items())
    print(f"{title}: {slow} {old:.3f} s, {quick} {new:.3f} s, ratio {old / new:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    network = VitPoseForPoseEstimation(VitPoseConfig.preset(options.size, decoder="simple")).train()
    pixels, targets = torch.randn(options.batch_size, 3, 256, 192), torch.rand(options.batch_size, 17, 64, 48)

    def step(forward: Callable[..., Any]) -> None:
        Attention.forward = forward  # type: ignore[method-assign]
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(pixels, labels=targets).loss
        loss.backward()
        network.zero_grad()

    title = f"forward and backward pass of {options.size}, batch of {options.batch_size}, bfloat16"
    compare(
        title, {"fused kernel": lambda: step(fused), "two products": lambda: step(PRODUCTS)}, options.rounds
    )
    shapes = [(4, 1), (1, 4), *[(1, 1)] * 4]  # feed-forward, and query, key, value and projection
    width, blocks = (
        network.config.backbone_config.hidden_size,
        network.config.backbone_config.num_hidden_layers,
    )
    stacks = [torch.randn(blocks, width * min(shape), width * max(shape)) for shape in shapes]
    kinds = {"float32": None, "bfloat16": torch.bfloat16}
    sides = {
        name: lambda dtype=dtype: [orthogonalise(stack, dtype) for stack in stacks]
        for name, dtype in kinds.items()
    }
    compare(f"Muon's iteration for all matrices of {options.size}", sides, options.rounds)


if __name__ == "__main__":
    main()
