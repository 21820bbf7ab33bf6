"""COCO-WholeBody's metrics: COCO's ten for the body, feet, face, each hand, and all 133 keypoints.

The rules are those of the dataset's evaluation code: for each part only the instances with a labelled keypoint of the
part count; area and box are those of the whole person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .coco import NAMES, Numbers, Selection, coco_numbers
from .ground_truth import Instance
from .results import ResultRow

PARTS = {
    "body": slice(0, 17),
    "feet": slice(17, 23),
    "face": slice(23, 91),
    "left hand": slice(91, 112),
    "right hand": slice(112, 133),
    "all": slice(0, 133),
}
"""Indices of each part among the 133 keypoints."""


def wholebody_numbers(
    instances: Sequence[Instance],
    results: Sequence[ResultRow],
    selection: Selection,
    *,
    images: Collection[Any],
) -> dict[str, Numbers]:
    """Return COCO's ten metrics for each part, and for "hands" the mean of both hands.

    A part with a keypoint that is not predicted is left out.

    Raises:
        InputError: No part is predicted completely, or the keypoints are not COCO-WholeBody's.
        MissingDependencyError: pycocotools is not installed.
    """
    if instances and len(instances[0].keypoints) != PARTS["all"].stop:
        raise InputError(
            f"the metric wholebody requires 133 annotated keypoints, not {len(instances[0].keypoints)}; leave it out"
        )
    positions = {int(index): position for position, index in enumerate(selection.annotated)}
    numbers: dict[str, Numbers] = {}
    for part, span in PARTS.items():
        indices = range(span.start, span.stop)
        if all(index in positions for index in indices):
            chosen = selection[[positions[index] for index in indices]]
            numbers[part] = coco_numbers(instances, results, chosen, images=images, extent=PARTS["body"])
    if not numbers:
        raise InputError("no part of COCO-WholeBody is predicted completely; leave the metric wholebody out")
    if {"left hand", "right hand"} <= numbers.keys():
        numbers["hands"] = _mean(numbers["left hand"], numbers["right hand"])
    return numbers


def _mean(left: Numbers, right: Numbers) -> Numbers:
    pairs = {name: (left[name], right[name]) for name in NAMES}
    return {
        name: None if None in pair else float(np.mean([value for value in pair if value is not None]))
        for name, pair in pairs.items()
    }
