"""What every detector gives and takes. Knows no detector, no network and no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from ..boxes import Size, as_xyxy, clip_to
from ..errors import BoxError


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one picture, best first where they have scores.

    Attributes:
        boxes: xyxy, in pixels of the picture, cut at its borders.
        scores: The detector's confidence, 0 to 1; 1 for boxes that were given.
        labels: What each box holds, in COCO's class names ("person", "dog").

    Raises:
        BoxError: The three do not have the same length.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            raise BoxError(
                f"{len(self.boxes)} boxes, {len(self.scores)} scores and {len(self.labels)} labels do not "
                "belong together; give one score and one label a box"
            )

    @classmethod
    def of_boxes(cls, boxes: object, label: str = "person") -> Detections:
        """Makes detections of given xyxy boxes, each with score 1.

        Raises:
            BoxError: The boxes are no boxes (see `as_xyxy`).
        """
        array = as_xyxy(boxes)
        return cls(boxes=array, scores=np.ones(len(array), np.float32), labels=(label,) * len(array))

    @classmethod
    def found(
        cls,
        boxes: Float[np.ndarray, "n 4"],
        scores: Float[np.ndarray, " n"],
        labels: Sequence[str],
        size: Size,
    ) -> Detections:
        """Makes detections of what a detector found in a picture of that size.

        Boxes (xyxy, px) are cut at the picture's borders, those left without area are dropped, and
        the best come first.
        """
        boxes = clip_to(boxes, size)
        order = np.argsort(-scores, kind="stable")
        order = order[(boxes[order, 2:] > boxes[order, :2]).all(axis=1)]
        return cls(
            boxes=boxes[order],
            scores=scores[order].astype(np.float32),
            labels=tuple(labels[index] for index in order),
        )

    def __len__(self) -> int:
        return len(self.boxes)


@runtime_checkable
class Detector(Protocol):
    """Finds boxes in pictures.

    Attributes:
        settles: Whether a box is only a first guess that the pose itself should improve: pose, box
            around it, pose again, until it settles.
    """

    settles: bool

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Finds the boxes of each picture.

        Args:
            images: RGB pictures (h w 3), each of its own size.
            names: Their file names, in the same order; an empty text for a picture without a file.
        """
        ...
