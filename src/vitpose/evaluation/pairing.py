"""Instances paired with predictions, as arrays: the input of the metrics of distances."""

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
from .distances import head_lengths, keypoint_distances
from .ground_truth import GroundTruth, Instance
from .results import ResultRow

TORSO = ("left_shoulder", "right_hip")
"""The torso length is their distance, as in the evaluation of LSP and FLIC (Sapp and Taskar, CVPR 2013)."""

HEAD = ("head_top", "upper_neck")
"""The ends of MPII's head; the head length is their distance if a file has no head boxes, as MPII's JSON."""

LENGTHS = ("torso", "box", "head")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Instances, each with its prediction or None.

    Attributes:
        instances: The instances, not crowds, with at least one labelled keypoint that is compared.
        results: The prediction of each, matched by IoU of the boxes.
        distances: Distance of each compared keypoint, px; infinite without a prediction.
        labelled: Which of the compared keypoints are labelled.
        oks: Object keypoint similarity (OKS) of each pair; 0 without a prediction.
    """

    instances: tuple[Instance, ...]
    results: tuple[ResultRow | None, ...]
    distances: Float[np.ndarray, "n c"]
    labelled: Bool[np.ndarray, "n c"]
    oks: Float[np.ndarray, " n"]


def pair(annotations: GroundTruth, results: Sequence[ResultRow], shared: Correspondence) -> Pairs:
    """Pair each instance with the prediction of largest IoU between their boxes; each prediction is used once."""
    instances = [
        one for one in annotations.instances if not one.crowd and one.labelled[shared.annotated].any()
    ]
    matched = dict(_match(instances, results))
    predictions = tuple(matched.get(index) for index in range(len(instances)))
    c = len(shared.names)
    truth = np.array([one.keypoints[shared.annotated] for one in instances]).reshape(-1, c, 3)
    missing = np.full((c, 3), np.inf)
    found = [missing if one is None else one.keypoints[shared.predicted] for one in predictions]
    xy = np.array(found).reshape(-1, c, 3)[:, :, :2]
    labelled = truth[:, :, 2] > 0
    areas = np.array([one.area for one in instances], np.float64)
    sigmas = sigmas_of(annotations.skeleton)[shared.annotated]
    similarities = point_similarities(xy, truth[:, :, :2], areas, sigmas)
    distances = keypoint_distances(xy, truth[:, :, :2])
    return Pairs(
        tuple(instances), predictions, distances, labelled, mean_similarities(similarities, labelled)
    )


def _match(instances: Sequence[Instance], results: Sequence[ResultRow]) -> Iterator[tuple[int, ResultRow]]:
    """Yield the index of each matched instance and its prediction."""
    annotated, predicted = _by_image(instances), _by_image(results)
    for key in annotated.keys() & predicted.keys():
        rows, found = annotated[key], predicted[key]
        boxes = _boxes([instances[row] for row in rows])
        matches = match_boxes(boxes, _boxes([results[row] for row in found]))
        yield from (
            (row, results[found[match]]) for row, match in zip(rows, matches, strict=True) if match >= 0
        )


def _by_image(rows: Sequence[Instance | ResultRow]) -> dict[tuple[Any, Any], list[int]]:
    """Return the indices of the rows of each image and category."""
    indices: dict[tuple[Any, Any], list[int]] = {}
    for index, row in enumerate(rows):
        indices.setdefault((row.image_id, row.category_id), []).append(index)
    return indices


def _boxes(rows: Sequence[Instance | ResultRow]) -> Float[np.ndarray, "n 4"]:
    return xyxy_from_xywh(np.array([row.xywh for row in rows], np.float64))


def measure_lengths(kind: str, instances: Sequence[Instance], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    """Return the length that each instance's distances are divided by, px; NaN if it cannot be measured.

    Args:
        kind: "torso"; "box", the longer side of the box; "head", MPII's 0.6 of the head box's diagonal, or if no
            instance has a head box the distance between the keypoints of `HEAD`; the names of two keypoints, as in
            "left_eye:right_eye"; or a number of pixels.
        instances: The instances to measure.
        skeleton: Skeleton of their keypoints.

    Raises:
        UnknownNameError: The kind is none of these, or a keypoint is not in the skeleton.
        InputError: The number of pixels is not above 0; or no instance has a head box and the skeleton lacks the
            keypoints of `HEAD`.
    """
    if kind == "box":
        return np.array([max(one.xywh[2:]) or np.nan for one in instances], np.float64)
    if kind == "head":
        return _head_lengths(instances, skeleton)
    if kind == "torso" or ":" in kind:
        return _keypoint_lengths(TORSO if kind == "torso" else tuple(kind.split(":", 1)), instances, skeleton)
    try:
        length = float(kind)
    except ValueError as error:
        hint = "Two keypoints, such as left_eye:right_eye, or a number of pixels are accepted too."
        raise UnknownNameError("length", kind, LENGTHS, hint) from error
    if not 0 < length < np.inf:
        raise InputError(f"a length must be above 0 pixels, not {kind}")
    return np.full(len(instances), length)


def has_torso(skeleton: Skeleton) -> bool:
    """Tell whether a skeleton has the keypoints of `TORSO`."""
    return set(TORSO) <= set(map(plain_name, skeleton.keypoints))


def has_head_boxes(instances: Sequence[Instance]) -> bool:
    """Tell whether any instance has a head box."""
    return any(one.head_xywh is not None for one in instances)


def _head_lengths(instances: Sequence[Instance], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    if not has_head_boxes(instances):
        if set(HEAD) <= set(map(plain_name, skeleton.keypoints)):
            return _keypoint_lengths(HEAD, instances, skeleton)
        raise InputError(
            "no annotation has a head box, which PCKh requires; add head_bbox (left, top, width, height) to the "
            "annotations, give MPII's mpii_gt_val.mat with --head-boxes (head_boxes=), or choose pck with another "
            "length"
        )
    boxes = np.array([one.head_xywh or (np.nan,) * 4 for one in instances])
    lengths = head_lengths(boxes)
    return np.where(lengths > 0, lengths, np.nan)


def _keypoint_lengths(
    names: tuple[str, ...], instances: Sequence[Instance], skeleton: Skeleton
) -> Float[np.ndarray, " n"]:
    """Return the distance between two keypoints of each instance, px; NaN unless both are labelled."""
    indices = {plain_name(name): index for index, name in enumerate(skeleton.keypoints)}
    for name in names:
        if plain_name(name) not in indices:
            hint = f"The skeleton is {skeleton.name!r}. Another length is box, two keypoints, or a number of pixels."
            raise UnknownNameError("keypoint", name, skeleton.keypoints, hint)
    a, b = (indices[plain_name(name)] for name in names)
    keypoints = np.array([one.keypoints for one in instances]).reshape(-1, len(skeleton), 3)
    lengths = np.linalg.norm(keypoints[:, a, :2] - keypoints[:, b, :2], axis=1)
    measured = (keypoints[:, a, 2] > 0) & (keypoints[:, b, 2] > 0) & (lengths > 0)
    return np.where(measured, lengths, np.nan)
