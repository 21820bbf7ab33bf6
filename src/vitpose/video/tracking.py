"""Tracking: assigns track IDs to poses from frame to frame.

Combines a tracker of boxes (ByteTrack, of the library `trackers`) with the similarity of poses (OKS). Does not know
video or networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError, require
from ..geometry.boxes import iou
from ..keypoints.similarity import sigmas_of
from ..results.poses import UNTRACKED, Poses

MAX_GAP_S = 2.0
"""A track without a pose for longer has ended."""

# Chosen on three videos of people walking. A match of the box tracker adds this weight to the OKS, so that it holds
# unless another pose is clearly more similar; without such a match, the OKS must be at least `_MIN_OKS`.
_BOX_MATCH_WEIGHT, _MIN_OKS = 0.4, 0.4
_NEW_TRACK_IOU = 0.1  # ByteTrack's threshold for tracks that it has not yet assigned an ID
_START_SCORE, _HIGH_SCORE = 0.5, 0.5  # ByteTrack's thresholds of box scores


@runtime_checkable
class BoxTracker(Protocol):
    """Tracks boxes from frame to frame."""

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], time_s: float
    ) -> Int[np.ndarray, " n"]:
        """Returns track IDs for the boxes of the next frame that the detector ran on.

        Args:
            boxes: Boxes, xyxy in pixels.
            scores: Scores of the detector.
            time_s: Time of the frame; later than that of the previous call.

        Returns:
            The track ID of each box, -1 (`UNTRACKED`) for a box without one.
        """
        ...


class ByteTrack:
    """ByteTrack (arXiv 2110.06864), as implemented by the library `trackers`.

    Args:
        rate: Average number of frames per second that `update` is called for.

    Raises:
        MissingDependencyError: `trackers` is not installed.
    """

    def __init__(self, rate: float) -> None:
        trackers = require("trackers", "track", "to assign track IDs (or pass track=False)")
        self._boxes = require("supervision", "track", "to assign track IDs").Detections
        self._tracker = trackers.ByteTrackTracker(
            frame_rate=rate,
            lost_track_buffer=round(30 * MAX_GAP_S),  # in thirtieths of a second
            minimum_consecutive_frames=1,
            track_activation_threshold=_START_SCORE,
            high_conf_det_threshold=_HIGH_SCORE,
        )

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], time_s: float
    ) -> Int[np.ndarray, " n"]:
        """Returns the track IDs of the boxes; see `BoxTracker`."""
        given = self._boxes(
            xyxy=boxes.astype(np.float64),
            confidence=scores.astype(np.float64),
            data={"row": np.arange(len(boxes))},
        )
        found = self._tracker.update(given, timestamp=time_s)
        ids = np.full(len(boxes), UNTRACKED)
        if len(found):
            ids[found.data["row"]] = found.tracker_id
        return ids


@dataclass(frozen=True, eq=False)
class _Track:
    """The latest pose of a track."""

    track_id: int
    box_id: int  # ID of the box tracker
    xy: Float[np.ndarray, "k 2"]
    scores: Float[np.ndarray, " k"]
    box: Float[np.ndarray, " 4"]
    time_s: Fraction


class PoseTracker:
    """Assigns track IDs to poses: 1, 2, 3, …, each used for one track only.

    The value of a pair of a pose and a track is their OKS, plus a constant if the box tracker matches them; the
    assignment with the highest sum is taken. So boxes decide where poses are ambiguous, and poses where boxes cross or
    reappear after a gap. Skeletons without sigmas use `similarity.FALLBACK_SIGMA`.

    Args:
        box_tracker: A `BoxTracker`.

    Raises:
        InputError: `box_tracker` has no method `update`.
    """

    def __init__(self, box_tracker: Any) -> None:
        if not isinstance(box_tracker, BoxTracker):
            raise InputError(
                f"{box_tracker!r:.200} is not a tracker; pass an object with a method `update(boxes, scores, time_s)`"
            )
        self.box_tracker = box_tracker
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, poses: Poses, time_s: Fraction) -> Poses:
        """Returns the poses of the next frame that the detector ran on, with track IDs.

        Args:
            poses: Poses of the frame.
            time_s: Time of the frame; later than that of the previous call.
        """
        box_ids = self.box_tracker.update(poses.boxes, poses.box_scores, float(time_s))
        self._tracks = [track for track in self._tracks if time_s - track.time_s <= MAX_GAP_S]
        ids = np.full(len(poses), UNTRACKED)
        for row, column in self._assign(poses, box_ids):
            ids[row] = self._tracks[column].track_id
        new = (ids == UNTRACKED) & (poses.box_scores >= _START_SCORE)
        ids[new] = self._next + np.arange(new.sum())
        self._next += int(new.sum())
        tracked = replace(poses, ids=ids)
        self._store(tracked, box_ids, time_s)
        return tracked

    def update_propagated(self, poses: Poses, time_s: Fraction) -> None:
        """Updates the tracks with the poses of a frame whose boxes were propagated together with their track IDs."""
        box_ids = {track.track_id: track.box_id for track in self._tracks}
        ids = [] if poses.ids is None else poses.ids.tolist()
        self._store(poses, np.array([box_ids.get(track_id, UNTRACKED) for track_id in ids], np.int64), time_s)

    def _assign(self, poses: Poses, box_ids: Int[np.ndarray, " n"]) -> list[tuple[int, int]]:
        """Returns pairs of the rows of a pose and a track."""
        if not len(poses) or not self._tracks:
            return []
        from scipy.optimize import linear_sum_assignment  # a dependency of `trackers`

        known = np.array([track.box_id for track in self._tracks])
        matched = (box_ids[:, None] == known[None]) & (box_ids[:, None] != UNTRACKED)
        # ByteTrack assigns an ID to a box in its second frame only, and drops a box that is missing there.
        last = np.stack([track.box for track in self._tracks])
        matched |= (known == UNTRACKED)[None] & (iou(poses.boxes, last) >= _NEW_TRACK_IOU)
        value = self._similarities(poses) + _BOX_MATCH_WEIGHT * matched
        rows, columns = linear_sum_assignment(value, maximize=True)
        good = value[rows, columns] >= min(_BOX_MATCH_WEIGHT, _MIN_OKS)
        return list(zip(rows[good].tolist(), columns[good].tolist(), strict=True))

    def _similarities(self, poses: Poses) -> Float[np.ndarray, "n m"]:
        """Returns the OKS of every pose with every track, weighted by the scores of both."""
        xy = np.stack([track.xy for track in self._tracks])
        scores = np.stack([track.scores for track in self._tracks])
        boxes = np.stack([track.box for track in self._tracks])
        areas = (_areas(poses.boxes)[:, None] + _areas(boxes)[None]) / 2
        squares = ((poses.xy[:, None] - xy[None]) ** 2).sum(axis=3)
        sigmas = sigmas_of(poses.skeleton)
        similarities = np.exp(-squares / (2 * areas[:, :, None] * (2 * sigmas) ** 2 + np.spacing(1)))
        weights = np.sqrt(np.clip(poses.scores[:, None] * scores[None], 0, 1))
        return (similarities * weights).sum(axis=2) / np.maximum(weights.sum(axis=2), np.spacing(1))

    def _store(self, poses: Poses, box_ids: Int[np.ndarray, " n"], time_s: Fraction) -> None:
        """Stores the tracked poses as the latest ones of their tracks."""
        tracks = {track.track_id: track for track in self._tracks}
        for row, track_id in enumerate([] if poses.ids is None else poses.ids.tolist()):
            if track_id != UNTRACKED:
                before = tracks.get(track_id)
                box_id = int(box_ids[row]) if box_ids[row] != UNTRACKED or before is None else before.box_id
                tracks[track_id] = _Track(
                    track_id, box_id, poses.xy[row], poses.scores[row], poses.boxes[row], time_s
                )
        self._tracks = list(tracks.values())


def _areas(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)


def choose_tracker(track: Any, rate: float) -> PoseTracker | None:
    """Returns the tracker for the argument `track` of `Pipeline.stream`; None for no tracking.

    Args:
        track: True (ByteTrack), False or None, or a `BoxTracker`.
        rate: Average number of tracked frames per second.

    Raises:
        InputError: `track` is anything else.
        MissingDependencyError: The library `trackers` is not installed.
    """
    if track is False or track is None:
        return None
    return PoseTracker(ByteTrack(rate) if track is True else track)
