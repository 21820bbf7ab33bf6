"""The One-Euro filter: low jitter at rest, low latency in motion.

Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems", CHI 2012. Does not know video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError, check_number
from ..results.poses import UNTRACKED, Poses


@dataclass(frozen=True)
class OneEuro:
    """Settings of the filter.

    Attributes:
        min_cutoff_hz: Cut-off frequency at rest; a lower one smooths more and adds latency.
        beta: Increase of the cut-off frequency, Hz, per speed of one box height per second.
        speed_cutoff_hz: Cut-off frequency of the speed; the value of the paper.

    Raises:
        InputError: A value is out of range.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 10.0
    speed_cutoff_hz: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(name, value, 0)
        if not (self.min_cutoff_hz > 0 and self.speed_cutoff_hz > 0):
            raise InputError(f"{self}: the cut-offs must be above 0")


@dataclass(frozen=True, eq=False)
class _State:
    time_s: Fraction
    xy: Float[np.ndarray, "k 2"]
    speed: Float[np.ndarray, "k 2"]  # box heights per second


class Smoother:
    """Filters the keypoints of each track; a track that misses a frame starts again without history.

    Args:
        settings: Settings of the filter.
    """

    def __init__(self, settings: OneEuro) -> None:
        self.settings = settings
        self._states: dict[int, _State] = {}

    def smooth(self, poses: Poses, time_s: Fraction) -> Poses:
        """Returns the poses of the next frame, smoothed where they have a track ID.

        Args:
            poses: Poses of the frame.
            time_s: Time of the frame; later than that of the previous call.
        """
        before, self._states = self._states, {}
        if poses.ids is None:
            return poses
        xy = poses.xy.copy()
        for row, track_id in enumerate(poses.ids.tolist()):
            if track_id == UNTRACKED:
                continue
            height = float(np.maximum(poses.boxes[row, 3] - poses.boxes[row, 1], 1))
            state = self._next(before.get(track_id), time_s, xy[row].astype(np.float64), height)
            self._states[track_id], xy[row] = state, state.xy
        return replace(poses, xy=xy)

    def _next(
        self, last: _State | None, time_s: Fraction, xy: Float[np.ndarray, "k 2"], height: float
    ) -> _State:
        if last is None:
            return _State(time_s, xy, np.zeros_like(xy))
        step_s = float(time_s - last.time_s)
        speed = (xy - last.xy) / height / step_s
        speed = last.speed + _share(self.settings.speed_cutoff_hz, step_s) * (speed - last.speed)
        norms = np.linalg.norm(speed, axis=1, keepdims=True)
        share = _share(self.settings.min_cutoff_hz + self.settings.beta * norms, step_s)
        return _State(time_s, last.xy + share * (xy - last.xy), speed)


def _share(cutoff_hz: Any, step_s: float) -> Any:
    """Returns the smoothing factor of a new value, 0 to 1 (equations 4 and 5 of the paper)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s))


def choose_smoother(smooth: Any) -> Smoother | None:
    """Returns the smoother for the argument `smooth` of `Pipeline.stream`; None for no smoothing.

    Args:
        smooth: True (default settings), False or None, or settings.

    Raises:
        InputError: `smooth` is anything else.
    """
    if smooth is False or smooth is None:
        return None
    if smooth is not True and not isinstance(smooth, OneEuro):
        raise InputError(f"smooth must be True, False or a OneEuro, not {smooth!r:.100}")
    return Smoother(OneEuro() if smooth is True else smooth)
