"""CrowdPose's evaluation: COCO's, with areas taken from boxes, and once more for each degree of crowding.

The rules are those of its own script (crowdposetools): areas are 0.53 of the boxes; an image is easy below a
crowd index of 0.2, hard from 0.8 on. Its script rounds the last three numbers to four digits; these do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.annotation_file import ImageRow
from .coco import Numbers, Selection, coco_numbers
from .ground_truth import Person, with_areas_of_boxes
from .problems import Problems
from .results import ResultRow

EASY_BELOW, HARD_FROM = 0.2, 0.8
NAMES = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
"""CrowdPose has no medium and large."""


def crowdpose_numbers(
    people: Sequence[Person],
    results: Sequence[ResultRow],
    selection: Selection,
    images: Mapping[Any, ImageRow],
    problems: Problems,
) -> Numbers:
    """Returns CrowdPose's nine numbers, each None where nobody is counted.

    Images without a crowd index count in the first six alone, and are named.
    """
    people = with_areas_of_boxes(people)
    classes: dict[str, list[Any]] = {"easy": [], "medium": [], "hard": []}
    for image in images.values():
        if image.crowd_index is None:
            problems.add("images without a crowdIndex, which are not easy, medium or hard", str(image))
        else:
            classes[_degree(image.crowd_index)].append(image.id)
    numbers = coco_numbers(people, results, selection, images=images.keys())
    split = {
        f"AP {name}": coco_numbers(people, results, selection, images=ids)["AP"]
        for name, ids in classes.items()
    }
    return {name: numbers[name] for name in NAMES} | split


def _degree(crowd_index: float) -> str:
    return "easy" if crowd_index < EASY_BELOW else "medium" if crowd_index < HARD_FROM else "hard"
