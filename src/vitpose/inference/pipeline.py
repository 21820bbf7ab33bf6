"""The object that users hold: a detector and an estimator, images in, poses out.

Knows no particular detector or engine; `loading` puts one together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..detectors.given import detections_from
from ..detectors.protocol import Detections, Detector, detect_with
from ..errors import BoxError, ImageError, InputError, VitPoseError, check_number
from ..geometry.boxes import Size, clip_to, iou, refuse_outside
from ..images import MAX_PIXELS, read_image
from ..keypoints.similarity import MAX_OKS
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses
from .estimator import Estimator, MixedEstimator

if TYPE_CHECKING:
    from ..video.stream import PoseStream

IMAGES_AT_ONCE = 8
"""Images whose boxes share batches. Twice as many are in memory at most, whatever the number of images: the
next ones are read meanwhile."""
_READERS = 2

_FAILURES = (VitPoseError, OSError, MemoryError)
"""What an image may end with without stopping the others; anything else is a fault of the program."""

# Measured on the fully labelled people of COCO: a box is 1.28 x as wide and 1.20 x as high as the extent
# of its keypoints.
_MARGIN = np.array([0.14, 0.10])
# A person's box is drawn around the points that score at least this share of the best one. A fixed threshold
# shrinks the box round by round where a network is unsure (benchmarks/whole_image.py).
_COUNTED_SHARE = 0.3
_SETTLED_IOU, _MOST_ROUNDS, _FEWEST_POINTS = 0.9, 5, 4


@dataclass(frozen=True)
class Prediction:
    """What became of one source.

    Attributes:
        source: What was given: a path, an array, ….
        name: How messages and files call it.
        image: The image, RGB; None if it could not be read.
        poses: The result, mixed where several datasets are looked for; None if something failed.
        error: What failed; None if nothing did.
    """

    source: Any
    name: str
    image: UInt8[np.ndarray, "h w 3"] | None = None
    poses: Poses | MixedPoses | None = None
    error: VitPoseError | None = None


class Pipeline:
    """Finds people and their keypoints.

    Args:
        detector: Finds boxes; None if boxes are always given.
        estimator: Finds keypoints in boxes, of one dataset or of several.

    Raises:
        InputError: Boxes are only guessed, and nothing says of what.
    """

    def __init__(self, detector: Detector | None, estimator: Estimator | MixedEstimator) -> None:
        if isinstance(estimator, MixedEstimator) and detector is not None and detector.settles:
            raise InputError(
                f"the detector {type(detector).__name__} does not tell people from animals; take another one, or load "
                "one dataset"
            )
        self.detector = detector
        self.estimator: Any = estimator  # whoever wants one dataset's processor or skeleton has loaded one

    def __repr__(self) -> str:
        return f"Pipeline({self.estimator.description}, detector={type(self.detector).__name__})"

    def __call__(
        self,
        images: Any,
        boxes: Any = None,
        *,
        flip_test: bool = False,
        max_pixels: int = MAX_PIXELS,
        max_oks: float | None = None,
    ) -> Any:
        """Finds the poses in an image, or in each of a list of images.

        Args:
            images: A path, URL, bytes, PIL image or RGB array (h w 3), or a list of them; see
                `vitpose.images.read_image`.
            boxes: The people's boxes in place of the detector: xyxy in pixels, `supervision.Detections`, or
                an empty list for nobody; for a list of images a list with one of these each.
            flip_test: Average with the mirrored crops: more accurate, twice the work.
            max_pixels: Larger images are refused.
            max_oks: Of two poses of an image that are more alike than this, by OKS, the one with the lower
                `Poses.pose_scores` is dropped, since it is most likely the same person; 1 keeps all. Default: 0.9
                for the boxes of a detector, as in the original, and 1 for boxes that are given, here or as a file.

        Returns:
            `Poses` for one image, a list of `Poses` for a list; `MixedPoses` where several datasets were loaded.

        Raises:
            VitPoseError: An image or its boxes cannot be used.
            InputError: `max_oks` is not from 0 to 1.
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
        """Yields what became of every source, in order; one that fails does not stop the others.

        Arguments are those of calling the pipeline. Sources may be an endless iterator: a few are held at a time.

        Raises:
            InputError: The sources are a single one, or `max_oks` is not from 0 to 1.
            BoxError: There is not one entry of `boxes` a source, or neither boxes nor a detector.
        """
        if isinstance(sources, str | bytes | PathLike):
            raise InputError(
                f"sources must be a list, not {sources!r:.100}; for one image call the pipeline itself"
            )
        if max_oks is not None:
            check_number("max_oks", max_oks, 0, 1)
        if boxes is None and self.detector is None:
            raise BoxError("this pipeline has no detector; pass boxes=, or load one with detector='rtdetr'")
        if boxes is not None:
            sources = list(sources)
            if len(boxes) != len(sources):
                raise BoxError(
                    f"there are {len(sources)} images and {len(boxes)} entries of boxes; give one entry an image"
                )
        start = 0
        for results in _read_ahead(sources, max_pixels):
            given = None if boxes is None else boxes[start : start + len(results)]
            yield from self._complete(results, given, flip_test, max_oks)
            start += len(results)

    def stream(self, source: Any, **options: Any) -> PoseStream:
        """Finds the poses in a video, frame by frame, with identities.

            with pipe.stream("clip.mp4", detect_every=5) as frames:
                for frame in frames:
                    print(frame.time_s, frame.poses.ids)

        Decoding runs ahead in a thread. Memory stays the same, however long the video is.

        Args:
            source: A video file; "webcam" or "webcam:1"; an address (rtsp://, http://, …); or an image sequence: a
                list or iterator of images, a folder, or a glob.
            **options: Keywords, all with defaults:

                - detect_every: Look for people in every so-manieth frame; in between, a box goes where the
                  person's pose went (1).
                - track: Whether people get identities (True); or an object with `update`, see
                  `vitpose.video.tracking.BoxTracker`.
                - smooth: Smooth the points of each identity (False): True, or a
                  `vitpose.video.smoothing.OneEuro`.
                - flip_test, max_oks: As in calling the pipeline.
                - rate: Frames per second of an image sequence (25).
                - live: Drop old frames rather than fall behind (None: cameras and streaming addresses).
                - timeout_s: When an address that says nothing has stalled (10).
                - reconnect: How often a live source that stalls or ends is opened again (0).

        Returns:
            An iterator of `vitpose.video.stream.PoseFrame`. Its `problems` say what could not be read.

        Raises:
            VideoError: The source cannot be opened, or no frame of it can be read.
            InputError: An option cannot be used, or the pipeline has no detector.
            MissingDependencyError: PyAV, or the library that tracks, is not installed.
        """
        from ..video.stream import open_stream

        _ = self.estimator.skeleton  # one, or an error: identities and smoothing are of one
        return open_stream(self, source, **options)

    def find_distinct(self, poses: Poses, max_oks: float | None = None) -> Int[np.ndarray, " m"]:
        """Returns the rows of an image's poses that repeat none better, as for the boxes of the detector."""
        rows: Int[np.ndarray, " m"] = self.estimator.find_distinct(poses, self._limit(max_oks, given=False))
        return rows

    def _limit(self, max_oks: float | None, given: bool) -> float:
        if max_oks is not None:
            return max_oks
        return 1.0 if given or getattr(self.detector, "given", False) else MAX_OKS

    def _complete(
        self, results: list[Prediction], boxes: Sequence[Any] | None, flip_test: bool, max_oks: float | None
    ) -> list[Prediction]:
        """Returns what was read with what is found in it."""
        images = {row: own.image for row, own in enumerate(results) if own.image is not None}
        if boxes is None:
            found = self._detect(images, [own.name for own in results])
        else:
            found = {row: _checked(boxes[row], image) for row, image in images.items()}
        people = {row: own for row, own in found.items() if isinstance(own, Detections)}
        settles = boxes is None and self.detector is not None and self.detector.settles
        limit = self._limit(max_oks, given=boxes is not None)
        outcomes: dict[int, Any] = {**found, **self._estimate(images, people, flip_test, settles, limit)}
        for row, outcome in outcomes.items():
            failed = isinstance(outcome, VitPoseError)
            results[row] = replace(results[row], **{"error" if failed else "poses": outcome})
        return results

    def _estimate(
        self,
        images: dict[int, np.ndarray],
        people: dict[int, Detections],
        flip_test: bool,
        settles: bool,
        max_oks: float,
    ) -> dict[int, Poses | MixedPoses | VitPoseError]:
        """Returns the poses in each image, or what is wrong with it."""
        try:
            poses = self.estimator.estimate([images[row] for row in people], list(people.values()), flip_test)
            if settles:
                rows = zip(people, poses, strict=True)
                poses = [self._settle(images[row], people[row], own, flip_test) for row, own in rows]
            if max_oks < 1:
                poses = [self.estimator.drop_repeated(own, max_oks) for own in poses]
            return dict(zip(people, poses, strict=True))
        except _FAILURES as error:
            if len(people) == 1:
                return dict.fromkeys(people, _as_error(error))
            single = [
                self._estimate(images, {row: own}, flip_test, settles, max_oks) for row, own in people.items()
            ]
            return {row: outcome for part in single for row, outcome in part.items()}

    def _detect(
        self, images: dict[int, np.ndarray], names: Sequence[str]
    ) -> dict[int, Detections | VitPoseError]:
        """Returns the boxes of each image, or what is wrong with it."""
        if not images or self.detector is None:
            return {}
        try:
            found = detect_with(self.detector, list(images.values()), [names[row] for row in images])
            return {row: _checked(own, images[row]) for row, own in zip(images, found, strict=True)}
        except _FAILURES as error:
            if len(images) == 1:
                return dict.fromkeys(images, _as_error(error))
            single = [self._detect({row: image}, names) for row, image in images.items()]
            return {row: own for part in single for row, own in part.items()}

    def _settle(
        self, image: UInt8[np.ndarray, "h w 3"], found: Detections, first: Poses, flip_test: bool
    ) -> Poses:
        """Draws the box around the pose and looks again, until it stays; returns the surest of the rounds."""
        best = poses = first
        for _ in range(_MOST_ROUNDS):
            boxes = _box_of(poses, Size.of(image))
            if (np.diagonal(iou(poses.boxes, boxes)) > _SETTLED_IOU).all():
                break
            poses = self.estimator.estimate([image], [replace(found, boxes=boxes)], flip_test)[0]
            if poses.scores.mean() > best.scores.mean():
                best = poses
        return best


