"""From images and boxes to poses: crop, network, decode, back into the image.

An `Estimator` knows one dataset's keypoints; a `MixedEstimator` sends each box to the one that has its class.
Knows no detector, no file and no particular engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..detectors.protocol import Detections
from ..engines.protocol import Engine, ImageEngine, Reading
from ..errors import BoxError, InputError, check_count
from ..geometry.boxes import Size
from ..geometry.heatmaps import decode, merge_flipped
from ..geometry.warp import Warp, crop_all
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.similarity import sigmas_of, suppress_repeated
from ..keypoints.skeleton import Skeleton
from ..processing.image_processor import VitPoseImageProcessor
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses


@dataclass(frozen=True)
class Estimator:
    """Finds the keypoints of the people in given boxes.

    Attributes:
        engine: Runs the network.
        processor: How the network wants its crops and its maps read.
        skeleton: What the maps stand for.
        batch_size: At most this many crops are in memory and in the engine at a time.
        conventions: The dataset that the network was trained on, where that is known.

    Raises:
        InputError: The batch size is no whole number from 1.
    """

    engine: Engine
    processor: VitPoseImageProcessor
    skeleton: Skeleton
    batch_size: int = 32
    dataset_spec: DatasetSpec | None = None

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)

    @property
    def runs_on(self) -> str:
        """What the network runs on, for people: "torch, cpu, float32"."""
        return self.engine.description

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return f"skeleton={self.skeleton.name!r}, input={self.processor.size}, engine={self.runs_on!r}"

    def estimate(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        detections: Sequence[Detections],
        flip_test: bool = False,
    ) -> list[Poses]:
        """Finds one pose a box.

        Args:
            images: RGB images, of any sizes.
            detections: The boxes of each.
            flip_test: Run the mirrored crops too and average the maps: more accurate, twice the work.

        Returns:
            The poses of each image, in the order of its boxes.
        """
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in images]
        uploaded: dict[int, Any] = {}
        for parts in self._batches(detections):
            # Brought to the engine once, also if the people fill several batches, and not kept after that.
            uploaded = {
                index: uploaded[index] if index in uploaded else self._bring(images[index])
                for index, _ in parts
            }
            warps = [self.processor.warp_boxes(detections[index].boxes[rows]) for index, rows in parts]
            points, scores, grid = self._find(list(uploaded.values()), warps, flip_test)
            start = 0
            for (index, _), warp in zip(parts, warps, strict=True):
                own = slice(start, start + len(warp))
                found[index].append((warp.to_image(points[own], grid).astype(np.float32), scores[own]))
                start = own.stop
        return [self._poses(own, parts) for own, parts in zip(detections, found, strict=True)]

    def drop_repeated(self, poses: Poses, max_oks: float) -> Poses:
        """Drops poses that repeat a better one: OKS non-maximum suppression, as in the original's evaluation.

        The area of a pose is that of its crop, as there. A skeleton without sigmas gets `oks.FALLBACK_SIGMA`.

        Args:
            poses: The poses of one image.
            max_oks: Of two poses that are more alike than this, the one with the lower `pose_scores` is dropped.

        Returns:
            The others, in the same order.
        """
        return poses[self.find_distinct(poses, max_oks)]

    def find_distinct(self, poses: Poses, max_oks: float) -> Int[np.ndarray, " m"]:
        """Returns the rows of the poses that `drop_repeated` keeps, in ascending order."""
        if len(poses) < 2:
            return np.arange(len(poses))
        areas = self.processor.warp_boxes(poses.boxes).extents.prod(axis=1)
        xy, sigmas = poses.xy.astype(np.float64), sigmas_of(poses.skeleton)
        return np.sort(suppress_repeated(xy, poses.pose_scores, areas, sigmas, max_oks))

    def _bring(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        return self.engine.upload(image) if isinstance(self.engine, ImageEngine) else image

    def _find(
        self, images: Sequence[Any], warps: Sequence[Warp], flip_test: bool
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Returns points in cells of the maps, their scores, and the size of the maps."""
        if isinstance(self.engine, ImageEngine):
            points, scores, grid = self.engine.find_points(images, warps, self._reading(flip_test))
            self._refuse_other_points(points.shape[1])
            return points, scores, grid
        maps = self.heatmaps(crop_all(images, warps, self.processor.size), flip_test)
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
                f"the network gives {count} heatmaps, the skeleton {self.skeleton.name!r} has "
                f"{len(self.skeleton)} keypoints; load the model with its own skeleton"
            )

    def _batches(self, detections: Sequence[Detections]) -> Iterator[list[tuple[int, slice]]]:
        """Yields rows of boxes, image by image, in batches that fill up across images."""
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


