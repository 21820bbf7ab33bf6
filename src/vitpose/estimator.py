"""From pictures and boxes to poses: crop, network, decode, back into the picture.

Knows no detector, no file and no particular engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from .boxes import Size
from .crop import Warp, crop_all
from .detect.protocol import Detections
from .engine.protocol import Engine, PictureEngine, Reading
from .errors import InputError
from .heatmap import decode, merge_flipped
from .poses import Poses
from .processing import VitPoseImageProcessor
from .skeleton import Skeleton


@dataclass(frozen=True)
class Estimator:
    """Finds the keypoints of the people in given boxes.

    Attributes:
        engine: Runs the network.
        processor: How the network wants its crops and its maps read.
        skeleton: What the maps stand for.
        batch_size: At most this many crops are in memory and in the engine at a time.

    Raises:
        InputError: The batch size is not positive.
    """

    engine: Engine
    processor: VitPoseImageProcessor
    skeleton: Skeleton
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InputError(f"batch_size {self.batch_size} must be a whole number from 1")

    def estimate(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        detections: Sequence[Detections],
        flip_test: bool = False,
    ) -> list[Poses]:
        """Finds one pose a box.

        Args:
            images: RGB pictures, of any sizes.
            detections: The boxes of each.
            flip_test: Run the mirrored crops too and average the maps: more accurate, twice the work.

        Returns:
            The poses of each picture, in the order of its boxes.
        """
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in images]
        pictures: dict[int, Any] = {}
        for parts in self._batches(detections):
            # Brought to the engine once, also if the people fill several batches, and not kept after that.
            pictures = {
                index: pictures[index] if index in pictures else self._bring(images[index])
                for index, _ in parts
            }
            warps = [self.processor.warp_boxes(detections[index].boxes[rows]) for index, rows in parts]
            points, scores, grid = self._find(list(pictures.values()), warps, flip_test)
            start = 0
            for (index, _), warp in zip(parts, warps, strict=True):
                own = slice(start, start + len(warp))
                found[index].append((warp.to_picture(points[own], grid).astype(np.float32), scores[own]))
                start = own.stop
        return [self._poses(own, parts) for own, parts in zip(detections, found, strict=True)]

    def _bring(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        return self.engine.upload(image) if isinstance(self.engine, PictureEngine) else image

    def _find(
        self, pictures: Sequence[Any], warps: Sequence[Warp], flip_test: bool
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Returns points in cells of the maps, their scores, and the size of the maps."""
        if isinstance(self.engine, PictureEngine):
            points, scores, grid = self.engine.find_points(pictures, warps, self._reading(flip_test))
            self._refuse_other_points(points.shape[1])
            return points, scores, grid
        maps = self.heatmaps(crop_all(pictures, warps, self.processor.size), flip_test)
        points, scores = decode(maps, self.processor.decoding())
        return points, scores, Size(width=maps.shape[3], height=maps.shape[2])

    def heatmaps(
        self, crops: UInt8[np.ndarray, "n hc wc 3"], flip_test: bool = False
    ) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of crops, averaged with those of their mirror images if asked for.

        Raises:
            InputError: The engine's maps are not one a keypoint of the skeleton, or a flip test is asked for
                and the skeleton has no flip pairs.
        """
        reading = self._reading(flip_test)
        maps = self.engine.heatmaps(crops)
        self._refuse_other_points(maps.shape[1])
        if reading.mirror is None:
            return maps
        mirrored = self.engine.heatmaps(crops[:, :, ::-1])
        return merge_flipped(maps, mirrored, reading.mirror, reading.shift)

    def _reading(self, flip_test: bool) -> Reading:
        decoding, shift = self.processor.decoding(), self.processor.shift_heatmap
        if not flip_test:
            return Reading(decoding)
        if not self.skeleton.flip_pairs:
            raise InputError(
                f"the skeleton {self.skeleton.name!r} has no flip_pairs, so a flip test would average left with "
                "right; leave it out, or load the model with a skeleton that has them"
            )
        return Reading(decoding, self.skeleton.mirror, shift)

    def _refuse_other_points(self, count: int) -> None:
        if count != len(self.skeleton):
            raise InputError(
                f"the network gives {count} heat maps, the skeleton {self.skeleton.name!r} has "
                f"{len(self.skeleton)} keypoints; load the model with its own skeleton"
            )

    def _batches(self, detections: Sequence[Detections]) -> Iterator[list[tuple[int, slice]]]:
        """Yields rows of boxes, picture by picture, in batches that fill up across pictures."""
        parts, room = [], self.batch_size
        for index, own in enumerate(detections):
            start = 0
            while start < len(own):
                rows = slice(start, min(start + room, len(own)))
                parts.append((index, rows))
                room -= rows.stop - rows.start
                start = rows.stop
                if not room:
                    yield parts
                    parts, room = [], self.batch_size
        if parts:
            yield parts

    def _poses(self, detections: Detections, parts: list[tuple[np.ndarray, np.ndarray]]) -> Poses:
        if not parts:
            return Poses.empty(self.skeleton)
        return Poses(
            xy=np.concatenate([points for points, _ in parts]),
            scores=np.concatenate([scores for _, scores in parts]),
            boxes=detections.boxes,
            box_scores=detections.scores,
            skeleton=self.skeleton,
        )