def _read_ahead(sources: Iterable[Any], max_pixels: int) -> Iterator[list[Prediction]]:
    """Yields the sources as they were read, a group at a time, while the next group is being read.

    The iterator is asked in the caller's own thread; what it raises comes after all that it gave before.
    """
    pool = ThreadPoolExecutor(
        _READERS, thread_name_prefix="vitpose-reader"
    )  # decoding releases Python's lock
    remaining = iter(sources)
    try:
        group, failure = _begin(remaining, pool, max_pixels)
        while group:
            results = [reading.result() for reading in group]
            group, failure = ([], failure) if failure else _begin(remaining, pool, max_pixels)
            yield results
        if failure:
            raise failure
    finally:  # also when the caller has seen enough
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(
    sources: Iterator[Any], pool: ThreadPoolExecutor, max_pixels: int
) -> tuple[list[Future[Prediction]], Exception | None]:
    """Begins to read a group; returns with it what the iterator raised."""
    group: list[Future[Prediction]] = []
    try:
        for source in islice(sources, IMAGES_AT_ONCE):
            group.append(pool.submit(_read, source, max_pixels))
    except Exception as error:
        return group, error
    return group, None


def _read(source: Any, max_pixels: int) -> Prediction:
    name = str(source) if isinstance(source, str | PathLike) else ""
    try:
        return Prediction(source, name, image=read_image(source, max_pixels))
    except _FAILURES as error:
        return Prediction(source, name, error=_as_error(error, name))


