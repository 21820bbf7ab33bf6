"""Where a training starts: nothing, a checkpoint, or the weights of a plain vision transformer.

Owns what happens to weights that do not fit. Knows no data.
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
from .recipe import ModelRecipe

logger = logging.getLogger(__name__)

_WHITENED_SPREAD = 0.5
"""Standard deviation of a whitened token's entries; about that of random filters on photographs."""

_NOT_OF_A_TRUNK = re.compile(r"cls_token|mask_token|decoder_|head|fc_norm|pre_logits")
"""What files of MAE and ImageNet ViTs hold besides: the class token, MAE's decoder, and what classifies."""


def make_network(recipe: ModelRecipe, datasets: Sequence[DatasetSpec] = ()) -> VitPoseForPoseEstimation:
    """Returns the network that a training begins with; what was made anew is logged.

    Args:
        recipe: The network.
        datasets: The datasets of its heads; one head with the recipe's skeleton without any.

    Raises:
        CheckpointError: The start's weights cannot be read, or are no vision transformer's of that size.
    """
    if not recipe.start:
        return _ready(VitPoseForPoseEstimation(_config(recipe, datasets)), recipe)
    plain = _plain_vit(recipe.start)
    if plain is not None:
        grid = _square_grid(plain, recipe.start)
        network = VitPoseForPoseEstimation(_config(recipe, datasets))
        state = _unfolded(plain, network)
        if recipe.layers:
            state = _with_blocks(state, recipe.layers)
        return _ready(_filled(network, state, recipe.start, grid), recipe)
    checkpoint = read_checkpoint(recipe.start)
    with torch.device("meta"):  # what does not fit is refused before memory is spent on it
        described = VitPoseForPoseEstimation(checkpoint.config)
    check_fit(described, checkpoint.state, checkpoint.source)
    if datasets:
        return _ready(_joint(checkpoint, recipe, datasets), recipe)
    if checkpoint.config.num_experts > 1 or len(checkpoint.config.datasets) > 1:
        checkpoint = checkpoint.for_dataset(0)
    config, state, source = checkpoint
    skeleton = Skeleton.load(recipe.skeleton)
    wanted = VitPoseConfig.for_skeleton(
        skeleton,
        backbone_config=_resized(config.backbone_config, recipe),
        use_simple_decoder=config.use_simple_decoder,
        scale_factor=config.scale_factor,
    )
    network = VitPoseForPoseEstimation(wanted)
    old, new = config.num_labels, len(skeleton)
    if old != new or config.skeleton.keypoints != skeleton.keypoints:
        message = "%s has %d keypoints, the skeleton %r %d: the last layer is made anew"
        logger.warning(message, source, old, skeleton.name, new)
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.final_layer.")}
    state = _with_blocks(state, wanted.backbone_config.num_hidden_layers)
    return _ready(_filled(network, state, source, config.backbone_config.grid_size), recipe)


def whiten_patches(network: VitPoseForPoseEstimation, pixels: Float[Tensor, "b 3 hc wc"]) -> None:
    """Begins the patch embedding with the principal axes of patches, and their mirror images.

    Pixels of a patch look alike, so random filters all see its brightness and little else; axes scaled to equal
    variance show every scale of detail from the first step (as whitening does in K. Jordan, "94% on
    CIFAR-10 in 3.29 seconds on a single GPU", 2024).

    Args:
        network: The network.
        pixels: Normalised crops, a few hundred.
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


def _with_blocks(state: dict[str, Tensor], new: int) -> dict[str, Tensor]:
    """Keeps the first so many blocks of a state, or spreads them over more; what is added does nothing yet.

    A new block is a copy of the one before it whose branches end in zeros.
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
            ends = part.startswith(("attn.proj.", "mlp.fc2.", "mlp.experts."))
            tensor = state[name]
            grown[f"backbone.blocks.{index}.{part}"] = (
                tensor.clone() if first or not ends else torch.zeros_like(tensor)
            )
    return grown


def _ready(network: VitPoseForPoseEstimation, recipe: ModelRecipe) -> VitPoseForPoseEstimation:
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    return network.train()


def _joint(
    checkpoint: Checkpoint, recipe: ModelRecipe, datasets: Sequence[DatasetSpec]
) -> VitPoseForPoseEstimation:
    """Makes a network of several heads, and experts if they are wanted, out of a checkpoint.

    A dataset that the checkpoint knows keeps its expert and head; another one begins with those of the first, less
    the rows of the last layer for keypoints that the first does not have.
    """
    config = checkpoint.config
    experts = len(datasets) if recipe.experts and len(datasets) > 1 else 1
    backbone = _resized(config.backbone_config, recipe)
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
    known = [own.name for own in config.heads]
    state: dict[str, Tensor] = {}
    fresh = network.state_dict()
    for number, own in enumerate(datasets):
        place = known.index(own.name) if own.name in known else 0
        _, dense, _ = checkpoint.for_dataset(place)
        prefix = f"{OTHER_HEADS}{number - 1}." if number else "head."
        head = {name: tensor for name, tensor in dense.items() if name.startswith("head.")}
        state |= _with_rows(head, config.heads[place].skeleton, own.skeleton, prefix, fresh)
        trunk = {name: tensor for name, tensor in dense.items() if name.startswith("backbone.")}
        trunk = _unfolded(trunk, network)
        wanted = f".mlp.experts.{number}."
        state |= {name: tensor for name, tensor in trunk.items() if number == 0 or wanted in name}
        if own.name not in known:
            message = "%s knows no dataset %r: its head and expert begin as those of %r"
            logger.warning(message, checkpoint.source, own.name, known[place])
    state = _with_blocks(state, backbone.num_hidden_layers)
    return _filled(network, state, checkpoint.source, config.backbone_config.grid_size)


