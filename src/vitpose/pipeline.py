"""The object that users hold: a detector and an estimator, pictures in, poses out.

Knows no particular detector or engine; `loading` puts one together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from .boxes import Size, clip_to, iou, refuse_outside
from .detect.given import detections_from
from .detect.protocol import Detections, Detector
from .errors import BoxError, VitPoseError
from .estimator import Estimator
from .image import MAX_PIXELS, read_image
from .poses import Poses

PICTURES_AT_ONCE = 8
"""Pictures whose boxes share batches; bounds the memory, whatever the number of pictures."""

# Measured on the fully labelled people of COCO: a box is 1.28 x as wide and 1.20 x as high as the extent
# of its keypoints.
_MARGIN = np.array([0.14, 0.10])
# A person's box is drawn around the points that score at least this share of the best one. A fixed threshold
# shrinks the box round by round where a network is unsure (benchmarks/whole_picture.py).
_COUNTED_SHARE = 0.3
_SETTLED_IOU, _MOST_ROUNDS, _FEWEST_POINTS = 0.9, 5, 4


@dataclass(frozen=True)
class Prediction:
    """What became of one source.

    Attributes:
        source: What was given: a path, an array, ….
        name: How messages and files call it.
        image: The picture, RGB; None if it could not be read.
        poses: The result; None if something failed.
        error: What failed; None if nothing did.
    """

    source: Any
    name: str
    image: UInt8[np.ndarray, "h w 3"] | None = None
    poses: Poses | None = None
    error: VitPoseError | None = None


class Pipeline:
    """Finds people and their keypoints.

    Args:
        detector: Finds boxes; None if boxes are always given.
        estimator: Finds keypoints in boxes.
    """

    def __init__(self, detector: Detector | None, estimator: Estimator) -> None:
        self.detector, self.estimator = detector, estimator

    def __repr__(self) -> str:
        estimator = self.estimator
        return (
            f"Pipeline(skeleton={estimator.skeleton.name!r}, input={estimator.processor.size}, "
            f"engine={estimator.engine.description!r}, detector={type(self.detector).__name__})"
        )

    def __call__(self, images: Any, boxes: Any = None, *, flip_test: bool = False, max_pixels: int = MAX_PIXELS) -> Any:
        """Finds the poses in a picture, or in each of a list of pictures.

        Args:
            images: A path, URL, bytes, PIL image or array (see `vitpose.image.read_image`), or a list of them.
            boxes: The people's boxes in place of the detector: xyxy in pixels, `supervision.Detections`, or
                an empty list for nobody; for a list of pictures a list with one of these each.
            flip_test: Average with the mirrored crops: more accurate, twice the work.
            max_pixels: Larger pictures are refused.

        Returns:
            `Poses` for one picture, a list of `Poses` for a list.

        Raises:
            VitPoseError: A picture or its boxes cannot be used.
        """
        several = isinstance(images, list | tuple)
        sources = list(images) if several else [images]
        given = boxes if several else None if boxes is None else [boxes]
        results = []
        for prediction in self.each(sources, given, flip_test=flip_test, max_pixels=max_pixels):
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
    ) -> Iterator[Prediction]:
        """Yields what became of every source, in order; one that fails does not stop the others.

        Arguments are those of calling the pipeline. Sources may be an endless iterator: a few are held at a time.

        Raises:
            BoxError: There is not one entry of `boxes` a source, or neither boxes nor a detector.
        """
        if boxes is None and self.detector is None:
            raise BoxError("this pipeline has no detector; pass boxes=, or load one with detector='rtdetr'")
        if boxes is not None:
            sources = list(sources)
            if len(boxes) != len(sources):
                raise BoxError(f"there are {len(sources)} pictures and {len(boxes)} entries of boxes; give one entry a picture")
        numbered = enumerate(sources)
        while group := list(islice(numbered, PICTURES_AT_ONCE)):
            yield from self._group(group, boxes, flip_test, max_pixels)

    def _group(
        self, group: list[tuple[int, Any]], boxes: Sequence[Any] | None, flip_test: bool, max_pixels: int
    ) -> list[Prediction]:
        read = [_read(source, max_pixels) for _, source in group]
        found = self._detect(read) if boxes is None else [_given(own, boxes[index]) for own, (index, _) in zip(read, group, strict=True)]
        good = [row for row, detections in enumerate(found) if isinstance(detections, Detections)]
        settles = boxes is None and self.detector is not None and self.detector.settles
        poses = self._estimate([read[row].image for row in good], [found[row] for row in good], flip_test, settles)
        results = [own if isinstance(error, Detections) else replace(own, error=error) for own, error in zip(read, found, strict=True)]
        for row, own in zip(good, poses, strict=True):
            results[row] = replace(results[row], poses=own)
        return results

    def _detect(self, read: list[Prediction]) -> list[Detections | VitPoseError]:
        """Returns the boxes of each picture that was read, or what is wrong with it."""
        readable = [own for own in read if own.error is None]
        if not readable:
            return [own.error for own in read]
        try:
            found = iter(self.detector.detect([own.image for own in readable], [own.name for own in readable]))
        except VitPoseError as error:
            if len(readable) == 1:
                return [own.error or error for own in read]
            return [own.error or self._detect([own])[0] for own in read]
        return [own.error or next(found) for own in read]

    def _estimate(
        self, images: list[np.ndarray], detections: list[Detections], flip_test: bool, settles: bool
    ) -> list[Poses]:
        poses = self.estimator.estimate(images, detections, flip_test)
        for _ in range(_MOST_ROUNDS if settles else 0):
            closer = [_box_of(own, Size.of(image)) for own, image in zip(poses, images, strict=True)]
            if all(_same(old.boxes, new) for old, new in zip(detections, closer, strict=True)):
                break
            detections = [
                Detections(boxes=box, scores=old.scores, labels=old.labels)
                for old, box in zip(detections, closer, strict=True)
            ]
            poses = self.estimator.estimate(images, detections, flip_test)
        return poses


def _read(source: Any, max_pixels: int) -> Prediction:
    name = str(source) if isinstance(source, str | PathLike) else ""
    try:
        return Prediction(source, name, image=read_image(source, max_pixels))
    except VitPoseError as error:
        return Prediction(source, name, error=error)


def _given(read: Prediction, boxes: Any) -> Detections | VitPoseError:
    """Returns the boxes given for a picture, or what is wrong with it or them."""
    if read.error is not None:
        return read.error
    try:
        detections = detections_from(boxes)
        refuse_outside(detections.boxes, Size.of(read.image))
    except VitPoseError as error:
        return error
    return detections


def _same(old: Float[np.ndarray, "n 4"], new: Float[np.ndarray, "n 4"]) -> bool:
    return bool((np.diagonal(iou(old, new)) > _SETTLED_IOU).all())


def _box_of(poses: Poses, size: Size) -> Float[np.ndarray, "n 4"]:
    """Returns a box around each pose's better points, or its old box where there are too few of them."""
    boxes = poses.boxes.copy()
    for row, seen in enumerate(poses.scores >= _COUNTED_SHARE * poses.scores.max(axis=1, keepdims=True)):
        if seen.sum() < _FEWEST_POINTS:
            continue
        points = poses.xy[row, seen]
        low, high = points.min(axis=0), points.max(axis=0)
        margin = _MARGIN * (high - low) + 1  # a pixel more, so that points on a line still have a box
        boxes[row] = np.concatenate([low - margin, high + margin])
    clipped = clip_to(boxes, size)
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    return np.where(empty[:, None], poses.boxes, clipped)
