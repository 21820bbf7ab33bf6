"""`Pipeline`: a detector and an estimator; images in, poses out.

Does not know any particular detector or engine; `loading` combines them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from ..detectors.custom import DetectFunction, check_detector, name_of, run_detector
from ..detectors.protocol import Detections, Detector, detections_from
from ..errors import BoxError, ImageError, InputError, VitPoseError, check_number
from ..files.download import without_credentials
from ..files.registry import DEFAULT_DETECTOR
from ..geometry.boxes import Size, iou, refuse_outside
from ..images import MAX_PIXELS, read_image
from ..keypoints.similarity import MAX_OKS
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses
from ..video.reading import TIMEOUT_S
from ..video.smoothing import OneEuro
from ..video.stream import PoseStream, open_stream
from ..video.tracking import BoxTracker
from .estimator import Estimator, MixedEstimator
from .refinement import fit_boxes

IMAGES_AT_ONCE = 8
"""Images whose boxes share batches. At most twice as many are in memory, since the next ones are read ahead."""
_READERS = 2

_FAILURES = (VitPoseError, OSError, MemoryError)
"""Exceptions that fail one image without stopping the others; any other exception is a bug and is raised."""

_CONVERGED_IOU, _MAX_ROUNDS = 0.9, 5


@dataclass(frozen=True)
class Prediction:
    """The result of one source.

    Attributes:
        source: The source as given: a path, an array, ….
        name: Name of the source in messages and files; empty for arrays and bytes.
        image: The image, RGB; None if it could not be read.
        poses: The poses, `MixedPoses` if several datasets were loaded; None on failure.
        error: The error; None on success.
    """

    source: Any
    name: str
    image: UInt8[np.ndarray, "h w 3"] | None = None
    poses: Poses | MixedPoses | None = None
    error: VitPoseError | None = None


class Pipeline:
    """Detects people and estimates their poses.

    Args:
        detector: An object with `detect`, or a function from an RGB image to its boxes; None if boxes are always given.
        estimator: Estimates the poses in boxes, for one dataset or several.

    Raises:
        InputError: The detector is neither; or it returns the whole image, which has no class to choose a dataset by.
    """

    def __init__(
        self, detector: Detector | DetectFunction | None, estimator: Estimator | MixedEstimator
    ) -> None:
        if detector is not None:
            check_detector(detector)
        self.detector = detector
        self._refine_boxes = getattr(detector, "refine_boxes", False)
        if isinstance(estimator, MixedEstimator) and self._refine_boxes:
            raise InputError(
                f"the detector {name_of(detector)} does not distinguish people from animals; use another one, or load "
                "one dataset"
            )
        self.estimator: Any = estimator  # Any: callers that use `spec` or `skeleton` loaded one dataset

    def __repr__(self) -> str:
        return f"Pipeline({self.estimator.description}, detector={self.detector and name_of(self.detector)})"

    def __call__(
        self,
        images: Any,
        boxes: Any = None,
        *,
        flip_test: bool = False,
        max_pixels: int = MAX_PIXELS,
        max_oks: float | None = None,
    ) -> Any:
        """Estimates the poses in an image, or in each of a list of images.

        Args:
            images: A path, URL, bytes, PIL image or RGB array (h w 3), or a list of them; see
                `vitpose.images.read_image`.
            boxes: Boxes to use instead of the detector: xyxy in pixels of the image, `supervision.Detections`, or an
                empty list for no instances; for a list of images, a list with one of these per image.
            flip_test: Average the heatmaps with those of the mirrored crops: more accurate, twice the work.
            max_pixels: Larger images are refused.
            max_oks: Of two poses of an image with a higher OKS, the one with the lower `Poses.pose_scores` is dropped
                as a duplicate; 0 to 1, where 1 keeps all. Default: 0.9 for the boxes of a detector, as in the
                original code, and 1 for given boxes, passed here or in a file.

        Returns:
            `Poses` for one image, a list of `Poses` for a list; `MixedPoses` where several datasets were loaded.

        Raises:
            ImageError: An image cannot be read or is too large.
            BoxError: Boxes are invalid, or there are neither boxes nor a detector.
            InputError: `max_oks` is not from 0 to 1, or the skeleton has no flip pairs for a flip test.
            VitPoseError: The detector or the network fails on an image.
        """
        several = isinstance(images, list | tuple)
        sources = list(images) if several else [images]
        given = boxes if several else None if boxes is None else [boxes]
        results = []
        options: dict[str, Any] = {"flip_test": flip_test, "max_pixels": max_pixels, "max_oks": max_oks}
        for prediction in self.each(sources, given, **options):
            if prediction.error is not None:
                raise prediction.error
            results.append(prediction.poses)
        return results if several else results[0]

    def each(
        self,
        sources: Iterable[Any],
        boxes: Sequence[Any] | None = None,
        *,
        flip_test: bool = False,
        max_pixels: int = MAX_PIXELS,
        max_oks: float | None = None,
    ) -> Iterator[Prediction]:
        """Yields a `Prediction` for every source, in order; a source that fails does not stop the others.

        Takes the arguments of `__call__`. Sources may be an endless iterator: only a few images are in memory.

        Raises:
            InputError: `sources` is a single source, or `max_oks` is not from 0 to 1.
            BoxError: `boxes` does not have one entry per source, or there are neither boxes nor a detector.
        """
        if isinstance(sources, str | bytes | PathLike):
            raise InputError(
                f"sources must be a list, not {sources!r:.100}; for a single image call the pipeline"
            )
        if max_oks is not None:
            check_number("max_oks", max_oks, 0, 1)
        if boxes is None and self.detector is None:
            raise BoxError(
                f"this pipeline has no detector; pass boxes=, or load one with detector={DEFAULT_DETECTOR!r}"
            )
        if boxes is not None:
            sources = list(sources)
            if len(boxes) != len(sources):
                raise BoxError(
                    f"there are {len(sources)} images and {len(boxes)} entries of boxes; pass one entry per image"
                )
        start = 0
        for results in _read_ahead(sources, max_pixels):
            given = None if boxes is None else boxes[start : start + len(results)]
            yield from self._complete(results, given, flip_test, max_oks)
            start += len(results)

    def stream(
        self,
        source: Any,
        *,
        detect_every: int = 1,
        track: bool | BoxTracker | None = True,
        smooth: bool | OneEuro | None = False,
        flip_test: bool = False,
        max_oks: float | None = None,
        rate: float | int | Fraction | None = None,
        live: bool | None = None,
        timeout_s: float | int = TIMEOUT_S,
        reconnect: int = 0,
    ) -> PoseStream:
        """Estimates the poses in a video, frame by frame, with track IDs.

            with pipe.stream("clip.mp4", detect_every=5) as frames:
                for frame in frames:
                    print(frame.time_s, frame.poses.ids)

        Decoding runs ahead in a thread. Memory does not grow with the length of the video.

        Args:
            source: A video file; "webcam" or "webcam:1"; a URL (rtsp://, http://, …); or an image sequence: a list
                or iterator of images, a directory, or a glob.
            detect_every: The detector runs on every n-th frame; in between, boxes are propagated by the motion of the
                poses.
            track: Assign track IDs: True, False, or an object with `update`, see `vitpose.video.tracking.BoxTracker`.
            smooth: Smooth the keypoints of each track: True, False, or a `vitpose.video.smoothing.OneEuro`.
            flip_test: See `__call__`.
            max_oks: See `__call__`.
            rate: Frames per second of an image sequence; default: 25.
            live: Drop old frames instead of falling behind; default: for cameras and streaming URLs.
            timeout_s: Seconds without data after which a URL counts as stalled.
            reconnect: How many times a live source that stalls or ends is reopened.

        Returns:
            An iterator over `vitpose.video.stream.PoseFrame`. Its `problems` list what could not be read.

        Raises:
            VideoError: The source cannot be opened, or none of its frames can be read.
            InputError: An option is invalid, or the pipeline has no detector or several datasets.
            ImageError: An image sequence has no images.
            MissingDependencyError: PyAV, or the tracking library, is not installed.
        """
        _ = self.estimator.skeleton  # raises for several datasets: tracks have one skeleton
        return open_stream(
            self,
            source,
            detect_every=detect_every,
            track=track,
            smooth=smooth,
            flip_test=flip_test,
            max_oks=max_oks,
            rate=rate,
            live=live,
            timeout_s=timeout_s,
            reconnect=reconnect,
        )

    def find_distinct(self, poses: Poses, max_oks: float | None = None) -> Int[np.ndarray, " m"]:
        """Returns the rows of an image's poses that duplicate suppression keeps.

        Args:
            poses: The poses of one image.
            max_oks: See `__call__`; default: the value for boxes of the detector.
        """
        rows: Int[np.ndarray, " m"] = self.estimator.find_distinct(poses, self._limit(max_oks, given=False))
        return rows

    def _limit(self, max_oks: float | None, given: bool) -> float:
        if max_oks is not None:
            return max_oks
        return MAX_OKS if not given and getattr(self.detector, "suppress_duplicates", True) else 1.0

    def _complete(
        self, results: list[Prediction], boxes: Sequence[Any] | None, flip_test: bool, max_oks: float | None
    ) -> list[Prediction]:
        """Returns the predictions with poses, or errors, added to the images that were read."""
        images = {row: result.image for row, result in enumerate(results) if result.image is not None}
        if boxes is None:
            found = self._detect(images, [result.name for result in results])
        else:
            found = {row: _checked(boxes[row], image) for row, image in images.items()}
        detections = {row: boxes for row, boxes in found.items() if isinstance(boxes, Detections)}
        refine = boxes is None and self._refine_boxes
        limit = self._limit(max_oks, given=boxes is not None)
        outcomes: dict[int, Any] = {**found, **self._estimate(images, detections, flip_test, refine, limit)}
        for row, outcome in outcomes.items():
            if isinstance(outcome, VitPoseError):
                results[row] = replace(results[row], error=outcome)
            else:
                results[row] = replace(results[row], poses=outcome.with_path(results[row].name or None))
        return results

    def _estimate(
        self,
        images: dict[int, np.ndarray],
        detections: dict[int, Detections],
        flip_test: bool,
        refine: bool,
        max_oks: float,
    ) -> dict[int, Poses | MixedPoses | VitPoseError]:
        """Returns the poses in each image, or its error."""
        try:
            chosen = [images[row] for row in detections]
            found = self.estimator.estimate(chosen, list(detections.values()), flip_test)
            if refine:
                rows = zip(detections, found, strict=True)
                found = [self._refine(images[row], detections[row], poses, flip_test) for row, poses in rows]
            if max_oks < 1:
                found = [self.estimator.drop_repeated(poses, max_oks) for poses in found]
            return dict(zip(detections, found, strict=True))
        except _FAILURES as error:
            if len(detections) == 1:
                return dict.fromkeys(detections, _as_error(error))
            single = [
                self._estimate(images, {row: boxes}, flip_test, refine, max_oks)
                for row, boxes in detections.items()
            ]
            return {row: outcome for part in single for row, outcome in part.items()}

    def _detect(
        self, images: dict[int, np.ndarray], names: Sequence[str]
    ) -> dict[int, Detections | VitPoseError]:
        """Returns the boxes of each image, or its error."""
        if not images or self.detector is None:
            return {}
        try:
            found = run_detector(self.detector, list(images.values()), [names[row] for row in images])
            return {row: _checked(boxes, images[row]) for row, boxes in zip(images, found, strict=True)}
        except _FAILURES as error:
            if len(images) == 1:
                return dict.fromkeys(images, _as_error(error))
            single = [self._detect({row: image}, names) for row, image in images.items()]
            return {row: boxes for part in single for row, boxes in part.items()}

    def _refine(
        self, image: UInt8[np.ndarray, "h w 3"], found: Detections, first: Poses, flip_test: bool
    ) -> Poses:
        """Repeats the estimate in the box of the last pose until the box converges; returns the best-scoring round."""
        best = poses = first
        for _ in range(_MAX_ROUNDS):
            boxes = fit_boxes(poses, Size.of(image))
            if (np.diagonal(iou(poses.boxes, boxes)) > _CONVERGED_IOU).all():
                break
            poses = self.estimator.estimate([image], [replace(found, boxes=boxes)], flip_test)[0]
            if poses.scores.mean() > best.scores.mean():
                best = poses
        return best


def _read_ahead(sources: Iterable[Any], max_pixels: int) -> Iterator[list[Prediction]]:
    """Yields groups of sources as they were read, while the next group is being read.

    The iterator is advanced in the caller's thread; an exception of it is raised after all earlier results.
    """
    # Threads are enough: decoding releases the global interpreter lock.
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="vitpose-reader")
    remaining = iter(sources)
    try:
        group, failure = _submit(remaining, pool, max_pixels)
        while group:
            results = [reading.result() for reading in group]
            group, failure = ([], failure) if failure else _submit(remaining, pool, max_pixels)
            yield results
        if failure:
            raise failure
    finally:  # also when the caller stops early
        pool.shutdown(wait=False, cancel_futures=True)


def _submit(
    sources: Iterator[Any], pool: ThreadPoolExecutor, max_pixels: int
) -> tuple[list[Future[Prediction]], Exception | None]:
    """Starts to read a group; returns it with the exception of the iterator, if any."""
    group: list[Future[Prediction]] = []
    try:
        for source in islice(sources, IMAGES_AT_ONCE):
            group.append(pool.submit(_read, source, max_pixels))
    except Exception as error:  # any exception of the caller's iterator: `_read_ahead` raises it later
        return group, error
    return group, None


def _read(source: Any, max_pixels: int) -> Prediction:
    name = without_credentials(str(source)) if isinstance(source, str | PathLike) else ""
    try:
        return Prediction(source, name, image=read_image(source, max_pixels))
    except _FAILURES as error:
        return Prediction(source, name, error=_as_error(error, name))


def _as_error(error: BaseException, name: str = "") -> VitPoseError:
    """Returns the error of one image for an exception of `_FAILURES`."""
    if isinstance(error, VitPoseError):
        return error
    reason = "there is not enough memory" if isinstance(error, MemoryError) else error
    return ImageError(f"{name or 'the image'} cannot be processed: {reason}")


def _checked(boxes: Any, image: UInt8[np.ndarray, "h w 3"]) -> Detections | VitPoseError:
    """Returns the boxes of an image as detections, or their error."""
    try:
        detections = detections_from(boxes)
        refuse_outside(detections.boxes, Size.of(image))
    except VitPoseError as error:
        return error
    return detections
