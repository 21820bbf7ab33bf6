"""A contact sheet of the worst cases: each prediction beside its ground truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..data.annotation_file import ImageFinder
from ..errors import InputError, VitPoseError
from ..geometry.boxes import Size
from ..geometry.warp import Warp
from ..images import read_image
from ..keypoints.skeleton import Skeleton
from ..results.drawing import draw
from ..results.poses import Poses
from .ground_truth import Instance
from .report import EvaluationReport
from .results import ResultRow, image_directory

logger = logging.getLogger(__name__)

CELL_PX = 240
"""Side of each of the two views of a case."""
BAR_PX = 22
"""Height of the caption above them."""
COLUMNS = 3
THICKNESS_PX = 2.5
_MARGIN, _WHITE, _GREY = 0.15, (255, 255, 255), (40, 40, 40)


def draw_worst(report: EvaluationReport, images: str | Path, count: int = 24) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the instances with the lowest OKS, the worst first: prediction on the left, ground truth on the right.

    Instances without a prediction are not drawn; the report counts them. An image that cannot be read is drawn grey,
    and a warning is logged.

    Args:
        report: The result of `evaluate_model` or `evaluate_predictions`.
        images: Directory of the images.
        count: The maximum number of cases.

    Returns:
        The contact sheet, RGB.

    Raises:
        InputError: The count is below 1, there is no such directory, or no instance has a prediction.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, not {count}")
    pairs = report.pairs
    ranked = [
        (pairs.oks[row], pairs.instances[row], pairs.results[row])
        for row in np.argsort(pairs.oks, kind="stable")
    ]
    cases = [
        _Case(report, instance, result, float(oks)) for oks, instance, result in ranked if result is not None
    ]
    if not cases:
        raise InputError("no instance has a prediction to draw; check the problems in the report")
    finder = ImageFinder(report.annotations.images.values(), image_directory(images, report.annotations))
    return _sheet([case.draw(finder) for case in cases[:count]])


@dataclass(frozen=True, eq=False)
class _Case:
    """An instance with its prediction."""

    report: EvaluationReport
    instance: Instance
    result: ResultRow
    oks: float

    def draw(self, finder: ImageFinder) -> UInt8[np.ndarray, "h w 3"]:
        truth, predicted = self.report.annotations, self.report.predicted_skeleton
        row = truth.images[self.instance.image_id]
        try:
            image = read_image(finder.find(row))
        except VitPoseError as error:
            logger.warning("%s is drawn grey: %s", row, error)
            image = np.full((CELL_PX, CELL_PX, 3), 128, np.uint8)
        all_visible = np.ones(len(self.result.keypoints), np.float32)
        labelled = self.instance.labelled.astype(np.float32)
        views = [
            self._view(image, self.result.keypoints[:, :2], all_visible, predicted),
            self._view(image, self.instance.keypoints[:, :2], labelled, truth.skeleton),
        ]
        bar = np.full((BAR_PX, 2 * CELL_PX, 3), _GREY, np.uint8)
        caption = f"OKS {self.oks:.2f}  {truth.name_of(self.instance)}"
        cv2.putText(bar, caption, (4, BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _WHITE, 1, cv2.LINE_AA)
        return np.concatenate([bar, np.concatenate(views, axis=1)])

    def _view(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        xy: Float[np.ndarray, "k 2"],
        scores: Float[np.ndarray, " k"],
        skeleton: Skeleton,
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Resize the surroundings of the instance's box to a cell and draws one pose over them."""
        left, top, width, height = self.instance.xywh
        side = max(width, height, 1) * (1 + 2 * _MARGIN)
        scale = CELL_PX / side
        centre, size = np.array([left + width / 2, top + height / 2]), Size(width=CELL_PX, height=CELL_PX)
        view = Warp(centre[None], np.full((1, 2), side), size, "plain").crop(image)[0]
        corner = centre - side / 2
        xy_view = ((xy - corner) * scale)[None].astype(np.float32)
        box = np.array([[0, 0, CELL_PX, CELL_PX]], np.float32)
        return draw(
            view,
            Poses(xy_view, scores[None], box, np.ones(1, np.float32), skeleton),
            threshold=0.5,
            thickness=THICKNESS_PX,
        )


def _sheet(cells: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "hs ws 3"]:
    """Arrange cells of one size in rows; the last row is filled up with black."""
    columns = min(COLUMNS, len(cells))
    empty = np.zeros_like(cells[0])
    padded = [*cells, *[empty] * (-len(cells) % columns)]
    rows = [
        np.concatenate(padded[start : start + columns], axis=1) for start in range(0, len(padded), columns)
    ]
    return np.concatenate(rows)
