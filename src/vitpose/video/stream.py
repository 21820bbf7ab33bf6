"""Frames to poses with identities, for as long as there are frames.

Owns the order of the work: read ahead, detect every n frames and carry boxes over in between, identify, smooth.
Knows no particular detector, network, file or tracker.
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
from ..errors import InputError, check_count, check_number
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton
from ..results.poses import Poses
from .propagation import carry_boxes
from .reading import TIMEOUT_S, Frame, Reader, open_video
from .run_ahead import RunAhead
from .smoothing import Smoother, choose_smoother
from .tracking import Identities, choose_identities

READ_AHEAD = 8
"""Frames that are decoded before they are wanted; with those in work they bound the memory."""
# Chosen on the videos of benchmarks/tracking.py: a carried pose whose points score this much less than they did
# when the detector last saw the person has most likely lost them.
_LOST_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class PoseFrame:
    """What was found in one frame.

    Attributes:
        index: The frame's number, from 0; gaps are frames that were dropped or could not be read.
        time_s: When it is shown, exactly (see `reading.Frame`).
        image: The frame, RGB, upright.
        poses: The people, with `ids` where they are tracked; -1 is somebody not followed (yet).
        detected: Whether the detector looked at it, or boxes were carried over from the frame before.
    """

    index: int
    time_s: Fraction
    image: UInt8[np.ndarray, "h w 3"]
    poses: Poses
    detected: bool


@runtime_checkable
class Predictor(Protocol):
    """What a stream uses of a `Pipeline`."""

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
        """Returns the rows of poses that repeat none better."""
        ...


class PoseStream:
    """An iterator over the `PoseFrame`s of a video; made by `Pipeline.stream`.

    Close it, or leave its `with` block, to give up a source before its end.

    Attributes:
        reader: Where the frames come from; its `problems` tell what could not be read.
    """

    def __init__(
        self,
        predictor: Predictor,
        reader: Reader,
        *,
        detect_every: int,
        identities: Identities | None,
        smoother: Smoother | None,
        flip_test: bool,
        max_oks: float | None = None,
    ) -> None:
        self.reader = reader
        self._predictor, self._flip_test, self._max_oks = predictor, flip_test, max_oks
        self._first_size: Size | None = None
        self._detect_every, self._identities, self._smoother = detect_every, identities, smoother
        self._frames = RunAhead(reader, 1 if reader.live else READ_AHEAD, newest=reader.live)
        self._results = self._carried() if detect_every > 1 or reader.live else self._detected()

    @property
    def problems(self) -> list[str]:
        """What could not be read so far, in words; complete at the end."""
        dropped = self._frames.dropped
        return self.reader.problems + ([f"{dropped} frames were dropped to keep up"] if dropped else [])

    def __iter__(self) -> Iterator[PoseFrame]:
        return self

    def __next__(self) -> PoseFrame:
        return next(self._results)

    def close(self) -> None:
        """Ends reading."""
        self._frames.close()

    def __enter__(self) -> PoseStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _detected(self) -> Iterator[PoseFrame]:
        """Looks for people in every frame; frames share batches."""
        taken: deque[Frame] = deque()

        def images() -> Iterator[np.ndarray]:
            for frame in self._frames:
                taken.append(frame)
                yield frame.image

        with self._frames:
            predictions = self._predictor.each(images(), flip_test=self._flip_test, max_oks=self._max_oks)
            for prediction in predictions:
                frame = taken.popleft()
                yield self._finish(frame, self._identify(frame, _poses_of(prediction)), detected=True)

    def _carried(self) -> Iterator[PoseFrame]:
        """Looks for people in some frames; in the others their boxes go where their poses went."""
        seen = known = Poses.empty(Skeleton("none", ("none",)))  # by the detector; in the frame before
        size = None
        with self._frames:
            for count, frame in enumerate(self._frames):
                detected = count % self._detect_every == 0 or Size.of(frame.image) != size
                size = Size.of(frame.image)
                if detected:
                    seen = known = self._identify(frame, self._predict(frame, None))
                else:
                    boxes = carry_boxes(seen, known, size)
                    found = self._predict(frame, Detections(boxes, seen.box_scores, ("person",) * len(boxes)))
                    kept = self._kept(seen, found)
                    seen, known = seen[kept], replace(found, ids=seen.ids)[kept]
                    if self._identities is not None:
                        self._identities.carry(_scaled(known, self._scale(frame)), frame.time_s)
                yield self._finish(frame, known, detected)

    def _kept(self, seen: Poses, found: Poses) -> Int[np.ndarray, " m"]:
        """Returns the rows of the carried people who are neither lost nor found twice."""
        held = found.scores.mean(axis=1) >= _LOST_SHARE * seen.scores.mean(axis=1)
        return np.intersect1d(np.flatnonzero(held), self._predictor.find_distinct(found, self._max_oks))

    def _predict(self, frame: Frame, boxes: Detections | None) -> Poses:
        """Finds the poses in one frame, in given boxes or where the detector says."""
        given = None if boxes is None else [boxes]
        max_oks = self._max_oks if boxes is None else 1.0  # every row of carried boxes must stay
        found = self._predictor.each([frame.image], given, flip_test=self._flip_test, max_oks=max_oks)
        return _poses_of(next(found))

    def _identify(self, frame: Frame, poses: Poses) -> Poses:
        if self._identities is None:
            return poses
        found = self._identities.update(_scaled(poses, self._scale(frame)), frame.time_s)
        return replace(poses, ids=found.ids)

    def _finish(self, frame: Frame, poses: Poses, detected: bool) -> PoseFrame:
        if self._smoother is not None:
            scale = self._scale(frame)
            poses = _scaled(self._smoother.smooth(_scaled(poses, scale), frame.time_s), 1 / scale)
        return PoseFrame(frame.index, frame.time_s, frame.image, poses, detected)

    def _scale(self, frame: Frame) -> Float[np.ndarray, " 2"]:
        """Returns what takes x and y of a frame to pixels of the first one.

        Tracking and smoothing compare positions over time, which a change of resolution must not look like.
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
    detect_every: int = 1,
    track: Any = True,
    smooth: Any = False,
    flip_test: bool = False,
    rate: float | int | Fraction | None = None,
    live: bool | None = None,
    timeout_s: float | int = TIMEOUT_S,
    reconnect: int = 0,
    max_oks: float | None = None,
) -> PoseStream:
    """Opens a source and returns its frames with poses; the work of `Pipeline.stream`, where all is described."""
    check_count("detect_every", detect_every)
    if max_oks is not None:
        check_number("max_oks", max_oks, 0, 1)
    if predictor.detector is None:
        raise InputError("this pipeline has no detector; load one with detector='rtdetr' to stream a video")
    smoother = choose_smoother(smooth)
    if smoother is not None and not track:
        raise InputError("smooth needs to know who is who; leave out track=False")
    reader = open_video(source, rate=rate, live=live, timeout_s=timeout_s, reconnect=reconnect)
    identities = choose_identities(track, float(reader.rate) / detect_every)
    return PoseStream(
        predictor,
        reader,
        detect_every=detect_every,
        identities=identities,
        smoother=smoother,
        flip_test=flip_test,
        max_oks=max_oks,
    )
