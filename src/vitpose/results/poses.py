"""Poses: the keypoints of the instances in one image, and their exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError, check_number, require
from ..geometry.boxes import xywh_from_xyxy
from ..keypoints.mapping import KeypointMapping
from ..keypoints.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

BOX_KEY = "box_xywh"
"""Key in COCO results for the box that a pose was estimated in."""

RESCORE_THRESHOLD = 0.2
"""Keypoints with a higher score count in the rescoring of `Poses.pose_scores`; the value of the original's config."""


UNTRACKED = -1
"""Value in `Poses.ids` of an instance without a track."""


@dataclass(frozen=True, eq=False)
class Poses:
    """The k keypoints of each of n instances (people or animals) in one image; immutable.

    Attributes:
        xy: Keypoints in pixels of the image, (0, 0) being the centre of the top left pixel.
        scores: Maxima of the heatmaps, about 0 to 1: confidence in the position, not visibility.
        boxes: Boxes that the poses were estimated in, xyxy in pixels of the image.
        box_scores: Scores of the detector, 1 for given boxes.
        skeleton: Names and edges of the k keypoints.
        ids: Track IDs, `UNTRACKED` for an instance without a track; None: tracking was not used.

    Raises:
        InputError: The shapes of the arrays do not match each other or the skeleton, or the arrays are not numeric.
    """

    xy: Float[np.ndarray, "n k 2"]
    scores: Float[np.ndarray, "n k"]
    boxes: Float[np.ndarray, "n 4"]
    box_scores: Float[np.ndarray, " n"]
    skeleton: Skeleton
    ids: Int[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        n, k = len(self.xy), len(self.skeleton)
        shapes = {"xy": (n, k, 2), "scores": (n, k), "boxes": (n, 4), "box_scores": (n,), "ids": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name) is None:
                continue
            array = np.array(getattr(self, name))  # a copy, so that the caller's array can be changed
            if array.dtype.kind not in ("iu" if name == "ids" else "fiu"):
                raise InputError(
                    f"{name} must be {'whole numbers' if name == 'ids' else 'numbers'}, not {array.dtype}; convert it"
                )
            if array.shape != shape:
                raise InputError(
                    f"{name} has the shape {array.shape}; it must be {shape}, for {n} poses with the {k} keypoints of "
                    f"the skeleton {self.skeleton.name!r}"
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def empty(cls, skeleton: Skeleton) -> Poses:
        """Returns poses of zero instances."""
        k = len(skeleton)
        return cls(
            xy=np.zeros((0, k, 2), np.float32),
            scores=np.zeros((0, k), np.float32),
            boxes=np.zeros((0, 4), np.float32),
            box_scores=np.zeros(0, np.float32),
            skeleton=skeleton,
        )

    def __len__(self) -> int:
        return len(self.xy)

    def __iter__(self) -> Iterator[Poses]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Poses:
        """Selects instances by index, slice, mask or list, always as `Poses`.

        Raises:
            IndexError: An index is out of range.
        """
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} poses, counted from 0")
            index = [int(index)]
        chosen = np.arange(len(self))[index]
        return Poses(
            xy=self.xy[chosen],
            scores=self.scores[chosen],
            boxes=self.boxes[chosen],
            box_scores=self.box_scores[chosen],
            skeleton=self.skeleton,
            ids=None if self.ids is None else self.ids[chosen],
        )

    def to_skeleton(self, skeleton: str | Path | Skeleton) -> Poses:
        """Converts the poses to another skeleton by the rules of `vitpose.keypoints.mapping`.

        Args:
            skeleton: Name of a shipped skeleton such as "mpii", path of a `.toml` file, or a `Skeleton`.

        Returns:
            Poses in which keypoints without a source are NaN with score 0.

        Raises:
            UnknownNameError: There is no such skeleton.
            SkeletonError: The skeletons are of different kinds, such as person and animal, or have no keypoint in
                common; or the file is invalid.
        """
        target = Skeleton.load(skeleton)
        xy, scores = KeypointMapping.between(self.skeleton, target).convert(self.xy, self.scores)
        return replace(self, xy=xy, scores=scores, skeleton=target)

    def visible(self, threshold: float | int = 0.3) -> Bool[np.ndarray, "n k"]:
        """Returns the mask of keypoints with a score of at least `threshold`.

        Raises:
            InputError: The threshold is not finite.
        """
        check_number("threshold", threshold)
        return self.scores >= threshold

    @property
    def pose_scores(self) -> Float[np.ndarray, " n"]:
        """Score of each instance, rescored as the original does for COCO.

        The box score times the mean of the keypoint scores above 0.2, or 0 if there are none. Scores that are not
        finite are excluded.
        """
        counted = (self.scores > RESCORE_THRESHOLD) & np.isfinite(self.scores)
        total = np.where(counted, self.scores, 0).sum(axis=1)
        return (self.box_scores * total / np.maximum(counted.sum(axis=1), 1)).astype(np.float32)

    @property
    def track_ids(self) -> list[int | None]:
        """Track ID of each instance as an int, None without a track."""
        if self.ids is None:
            return [None] * len(self)
        return [None if id == UNTRACKED else id for id in self.ids.tolist()]

    def __repr__(self) -> str:
        count = "1 pose" if len(self) == 1 else f"{len(self)} poses"
        lines = [f"Poses: {count}, {len(self.skeleton)} keypoints each ({self.skeleton.name})"]
        seen = self.visible().sum(axis=1)
        for row, score in enumerate(self.pose_scores[:10]):
            box = " ".join(f"{value:.0f}" for value in self.boxes[row])
            name = f"{row}" if (id := self.track_ids[row]) is None else f"{row} (id {id})"
            keypoints = f"{seen[row]} of {len(self.skeleton)} keypoints score 0.3 or more"
            lines.append(f"  {name}: {keypoints}, pose {score:.2f}, box [{box}]")
        if len(self) > 10:
            lines.append(f"  ... and {len(self) - 10} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns lists and dictionaries that JSON can represent: one entry for each instance, keypoints by name.

        Instances without a track have no `id`. Numbers that are not finite become None.
        """
        instances = []
        for row, id in enumerate(self.track_ids):
            rows = zip(self.skeleton.keypoints, self.xy[row], self.scores[row], strict=True)
            keypoints = {
                name: {"x": _round(x), "y": _round(y), "score": _round(score, 4)}
                for name, (x, y), score in rows
            }
            instance = {
                "box_xyxy": [_round(value) for value in self.boxes[row]],
                "box_score": _round(self.box_scores[row], 4),
                "score": _round(self.pose_scores[row], 4),
                "keypoints": keypoints,
            }
            instances.append(instance if id is None else {"id": id, **instance})
        edges = [[self.skeleton.keypoints[a], self.skeleton.keypoints[b]] for a, b in self.skeleton.edges]
        return {"skeleton": self.skeleton.name, "edges": edges, "poses": instances}

    def to_json(self, indent: int | None = None) -> str:
        """Returns `to_dict()` as a JSON string."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """Returns COCO keypoint results, rescored as the original does (see `pose_scores`).

        A keypoint that is not finite becomes 0, 0, 0, COCO's value for missing keypoints. The box that a pose was
        estimated in is `box_xywh` (left, top, width, height, px) and not `bbox`: pycocotools would use the area of
        `bbox` as that of the pose, which changes AP medium and AP large; the original's results have no `bbox` either.

        Args:
            image_id: ID of the image in the annotation file.
            category_id: ID of the category there; 1 is COCO's person.
        """
        boxes = xywh_from_xyxy(self.boxes)
        keypoints = np.concatenate([self.xy, self.scores[:, :, None]], axis=2)
        keypoints = np.where(np.isfinite(keypoints).all(axis=2, keepdims=True), keypoints, 0)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": [round(value, 4) for value in keypoints[row].ravel().tolist()],
                "score": _round(score, 6) or 0.0,
                BOX_KEY: [_round(value) or 0.0 for value in boxes[row]],
            }
            for row, score in enumerate(self.pose_scores)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table with one row for each keypoint of each instance: pose, id, keypoint, x, y, score.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = require("pandas", "tables", "for to_pandas()")
        n, k = self.scores.shape
        tracked = [id for id in self.track_ids for _ in range(k)]
        ids = {} if self.ids is None else {"id": pandas.array(tracked, dtype="Int64")}
        return pandas.DataFrame(
            {
                "pose": np.repeat(np.arange(n), k),
                **ids,
                "keypoint": list(self.skeleton.keypoints) * n,
                "x": self.xy[:, :, 0].ravel(),
                "y": self.xy[:, :, 1].ravel(),
                "score": self.scores.ravel(),
            }
        )

    def to_supervision(self, threshold: float | None = None) -> sv.KeyPoints:
        """Returns the poses as `supervision.KeyPoints`.

        Without edges, supervision's annotators guess a skeleton from the number of keypoints: pass them
        `edges=poses.skeleton.supervision_edges`. The edges are in `data["edges"]` too.

        Args:
            threshold: Keypoints with a lower score are marked as not visible, so that the annotators do not draw them;
                None: all finite keypoints are visible. The number of keypoints never changes.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        supervision = require("supervision", "supervision", "for to_supervision()")
        visible = np.isfinite(self.xy).all(axis=2)
        edges = np.array(self.skeleton.supervision_edges, dtype=np.int64).reshape(1, -1, 2)
        return supervision.KeyPoints(
            xy=self.xy.astype(np.float32),
            class_id=np.zeros(len(self), dtype=np.int64),
            keypoint_confidence=self.scores.astype(np.float32),
            detection_confidence=self.box_scores.astype(np.float32),
            visible=visible if threshold is None else visible & self.visible(threshold),
            data={"edges": np.repeat(edges, len(self), axis=0)} if len(self) else {},
        )


def _round(value: Any, digits: int = 2) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
