"""CrowdPose's metrics: COCO's with areas taken from boxes, and AP by degree of crowding.

The rules are those of the dataset's evaluation code (crowdposetools): areas are 0.53 of the boxes; an image is easy
below a crowd index of 0.2 and hard from 0.8. That code rounds the last three values to four digits; here they are
not rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.annotation_file import ImageRow
from .coco import Numbers, Selection, coco_numbers
from .ground_truth import Instance, with_box_areas
from .problems import Problems
from .results import ResultRow

EASY_BELOW, HARD_FROM = 0.2, 0.8
NAMES = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
"""COCO's metrics that CrowdPose reports: none of medium and large instances."""


def crowdpose_numbers(
    instances: Sequence[Instance],
    results: Sequence[ResultRow],
    selection: Selection,
    images: Mapping[Any, ImageRow],
    problems: Problems,
) -> Numbers:
    """Return CrowdPose's nine metrics, each None if no instance counts.

    Images without a crowd index count in the first six only and are added to the problems.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    instances = with_box_areas(instances)
    classes: dict[str, list[Any]] = {"easy": [], "medium": [], "hard": []}
    for image in images.values():
        if image.crowd_index is None:
            problems.add("images without a crowdIndex: not in AP easy, medium or hard", str(image))
        else:
            classes[_degree(image.crowd_index)].append(image.id)
    numbers = coco_numbers(instances, results, selection, images=images.keys())
    split = {
        f"AP {name}": coco_numbers(instances, results, selection, images=ids)["AP"]
        for name, ids in classes.items()
    }
    return {name: numbers[name] for name in NAMES} | split


def _degree(crowd_index: float) -> str:
    return "easy" if crowd_index < EASY_BELOW else "medium" if crowd_index < HARD_FROM else "hard"
