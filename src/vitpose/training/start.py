"""Initial weights of a training run: random, from a checkpoint, or from a plain vision transformer.

Owns how weights of other keypoints, input sizes and depths are adapted. Independent of the data.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..errors import CheckpointError
from ..files.hub import find_file, read_json
from ..files.paths import existing_path
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.mapping import place_name
from ..keypoints.skeleton import Skeleton
from ..model.backbone import VitPoseBackbone
from ..model.checkpoint import WEIGHTS_FILE, Checkpoint, read_checkpoint
from ..model.config import VitPoseConfig
from ..model.experts import unfold_state
from ..model.fitting import check_fit
from ..model.names import OTHER_HEADS
from ..model.original import is_original
from ..model.pose import VitPoseForPoseEstimation
from ..model.weights import read_pickle, read_safetensors
from .recipe_tables import ModelRecipe

logger = logging.getLogger(__name__)

_WHITENED_SPREAD = 0.5
"""Standard deviation of the entries of a whitened token; about that of randomly initialised filters on photographs."""

_NOT_OF_BACKBONE = re.compile(r"cls_token|mask_token|decoder_|head|fc_norm|pre_logits")
"""Other parameters in files of MAE and ImageNet ViTs: class token, MAE decoder, classification head."""


def make_network(recipe: ModelRecipe, datasets: Sequence[DatasetSpec] = ()) -> VitPoseForPoseEstimation:
    """Return the network with its initial weights; randomly initialised layers are logged.

    Args:
        recipe: The network.
        datasets: The datasets of its heads. Default: one head with the recipe's skeleton.

    Raises:
        CheckpointError: The initial weights cannot be read, or do not fit a vision transformer of this size.
        SkeletonError: The recipe's skeleton is invalid.
        UnknownNameError: The recipe's size, decoder or skeleton is unknown.
    """
    if not recipe.start:
        return _prepare(VitPoseForPoseEstimation(_new_config(recipe, datasets)), recipe)
    plain = _read_plain_vit(recipe.start)
    if plain is not None:
        grid = _grid_size(plain, recipe.start)
        network = VitPoseForPoseEstimation(_new_config(recipe, datasets))
        state = _unfold(plain, network)
        if recipe.layers:
            state = _match_depth(state, recipe.layers)
        return _prepare(_load_matching(network, state, recipe.start, grid), recipe)
    checkpoint = read_checkpoint(recipe.start)
    with torch.device("meta"):  # check before allocating memory
        described = VitPoseForPoseEstimation(checkpoint.config)
    check_fit(described, checkpoint.state, checkpoint.source)
    if datasets:
        return _prepare(_make_joint(checkpoint, recipe, datasets), recipe)
    if checkpoint.config.num_experts > 1 or len(checkpoint.config.datasets) > 1:
        checkpoint = checkpoint.for_dataset(0)
    config, state, source = checkpoint
    skeleton = Skeleton.load(recipe.skeleton)
    wanted = VitPoseConfig.for_skeleton(
        skeleton,
        backbone_config=_backbone_config(config.backbone_config, recipe),
        use_simple_decoder=config.use_simple_decoder,
        scale_factor=config.scale_factor,
    )
    network = VitPoseForPoseEstimation(wanted)
    old, new = config.num_labels, len(skeleton)
    if old != new or config.skeleton.keypoints != skeleton.keypoints:
        message = "%s has %d keypoints, the skeleton %r has %d: the last layer is initialised randomly"
        logger.warning(message, source, old, skeleton.name, new)
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.final_layer.")}
    state = _match_depth(state, wanted.backbone_config.num_hidden_layers)
    return _prepare(_load_matching(network, state, source, config.backbone_config.grid_size), recipe)


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


def _match_depth(state: dict[str, Tensor], new: int) -> dict[str, Tensor]:
    """Return a state with `new` blocks: the first ones, or all with new blocks inserted that compute the identity.

    An inserted block is a copy of the block before it in which the last layers of both branches are zero.
    """
    blocks = {
        name: int(match[1]) for name in state if (match := re.match(r"backbone\.blocks\.(\d+)\.", name))
    }
    old = max(blocks.values(), default=-1) + 1
    if new <= old:
        return {name: tensor for name, tensor in state.items() if blocks.get(name, 0) < new}
    grown = {name: tensor for name, tensor in state.items() if ".blocks." not in name}
    for index in range(new):
        source = index * old // new
        first = index == 0 or (index - 1) * old // new != source
        prefix = f"backbone.blocks.{source}."
        for name in (name for name in state if name.startswith(prefix)):
            part = name.removeprefix(prefix)
            last = part.startswith(("attn.proj.", "mlp.fc2.", "mlp.experts."))
            tensor = state[name]
            grown[f"backbone.blocks.{index}.{part}"] = (
                tensor.clone() if first or not last else torch.zeros_like(tensor)
            )
    return grown


def _prepare(network: VitPoseForPoseEstimation, recipe: ModelRecipe) -> VitPoseForPoseEstimation:
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    return network.train()


def _make_joint(
    checkpoint: Checkpoint, recipe: ModelRecipe, datasets: Sequence[DatasetSpec]
) -> VitPoseForPoseEstimation:
    """Return a network with several heads, and experts if the recipe has them, initialised from a checkpoint.

    Datasets of the checkpoint keep their expert and head. Others are initialised with those of the first dataset, with
    random rows of the last layer for keypoints that this does not have.
    """
    config = checkpoint.config
    experts = len(datasets) if recipe.experts and len(datasets) > 1 else 1
    backbone = _backbone_config(config.backbone_config, recipe)
    part = backbone.part_features if config.num_experts > 1 else backbone.hidden_size // 4
    backbone = replace(backbone, num_experts=experts, part_features=part if experts > 1 else 0)
    network = VitPoseForPoseEstimation(
        VitPoseConfig(
            backbone_config=backbone,
            use_simple_decoder=config.use_simple_decoder,
            scale_factor=config.scale_factor,
            datasets=list(datasets),
        )
    )
    known = [head.name for head in config.heads]
    state: dict[str, Tensor] = {}
    fresh = network.state_dict()
    for number, dataset in enumerate(datasets):
        index = known.index(dataset.name) if dataset.name in known else 0
        _, dense, _ = checkpoint.for_dataset(index)
        prefix = f"{OTHER_HEADS}{number - 1}." if number else "head."
        head = {name: tensor for name, tensor in dense.items() if name.startswith("head.")}
        state |= _match_head(head, config.heads[index].skeleton, dataset.skeleton, prefix, fresh)
        dense_backbone = {name: tensor for name, tensor in dense.items() if name.startswith("backbone.")}
        shared = _unfold(dense_backbone, network)
        expert = f".mlp.experts.{number}."
        state |= {name: tensor for name, tensor in shared.items() if number == 0 or expert in name}
        if dataset.name not in known:
            message = "%s has no dataset %r: its head and expert are initialised with those of %r"
            logger.warning(message, checkpoint.source, dataset.name, known[index])
    state = _match_depth(state, backbone.num_hidden_layers)
    return _load_matching(network, state, checkpoint.source, config.backbone_config.grid_size)


def _match_head(
    head: Mapping[str, Tensor], old: Skeleton, new: Skeleton, prefix: str, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a head's parameters for other keypoints; rows of the last layer are matched by name, or `fresh`."""
    rows = {place_name(name): row for row, name in enumerate(old.keypoints)}
    renamed = {}
    for name, tensor in head.items():
        target = prefix + name.removeprefix("head.")
        if ".final_layer." in target:
            last = fresh[target].clone()
            for row, keypoint in enumerate(new.keypoints):
                if place_name(keypoint) in rows:
                    last[row] = tensor[rows[place_name(keypoint)]]
            tensor = last
        renamed[target] = tensor
    return renamed


