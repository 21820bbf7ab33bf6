"""The interface of detectors: `Detector` and `Detections`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import BoxError
from ..geometry.boxes import Size, as_rows, as_xyxy, clip_to


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of one image; a detector's are sorted by score, the highest first.

    Attributes:
        boxes: xyxy, in pixels of the image. The detectors of vitpose clip them to the image.
        scores: The detector's confidence, 0 to 1; 1 for boxes given by the caller.
        labels: The class of each box, in COCO's names ("person", "dog"); an empty string if it is unknown.

    Raises:
        BoxError: The lengths differ, a box or score is not finite, a box has no area, or a label is not a string.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        boxes, scores = as_xyxy(self.boxes).copy(), _as_scores(self.scores)
        if isinstance(self.labels, str) or not all(isinstance(label, str) for label in self.labels):
            raise BoxError(f"labels must be a class name (a string) for each box, not {self.labels!r:.200}")
        if not len(boxes) == len(scores) == len(self.labels):
            raise BoxError(
                f"there are {len(boxes)} boxes, {len(scores)} scores and {len(self.labels)} labels; give one score "
                "and one label for each box"
            )
        for name, value in (("boxes", boxes), ("scores", scores), ("labels", tuple(self.labels))):
            object.__setattr__(self, name, value)

    @classmethod
    def of_boxes(cls, boxes: object, label: str = "person") -> Detections:
        """Create detections from xyxy boxes (px), each with score 1.

        Raises:
            BoxError: The boxes are not n x 4 finite numbers, or a box has no area.
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
        """Create detections from the raw output of a detector for an image of the given size.

        Boxes (xyxy, px) are clipped to the image, boxes without area are dropped, and the rest is sorted by score, the
        highest first.

        Raises:
            BoxError: A box or score is not finite.
        """
        _refuse_infinite(as_rows(boxes), scores)
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

    def __getitem__(self, rows: Any) -> Detections:
        """Select boxes by a slice, a mask or an array of indices."""
        indices = np.arange(len(self))[rows]
        return Detections(self.boxes[indices], self.scores[indices], tuple(self.labels[i] for i in indices))


def detections_from(boxes: Any, label: str = "person") -> Detections:
    """Convert the boxes of one image to detections, in the given order.

    Args:
        boxes: n rows of (left, top, right, bottom) in pixels; `Detections`; or any object with the attributes `xyxy`
            and `confidence`, such as `supervision.Detections` (class names come from `data["class_name"]`). An empty
            list means no instances.
        label: The class of boxes that come without class names.

    Raises:
        BoxError: The boxes are not n x 4 finite numbers with an area, the scores not one finite number for each box, or
            the class names not one string for each box.
    """
    if isinstance(boxes, Detections):
        return boxes
    if not hasattr(boxes, "xyxy"):
        return Detections.of_boxes(boxes, label)
    array = as_xyxy(boxes.xyxy)
    confidence = getattr(boxes, "confidence", None)
    names = (getattr(boxes, "data", None) or {}).get("class_name")
    scores = np.ones(len(array), np.float32) if confidence is None else confidence
    return Detections(array, scores, (label,) * len(array) if names is None else tuple(names))


def _as_scores(scores: Any) -> Float[np.ndarray, " n"]:
    try:
        array = np.array(scores, np.float32)
    except (TypeError, ValueError) as error:
        raise BoxError(f"scores must be one number for each box, not {scores!r:.200}") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise BoxError(
            f"scores must be one finite number for each box, not {scores!r:.200}; drop boxes without a finite score"
        )
    return array


def _refuse_infinite(boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"]) -> None:
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise BoxError(
            "the detector returned boxes or scores that are NaN or infinite; its file is damaged, or its dtype "
            "overflows: use float32"
        )


@runtime_checkable
class Detector(Protocol):
    """The interface of detectors, which return the boxes of images.

    Optional attributes tell the pipeline what to do with the boxes:

    - `refine_boxes` (default: False): the boxes are only a first guess. The pipeline fits a new box around the
      estimated pose and estimates again, until the box no longer changes.
    - `suppress_duplicates` (default: True): of two poses that are nearly the same, only the better one is kept. False
      for boxes that were given, for example in a file: each of them then keeps its pose.
    """

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> Sequence[Any]:
        """Detect the boxes of each image.

        Args:
            images: RGB images (h w 3), which may differ in size.
            names: Their file names, in the same order; an empty string for an image without a file.

        Returns:
            The boxes of each image, in the same order: `Detections`, or what `detections_from` converts to them.
        """
        ...
