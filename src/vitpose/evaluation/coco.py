"""COCO's average precision and recall of keypoints: ten metrics, computed by pycocotools.

Owns the conversion of instances and predictions into the form of pycocotools. Reads no files.
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
from .ground_truth import Instance
from .results import ResultRow

Numbers = dict[str, float | None]

NAMES = ("AP", "AP50", "AP75", "AP medium", "AP large", "AR", "AR50", "AR75", "AR medium", "AR large")
"""COCO's metrics in the order of its summary. Medium instances have areas of 32² to 96² px², large ones more."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The keypoints that are compared.

    Attributes:
        annotated: Their indices among the annotated keypoints.
        predicted: Their indices among the predicted keypoints.
        sigmas: COCO's sigma of each.
        recount: Whether `num_keypoints` is counted among these keypoints instead of taken from the file. COCO ignores
            instances in which it is 0.
    """

    annotated: Int[np.ndarray, " c"]
    predicted: Int[np.ndarray, " c"]
    sigmas: Float[np.ndarray, " c"]
    recount: bool

    def __getitem__(self, indices: Sequence[int]) -> Selection:
        rows = np.array(indices, np.int64)
        return Selection(self.annotated[rows], self.predicted[rows], self.sigmas[rows], recount=True)


def coco_numbers(
    instances: Sequence[Instance],
    results: Iterable[ResultRow],
    selection: Selection,
    *,
    images: Collection[Any],
    extent: slice = slice(None),
) -> Numbers:
    """Return COCO's ten metrics, each None if no instance counts.

    Args:
        instances: All instances, including crowd regions.
        results: The predictions.
        selection: The keypoints that are compared.
        images: IDs of the images that count.
        extent: The predicted keypoints whose extent is the area of a prediction without `bbox`. The area decides
            whether an unmatched prediction counts as medium or large. COCO takes all keypoints, COCO-WholeBody those
            of the body.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    coco = require("pycocotools.coco", "evaluate", "for average precision")
    cocoeval = require("pycocotools.cocoeval", "evaluate", "for average precision")
    image_ids = set(images)
    annotations = [
        _annotation_row(number, instance, selection)
        for number, instance in enumerate(instances, 1)
        if instance.image_id in image_ids
    ]
    predictions = [
        _result_row(number, result, selection, extent)
        for number, result in enumerate(results, 1)
        if result.image_id in image_ids
    ]
    if not annotations:
        return dict.fromkeys(NAMES)
    categories = sorted({row["category_id"] for row in annotations})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and its summary
        truth, found = (_index(coco, rows, image_ids, categories) for rows in (annotations, predictions))
        evaluation = cocoeval.COCOeval(truth, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = selection.sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = zip(NAMES, evaluation.stats, strict=True)
    return {name: None if value < 0 else float(value) for name, value in values}


def numbers_by_keypoint(
    instances: Sequence[Instance],
    results: Sequence[ResultRow],
    selection: Selection,
    *,
    images: Collection[Any],
) -> list[Numbers]:
    """Return AP, AP50 and AR of each keypoint, computed as if poses consisted of that keypoint alone.

    Instances in which the keypoint is not labelled are ignored, and predictions are matched by that keypoint, so the
    mean over keypoints is not COCO's AP.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    single = (selection[[k]] for k in range(len(selection.annotated)))
    by_keypoint = [coco_numbers(instances, results, one, images=images) for one in single]
    return [{name: numbers[name] for name in ("AP", "AP50", "AR")} for numbers in by_keypoint]


def _index(coco: Any, rows: list[dict[str, Any]], images: Iterable[Any], categories: Iterable[Any]) -> Any:
    index = coco.COCO()
    index.dataset = {
        "images": [{"id": image} for image in images],
        "annotations": rows,
        "categories": [{"id": category} for category in categories],
    }
    index.createIndex()
    return index


def _annotation_row(number: int, instance: Instance, selection: Selection) -> dict[str, Any]:
    """Return an annotation for pycocotools, which treats an ID of 0 as unmatched: IDs are replaced by numbers."""
    keypoints = instance.keypoints[selection.annotated]
    labelled = int((keypoints[:, 2] > 0).sum())
    return {
        "id": number,
        "image_id": instance.image_id,
        "category_id": instance.category_id,
        "bbox": list(instance.xywh),
        "area": instance.area,
        "iscrowd": int(instance.crowd),
        "num_keypoints": labelled if selection.recount else instance.num_keypoints,
        "keypoints": keypoints.ravel().tolist(),
    }


def _result_row(number: int, result: ResultRow, selection: Selection, extent: slice) -> dict[str, Any]:
    # Where a prediction has a bbox, pycocotools takes its area, otherwise the extent of the keypoints.
    sides = result.xywh[2:] if result.box_key == "bbox" else np.ptp(result.keypoints[extent, :2], axis=0)
    width, height = map(float, sides)
    return {
        "id": number,
        "image_id": result.image_id,
        "category_id": result.category_id,
        "area": width * height,
        "score": result.score,
        "keypoints": result.keypoints[selection.predicted].ravel().tolist(),
    }
