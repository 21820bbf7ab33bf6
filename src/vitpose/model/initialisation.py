"""Networks initialised with the weights of others: of other keypoints, datasets, input sizes and depths."""

from __future__ import annotations

import logging
import math
import re
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import CheckpointError, counted
from ..keypoints.mapping import canonical_name
from ..keypoints.skeleton import Skeleton
from .backbone import VitPoseBackbone
from .checkpoint import Checkpoint
from .config import VitPoseConfig
from .experts import unfold_state
from .fitting import check_fit
from .names import BACKBONE, OTHER_HEADS, State
from .pose import VitPoseForPoseEstimation

logger = logging.getLogger(__name__)

_WHITENED_SPREAD = 0.5
"""Standard deviation of the entries of a whitened token; about that of randomly initialised filters on photographs."""


def network_from_checkpoint(config: VitPoseConfig, checkpoint: Checkpoint) -> VitPoseForPoseEstimation:
    """Return a network with the weights of a checkpoint whose configuration may differ.

    Datasets of the checkpoint keep their expert and head; others get those of its first dataset. The last layer of a
    head keeps the rows of keypoints that the checkpoint's head has, by name; others are initialised randomly, which
    is logged. Position embeddings are interpolated for other sizes, and added blocks compute the identity.

    Args:
        config: The configuration of the network, with the checkpoint's width and kind of decoder.
        checkpoint: The checkpoint.

    Raises:
        CheckpointError: The checkpoint is inconsistent, or the widths or decoders differ.
    """
    with torch.device("meta"):  # check before allocating memory
        described = VitPoseForPoseEstimation(checkpoint.config)
    check_fit(described, checkpoint.state, checkpoint.source)
    network = VitPoseForPoseEstimation(config)
    fresh, state = network.state_dict(), cast("State", {})
    known = [head.name for head in checkpoint.config.datasets]
    for number, head in enumerate(config.heads):
        index = known.index(head.name) if config.datasets and head.name in known else 0
        if config.datasets and head.name not in known:
            message = "%s has no dataset %r: its head and expert are initialised with those of %r"
            logger.warning(message, checkpoint.source, head.name, checkpoint.config.heads[index].name)
        dense = checkpoint.for_dataset(index)
        kept = _matching_rows(dense.config.skeleton, head.skeleton)
        _report_rows(kept, head.skeleton, checkpoint.source)
        prefix = f"{OTHER_HEADS}{number - 1}." if number else "head."
        state |= _head_state(dense.state, kept, prefix, fresh)
        expert = f".mlp.experts.{number}."
        state |= {
            name: tensor
            for name, tensor in _backbone_state(dense.state, config).items()
            if number == 0 or expert in name
        }
    state = match_depth(state, config.backbone_config.num_hidden_layers)
    return _load(network, state, checkpoint.config.backbone_config.grid_size, checkpoint.source)


def network_from_plain_vit(config: VitPoseConfig, state: State, source: str) -> VitPoseForPoseEstimation:
    """Return a network with the backbone of a plain ViT and randomly initialised heads.

    Args:
        config: The configuration of the network, with the size of the plain ViT.
        state: Its parameters, as `vitpose.model.plain_vit.read_plain_vit` returns them.
        source: Its name in error messages.

    Raises:
        CheckpointError: It has another size, or is not a plain ViT.
    """
    network = VitPoseForPoseEstimation(config)
    side = math.isqrt(state["backbone.pos_embed"].shape[1] - 1)
    # Files of MAE have no last norm of the patches; it is initialised to the identity.
    own = (OTHER_HEADS, "head.", "backbone.last_norm.")
    fresh = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(own)}
    try:
        return _load(network, fresh | _backbone_state(state, config), (side, side), source)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; choose a plain ViT, and give its size (model.size of a recipe)"
        ) from error


def whiten_patches(network: VitPoseForPoseEstimation, pixels: Float[Tensor, "b 3 hc wc"]) -> None:
    """Initialise the patch embedding with the principal axes of patches, and with these negated.

    Pixels of a patch are correlated, so random filters mostly respond to its brightness; axes scaled to equal variance
    respond to details of all scales from the first step (as whitening in K. Jordan, "94% on CIFAR-10 in 3.29 seconds
    on a single GPU", 2024).

    Args:
        network: The network.
        pixels: A few hundred normalised crops.
    """
    projection = cast("VitPoseBackbone", network.backbone).patch_embed.proj
    side = network.backbone.config.patch_size
    patches = F.unfold(pixels, side, stride=side).transpose(1, 2).flatten(0, 1)
    variances, axes = torch.linalg.eigh(torch.cov(patches.T))
    half = projection.out_channels // 2
    kept, spread = axes.flip(1)[:, :half].T, variances.flip(0)[:half, None]
    filters = _WHITENED_SPREAD * kept / (spread + spread[-1]).sqrt()
    with torch.no_grad():
        projection.weight[: 2 * half] = torch.cat([filters, -filters]).view(-1, *projection.weight.shape[1:])


