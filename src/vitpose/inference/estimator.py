"""Images and boxes -> poses: crop, run the network, decode, map back into the image.

An `Estimator` finds the keypoints of one dataset; a `MixedEstimator` routes each box to the estimator of its class.
Does not know detectors, files or any particular engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..detectors.protocol import Detections
from ..engines.protocol import DecodingOptions, Engine, ImageEngine
from ..errors import BoxError, InputError, check_count
from ..geometry.boxes import Size
from ..geometry.heatmaps import decode, merge_flipped
from ..geometry.warp import Warp, crop_all
from ..keypoints.model_spec import ModelSpec
from ..keypoints.similarity import sigmas_of, suppress_repeated
from ..keypoints.skeleton import Skeleton
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses


@dataclass(frozen=True)
class Estimator:
    """Estimates one pose per box, with the keypoints of one skeleton.

    Attributes:
        engine: Runs the network.
        spec: How the network is used: keypoints, crops, decoding.
        batch_size: Maximum number of crops in a batch.

    Raises:
        InputError: `batch_size` is not a whole number from 1.
    """

    engine: Engine
    spec: ModelSpec
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)

    @property
    def skeleton(self) -> Skeleton:
        """The keypoint of each heatmap."""
        return self.spec.dataset.skeleton

    @property
    def runs_on(self) -> str:
        """Runtime, device and type of the network, to display: "torch, cpu, float32"."""
        return self.engine.description

    @property
    def description(self) -> str:
        """Skeleton, input size and engine, to display."""
        return f"skeleton={self.skeleton.name!r}, input={self.spec.input_size}, engine={self.runs_on!r}"

    def estimate(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        detections: Sequence[Detections],
        flip_test: bool = False,
    ) -> list[Poses]:
        """Estimates one pose per box.

        Args:
            images: RGB images, of any sizes.
            detections: The boxes of each image, xyxy in pixels.
            flip_test: Average the heatmaps with those of the mirrored crops: more accurate, twice the work.

        Returns:
            The poses of each image, in the order of its boxes.

        Raises:
            InputError: The network has another number of keypoints than the skeleton, its heatmaps hold NaN or
                infinity, or a flip test is requested and the skeleton has no flip pairs.
        """
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in images]
        uploaded: dict[int, Any] = {}
        for parts in self._batches(detections):
            # Each image is uploaded once, even if its boxes fill several batches, and then released.
            uploaded = {
                index: uploaded[index] if index in uploaded else self._upload(images[index])
                for index, _ in parts
            }
            warps = [self.spec.warp_boxes(detections[index].boxes[rows]) for index, rows in parts]
            keypoints, scores, grid = self._find_keypoints(list(uploaded.values()), warps, flip_test)
            start = 0
            for (index, _), warp in zip(parts, warps, strict=True):
                rows = slice(start, start + len(warp))
                found[index].append((warp.to_image(keypoints[rows], grid).astype(np.float32), scores[rows]))
                start = rows.stop
        return [self._poses(*of_image) for of_image in zip(images, detections, found, strict=True)]

    def drop_repeated(self, poses: Poses, max_oks: float) -> Poses:
        """Drops repeated poses by OKS non-maximum suppression, as the evaluation of the original code does.

        The area of a pose is that of its crop, as in the original. Skeletons without sigmas use
        `similarity.FALLBACK_SIGMA`.

        Args:
            poses: The poses of one image.
            max_oks: Of two poses with a higher OKS, the one with the lower `pose_scores` is dropped; 0 to 1.

        Returns:
            The poses that are kept, in the same order.
        """
        return poses[self.find_distinct(poses, max_oks)]

    def find_distinct(self, poses: Poses, max_oks: float) -> Int[np.ndarray, " m"]:
        """Returns the rows of the poses that `drop_repeated` keeps, in ascending order."""
        if len(poses) < 2:
            return np.arange(len(poses))
        areas = self.spec.warp_boxes(poses.boxes).extents.prod(axis=1)
        xy, sigmas = poses.xy.astype(np.float64), sigmas_of(poses.skeleton)
        return np.sort(suppress_repeated(xy, poses.pose_scores, areas, sigmas, max_oks))

    def _upload(self, image: UInt8[np.ndarray, "h w 3"]) -> Any:
        return self.engine.upload(image) if isinstance(self.engine, ImageEngine) else image

    def _find_keypoints(
        self, images: Sequence[Any], warps: Sequence[Warp], flip_test: bool
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Returns keypoints in heatmap cells, their scores, and the size of the heatmaps."""
        if isinstance(self.engine, ImageEngine):
            options = self._decoding_options(flip_test)
            keypoints, scores, grid = self.engine.find_keypoints(images, warps, options)
            self._check_keypoint_count(keypoints.shape[1])
            return keypoints, scores, grid
        heatmaps = self.heatmaps(crop_all(images, warps, self.spec.input_size), flip_test)
        keypoints, scores = decode(heatmaps, self.spec.decoding)
        return keypoints, scores, Size(width=heatmaps.shape[3], height=heatmaps.shape[2])

    def heatmaps(
        self, crops: UInt8[np.ndarray, "n hc wc 3"], flip_test: bool = False
    ) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the heatmaps of RGB crops.

        Args:
            crops: RGB crops of the input's size.
            flip_test: Average the heatmaps with those of the mirrored crops.

        Raises:
            InputError: The network has another number of keypoints than the skeleton, or a flip test is requested
                and the skeleton has no flip pairs.
        """
        options = self._decoding_options(flip_test)
        heatmaps = self.engine.heatmaps(crops)
        self._check_keypoint_count(heatmaps.shape[1])
        if options.mirror is None:
            return heatmaps
        mirrored = self.engine.heatmaps(crops[:, :, ::-1])
        return merge_flipped(heatmaps, mirrored, options.mirror, options.shift)

    def _decoding_options(self, flip_test: bool) -> DecodingOptions:
        spec = self.spec
        if not flip_test:
            return DecodingOptions(spec.decoding)
        return DecodingOptions(spec.decoding, spec.mirror, spec.dataset.shift_heatmap)

    def _check_keypoint_count(self, count: int) -> None:
        if count != len(self.skeleton):
            raise InputError(
                f"the network outputs {count} heatmaps, but the skeleton {self.skeleton.name!r} has "
                f"{len(self.skeleton)} keypoints; load the model with the skeleton it was trained on"
            )

    def _batches(self, detections: Sequence[Detections]) -> Iterator[list[tuple[int, slice]]]:
        """Yields batches of (image index, rows of its boxes), which are filled across images."""
        parts, free = [], self.batch_size
        for index, boxes in enumerate(detections):
            start = 0
            while start < len(boxes):
                rows = slice(start, min(start + free, len(boxes)))
                parts.append((index, rows))
                free -= rows.stop - rows.start
                start = rows.stop
                if not free:
                    yield parts
                    parts, free = [], self.batch_size
        if parts:
            yield parts

    def _poses(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        detections: Detections,
        parts: list[tuple[np.ndarray, np.ndarray]],
    ) -> Poses:
        if not parts:
            return Poses.empty(self.skeleton, Size.of(image))
        return Poses(
            xy=np.concatenate([keypoints for keypoints, _ in parts]),
            scores=np.concatenate([scores for _, scores in parts]),
            boxes=detections.boxes,
            box_scores=detections.scores,
            skeleton=self.skeleton,
            image_size=Size.of(image),
        )


@dataclass(frozen=True)
class MixedEstimator:
    """Estimates the poses of people and animals in one image, each with the keypoints of its dataset.

    Attributes:
        estimators: Estimators by dataset name. A box goes to the first one that has its class.

    Raises:
        InputError: A dataset declares no classes, or there is no estimator.
    """

    estimators: Mapping[str, Estimator]

    def __post_init__(self) -> None:
        for name, estimator in self.estimators.items():
            if not estimator.spec.dataset.classes:
                raise InputError(
                    f"the dataset {name!r} does not declare which of a detector's classes it is for; add 'classes' to "
                    "its declaration, or load it alone"
                )
        if not self.estimators:
            raise InputError("the list of datasets is empty; name at least one")

    @property
    def runs_on(self) -> str:
        """See `Estimator.runs_on`; equal descriptions are listed once."""
        return ", ".join(dict.fromkeys(estimator.runs_on for estimator in self.estimators.values()))

    @property
    def description(self) -> str:
        """Description of each estimator, to display."""
        return "; ".join(f"{name}: {estimator.description}" for name, estimator in self.estimators.items())

    @property
    def skeleton(self) -> Skeleton:
        """Raises: there are several skeletons, and and tables, videos and evaluation require a single one.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"this pipeline was loaded for several datasets ({', '.join(self.estimators)}), but tables, videos "
            "and evaluation require a single skeleton; load one dataset with dataset='...'"
        )

    @property
    def classes(self) -> dict[str, int]:
        """Index of the estimator for each of the detector's classes."""
        indices: dict[str, int] = {}
        for index, estimator in enumerate(self.estimators.values()):
            for label in estimator.spec.dataset.classes:
                indices.setdefault(label, index)
        return indices

    def estimate(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        detections: Sequence[Detections],
        flip_test: bool = False,
    ) -> list[MixedPoses]:
        """Estimates one pose per box; see `Estimator.estimate`.

        Raises:
            BoxError: The class of a box belongs to no dataset.
            InputError: See `Estimator.estimate`.
        """
        classes = self.classes
        for label in (label for boxes in detections for label in boxes.labels if label not in classes):
            what = f"the class {label!r}" if label else "no class"
            raise BoxError(
                f"a box has {what}, but the datasets {', '.join(self.estimators)} have only {', '.join(classes)}; give "
                "boxes of these classes only, or add the class to a dataset"
            )
        routes = [np.array([classes[label] for label in boxes.labels], np.int64) for boxes in detections]
        groups = []
        for index, estimator in enumerate(self.estimators.values()):
            chosen = [boxes[route == index] for boxes, route in zip(detections, routes, strict=True)]
            groups.append(estimator.estimate(images, chosen, flip_test))
        return [
            MixedPoses(
                groups=dict(zip(self.estimators, (group[image] for group in groups), strict=True)),
                indices=np.stack([route, _ranks(route)], axis=1),
                labels=detections[image].labels,
            )
            for image, route in enumerate(routes)
        ]

    def drop_repeated(self, poses: MixedPoses, max_oks: float) -> MixedPoses:
        """Drops repeated poses within each dataset; see `Estimator.drop_repeated`."""
        kept = np.zeros(len(poses), bool)
        for index, (name, group) in enumerate(poses.groups.items()):
            rows = self.estimators[name].find_distinct(group, max_oks)
            kept |= (poses.indices[:, 0] == index) & np.isin(poses.indices[:, 1], rows)
        return poses[kept]


def _ranks(route: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Returns how many earlier entries equal each entry: its row in its group."""
    return np.array([int((route[:index] == group).sum()) for index, group in enumerate(route)], np.int64)