def _unfold(state: dict[str, Tensor], network: VitPoseForPoseEstimation) -> dict[str, Tensor]:
    """Return the parameters of a dense backbone for a network with or without experts."""
    experts = network.config.num_experts
    if experts == 1:
        return state
    return unfold_state(state, experts, network.config.backbone_config.part_features)


def _new_config(recipe: ModelRecipe, datasets: Sequence[DatasetSpec]) -> VitPoseConfig:
    options: dict[str, Any] = {"image_size": (recipe.height, recipe.width)}
    if recipe.drop_path is not None:
        options["drop_path_rate"] = recipe.drop_path
    if recipe.layers is not None:
        options |= {"num_hidden_layers": recipe.layers, "out_indices": [recipe.layers]}
    if datasets:
        experts = len(datasets) if recipe.experts else 1
        first = datasets[0].skeleton
        config = VitPoseConfig.preset(
            recipe.size, decoder=recipe.decoder, skeleton=first, num_experts=experts, **options
        )
        return replace(config, datasets=list(datasets))
    return VitPoseConfig.preset(recipe.size, decoder=recipe.decoder, skeleton=recipe.skeleton, **options)


def _backbone_config(backbone: Any, recipe: ModelRecipe) -> Any:
    rate = backbone.drop_path_rate if recipe.drop_path is None else recipe.drop_path
    layers = recipe.layers or backbone.num_hidden_layers
    return replace(
        backbone,
        image_size=(recipe.height, recipe.width),
        drop_path_rate=rate,
        num_hidden_layers=layers,
        out_features=None,
        out_indices=[layers],
    )


