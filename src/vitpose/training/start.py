"""The network that a recipe starts from: random, from a checkpoint, or from a plain vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..files.hub import resolve
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.skeleton import Skeleton
from ..model.checkpoint import read_checkpoint
from ..model.config import VitPoseConfig
from ..model.initialisation import match_depth, network_from_checkpoint, network_from_plain_vit
from ..model.plain_vit import read_plain_vit
from ..model.pose import VitPoseForPoseEstimation
from .recipe_tables import ModelRecipe


def make_network(recipe: ModelRecipe, datasets: Sequence[DatasetSpec] = ()) -> VitPoseForPoseEstimation:
    """Return the network with its initial weights; randomly initialised keypoints are logged.

    Args:
        recipe: The network.
        datasets: The datasets of its heads. Default: one head with the recipe's skeleton.

    Raises:
        CheckpointError: The initial weights cannot be read, or do not fit a vision transformer of this size.
        SkeletonError: The recipe's skeleton is invalid.
        UnknownNameError: The recipe's size, decoder or skeleton is unknown.
    """
    files = resolve(recipe.start) if recipe.start else None
    if files is None:
        network = VitPoseForPoseEstimation(_new_config(recipe, datasets))
    elif (plain := read_plain_vit(files)) is not None:
        plain = match_depth(plain, recipe.layers) if recipe.layers else plain
        network = network_from_plain_vit(_new_config(recipe, datasets), plain, recipe.start)
    else:
        checkpoint = read_checkpoint(files)
        network = network_from_checkpoint(_changed_config(checkpoint.config, recipe, datasets), checkpoint)
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    return network.train()


def _new_config(recipe: ModelRecipe, datasets: Sequence[DatasetSpec]) -> VitPoseConfig:
    """Return the configuration of a network of the recipe's size."""
    options: dict[str, Any] = {"image_size": (recipe.height, recipe.width)}
    if recipe.drop_path is not None:
        options["drop_path_rate"] = recipe.drop_path
    if recipe.layers is not None:
        options |= {"num_hidden_layers": recipe.layers, "out_indices": [recipe.layers]}
    skeleton = datasets[0].skeleton if datasets else recipe.skeleton
    experts = len(datasets) if recipe.experts and datasets else 1
    config = VitPoseConfig.preset(
        recipe.size, decoder=recipe.decoder, skeleton=skeleton, num_experts=experts, **options
    )
    return replace(config, datasets=list(datasets)) if datasets else config


def _changed_config(
    start: VitPoseConfig, recipe: ModelRecipe, datasets: Sequence[DatasetSpec]
) -> VitPoseConfig:
    """Return the configuration of a checkpoint with the recipe's keypoints, experts, input size and depth."""
    old: Any = start.backbone_config
    layers = recipe.layers or old.num_hidden_layers
    experts = len(datasets) if recipe.experts and datasets else 1
    part = old.part_features if old.num_experts > 1 else old.hidden_size // 4
    backbone = replace(
        old,
        image_size=(recipe.height, recipe.width),
        drop_path_rate=old.drop_path_rate if recipe.drop_path is None else recipe.drop_path,
        num_hidden_layers=layers,
        out_features=None,
        out_indices=[layers],
        num_experts=experts,
        part_features=part if experts > 1 else 0,
    )
    options: dict[str, Any] = {
        "backbone_config": backbone,
        "use_simple_decoder": start.use_simple_decoder,
        "scale_factor": start.scale_factor,
    }
    if datasets:
        return VitPoseConfig(datasets=list(datasets), **options)
    return VitPoseConfig.for_skeleton(Skeleton.load(recipe.skeleton), **options)
