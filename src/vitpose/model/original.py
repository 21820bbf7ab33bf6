"""The original repository's files: which they are, and the sizes of their networks, read off the parameters."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, InputError
from ..keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec
from ..keypoints.skeleton import Skeleton
from .config import VitPoseBackboneConfig, VitPoseConfig
from .names import OTHER_HEADS

logger = logging.getLogger(__name__)

ORIGINAL_SUFFIXES = (".pth", ".pt")


def is_original(name: str | Path) -> bool:
    """Tells whether a name is that of a file of the original repository."""
    return str(name).endswith(ORIGINAL_SUFFIXES)


def config_from_original(
    state: Mapping[str, Tensor], source: str, dataset: str | int | None = None
) -> VitPoseConfig:
    """Reads the sizes of an original network off its parameters (under our names).

    Args:
        state: The parameters.
        source: How messages call the file.
        dataset: If its name is given, the points of a file with one head and no experts are not taken for COCO's.

    Raises:
        CheckpointError: The parameters are not those of a released ViTPose; a `config` is needed then.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, axes in (("backbone.pos_embed", 3), ("head.final_layer.weight", 4)):
        if len(shapes.get(name, ())) != axes:
            found = ", ".join(own[:100] for own in list(state)[:5])
            raise CheckpointError(
                f"{source} has no parameter {name!r} of {axes} axes, so it is no original ViTPose "
                f"checkpoint; it starts with: {found}"
            )
    try:
        return _config_from_shapes(shapes, source, dataset)
    except InputError as error:  # beyond what any network may have
        raise CheckpointError(f"{source} is no released ViTPose: {error}") from error


def _config_from_shapes(
    shapes: Mapping[str, tuple[int, ...]], source: str, dataset: str | int | None
) -> VitPoseConfig:
    options: dict[str, Any] = {
        "backbone_config": _backbone_from_shapes(shapes, source),
        "use_simple_decoder": "head.deconv_layers.0.weight" not in shapes,
    }
    counts = [shapes["head.final_layer.weight"][0]]
    while rows := shapes.get(f"{OTHER_HEADS}{len(counts) - 1}.final_layer.weight"):
        counts.append(rows[0])
    if len(counts) > 1:
        return VitPoseConfig(datasets=_released_datasets(counts, source), **options)
    keypoints = counts[0]
    named = isinstance(dataset, str) and options["backbone_config"].num_experts == 1
    if keypoints == 17 and not named:
        # The first head of every released file is COCO's; a file that was split off for animals looks the same.
        logger.info("%s has 17 keypoints, which are taken for COCO's; another skeleton must be named", source)
        return VitPoseConfig.for_skeleton(Skeleton.load("coco"), **options)
    return VitPoseConfig(num_labels=keypoints, **options)


def _released_datasets(counts: list[int], source: str) -> list[str]:
    """Returns which datasets the heads of a released file are of: a file does not say, but their order is fixed."""
    released = [len(DatasetSpec.load(name).skeleton) for name in PLUS_DATASETS]
    if counts != released[: len(counts)]:
        raise CheckpointError(
            f"{source} has heads of {reprlib.repr(counts)} keypoints; the released files have {released}, in this "
            "order, or the first of them. Pass config=VitPoseConfig(datasets=[...], ...) that names the datasets"
        )
    return list(PLUS_DATASETS[: len(counts)])


def _backbone_from_shapes(shapes: Mapping[str, tuple[int, ...]], source: str) -> VitPoseBackboneConfig:
    _, tokens, width = shapes["backbone.pos_embed"]
    blocks = {match[1] for name in shapes if (match := re.match(r"backbone\.blocks\.(\d+)\.", name))}
    experts = {
        match[1]: shape[0]
        for name, shape in shapes.items()
        if shape and (match := re.search(r"\.mlp\.experts\.(\d+)\.bias$", name))
    }
    # The number of heads leaves no trace in the shapes: it is known by the width alone.
    heads = {192: 3, 384: 12, 768: 12, 1024: 16, 1280: 16, 1408: 16}.get(width)
    sizes = {(256, 192), (384, 288), (576, 432), (128, 96)}
    image_size = next((size for size in sizes if size[0] * size[1] // 256 == tokens - 1), None)
    if heads is None or image_size is None:
        raise CheckpointError(
            f"{source} is {width} wide with {tokens} position embeddings, which no released ViTPose is; "
            "pass config=VitPoseConfig(...) that describes it"
        )
    return VitPoseBackboneConfig(
        image_size=image_size,
        hidden_size=width,
        num_hidden_layers=max(1, len(blocks)),
        num_attention_heads=heads,
        num_experts=max(1, len(experts)),
        part_features=next(iter(experts.values()), 0),
        layer_norm_eps=1e-6,
    )
