"""The optimiser's parameter groups, frozen parts and learning rate schedule.

As in the original: layer-wise learning rate decay (its optimizer constructor), no weight decay of one-dimensional
parameters and position embeddings, linear warm-up. Independent of the data.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from ..errors import InputError, counted
from .muon import Muon
from .recipe_tables import ModelRecipe, OptimizerRecipe

_FROZEN = {"attention": ".attn.", "mlp": ".mlp.", "embeddings": "backbone.p"}  # pos_embed and patch_embed


def freeze_parts(model: nn.Module, recipe: ModelRecipe) -> int:
    """Freeze the recipe's parts; returns the number of frozen parameters.

    The paper (section 3.3) freezes the attention or the feed-forward layers.

    Raises:
        InputError: The network has fewer blocks than `freeze_blocks`.
    """
    blocks = {block for name, _ in model.named_parameters() if (block := _block_of(name)) is not None}
    if recipe.freeze_blocks > len(blocks):
        raise InputError(
            f"model.freeze_blocks is {recipe.freeze_blocks}, and the network has {counted(len(blocks), 'block')}; "
            "give that number or less"
        )
    count = 0
    for name, parameter in model.named_parameters():
        block = _block_of(name)
        early = block is not None and block < recipe.freeze_blocks
        if early or any(_FROZEN[part] in name for part in recipe.freeze):
            parameter.requires_grad_(False)
            count += parameter.numel()
    return count


def make_optimizer(
    model: nn.Module, blocks: int, recipe: OptimizerRecipe, precision: str = "32"
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for the parameters of a network that require gradients.

    Args:
        model: The network.
        blocks: Number of blocks of its backbone.
        recipe: Kind, learning rates and weight decay.
        precision: Precision of the run: "32", or "bf16", in which Muon then orthogonalises.
    """
    groups = parameter_groups(model, blocks, recipe)
    if recipe.kind == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    dtype = torch.bfloat16 if precision == "bf16" else None
    return Muon(groups, lr=recipe.lr, betas=recipe.betas, dtype=dtype)


def parameter_groups(model: nn.Module, blocks: int, recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    """Return parameter groups: one for each combination of learning rate, weight decay and update rule.

    Args:
        model: The network.
        blocks: Number of blocks of its backbone.
        recipe: Kind, learning rates and weight decay.
    """
    groups: dict[tuple[int, bool, int], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, decays = _layer_of(name, blocks), parameter.ndim > 1 and not name.endswith("pos_embed")
        matrix = recipe.kind == "muon" and _block_of(name) is not None and parameter.ndim == 2
        parts = (3 if ".qkv." in name else 1) if matrix else 0  # 0: AdamW
        rate = recipe.matrix_lr if matrix else recipe.lr
        group = groups.setdefault(
            (layer, decays, parts),
            {
                "params": [],
                "lr": rate * recipe.layer_decay ** (blocks + 1 - layer),
                "weight_decay": recipe.weight_decay if decays else 0.0,
                **({"orthogonal": True, "split": parts} if matrix else {}),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def rate_factor(step: int, steps: int, recipe: OptimizerRecipe) -> float:
    """Return the factor of all learning rates at a step, of `steps` in total."""
    if step < recipe.warmup_steps:
        return recipe.warmup_start + (1 - recipe.warmup_start) * step / recipe.warmup_steps
    if recipe.schedule == "cosine":
        done = (step - recipe.warmup_steps) / max(steps - recipe.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1)))
    if recipe.schedule == "trapezoid":
        return min(1.0, (steps - step) / max(recipe.cooldown * steps, 1))
    return 0.1 ** sum(step >= milestone * steps for milestone in recipe.milestones)


def _block_of(name: str) -> int | None:
    found = re.match(r"backbone\.blocks\.(\d+)\.", name)
    return int(found[1]) if found else None


def _layer_of(name: str, blocks: int) -> int:
    """Return the layer of a parameter: 0 for the embeddings, i + 1 for block i, blocks + 1 for last norm and head."""
    block = _block_of(name)
    if block is not None:
        return block + 1
    return 0 if name.startswith(_FROZEN["embeddings"]) else blocks + 1