def _as_error(error: BaseException, name: str = "") -> VitPoseError:
    """Returns a failure as an error of one image."""
    if isinstance(error, VitPoseError):
        return error
    reason = "there is not enough memory" if isinstance(error, MemoryError) else error
    return ImageError(f"{name or 'the image'} cannot be processed: {reason}")


def _checked(boxes: Any, image: UInt8[np.ndarray, "h w 3"]) -> Detections | VitPoseError:
    """Returns the boxes given for an image or found in it, or what is wrong with them."""
    try:
        detections = detections_from(boxes)
        refuse_outside(detections.boxes, Size.of(image))
    except VitPoseError as error:
        return error
    return detections


def _box_of(poses: Poses, size: Size) -> Float[np.ndarray, "n 4"]:
    """Returns a box around each pose's better points, or its old box where there are too few of them."""
    boxes = poses.boxes.copy()
    for row, scores in enumerate(poses.scores):
        seen = np.flatnonzero(scores >= _COUNTED_SHARE * scores.max())
        if len(seen) < _FEWEST_POINTS:
            continue
        points = poses.xy[row, seen]
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low) + 1  # a pixel more, so that points on a line still have a box
        boxes[row] = np.concatenate([low - margin, high + margin])
    clipped = clip_to(boxes, size)
    empty = np.any(clipped[:, 2:] <= clipped[:, :2], axis=1, keepdims=True)
    return np.where(empty, poses.boxes, clipped)