def _matching_rows(old: Skeleton, new: Skeleton) -> dict[int, int]:
    """Return the rows of the last layer of `new` with those of the same keypoints of `old`."""
    rows = {canonical_name(name): row for row, name in enumerate(old.keypoints)}
    names = map(canonical_name, new.keypoints)
    return {row: rows[name] for row, name in enumerate(names) if name in rows}


def _report_rows(kept: dict[int, int], skeleton: Skeleton, source: str) -> None:
    """Log which keypoints keep their weights, if not all do."""
    names = skeleton.keypoints
    new = [name for row, name in enumerate(names) if row not in kept]
    if new:
        old = [name for row, name in enumerate(names) if row in kept]
        listed = ", ".join(old) or "none"
        message = "the last layer keeps the weights of %d of %s (%s) from %s; new: %s"
        logger.warning(message, len(old), counted(len(names), "keypoint"), listed, source, ", ".join(new))


def _head_state(dense: State, kept: dict[int, int], prefix: str, fresh: State) -> State:
    """Return the parameters of a head from those of a dense checkpoint.

    Args:
        dense: Parameters of the dense checkpoint.
        kept: Rows of the new last layer, each with its row in the checkpoint; others are taken from `fresh`.
        prefix: Prefix of the head's parameters in the new network.
        fresh: Parameters of the new network.
    """
    state: State = {}
    for name in (name for name in dense if name.startswith("head.")):
        target = prefix + name.removeprefix("head.")
        state[target] = dense[name]
        if ".final_layer." in name:
            state[target] = fresh[target].clone()
            state[target][list(kept)] = dense[name][list(kept.values())].to(fresh[target].dtype)
    return state


def _backbone_state(dense: State, config: VitPoseConfig) -> State:
    """Return the parameters of a backbone with a configuration's experts from those of a dense checkpoint."""
    state = {name: tensor for name, tensor in dense.items() if name.startswith(BACKBONE)}
    backbone = config.backbone_config
    if backbone.num_experts == 1:
        return state
    return unfold_state(state, backbone.num_experts, backbone.part_features)


def match_depth(state: State, new: int) -> State:
    """Return parameters with `new` blocks: the first ones, or all with new blocks inserted that compute the identity.

    An inserted block is a copy of the block before it in which the last layers of both branches are zero.

    Args:
        state: Parameters of a network.
        new: Number of blocks.
    """
    blocks = {
        name: int(match[1]) for name in state if (match := re.match(r"backbone\.blocks\.(\d+)\.", name))
    }
    old = max(blocks.values(), default=-1) + 1
    if new <= old:
        return {name: tensor for name, tensor in state.items() if blocks.get(name, 0) < new}
    grown = {name: tensor for name, tensor in state.items() if name not in blocks}
    for index in range(new):
        source = index * old // new
        first = index == 0 or (index - 1) * old // new != source
        for name in (name for name, block in blocks.items() if block == source):
            part = name.removeprefix(f"backbone.blocks.{source}.")
            last = part.startswith(("attn.proj.", "mlp.fc2.", "mlp.experts."))
            grown[f"backbone.blocks.{index}.{part}"] = (
                torch.zeros_like(state[name]) if last and not first else state[name]
            )
    return grown


def _load(
    network: VitPoseForPoseEstimation, state: State, grid: tuple[int, int], source: str
) -> VitPoseForPoseEstimation:
    """Copy parameters into a network; `grid` is the grid of patches of the position embeddings."""
    config = network.backbone.config
    positions, patches = state["backbone.pos_embed"], state["backbone.patch_embed.proj.weight"]
    if config.grid_size != grid:
        first, old = positions[:, :1], positions[:, 1:].transpose(1, 2).unflatten(2, grid).float()
        new = F.interpolate(old, config.grid_size, mode="bicubic", align_corners=False)
        state["backbone.pos_embed"] = torch.cat(
            [first, new.flatten(2).transpose(1, 2).to(first.dtype)], dim=1
        )
    if (patches.shape[-1], *config.patch_size) == (14, 16, 16):
        # MAE's ViT-H, as in the original
        state["backbone.patch_embed.proj.weight"] = F.pad(patches, [1, 1, 1, 1])
    check_fit(network, state, source)
    network.load_state_dict(state, strict=False)  # counters of batches may be missing
    return network
