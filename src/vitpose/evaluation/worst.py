"""A contact sheet of the worst cases: each prediction beside what was annotated."""

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
from .ground_truth import Person
from .report import EvaluationReport
from .results import ResultRow, image_folder

logger = logging.getLogger(__name__)

CELL_PX = 240
"""Side of each of a case's two views."""
BAR_PX = 22
"""Height of the line of text above them."""
COLUMNS = 3
THICKNESS_PX = 2.5
_MARGIN, _WHITE, _GREY = 0.15, (255, 255, 255), (40, 40, 40)


def draw_worst(report: EvaluationReport, images: str | Path, count: int = 24) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the people whose predictions are farthest off by OKS, the worst first: left predicted, right annotated.

    People without a prediction are not drawn: the report counts them. An image that cannot be read is grey,
    and a warning is logged.

    Args:
        report: Of `evaluate_model` or `evaluate_predictions`.
        images: Folder of the images.
        count: At most so many cases.

    Raises:
        InputError: The count is not positive, there is no such folder, or nobody has a prediction.
    """
    if count < 1:
        raise InputError(f"count must be 1 or more, not {count}")
    pairs = report.pairs
    ranked = [
        (pairs.oks[row], pairs.people[row], pairs.results[row])
        for row in np.argsort(pairs.oks, kind="stable")
    ]
    found = [
        _Case(report, person, result, float(oks)) for oks, person, result in ranked if result is not None
    ]
    if not found:
        raise InputError(
            "nobody has a prediction, so there is no worst one to draw; see the report's problems"
        )
    finder = ImageFinder(report.annotations.images.values(), image_folder(images, report.annotations))
    return _sheet([case.draw(finder) for case in found[:count]])


@dataclass(frozen=True, eq=False)
class _Case:
    """A person beside their prediction."""

    report: EvaluationReport
    person: Person
    result: ResultRow
    oks: float

    def draw(self, finder: ImageFinder) -> UInt8[np.ndarray, "h w 3"]:
        truth, predicted = self.report.annotations, self.report.predicted_skeleton
        listed = truth.images[self.person.image_id]
        try:
            image = read_image(finder.find(listed))
        except VitPoseError as error:
            logger.warning("%s is drawn grey: %s", listed, error)
            image = np.full((CELL_PX, CELL_PX, 3), 128, np.uint8)
        everything = np.ones(len(self.result.points), np.float32)
        views = [
            self._view(image, self.result.points[:, :2], everything, predicted),
            self._view(
                image, self.person.points[:, :2], self.person.labelled.astype(np.float32), truth.skeleton
            ),
        ]
        bar = np.full((BAR_PX, 2 * CELL_PX, 3), _GREY, np.uint8)
        words = f"OKS {self.oks:.2f}  {truth.name_of(self.person)}"
        cv2.putText(bar, words, (4, BAR_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _WHITE, 1, cv2.LINE_AA)
        return np.concatenate([bar, np.concatenate(views, axis=1)])

    def _view(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        xy: Float[np.ndarray, "k 2"],
        scores: Float[np.ndarray, " k"],
        skeleton: Skeleton,
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Enlarges the surroundings of the person's box, and draws one pose there."""
        left, top, width, height = self.person.xywh
        side = max(width, height, 1) * (1 + 2 * _MARGIN)
        scale = CELL_PX / side
        centre, size = np.array([left + width / 2, top + height / 2]), Size(width=CELL_PX, height=CELL_PX)
        view = Warp(centre[None], np.full((1, 2), side), size, "plain").crop(image)[0]
        corner = centre - side / 2
        points = ((xy - corner) * scale)[None].astype(np.float32)
        box = np.array([[0, 0, CELL_PX, CELL_PX]], np.float32)
        return draw(
            view,
            Poses(points, scores[None], box, np.ones(1, np.float32), skeleton),
            threshold=0.5,
            thickness=THICKNESS_PX,
        )


def _sheet(cells: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "hs ws 3"]:
    """Lays cells of one size in rows."""
    columns = min(COLUMNS, len(cells))
    empty = np.zeros_like(cells[0])
    full = [*cells, *[empty] * (-len(cells) % columns)]
    rows = [np.concatenate(full[start : start + columns], axis=1) for start in range(0, len(full), columns)]
    return np.concatenate(rows)