def _read_plain_vit(start: str) -> dict[str, Tensor] | None:
    """Return the renamed backbone parameters of a MAE or ImageNet ViT; None if `start` is anything else.

    These files have timm's parameter names: `pos_embed`, `patch_embed.proj`, `blocks.0.norm1`, `norm`.
    """
    path = _find_plain_file(start)
    if path is None:
        return None
    state = (
        read_safetensors(path)
        if path.suffix == ".safetensors"
        else read_pickle(path, ("model", "state_dict"))
    )
    if "pos_embed" not in state:
        return None
    if state["pos_embed"].ndim != 3:
        raise CheckpointError(
            f"the shape of 'pos_embed' in {start} is {tuple(state['pos_embed'].shape)}, and a plain vision transformer "
            "has three dimensions; choose a plain ViT with one class token"
        )
    kept = {name: tensor for name, tensor in state.items() if not _NOT_OF_BACKBONE.match(name)}
    return {f"backbone.{re.sub('^norm[.]', 'last_norm.', name)}": tensor for name, tensor in kept.items()}


def _find_plain_file(start: str) -> Path | None:
    """Return the file that may be of a plain ViT: `start`, or the weights in a directory or repository of timm."""
    path = existing_path(start)
    if path is not None and path.is_file():
        return path if path.suffix in (".pth", ".pt", ".safetensors") else None
    if is_original(start) or "architecture" not in read_json(start, "config.json"):
        return None
    return find_file(start, WEIGHTS_FILE)


def _grid_size(state: Mapping[str, Tensor], source: str) -> tuple[int, int]:
    """Return the grid size of a plain ViT's position embeddings, of which the first belongs to the class token."""
    count = state["backbone.pos_embed"].shape[1] - 1
    side = math.isqrt(count)
    if side * side != count:
        raise CheckpointError(
            f"{source} has {count + 1} position embeddings, which do not belong to one class token and a square "
            "grid of patches; choose a plain ViT with one class token"
        )
    return side, side


def _load_matching(
    network: VitPoseForPoseEstimation, state: dict[str, Tensor], source: str, grid: tuple[int, int]
) -> VitPoseForPoseEstimation:
    """Load the matching parameters of a state with a given grid of patches; the backbone must match completely."""
    current = network.state_dict()
    of_backbone = [name for name in current.keys() | state.keys() if name.startswith("backbone.")]
    # Files of MAE have no last norm of the patches; it is initialised to the identity.
    missing = sorted(name for name in of_backbone if name not in state and ".last_norm." not in name)
    unknown = sorted(name for name in of_backbone if name not in current)
    state = {
        name: _match_shape(name, tensor, network, grid) for name, tensor in state.items() if name in current
    }
    misfits = [name for name, tensor in state.items() if tensor.shape != current[name].shape]
    if missing or unknown or misfits:
        raise CheckpointError(
            f"the network cannot be initialised from {source}: missing {missing[:5]}, unknown {unknown[:5]}, of "
            f"different shape {misfits[:5]}; choose a plain ViT, and give its size as model.size"
        )
    network.load_state_dict(state, strict=False)
    return network


def _match_shape(
    name: str, tensor: Tensor, network: VitPoseForPoseEstimation, old: tuple[int, int]
) -> Tensor:
    """Resample position embeddings from their old grid, and pad patches of 14 px; others are unchanged."""
    config = network.backbone.config
    if name == "backbone.pos_embed" and config.grid_size != old:
        first, grid = tensor[:, :1], tensor[:, 1:].transpose(1, 2).unflatten(2, old).float()
        grid = F.interpolate(grid, config.grid_size, mode="bicubic", align_corners=False)
        return torch.cat([first, grid.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)
    if name == "backbone.patch_embed.proj.weight" and (tensor.shape[-1], *config.patch_size) == (14, 16, 16):
        return F.pad(tensor, [1, 1, 1, 1])  # MAE's ViT-H, as in the original
    return tensor
