"""People beside their predictions, as arrays: what the measures of distance start from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError, UnknownNameError
from ..geometry.boxes import xyxy_from_xywh
from ..keypoints.similarity import mean_similarities, point_similarities, sigmas_of
from ..keypoints.skeleton import Skeleton, plain_name
from .correspondence import Correspondence, match_boxes
from .distances import head_lengths, point_distances
from .ground_truth import GroundTruth, Person
from .results import ResultRow

TORSO = ("left_shoulder", "right_hip")
"""The torso is the distance of these, as in the evaluation of LSP and FLIC (Sapp and Taskar, CVPR 2013)."""

HEAD = ("head_top", "upper_neck")
"""The ends of MPII's head, whose distance stands for the box where a file has none, as MPII's json."""

LENGTHS = ("torso", "box", "head")


@dataclass(frozen=True, eq=False)
class Pairs:
    """The people that can be found, each with a prediction or None.

    Attributes:
        people: Who has a compared point labelled, and is no crowd.
        results: The prediction of each, by the overlap of the boxes.
        distances: Of each compared point, px; infinite where there is no prediction.
        labelled: Which of them count.
        oks: COCO's similarity of each pair; 0 where there is no prediction.
    """

    people: tuple[Person, ...]
    results: tuple[ResultRow | None, ...]
    distances: Float[np.ndarray, "n c"]
    labelled: Bool[np.ndarray, "n c"]
    oks: Float[np.ndarray, " n"]


def pair(annotations: GroundTruth, results: Sequence[ResultRow], shared: Correspondence) -> Pairs:
    """Gives each person of a file the prediction whose box overlaps theirs most, each prediction once."""
    wanted = [one for one in annotations.people if not one.crowd and one.labelled[shared.annotated].any()]
    matched = dict(_matched(wanted, results))
    pairs = tuple(matched.get(index) for index in range(len(wanted)))
    c = len(shared.names)
    truth = np.array([one.points[shared.annotated] for one in wanted]).reshape(-1, c, 3)
    nowhere = np.full((c, 3), np.inf)
    found = [nowhere if own is None else own.points[shared.predicted] for own in pairs]
    xy = np.array(found).reshape(-1, c, 3)[:, :, :2]
    labelled = truth[:, :, 2] > 0
    areas = np.array([one.area for one in wanted], np.float64)
    sigmas = sigmas_of(annotations.skeleton)[shared.annotated]
    alike = point_similarities(xy, truth[:, :, :2], areas, sigmas)
    distances = point_distances(xy, truth[:, :, :2])
    return Pairs(tuple(wanted), pairs, distances, labelled, mean_similarities(alike, labelled))


def _matched(people: Sequence[Person], results: Sequence[ResultRow]) -> Iterator[tuple[int, ResultRow]]:
    persons, predictions = _by_image(people), _by_image(results)
    for key in persons.keys() & predictions.keys():
        rows, found = persons[key], predictions[key]
        theirs = _boxes([people[row] for row in rows])
        chosen = match_boxes(theirs, _boxes([results[row] for row in found]))
        yield from ((row, results[found[own]]) for row, own in zip(rows, chosen, strict=True) if own >= 0)


def _by_image(rows: Sequence[Person | ResultRow]) -> dict[tuple[Any, Any], list[int]]:
    places: dict[tuple[Any, Any], list[int]] = {}
    for index, row in enumerate(rows):
        places.setdefault((row.image_id, row.category_id), []).append(index)
    return places


def _boxes(rows: Sequence[Person | ResultRow]) -> Float[np.ndarray, "n 4"]:
    return xyxy_from_xywh(np.array([row.xywh for row in rows], np.float64))


def measure_lengths(kind: str, people: Sequence[Person], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    """Returns the length that each person's distances are divided by, px; nan where it cannot be measured.

    Args:
        kind: "torso"; "box", the longer side of a person's box; "head", MPII's 0.6 of the diagonal of the head's
            box, or where nobody has such a box the distance of `HEAD`; two names of points, as in
            "left_eye:right_eye"; or a number of pixels.
        people: Whose.
        skeleton: Of their points.

    Raises:
        UnknownNameError: The kind is none of these.
        InputError: The length in pixels is not above 0, or no person has a box of the head, nor the skeleton its ends.
    """
    if kind == "box":
        return np.array([max(one.xywh[2:]) or np.nan for one in people], np.float64)
    if kind == "head":
        return _head_lengths(people, skeleton)
    if kind == "torso" or ":" in kind:
        return _distances_of(TORSO if kind == "torso" else tuple(kind.split(":", 1)), people, skeleton)
    try:
        length = float(kind)
    except ValueError as error:
        hint = "Two points, such as left_eye:right_eye, and a number of pixels work too."
        raise UnknownNameError("length", kind, LENGTHS, hint) from error
    if not 0 < length < np.inf:
        raise InputError(f"a length must be above 0 pixels, not {kind}")
    return np.full(len(people), length)


def has_torso(skeleton: Skeleton) -> bool:
    """Tells whether the torso can be measured on a skeleton."""
    return set(TORSO) <= set(map(plain_name, skeleton.keypoints))


def has_head_boxes(people: Sequence[Person]) -> bool:
    """Tells whether anybody has a box of the head."""
    return any(one.head_xywh is not None for one in people)


def _head_lengths(people: Sequence[Person], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    if not has_head_boxes(people):
        if set(HEAD) <= set(map(plain_name, skeleton.keypoints)):
            return _distances_of(HEAD, people, skeleton)
        raise InputError(
            "nobody has a box of the head, which PCKh divides by; add head_bbox, (left, top, width, height), to the "
            "annotations, give MPII's mpii_gt_val.mat as head_boxes, or choose pck with another length"
        )
    boxes = np.array([one.head_xywh or (np.nan,) * 4 for one in people])
    lengths = head_lengths(boxes)
    return np.where(lengths > 0, lengths, np.nan)


def _distances_of(
    names: tuple[str, ...], people: Sequence[Person], skeleton: Skeleton
) -> Float[np.ndarray, " n"]:
    plain = {plain_name(name): index for index, name in enumerate(skeleton.keypoints)}
    for name in names:
        if plain_name(name) not in plain:
            hint = "Choose another length: box, two points, a number of pixels."
            raise UnknownNameError(
                f"keypoint of the skeleton {skeleton.name!r}", name, skeleton.keypoints, hint
            )
    a, b = (plain[plain_name(name)] for name in names)
    points = np.array([one.points for one in people]).reshape(-1, len(skeleton), 3)
    lengths = np.linalg.norm(points[:, a, :2] - points[:, b, :2], axis=1)
    measured = (points[:, a, 2] > 0) & (points[:, b, 2] > 0) & (lengths > 0)
    return np.where(measured, lengths, np.nan)
