"""COCO's average precision and recall of keypoints: the ten numbers, through pycocotools.

Owns the form in which people and predictions are handed to pycocotools, so that its numbers are the numbers.
Knows no file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import require
from .ground_truth import Person
from .results import ResultRow

Numbers = dict[str, float | None]

NAMES = ("AP", "AP50", "AP75", "AP medium", "AP large", "AR", "AR50", "AR75", "AR medium", "AR large")
"""COCO's numbers in the order of its own summary. Medium is 32² to 96² px² of area, large is more."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Which points are compared.

    Attributes:
        annotated: Their indices in the people's points.
        predicted: Their indices in the results' points.
        sigmas: COCO's fall-off of each.
        recount: Whether the labelled ones among them say who has none and is ignored, instead of the file's count.
    """

    annotated: Int[np.ndarray, " c"]
    predicted: Int[np.ndarray, " c"]
    sigmas: Float[np.ndarray, " c"]
    recount: bool

    def __getitem__(self, chosen: Sequence[int]) -> Selection:
        rows = np.array(chosen, np.int64)
        return Selection(self.annotated[rows], self.predicted[rows], self.sigmas[rows], recount=True)


def coco_numbers(
    people: Sequence[Person],
    results: Iterable[ResultRow],
    selection: Selection,
    *,
    images: Collection[Any],
    extent: slice = slice(None),
) -> Numbers:
    """Returns COCO's ten numbers, each None where nobody is counted.

    Args:
        people: All people, crowd regions too.
        results: The predictions.
        selection: The points that are compared.
        images: Ids of the images that count.
        extent: Of which predicted points the extent is the area of a prediction that came without `bbox`. The area
            decides whether a prediction that is nobody counts as medium or large. COCO takes all
            points, COCO-WholeBody those of the body.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    coco = require("pycocotools.coco", "evaluate", "for average precision")
    judge = require("pycocotools.cocoeval", "evaluate", "for average precision")
    inside = set(images)
    rows = [
        _person_row(number, person, selection)
        for number, person in enumerate(people, 1)
        if person.image_id in inside
    ]
    found = [
        _result_row(number, result, selection, extent)
        for number, result in enumerate(results, 1)
        if result.image_id in inside
    ]
    if not rows:
        return dict.fromkeys(NAMES)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells everybody what it does
        kinds = sorted({row["category_id"] for row in rows})
        own = judge.COCOeval(
            _index(coco, rows, inside, kinds), _index(coco, found, inside, kinds), "keypoints"
        )
        own.params.kpt_oks_sigmas = selection.sigmas
        own.evaluate()
        own.accumulate()
        own.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(NAMES, own.stats, strict=True)}


def numbers_by_keypoint(
    people: Sequence[Person], results: Sequence[ResultRow], selection: Selection, *, images: Collection[Any]
) -> list[Numbers]:
    """Returns AP, AP50 and AR of each point alone, as if a person were that one point.

    Who does not have the point labelled is ignored, and matching is done anew for each, by that point: so the mean
    over the points is not COCO's AP.
    """
    chosen = range(len(selection.annotated))
    all_numbers = (coco_numbers(people, results, selection[[k]], images=images) for k in chosen)
    return [{name: numbers[name] for name in ("AP", "AP50", "AR")} for numbers in all_numbers]


def _index(coco: Any, rows: list[dict[str, Any]], images: Iterable[Any], kinds: Iterable[Any]) -> Any:
    index = coco.COCO()
    index.dataset = {
        "images": [{"id": image} for image in images],
        "annotations": rows,
        "categories": [{"id": kind} for kind in kinds],
    }
    index.createIndex()
    return index


def _person_row(number: int, person: Person, selection: Selection) -> dict[str, Any]:
    """Returns a person for pycocotools. The number stands for the id: pycocotools takes an id of 0 for nobody."""
    points = person.points[selection.annotated]
    return {
        "id": number,
        "image_id": person.image_id,
        "category_id": person.category_id,
        "bbox": list(person.xywh),
        "area": person.area,
        "iscrowd": int(person.crowd),
        "num_keypoints": int((points[:, 2] > 0).sum()) if selection.recount else person.counted,
        "keypoints": points.ravel().tolist(),
    }


def _result_row(number: int, result: ResultRow, selection: Selection, extent: slice) -> dict[str, Any]:
    sides = result.xywh[2:] if result.box_key == "bbox" else np.ptp(result.points[extent, :2], axis=0)
    width, height = map(float, sides)
    return {
        "id": number,
        "image_id": result.image_id,
        "category_id": result.category_id,
        "area": width * height,
        "score": result.score,
        "keypoints": result.points[selection.predicted].ravel().tolist(),
    }
