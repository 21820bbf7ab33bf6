"""Files of the original repository: deriving the configuration from the parameters."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, InputError
from ..keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec
from ..keypoints.skeleton import Skeleton
from .config import VitPoseBackboneConfig, VitPoseConfig
from .names import OTHER_HEADS

logger = logging.getLogger(__name__)


def config_from_original(
    state: Mapping[str, Tensor], source: str, dataset: str | int | None = None
) -> VitPoseConfig:
    """Derives the configuration of an original network from its parameters.

    Args:
        state: The parameters, under vitpose's names.
        source: Name of the file in error messages.
        dataset: If a name is given, the keypoints of a file with one head and no experts are not assumed to be COCO's.

    Raises:
        CheckpointError: The parameters are not those of a released ViTPose, so that a `config` is required.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, axes in (("backbone.pos_embed", 3), ("head.final_layer.weight", 4)):
        if len(shapes.get(name, ())) != axes:
            found = ", ".join(key[:100] for key in list(state)[:5])
            raise CheckpointError(
                f"{source} has no parameter {name!r} of {axes} axes, so it is not an original ViTPose "
                f"checkpoint; its first parameters are: {found}"
            )
    try:
        return _config_from_shapes(shapes, source, dataset)
    except InputError as error:  # sizes beyond the limits
        raise CheckpointError(f"{source} is not a released ViTPose: {error}") from error


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
        # The first head of every released file is COCO's; a file split off for animals has the same shapes.
        logger.info(
            "%s has 17 keypoints, which are assumed to be COCO's; name another skeleton if they are not",
            source,
        )
        return VitPoseConfig.for_skeleton(Skeleton.load("coco"), **options)
    return VitPoseConfig(num_labels=keypoints, **options)


def _released_datasets(counts: list[int], source: str) -> list[str]:
    """Returns the datasets of a released file's heads: the file does not name them, but their order is fixed."""
    released = [len(DatasetSpec.load(name).skeleton) for name in PLUS_DATASETS]
    if counts != released[: len(counts)]:
        raise CheckpointError(
            f"{source} has heads of {reprlib.repr(counts)} keypoints; the released files have {released}, in this "
            "order, or only the first ones. Pass config=VitPoseConfig(datasets=[...], ...) that names the datasets"
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
    # The number of attention heads does not show in the shapes; in released models it follows from the width.
    heads = {192: 3, 384: 12, 768: 12, 1024: 16, 1280: 16, 1408: 16}.get(width)
    sizes = {(256, 192), (384, 288), (576, 432), (128, 96)}
    image_size = next((size for size in sizes if size[0] * size[1] // 256 == tokens - 1), None)
    if heads is None or image_size is None:
        raise CheckpointError(
            f"{source} has the width {width} and {tokens} position embeddings, as no released ViTPose; "
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
