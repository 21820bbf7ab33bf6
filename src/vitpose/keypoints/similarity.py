"""Object keypoint similarity (OKS), and non-maximum suppression of poses by it.

The similarity is COCO's (https://cocodataset.org/#keypoints-eval): a keypoint at distance d contributes
exp(-d² / (2 area (2 sigma)²)). Shared by pipelines, tracking and evaluation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..geometry.boxes import suppress_similar
from .skeleton import Skeleton

MAX_OKS = 0.9
"""Two poses with a higher OKS are duplicates of one instance; the value of the original's test configurations."""

FALLBACK_SIGMA = 0.067
"""Sigma of every keypoint of a skeleton without sigmas: the mean of COCO's 17."""


def sigmas_of(skeleton: Skeleton) -> Float[np.ndarray, " k"]:
    """Returns the OKS sigma of each keypoint of a skeleton; default: `FALLBACK_SIGMA`."""
    return np.array(skeleton.sigmas or (FALLBACK_SIGMA,) * len(skeleton), np.float64)


def point_similarities(
    xy: Float[np.ndarray, "n k 2"],
    other: Float[np.ndarray, "n k 2"],
    areas: Float[np.ndarray, " n"],
    sigmas: Float[np.ndarray, " k"],
) -> Float[np.ndarray, "n k"]:
    """Returns the similarity of each keypoint of n pairs of poses, 0 to 1.

    Args:
        xy: Keypoints, px.
        other: Keypoints to compare with, px.
        areas: Area of each instance, px².
        sigmas: OKS sigma of each keypoint.
    """
    squares = ((xy - other) ** 2).sum(axis=2)
    scales = (areas[:, None] + np.spacing(1)) * (2 * sigmas) ** 2
    return np.exp(-squares / scales / 2)


def mean_similarities(
    similarities: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, " n"]:
    """Returns the OKS of n poses: the mean similarity of their labelled keypoints, 0 if none is labelled."""
    return np.where(labelled, similarities, 0).sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)


def suppress_repeated(
    xy: Float[np.ndarray, "n k 2"],
    scores: Float[np.ndarray, " n"],
    areas: Float[np.ndarray, " n"],
    sigmas: Float[np.ndarray, " k"],
    max_oks: float = MAX_OKS,
) -> Int[np.ndarray, " m"]:
    """Greedy non-maximum suppression by OKS.

    Args:
        xy: Keypoints of the poses of one image, px.
        scores: Score of each pose, any range.
        areas: Area of each instance, px²; the OKS of two poses uses the mean of their areas.
        sigmas: OKS sigma of each keypoint.
        max_oks: A pose whose OKS with a kept pose of higher score exceeds this is removed.

    Returns:
        The indices of the kept poses, by descending score.
    """

    def similarity(best: Any, others: np.ndarray) -> np.ndarray:
        repeated = np.repeat(xy[[best]], len(others), axis=0)
        mean_areas = (areas[others] + areas[best]) / 2
        return point_similarities(xy[others], repeated, mean_areas, sigmas).mean(axis=1)

    return suppress_similar(scores, similarity, max_oks)
