"""Which is which: points of one skeleton and another by name, predictions and people by their boxes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError
from ..geometry.boxes import iou
from ..keypoints.mapping import place_name
from ..keypoints.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class Correspondence:
    """The points that two skeletons share, in the order of the annotated one.

    Attributes:
        names: What they are called there.
        annotated: Their indices in the annotated skeleton.
        predicted: Their indices in the predicted skeleton.
        unpredicted: Annotated points that nothing predicts; no measure counts them.
        unannotated: Predicted points that nothing annotates.
    """

    names: tuple[str, ...]
    annotated: Int[np.ndarray, " c"]
    predicted: Int[np.ndarray, " c"]
    unpredicted: tuple[str, ...]
    unannotated: tuple[str, ...]

    def without(self, names: Collection[str]) -> Correspondence:
        """Returns the correspondence less some of the annotated points.

        Raises:
            InputError: None is left.
        """
        kept = [index for index, name in enumerate(self.names) if name not in names]
        if not kept:
            raise InputError(f"the points {', '.join(self.names)} do not count, and no other is shared")
        return replace(
            self,
            names=tuple(self.names[index] for index in kept),
            annotated=self.annotated[kept],
            predicted=self.predicted[kept],
        )


def match_keypoints(annotated: Skeleton, predicted: Skeleton) -> Correspondence:
    """Finds the points that two skeletons share, by name ("L_Eye" is "left_eye").

    Raises:
        InputError: They share none.
    """
    places = {place_name(name): index for index, name in enumerate(predicted.keypoints)}
    shared = [index for index, name in enumerate(annotated.keypoints) if place_name(name) in places]
    if not shared:
        raise InputError(
            f"the predicted skeleton {predicted.name!r} and the annotated {annotated.name!r} have no point in "
            f"common: {', '.join(predicted.keypoints[:5])}, … and {', '.join(annotated.keypoints[:5])}, …"
        )
    names = tuple(annotated.keypoints[index] for index in shared)
    used = {place_name(name) for name in names}
    return Correspondence(
        names=names,
        annotated=np.array(shared, np.int64),
        predicted=np.array([places[place_name(name)] for name in names], np.int64),
        unpredicted=tuple(name for name in annotated.keypoints if place_name(name) not in used),
        unannotated=tuple(name for name in predicted.keypoints if place_name(name) not in used),
    )


def match_boxes(people: Float[np.ndarray, "n 4"], found: Float[np.ndarray, "m 4"]) -> Int[np.ndarray, " n"]:
    """Gives each person at most one prediction: the pairs that overlap most come first.

    Args:
        people: xyxy boxes of the people of one image, px.
        found: xyxy boxes of its predictions, px.

    Returns:
        The index of each person's prediction; -1 where none overlaps.
    """
    chosen = np.full(len(people), -1, np.int64)
    overlaps = iou(people, found)
    # A stable sort: of equal overlaps the earlier person gets the earlier prediction.
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        person, prediction = np.unravel_index(flat, overlaps.shape)
        if overlaps[person, prediction] <= 0:
            break
        if chosen[person] < 0 and prediction not in chosen:
            chosen[person] = prediction
    return chosen