def _with_rows(
    head: Mapping[str, Tensor], old: Skeleton, new: Skeleton, prefix: str, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns a head's parameters for other keypoints: rows of the last layer go by name, others stay fresh."""
    rows = {place_name(name): row for row, name in enumerate(old.keypoints)}
    moved = {}
    for name, tensor in head.items():
        target = prefix + name.removeprefix("head.")
        if ".final_layer." in target:
            last = fresh[target].clone()
            for row, keypoint in enumerate(new.keypoints):
                if place_name(keypoint) in rows:
                    last[row] = tensor[rows[place_name(keypoint)]]
            tensor = last
        moved[target] = tensor
    return moved


def _unfolded(state: dict[str, Tensor], network: VitPoseForPoseEstimation) -> dict[str, Tensor]:
    """Returns a dense trunk's parameters for a network that may have experts."""
    experts = network.config.num_experts
    if experts == 1:
        return state
    return unfold_state(state, experts, network.config.backbone_config.part_features)


def _config(recipe: ModelRecipe, datasets: Sequence[DatasetSpec]) -> VitPoseConfig:
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


def _resized(backbone: Any, recipe: ModelRecipe) -> Any:
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


def _plain_vit(start: str) -> dict[str, Tensor] | None:
    """Returns the parameters of a MAE or ImageNet ViT under our names, or None if it is something else.

    Such files name parameters as timm does: `pos_embed`, `patch_embed.proj`, `blocks.0.norm1`, `norm`.
    """
    path = _plain_file(start)
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
            f"{start} has 'pos_embed' of the shape {tuple(state['pos_embed'].shape)}, as no plain vision "
            "transformer has; choose a plain ViT with one class token"
        )
    kept = {name: tensor for name, tensor in state.items() if not _NOT_OF_A_TRUNK.match(name)}
    return {f"backbone.{re.sub('^norm[.]', 'last_norm.', name)}": tensor for name, tensor in kept.items()}


def _plain_file(start: str) -> Path | None:
    """Returns the file that may be a plain ViT's: one that is named, or that of a folder or repository of timm's."""
    path = existing_path(start)
    if path is not None and path.is_file():
        return path if path.suffix in (".pth", ".pt", ".safetensors") else None
    if is_original(start) or "architecture" not in read_json(start, "config.json"):
        return None
    return find_file(start, WEIGHTS_FILE)


def _square_grid(state: Mapping[str, Tensor], source: str) -> tuple[int, int]:
    """Returns the grid of a plain ViT's position embeddings, of which the first is its class token's."""
    count = state["backbone.pos_embed"].shape[1] - 1
    side = math.isqrt(count)
    if side * side != count:
        raise CheckpointError(
            f"{source} has {count + 1} position embeddings, which are not those of one class token and a square of "
            "patches; choose a plain ViT with one class token"
        )
    return side, side


def _filled(
    network: VitPoseForPoseEstimation, state: dict[str, Tensor], source: str, grid: tuple[int, int]
) -> VitPoseForPoseEstimation:
    """Gives a network what fits of a state of that grid of patches; whatever of a backbone does not is an error."""
    own = network.state_dict()
    of_trunk = [name for name in own.keys() | state.keys() if name.startswith("backbone.")]
    # Files of MAE have no last norm of the patches; it starts as the identity it is.
    missing = sorted(name for name in of_trunk if name not in state and ".last_norm." not in name)
    unknown = sorted(name for name in of_trunk if name not in own)
    state = {name: _fitted(name, tensor, network, grid) for name, tensor in state.items() if name in own}
    misfits = [name for name, tensor in state.items() if tensor.shape != own[name].shape]
    if missing or unknown or misfits:
        raise CheckpointError(
            f"{source} cannot start this network: missing {missing[:5]}, not known here {unknown[:5]}, of other shapes "
            f"{misfits[:5]}; choose a plain ViT, and its size as model.size"
        )
    network.load_state_dict(state, strict=False)
    return network


def _fitted(name: str, tensor: Tensor, network: VitPoseForPoseEstimation, old: tuple[int, int]) -> Tensor:
    """Resamples position embeddings from their old grid, and pads patches of 14; everything else stays."""
    config = network.backbone.config
    if name == "backbone.pos_embed" and config.grid_size != old:
        first, grid = tensor[:, :1], tensor[:, 1:].transpose(1, 2).unflatten(2, old).float()
        grid = F.interpolate(grid, config.grid_size, mode="bicubic", align_corners=False)
        return torch.cat([first, grid.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)
    if name == "backbone.patch_embed.proj.weight" and (tensor.shape[-1], *config.patch_size) == (14, 16, 16):
        return F.pad(tensor, [1, 1, 1, 1])  # MAE's ViT-H, as in the original
    return tensor
