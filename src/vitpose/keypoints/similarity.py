"""Object keypoint similarity (OKS), and the removal of poses that repeat a better one.

The similarity is COCO's (https://cocodataset.org/#keypoints-eval): a keypoint at distance d counts
exp(-d² / (2 area (2 sigma)²)). Pipelines, tracking and evaluation share it. Knows no file and no average precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..geometry.boxes import keep_best
from .skeleton import Skeleton

MAX_OKS = 0.9
"""Poses more alike than this are one person found twice; the value of the original's test configurations."""

FALLBACK_SIGMA = 0.067
"""Sigma of every keypoint of a skeleton that declares none: the mean of COCO's 17."""


def sigmas_of(skeleton: Skeleton) -> Float[np.ndarray, " k"]:
    """Returns the sigmas of a skeleton's keypoints, `FALLBACK_SIGMA` for each where it declares none."""
    return np.array(skeleton.sigmas or (FALLBACK_SIGMA,) * len(skeleton), np.float64)


def point_similarities(
    xy: Float[np.ndarray, "n k 2"],
    other: Float[np.ndarray, "n k 2"],
    areas: Float[np.ndarray, " n"],
    sigmas: Float[np.ndarray, " k"],
) -> Float[np.ndarray, "n k"]:
    """Returns how alike the points of n pairs of poses are, 0 to 1.

    Args:
        xy: Points, px.
        other: The points they are compared with, px.
        areas: Area of each person, px².
        sigmas: COCO's fall-off of each keypoint.
    """
    squares = ((xy - other) ** 2).sum(axis=2)
    scales = (areas[:, None] + np.spacing(1)) * (2 * sigmas) ** 2
    return np.exp(-squares / scales / 2)


def mean_similarities(
    similarities: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, " n"]:
    """Returns the OKS of n poses: the mean over their labelled points, 0 where there are none."""
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
        xy: The poses of one image, px.
        scores: Their scores, any range.
        areas: Area of each, px²; two poses are compared with the mean of theirs.
        sigmas: COCO's fall-off of each keypoint.
        max_oks: A pose that is more alike to a better one than this is dropped.

    Returns:
        The indices of the poses that stay, best first.
    """

    def likeness(best: Any, others: np.ndarray) -> np.ndarray:
        repeated = np.repeat(xy[[best]], len(others), axis=0)
        return point_similarities(xy[others], repeated, (areas[others] + areas[best]) / 2, sigmas).mean(
            axis=1
        )

    return keep_best(scores, likeness, max_oks)
