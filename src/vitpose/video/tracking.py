"""Who is who from frame to frame.

A tracker of boxes (ByteTrack, of the library `trackers`) gives the first opinion, the likeness of the poses (OKS)
the second. Knows no video and no network.
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

NOBODY = UNTRACKED
"""The identity of a pose that nothing follows (yet)."""
PATIENCE_S = 2.0
"""A track that was not seen for longer has ended."""

# Chosen on three videos of people walking (benchmarks/tracking.py). A tracker's word counts as much as this OKS, so
# it stands unless another pose is clearly more alike; alone, poses must be at least `_ALIKE`.
_WORD, _ALIKE = 0.4, 0.4
_YOUNG_IOU = 0.1  # ByteTrack's own, for tracks that it has no name for yet
_START_SCORE, _SURE_SCORE = 0.5, 0.5  # ByteTrack's thresholds of box scores


@runtime_checkable
class BoxTracker(Protocol):
    """Follows boxes from frame to frame."""

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], time_s: float
    ) -> Int[np.ndarray, " n"]:
        """Takes the boxes of the next frame that was looked at.

        Args:
            boxes: xyxy, px.
            scores: The detector's.
            time_s: When; later than the time before.

        Returns:
            The identity of each box, `NOBODY` where it has none.
        """
        ...


class ByteTrack:
    """ByteTrack (arXiv 2110.06864) as the library `trackers` has it.

    Args:
        rate: Frames per second that it is shown, on average.

    Raises:
        MissingDependencyError: `trackers` is not installed.
    """

    def __init__(self, rate: float) -> None:
        trackers = require("trackers", "track", "to tell people apart over time (or pass track=False)")
        self._boxes = require("supervision", "track", "to tell people apart over time").Detections
        self._tracker = trackers.ByteTrackTracker(
            frame_rate=rate,
            lost_track_buffer=round(30 * PATIENCE_S),  # it counts in thirtieths of a second
            minimum_consecutive_frames=1,
            track_activation_threshold=_START_SCORE,
            high_conf_det_threshold=_SURE_SCORE,
        )

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], time_s: float
    ) -> Int[np.ndarray, " n"]:
        """Follows the boxes; see `BoxTracker`."""
        given = self._boxes(
            xyxy=boxes.astype(np.float64),
            confidence=scores.astype(np.float64),
            data={"row": np.arange(len(boxes))},
        )
        found = self._tracker.update(given, timestamp=time_s)
        ids = np.full(len(boxes), NOBODY)
        if len(found):
            ids[found.data["row"]] = found.tracker_id
        return ids


@dataclass(frozen=True, eq=False)
class _Track:
    """The last that was seen of someone."""

    number: int
    word: int  # what the tracker of boxes calls it
    xy: Float[np.ndarray, "k 2"]
    scores: Float[np.ndarray, " k"]
    box: Float[np.ndarray, " 4"]
    seen_s: Fraction


class Identities:
    """Numbers people over time, 1, 2, 3, …; none is given twice.

    Every pose is compared with every track by OKS; where the tracker of boxes says that the two belong
    together, that counts as a fixed likeness more. The best assignment as a whole is taken. So the tracker decides
    where poses say nothing, and the poses where boxes cross or come back after a gap. A skeleton without sigmas gets
    `oks.FALLBACK_SIGMA`.

    Args:
        tracker: The first opinion, a `BoxTracker`.

    Raises:
        InputError: It is none.
    """

    def __init__(self, tracker: Any) -> None:
        if not isinstance(tracker, BoxTracker):
            raise InputError(
                f"{tracker!r:.200} is no tracker: it needs a method `update(boxes, scores, time_s)`"
            )
        self.tracker = tracker
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, poses: Poses, time_s: Fraction) -> Poses:
        """Returns the poses of the next frame that was looked at, with identities."""
        words = self.tracker.update(poses.boxes, poses.box_scores, float(time_s))
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= PATIENCE_S]
        numbers = np.full(len(poses), NOBODY)
        for row, column in self._assign(poses, words):
            numbers[row] = self._tracks[column].number
        fresh = (numbers == NOBODY) & (poses.box_scores >= _START_SCORE)
        numbers[fresh] = self._next + np.arange(fresh.sum())
        self._next += int(fresh.sum())
        known = replace(poses, ids=numbers)
        self._remember(known, words, time_s)
        return known

    def carry(self, poses: Poses, time_s: Fraction) -> None:
        """Takes the poses of a frame whose boxes came from the frame before, and their identities with them."""
        words = {track.number: track.word for track in self._tracks}
        ids = [] if poses.ids is None else poses.ids.tolist()
        self._remember(poses, np.array([words.get(number, NOBODY) for number in ids], np.int64), time_s)

    def _assign(self, poses: Poses, words: Int[np.ndarray, " n"]) -> list[tuple[int, int]]:
        """Returns pairs of a pose and a track."""
        if not len(poses) or not self._tracks:
            return []
        from scipy.optimize import linear_sum_assignment  # comes with the trackers

        said = np.array([track.word for track in self._tracks])
        agreed = (words[:, None] == said[None]) & (words[:, None] != NOBODY)
        # ByteTrack names a box when it sees it for the second time, and forgets it if that is not at once.
        last = np.stack([track.box for track in self._tracks])
        agreed |= (said == NOBODY)[None] & (iou(poses.boxes, last) >= _YOUNG_IOU)
        value = self._likeness(poses) + _WORD * agreed
        rows, columns = linear_sum_assignment(value, maximize=True)
        good = value[rows, columns] >= min(_WORD, _ALIKE)
        return list(zip(rows[good].tolist(), columns[good].tolist(), strict=True))

    def _likeness(self, poses: Poses) -> Float[np.ndarray, "n m"]:
        """Returns the OKS of every pose with every track, over the points that both are sure of."""
        xy = np.stack([track.xy for track in self._tracks])
        scores = np.stack([track.scores for track in self._tracks])
        boxes = np.stack([track.box for track in self._tracks])
        areas = (_areas(poses.boxes)[:, None] + _areas(boxes)[None]) / 2
        squares = ((poses.xy[:, None] - xy[None]) ** 2).sum(axis=3)
        sigmas = sigmas_of(poses.skeleton)
        alike = np.exp(-squares / (2 * areas[:, :, None] * (2 * sigmas) ** 2 + np.spacing(1)))
        weights = np.sqrt(np.clip(poses.scores[:, None] * scores[None], 0, 1))
        return (alike * weights).sum(axis=2) / np.maximum(weights.sum(axis=2), np.spacing(1))

    def _remember(self, poses: Poses, words: Int[np.ndarray, " n"], time_s: Fraction) -> None:
        tracks = {track.number: track for track in self._tracks}
        for row, number in enumerate([] if poses.ids is None else poses.ids.tolist()):
            if number != NOBODY:
                before = tracks.get(number)
                word = int(words[row]) if words[row] != NOBODY or before is None else before.word
                tracks[number] = _Track(
                    number, word, poses.xy[row], poses.scores[row], poses.boxes[row], time_s
                )
        self._tracks = list(tracks.values())


def _areas(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)


def choose_identities(track: Any, rate: float) -> Identities | None:
    """Makes what `Pipeline.stream` takes as `track`: True (ByteTrack), False, or a `BoxTracker`.

    Raises:
        InputError: It is none of these.
        MissingDependencyError: The library of ByteTrack is not installed.
    """
    if track is False or track is None:
        return None
    return Identities(ByteTrack(rate) if track is True else track)
