"""CrowdPose's evaluation: COCO's, with areas taken from boxes, and once more for each degree of crowding.

The rules are those of its own script (crowdposetools): areas are 0.53 of the boxes; a picture is easy below a
crowd index of 0.2, hard from 0.8 on. Its script rounds the last three numbers to four digits; these do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..annotation_file import Picture
from .annotations import Person, with_areas_of_boxes
from .coco import Numbers, Selection, coco_numbers
from .problems import Problems
from .results import Result

EASY_BELOW, HARD_FROM = 0.2, 0.8
NAMES = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
"""CrowdPose has no medium and large."""


def crowdpose_numbers(
    people: Sequence[Person],
    results: Sequence[Result],
    selection: Selection,
    pictures: Mapping[Any, Picture],
    problems: Problems,
) -> Numbers:
    """Returns CrowdPose's nine numbers, each None where nobody is counted.

    Pictures without a crowd index count in the first six alone, and are named.
    """
    people = with_areas_of_boxes(people)
    classes: dict[str, list[Any]] = {"easy": [], "medium": [], "hard": []}
    for picture in pictures.values():
        if picture.crowd_index is None:
            problems.add("pictures without a crowdIndex, which are not easy, medium or hard", str(picture))
        else:
            classes[_degree(picture.crowd_index)].append(picture.id)
    numbers = coco_numbers(people, results, selection, images=pictures.keys())
    split = {
        f"AP {name}": coco_numbers(people, results, selection, images=images)["AP"]
        for name, images in classes.items()
    }
    return {name: numbers[name] for name in NAMES} | split


def _degree(crowd_index: float) -> str:
    return "easy" if crowd_index < EASY_BELOW else "medium" if crowd_index < HARD_FROM else "hard"
