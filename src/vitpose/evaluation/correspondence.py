"""Correspondences: keypoints of two skeletons by name, predictions and instances by box."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError
from ..geometry.boxes import iou
from ..keypoints.mapping import canonical_name
from ..keypoints.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class Correspondence:
    """The keypoints that two skeletons share, in the order of the annotated one.

    Attributes:
        names: Their names in the annotated skeleton.
        annotated: Their indices in the annotated skeleton.
        predicted: Their indices in the predicted skeleton.
        unpredicted: Annotated keypoints that are not predicted; no metric counts them.
        unannotated: Predicted keypoints that are not annotated.
    """

    names: tuple[str, ...]
    annotated: Int[np.ndarray, " c"]
    predicted: Int[np.ndarray, " c"]
    unpredicted: tuple[str, ...]
    unannotated: tuple[str, ...]

    def without(self, names: Collection[str]) -> Correspondence:
        """Return the correspondence without some of the annotated keypoints.

        Raises:
            InputError: None is left.
        """
        kept = [index for index, name in enumerate(self.names) if name not in names]
        if not kept:
            raise InputError(
                f"the only keypoints shared are {', '.join(self.names)}, which the dataset's rules do not count; "
                "choose the rules of another dataset"
            )
        return replace(
            self,
            names=tuple(self.names[index] for index in kept),
            annotated=self.annotated[kept],
            predicted=self.predicted[kept],
        )


def match_keypoints(annotated: Skeleton, predicted: Skeleton) -> Correspondence:
    """Find the keypoints that two skeletons share, by name ("L_Eye" is "left_eye").

    Raises:
        InputError: They share none.
    """
    indices = {canonical_name(name): index for index, name in enumerate(predicted.keypoints)}
    shared = [index for index, name in enumerate(annotated.keypoints) if canonical_name(name) in indices]
    if not shared:
        raise InputError(
            f"the predicted skeleton {predicted.name!r} and the annotated skeleton {annotated.name!r} share no "
            f"keypoint: {', '.join(predicted.keypoints[:5])}, … and {', '.join(annotated.keypoints[:5])}, …; give "
            "the skeletons that the predictions and the annotations have"
        )
    names = tuple(annotated.keypoints[index] for index in shared)
    used = {canonical_name(name) for name in names}
    return Correspondence(
        names=names,
        annotated=np.array(shared, np.int64),
        predicted=np.array([indices[canonical_name(name)] for name in names], np.int64),
        unpredicted=tuple(name for name in annotated.keypoints if canonical_name(name) not in used),
        unannotated=tuple(name for name in predicted.keypoints if canonical_name(name) not in used),
    )


def match_boxes(
    annotated: Float[np.ndarray, "n 4"], predicted: Float[np.ndarray, "m 4"]
) -> Int[np.ndarray, " n"]:
    """Match each instance with at most one prediction, in descending order of IoU.

    Args:
        annotated: xyxy boxes of the instances of one image, px.
        predicted: xyxy boxes of its predictions, px.

    Returns:
        The index of each instance's prediction; -1 if no unmatched prediction overlaps.
    """
    matched = np.full(len(annotated), -1, np.int64)
    overlaps = iou(annotated, predicted)
    # A stable sort: of equal overlaps the earlier instance gets the earlier prediction.
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        instance, prediction = np.unravel_index(flat, overlaps.shape)
        if overlaps[instance, prediction] <= 0:
            break
        if matched[instance] < 0 and prediction not in matched:
            matched[instance] = prediction
    return matched
