"""COCO-WholeBody's evaluation: COCO's ten numbers for the body, feet, face, each hand, and all 133 points.

The rules are those of its own scripts: of each part only the people count who have a point of it labelled; area
and box are the whole person's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .coco import NAMES, Numbers, Selection, coco_numbers
from .ground_truth import Person
from .results import ResultRow

PARTS = {
    "body": slice(0, 17),
    "feet": slice(17, 23),
    "face": slice(23, 91),
    "left hand": slice(91, 112),
    "right hand": slice(112, 133),
    "all": slice(0, 133),
}
"""Where each part lies among the 133 points."""


def wholebody_numbers(
    people: Sequence[Person], results: Sequence[ResultRow], selection: Selection, *, images: Collection[Any]
) -> dict[str, Numbers]:
    """Returns COCO's ten numbers of each part, and of both hands the mean of the two.

    A part of which a point is not predicted is left out.

    Raises:
        InputError: No part is predicted as a whole, or these are not COCO-WholeBody's points.
    """
    if people and len(people[0].points) != PARTS["all"].stop:
        raise InputError(
            f"the whole-body measures need 133 annotated points, and there are {len(people[0].points)}; leave them out"
        )
    places = {int(index): place for place, index in enumerate(selection.annotated)}
    numbers: dict[str, Numbers] = {}
    for part, points in PARTS.items():
        wanted = range(points.start, points.stop)
        if all(index in places for index in wanted):
            own = selection[[places[index] for index in wanted]]
            numbers[part] = coco_numbers(people, results, own, images=images, extent=PARTS["body"])
    if not numbers:
        raise InputError("none of COCO-WholeBody's parts is predicted as a whole; leave the measure out")
    if {"left hand", "right hand"} <= numbers.keys():
        numbers["hands"] = _mean(numbers["left hand"], numbers["right hand"])
    return numbers


def _mean(left: Numbers, right: Numbers) -> Numbers:
    pairs = {name: (left[name], right[name]) for name in NAMES}
    return {
        name: None if None in pair else float(np.mean([value for value in pair if value is not None]))
        for name, pair in pairs.items()
    }
