"""Measures of distance: PCK, PCKh, AUC, EPE, NME. Plain numpy; knows no file and no skeleton.

Distances of points that were not found at all are infinite: they are never correct, and have no place in a mean
distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..errors import InputError

HEAD_SHARE = 0.6
"""MPII's length of a head is this share of its box's diagonal (SC_BIAS of its evaluation script)."""

AUC_STEPS = 20
"""Thresholds over which AUC is the mean: 0, 1/20, … 19/20."""


def point_distances(
    xy: Float[np.ndarray, "n k 2"], truth: Float[np.ndarray, "n k 2"]
) -> Float[np.ndarray, "n k"]:
    """Returns how far points lie from where they should, px."""
    return np.linalg.norm(xy - truth, axis=2)


def relative_distances(
    distances: Float[np.ndarray, "n k"], lengths: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Returns distances as shares of each person's length.

    Raises:
        InputError: A length is not finite and above 0.
    """
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise InputError(
            f"lengths must be finite and above 0, not {lengths.tolist()!r:.200}; leave those people out"
        )
    return distances / lengths[:, None]


def head_lengths(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Returns MPII's lengths of heads, px.

    Args:
        boxes: The heads' boxes (left, top, width, height), px.
    """
    return HEAD_SHARE * np.hypot(boxes[:, 2], boxes[:, 3])


def pck(
    relative: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"], threshold: float
) -> float | None:
    """Returns the share of labelled points that lie within a threshold; None if none is labelled.

    With lengths of heads this is PCKh.
    """
    return float((relative <= threshold)[labelled].mean()) if labelled.any() else None


def auc(
    relative: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"], steps: int = AUC_STEPS
) -> float | None:
    """Returns the mean PCK over the thresholds 0, 1/steps, … (steps - 1)/steps; None if none is labelled.

    Raises:
        InputError: There is not a step at least.
    """
    if steps < 1:
        raise InputError(f"auc needs 1 step or more, not {steps}")
    if not labelled.any():
        return None
    return float(np.mean([pck(relative, labelled, step / steps) for step in range(steps)]))


def mean_distance(distances: Float[np.ndarray, "n k"], labelled: Bool[np.ndarray, "n k"]) -> float | None:
    """Returns the mean over labelled points that were found; None if there are none.

    Of distances in pixels this is EPE, of relative ones NME.
    """
    counted = labelled & np.isfinite(distances)
    return float(distances[counted].mean()) if counted.any() else None


def by_keypoint(
    measure: Callable[..., float | None],
    distances: Float[np.ndarray, "n k"],
    labelled: Bool[np.ndarray, "n k"],
    **settings: Any,
) -> list[float | None]:
    """Returns what a measure of this module says of each keypoint alone."""
    columns = ([k] for k in range(distances.shape[1]))
    return [measure(distances[:, column], labelled[:, column], **settings) for column in columns]
