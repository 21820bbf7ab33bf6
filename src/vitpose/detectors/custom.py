"""Detectors of the caller: any object with `detect`, or any function from an image to its boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..errors import BoxError, InputError, check_number
from .labels import Labels, read_labels
from .protocol import Detections, Detector, detections_from

DetectFunction = Callable[[UInt8[np.ndarray, "h w 3"]], Any]
"""A function from an RGB image to its boxes, in any form that `detections_from` converts."""


def check_detector(detector: Any) -> None:
    """Check that an object is a detector or a function from an image to boxes.

    Raises:
        InputError: It is neither.
    """
    if isinstance(detector, type) or not (isinstance(detector, Detector) or callable(detector)):
        raise InputError(
            f"{detector!r:.200} is not a detector; pass a name, a function from an RGB image to its boxes, or an "
            "object with a method `detect`"
        )


def run_detector(
    detector: Detector | DetectFunction, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]
) -> list[Detections]:
    """Run a detector, which may be an object or a function of the caller, and check what it returns.

    Args:
        detector: A detector, or a function that is called with each image.
        images: RGB images (h w 3).
        names: Their file names; see `Detector.detect`.

    Returns:
        The detections of each image, in pixels of the image; boxes without a class have the label "".

    Raises:
        InputError: A detector does not return a list with an entry for each image.
        BoxError: The boxes of an image are invalid; the message names the detector and the boxes.
        VitPoseError: The detector fails.
    """
    if not isinstance(detector, Detector):
        return [_convert(detector, detector(image)) for image in images]
    found = detector.detect(images, names)
    if not isinstance(found, Sequence) or len(found) != len(images):
        raise InputError(
            f"the detector {name_of(detector)} must return a list with the boxes of each of the {len(images)} images, "
            f"not {found!r:.200}"
        )
    return [_convert(detector, boxes) for boxes in found]


def name_of(detector: object) -> str:
    """Return the name of a detector for messages: that of a function, or of the class of an object."""
    return getattr(detector, "__name__", type(detector).__name__)


def _convert(detector: object, boxes: Any) -> Detections:
    try:
        return detections_from(boxes, label="")
    except BoxError as error:
        raise BoxError(
            f"the detector {name_of(detector)} returned {boxes!r:.200} for an image: {error}. It must return n x 4 "
            "boxes (xyxy, px), an empty list for no instances, or supervision.Detections"
        ) from error


class SelectingDetector:
    """A detector that keeps only the boxes of another detector with given labels and a minimum score.

    Args:
        detector: The detector or function; `refine_boxes` and `suppress_duplicates` are those of it.
        labels: Class names to keep; default: every class, as "all".
        min_score: Boxes with a lower score are dropped; default: no minimum.

    Raises:
        InputError: The labels are not class names, or the score is not from 0 to 1.
    """

    def __init__(
        self, detector: Detector | DetectFunction, labels: Labels = None, min_score: float | None = None
    ) -> None:
        if min_score is not None:
            check_number("min_score", min_score, 0, 1)
        self.detector, self.min_score = detector, min_score
        self.refine_boxes = getattr(detector, "refine_boxes", False)
        self.suppress_duplicates = getattr(detector, "suppress_duplicates", True)
        self._labels = read_labels(labels, default="all")

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Detect the boxes of each image; see `Detector`.

        Raises:
            InputError: Labels are given and a box has no label; or as in `run_detector`.
            BoxError: As in `run_detector`.
        """
        return [self._select(found) for found in run_detector(self.detector, images, names)]

    def _select(self, found: Detections) -> Detections:
        kept = np.ones(len(found), bool)
        if self._labels is not None:
            if "" in found.labels:
                raise InputError(
                    f"the detector {name_of(self.detector)} returns boxes without labels, so they cannot be filtered "
                    f"by labels {sorted(self._labels)}; leave labels out"
                )
            kept &= np.array([label in self._labels for label in found.labels], bool)
        if self.min_score is not None:
            kept &= found.scores >= self.min_score
        return found[kept]
