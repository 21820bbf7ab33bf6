"""Metrics of keypoint distances: PCK, PCKh, AUC, EPE, NME. NumPy only; no files, no skeletons.

The distance of a keypoint without a prediction is infinite: it is never correct, and is left out of mean distances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError

HEAD_SHARE = 0.6
"""MPII's head length as a fraction of the head box's diagonal (SC_BIAS of its evaluation code)."""

AUC_STEPS = 20
"""Number of thresholds that AUC averages over: 0, 1/20, … 19/20."""


def keypoint_distances(
    xy: Float[np.ndarray, "n k 2"], truth: Float[np.ndarray, "n k 2"]
) -> Float[np.ndarray, "n k"]:
    """Return the distances between predicted and annotated keypoints, px."""
    return np.linalg.norm(xy - truth, axis=2)


def relative_distances(
    distances: Float[np.ndarray, "n k"], lengths: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Return distances divided by each instance's length.

    Raises:
        InputError: A length is not finite and above 0.
    """
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(
            f"lengths must be finite and above 0, not {lengths.tolist()!r:.200}; leave those instances out"
        )
    return distances / lengths[:, None]


def head_lengths(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Return MPII's head lengths, px.

    Args:
        boxes: The head boxes (left, top, width, height), px.
    """
    return HEAD_SHARE * np.hypot(boxes[:, 2], boxes[:, 3])


def pck(
    relative: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"], threshold: float
) -> float | None:
    """Return the fraction of labelled keypoints within a threshold; None if none is labelled.

    With distances relative to head lengths this is PCKh.
    """
    return float((relative <= threshold)[labelled].mean()) if labelled.any() else None


def auc(
    relative: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"], steps: int = AUC_STEPS
) -> float | None:
    """Return the mean PCK over the thresholds 0, 1/steps, … (steps - 1)/steps; None if none is labelled.

    Raises:
        InputError: `steps` is below 1.
    """
    if steps < 1:
        raise InputError(f"steps must be 1 or more, not {steps}")
    if not labelled.any():
        return None
    return float(np.mean([pck(relative, labelled, step / steps) for step in range(steps)]))


def mean_distance(distances: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"]) -> float | None:
    """Return the mean over labelled keypoints that have a prediction; None if there are none.

    With distances in pixels this is EPE, with relative ones NME.
    """
    counted = labelled & np.isfinite(distances)
    return float(distances[counted].mean()) if counted.any() else None


def by_keypoint(
    metric: Callable[..., float | None],
    distances: Float[np.ndarray, "n k"],
    labelled: Bool[np.ndarray, "n k"],
    **settings: Any,
) -> list[float | None]:
    """Return a metric of this module for each keypoint separately."""
    columns = ([k] for k in range(distances.shape[1]))
    return [metric(distances[:, column], labelled[:, column], **settings) for column in columns]
