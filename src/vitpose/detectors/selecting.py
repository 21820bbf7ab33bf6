"""A filter for the detections of another detector, by class and score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from ..errors import InputError, check_number
from .labels import Labels, read_labels
from .protocol import Detections, Detector, detect_with


class SelectingDetector:
    """A detector that keeps only the boxes of another detector with given labels and a minimum score.

    Args:
        detector: The detector, from which `settles` and `given` are copied.
        labels: Class names to keep; None or "all": every class.
        min_score: Boxes with a lower score are dropped; None: no minimum.

    Raises:
        InputError: The labels are not class names, or the score is not from 0 to 1.
    """

    def __init__(self, detector: Detector, labels: Labels, min_score: float | None) -> None:
        if min_score is not None:
            check_number("min_score", min_score, 0, 1)
        self.detector, self.min_score = detector, min_score
        self.settles, self.given = detector.settles, getattr(detector, "given", False)
        self._wanted = read_labels(labels)

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Detect the boxes of each image; see `Detector`.

        Raises:
            InputError: Labels are given and a box has no label, or the detector does not return `Detections`.
        """
        return [self._select(found) for found in detect_with(self.detector, images, names)]

    def _select(self, found: Detections) -> Detections:
        kept = np.ones(len(found), bool)
        if self._wanted is not None:
            if "" in found.labels:
                raise InputError(
                    f"the detector {type(self.detector).__name__} returns boxes without labels, so they cannot be "
                    f"filtered by labels {sorted(self._wanted)}; leave labels out"
                )
            kept &= np.array([label in self._wanted for label in found.labels], bool)
        if self.min_score is not None:
            kept &= found.scores >= self.min_score
        return found[kept]