@dataclass(frozen=True)
class MixedEstimator:
    """Finds the keypoints of people and animals in one image, each with those of its own dataset.

    Attributes:
        estimators: By the name of the dataset. A box goes to the first whose conventions have its class.

    Raises:
        InputError: Nothing says which classes a dataset is for, or there is no estimator.
    """

    estimators: Mapping[str, Estimator]

    def __post_init__(self) -> None:
        for name, own in self.estimators.items():
            if own.dataset_spec is None or not own.dataset_spec.classes:
                raise InputError(
                    f"nothing says which of a detector's classes the dataset {name!r} is for; add 'classes' to its "
                    "declaration, or load it alone"
                )
        if not self.estimators:
            raise InputError("there is no dataset to find; name at least one")

    @property
    def runs_on(self) -> str:
        """See `Estimator.runs_on`; each kind is named once."""
        return ", ".join(dict.fromkeys(own.runs_on for own in self.estimators.values()))

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return "; ".join(f"{name}: {own.description}" for name, own in self.estimators.items())

    @property
    def skeleton(self) -> Skeleton:
        """There is no one skeleton; whoever needs one, such as a table or a video, is told so.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"this pipeline finds several datasets ({', '.join(self.estimators)}), and what is asked for is of one "
            "skeleton; load one dataset, dataset='...'"
        )

    @property
    def classes(self) -> dict[str, int]:
        """Which estimator, by its number, each of the detector's classes goes to."""
        found: dict[str, int] = {}
        for number, own in enumerate(self.estimators.values()):
            for label in own.dataset_spec.classes if own.dataset_spec is not None else ():
                found.setdefault(label, number)
        return found

    def estimate(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        detections: Sequence[Detections],
        flip_test: bool = False,
    ) -> list[MixedPoses]:
        """Finds one pose a box; see `Estimator.estimate`.

        Raises:
            BoxError: A box holds something that no dataset has.
        """
        classes = self.classes
        for label in (label for own in detections for label in own.labels if label not in classes):
            raise BoxError(
                f"a box holds {label!r}, and the datasets {', '.join(self.estimators)} have only "
                f"{', '.join(classes)}; leave such boxes out, or add the class to a dataset"
            )
        routes = [np.array([classes[label] for label in own.labels], np.int64) for own in detections]
        groups = []
        for number, estimator in enumerate(self.estimators.values()):
            chosen = [own[route == number] for own, route in zip(detections, routes, strict=True)]
            groups.append(estimator.estimate(images, chosen, flip_test))
        return [
            MixedPoses(
                groups=dict(zip(self.estimators, (group[image] for group in groups), strict=True)),
                places=np.stack([route, _ranks(route)], axis=1),
                labels=detections[image].labels,
            )
            for image, route in enumerate(routes)
        ]

    def drop_repeated(self, poses: MixedPoses, max_oks: float) -> MixedPoses:
        """Drops poses that repeat a better one of the same dataset; see `Estimator.drop_repeated`."""
        kept = np.zeros(len(poses), bool)
        for number, (name, group) in enumerate(poses.groups.items()):
            rows = self.estimators[name].find_distinct(group, max_oks)
            kept |= (poses.places[:, 0] == number) & np.isin(poses.places[:, 1], rows)
        return poses.select(kept)


def _ranks(route: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Counts each entry among those before it that are equal."""
    return np.array([int((route[:index] == own).sum()) for index, own in enumerate(route)], np.int64)
