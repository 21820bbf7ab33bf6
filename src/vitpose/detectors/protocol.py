"""What every detector takes and returns. Knows no detector, no network and no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import BoxError, InputError
from ..geometry.boxes import Size, as_rows, as_xyxy, clip_to


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one image, best first where they have scores.

    Attributes:
        boxes: xyxy, in pixels of the image. The detectors of vitpose cut them at its borders.
        scores: The detector's confidence, 0 to 1; 1 for boxes that were given.
        labels: The class of each box, in COCO's names ("person", "dog"); an empty string where it is not known.

    Raises:
        BoxError: The three do not have the same length; a box or score is not finite, or a box has no area; or a
            label is not a string.
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
        """Makes detections of what a detector found in an image of that size.

        Boxes (xyxy, px) are cut at the image's borders, those left without area are dropped, and
        the best come first.

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
        """Selects boxes by slice, mask or array of rows."""
        chosen = np.arange(len(self))[rows]
        return Detections(self.boxes[chosen], self.scores[chosen], tuple(self.labels[row] for row in chosen))


def _as_scores(scores: Any) -> Float[np.ndarray, " n"]:
    try:
        array = np.array(scores, np.float32)
    except (TypeError, ValueError) as error:
        raise BoxError(f"scores must be one number for each box, not {scores!r:.200}") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise BoxError(
            f"scores must be one finite number for each box, not {scores!r:.200}; drop those boxes"
        )
    return array


def _refuse_infinite(boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"]) -> None:
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise BoxError(
            "the detector found boxes or scores that are NaN or infinite; its file is damaged, or its type overflows: "
            "use float32"
        )


@runtime_checkable
class Detector(Protocol):
    """Finds boxes in images.

    A detector whose boxes come from the user, such as a file of them, may say so with `given = True`: then every box
    keeps its pose, also where two poses are nearly the same.

    Attributes:
        settles: Whether a box is only a first guess that the pose itself should improve: pose, box
            around it, pose again, until it settles.
    """

    settles: bool

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Finds the boxes of each image.

        Args:
            images: RGB images (h w 3), each of its own size.
            names: Their file names, in the same order; an empty string for an image without a file.
        """
        ...


def detect_with(
    detector: Detector, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]
) -> list[Detections]:
    """Returns what a detector finds, which may be anybody's object.

    Raises:
        InputError: It does not return one `Detections` for each image.
    """
    found = detector.detect(images, names)
    if (
        not isinstance(found, Sequence)
        or len(found) != len(images)
        or not all(isinstance(one, Detections) for one in found)
    ):
        raise InputError(
            f"the detector {type(detector).__name__} must return one vitpose.Detections for each of the "
            f"{len(images)} images, not {found!r:.200}"
        )
    return list(found)
