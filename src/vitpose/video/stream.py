"""Streams frames to poses with track IDs.

Defines the order of the stages: read ahead, detect on every n-th frame and propagate boxes in between, track, smooth.
Does not know any particular detector, network, file or tracker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..detectors.protocol import Detections
from ..errors import InputError, check_count, check_number, counted
from ..files.registry import DEFAULT_DETECTOR
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton
from ..results.poses import Poses
from .propagation import propagate_boxes
from .reading import Frame, Reader, open_video
from .run_ahead import RunAhead
from .smoothing import Smoother, choose_smoother
from .tracking import PoseTracker, choose_tracker

READ_AHEAD = 8
"""Maximum number of frames that are decoded ahead; with the frames in inference it bounds the memory."""
# A propagated pose is lost if its mean score is below this share of its score in the last frame that the detector ran
# on; chosen on three videos of people walking.
_LOST_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class PoseFrame:
    """The poses in one frame.

    Attributes:
        index: Index of the frame, from 0; frames that were dropped or could not be read are skipped.
        time_s: Exact presentation time (see `reading.Frame`).
        image: The frame, RGB, upright.
        poses: The poses, with track IDs in `ids` unless tracking is off; -1 is an instance without a track.
        detected: Whether the detector ran on this frame; otherwise its boxes were propagated.
    """

    index: int
    time_s: Fraction
    image: UInt8[np.ndarray, "h w 3"]
    poses: Poses
    detected: bool


@runtime_checkable
class Predictor(Protocol):
    """The interface of a `Pipeline` that a stream uses."""

    detector: Any

    def each(
        self,
        sources: Iterable[Any],
        boxes: Any = None,
        *,
        flip_test: bool = False,
        max_oks: float | None = None,
    ) -> Iterator[Any]:
        """Yields a `Prediction` for every image."""
        ...

    def find_distinct(self, poses: Poses, max_oks: float | None = None) -> Int[np.ndarray, " m"]:
        """Returns the rows of the poses that duplicate suppression keeps."""
        ...


class PoseStream:
    """Iterator over the `PoseFrame`s of a video, returned by `Pipeline.stream`.

    Call `close`, or leave the `with` block, to stop before the end of the video. Iterating raises the errors of the
    source (`VideoError`), the detector and the network.

    Args:
        predictor: Detects and estimates poses, such as a `Pipeline`.
        reader: Source of the frames.
        detect_every: The detector runs on every n-th frame.
        tracker: Assigns track IDs; None for none.
        smoother: Smooths the keypoints of each track; None for none.
        flip_test: See `Pipeline.__call__`.
        max_oks: See `Pipeline.__call__`.

    Attributes:
        reader: Source of the frames.
    """

    def __init__(
        self,
        predictor: Predictor,
        reader: Reader,
        *,
        detect_every: int,
        tracker: PoseTracker | None,
        smoother: Smoother | None,
        flip_test: bool,
        max_oks: float | None = None,
    ) -> None:
        self.reader = reader
        self._predictor, self._flip_test, self._max_oks = predictor, flip_test, max_oks
        self._first_size: Size | None = None
        self._detect_every, self._tracker, self._smoother = detect_every, tracker, smoother
        self._frames = RunAhead(reader, 1 if reader.live else READ_AHEAD, newest=reader.live)
        self._results = self._frame_by_frame() if detect_every > 1 or reader.live else self._batched()

    @property
    def problems(self) -> list[str]:
        """Messages on what could not be read so far; complete at the end."""
        dropped = self._frames.dropped
        return self.reader.problems + (
            [f"{counted(dropped, 'frame was', 'frames were')} dropped to keep up"] if dropped else []
        )

    def __iter__(self) -> Iterator[PoseFrame]:
        return self

    def __next__(self) -> PoseFrame:
        return next(self._results)

    def close(self) -> None:
        """Ends reading and closes the source."""
        self._frames.close()

    def __enter__(self) -> PoseStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _batched(self) -> Iterator[PoseFrame]:
        """Runs the detector on every frame; frames share batches."""
        taken: deque[Frame] = deque()

        def images() -> Iterator[np.ndarray]:
            for frame in self._frames:
                taken.append(frame)
                yield frame.image

        with self._frames:
            predictions = self._predictor.each(images(), flip_test=self._flip_test, max_oks=self._max_oks)
            for prediction in predictions:
                frame = taken.popleft()
                yield self._finish(frame, self._track(frame, _poses_of(prediction)), detected=True)

    def _frame_by_frame(self) -> Iterator[PoseFrame]:
        """Runs the detector on every n-th frame and after a change of resolution; propagates boxes in between."""
        # Poses of the last frame that the detector ran on, and of the previous frame; the same instances.
        reference = latest = Poses.empty(Skeleton("none", ("none",)))
        size = None
        with self._frames:
            for count, frame in enumerate(self._frames):
                detected = count % self._detect_every == 0 or Size.of(frame.image) != size
                size = Size.of(frame.image)
                if detected:
                    reference = latest = self._track(frame, self._predict(frame, None))
                else:
                    boxes = propagate_boxes(reference, latest, size)
                    given = Detections(boxes, reference.box_scores, ("person",) * len(boxes))
                    found = self._predict(frame, given)
                    kept = self._find_kept(reference, found)
                    reference, latest = reference[kept], replace(found, ids=reference.ids)[kept]
                    if self._tracker is not None:
                        self._tracker.update_propagated(_scaled(latest, self._scale(frame)), frame.time_s)
                yield self._finish(frame, latest, detected)

    def _find_kept(self, reference: Poses, found: Poses) -> Int[np.ndarray, " m"]:
        """Returns the rows of the poses in propagated boxes that are neither lost nor duplicates."""
        held = found.scores.mean(axis=1) >= _LOST_SHARE * reference.scores.mean(axis=1)
        return np.intersect1d(np.flatnonzero(held), self._predictor.find_distinct(found, self._max_oks))

    def _predict(self, frame: Frame, boxes: Detections | None) -> Poses:
        """Returns the poses in one frame, in given boxes or in those of the detector."""
        given = None if boxes is None else [boxes]
        max_oks = self._max_oks if boxes is None else 1.0  # propagated boxes keep their rows
        found = self._predictor.each([frame.image], given, flip_test=self._flip_test, max_oks=max_oks)
        return _poses_of(next(found))

    def _track(self, frame: Frame, poses: Poses) -> Poses:
        if self._tracker is None:
            return poses
        tracked = self._tracker.update(_scaled(poses, self._scale(frame)), frame.time_s)
        return replace(poses, ids=tracked.ids)

    def _finish(self, frame: Frame, poses: Poses, detected: bool) -> PoseFrame:
        if self._smoother is not None:
            scale = self._scale(frame)
            poses = _scaled(self._smoother.smooth(_scaled(poses, scale), frame.time_s), 1 / scale)
        return PoseFrame(frame.index, frame.time_s, frame.image, poses, detected)

    def _scale(self, frame: Frame) -> Float[np.ndarray, " 2"]:
        """Returns the factors from pixels of a frame, (x, y), to pixels of the first frame.

        Tracking and smoothing compare coordinates over time, which a change of resolution must not affect.
        """
        size = Size.of(frame.image)
        first = self._first_size = self._first_size or size
        return np.array([first.width / size.width, first.height / size.height], np.float32)


def _scaled(poses: Poses, scale: Float[np.ndarray, " 2"]) -> Poses:
    if (scale == 1).all():
        return poses
    return replace(poses, xy=poses.xy * scale, boxes=poses.boxes * np.tile(scale, 2))


def _poses_of(prediction: Any) -> Poses:
    if prediction.error is not None:
        raise prediction.error
    return prediction.poses


def open_stream(
    predictor: Predictor,
    source: Any,
    *,
    detect_every: int,
    track: Any,
    smooth: Any,
    flip_test: bool,
    max_oks: float | None,
    rate: float | int | Fraction | None,
    live: bool | None,
    timeout_s: float | int,
    reconnect: int,
) -> PoseStream:
    """Opens a source as a stream of poses; see `Pipeline.stream` for the arguments.

    Raises:
        VideoError: The source cannot be opened.
        InputError: An option is invalid, or the predictor has no detector.
        ImageError: An image sequence has no images.
        MissingDependencyError: PyAV, or the tracking library, is not installed.
    """
    check_count("detect_every", detect_every)
    if max_oks is not None:
        check_number("max_oks", max_oks, 0, 1)
    if predictor.detector is None:
        raise InputError(
            f"this pipeline has no detector; load one with detector={DEFAULT_DETECTOR!r} to stream a video"
        )
    smoother = choose_smoother(smooth)
    if smoother is not None and not track:
        raise InputError("smooth requires tracking; omit track=False")
    reader = open_video(source, rate=rate, live=live, timeout_s=timeout_s, reconnect=reconnect)
    tracker = choose_tracker(track, float(reader.rate) / detect_every)
    return PoseStream(
        predictor,
        reader,
        detect_every=detect_every,
        tracker=tracker,
        smoother=smoother,
        flip_test=flip_test,
        max_oks=max_oks,
    )
