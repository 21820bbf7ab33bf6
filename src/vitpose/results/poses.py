"""Poses: the result of everything, and its exports.

Owns the form in which keypoints leave vitpose. Knows no network, no heatmap and no drawing.
"""

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
"""Where COCO results hold the box that a pose was looked for in."""

RESCORE_THRESHOLD = 0.2
"""Keypoints above this count in COCO's result score; the value of the original's test config."""


UNTRACKED = -1
"""What stands in `Poses.ids` for an instance without a track."""


@dataclass(frozen=True, eq=False)
class Poses:
    """The keypoints of n people (or animals) in one image. Never changes; always has k points each.

    Attributes:
        xy: Keypoints in pixels of the image, (0, 0) being the middle of the top left pixel.
        scores: The heatmaps' maxima, about 0 to 1: confidence in the place, not visibility.
        boxes: The boxes the poses were looked for in, xyxy in pixels of the image.
        box_scores: The detector's scores, 1 for given boxes.
        skeleton: Names and edges of the k keypoints.
        ids: Track IDs, where something tracked them; `UNTRACKED` for a person who is not tracked (yet).

    Raises:
        InputError: The arrays do not fit each other or the skeleton, or hold no numbers.
    """

    xy: Float[np.ndarray, "n k 2"]
    scores: Float[np.ndarray, "n k"]
    boxes: Float[np.ndarray, "n 4"]
    box_scores: Float[np.ndarray, " n"]
    skeleton: Skeleton
    ids: Int[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        n, k = len(self.xy), len(self.skeleton)
        wanted = {"xy": (n, k, 2), "scores": (n, k), "boxes": (n, 4), "box_scores": (n,), "ids": (n,)}
        for name, shape in wanted.items():
            if getattr(self, name) is None:
                continue
            array = np.array(getattr(self, name))  # a copy: the caller's stays the caller's to change
            if array.dtype.kind not in ("iu" if name == "ids" else "fiu"):
                raise InputError(
                    f"{name} must be {'whole numbers' if name == 'ids' else 'numbers'}, not {array.dtype}; convert it"
                )
            if array.shape != shape:
                raise InputError(
                    f"{name} has the shape {array.shape} and needs {shape}: {n} poses of the "
                    f"{k} keypoints of the skeleton {self.skeleton.name!r}"
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
        """Selects people by index, slice, mask or list; the result is Poses again."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there is no pose {index}: there are {len(self)}, counted from 0")
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
        """Returns the same people with the keypoints of another skeleton, by the rules of `vitpose.keypoints.mapping`.

        Args:
            skeleton: Which: a shipped name such as "mpii", a `.toml` file, a `Skeleton`.

        Returns:
            Poses whose points without a partner are NaN and score 0.

        Raises:
            UnknownNameError: No such skeleton.
            SkeletonError: The two are of different kinds, such as a person and an animal, or share no point.
        """
        target = Skeleton.load(skeleton)
        xy, scores = KeypointMapping.between(self.skeleton, target).convert(self.xy, self.scores)
        return replace(self, xy=xy, scores=scores, skeleton=target)

    def visible(self, threshold: float | int = 0.3) -> Bool[np.ndarray, "n k"]:
        """Tells which keypoints score at least `threshold`. The keypoints themselves always stay.

        Raises:
            InputError: The threshold is not finite.
        """
        check_number("threshold", threshold)
        return self.scores >= threshold

    @property
    def pose_scores(self) -> Float[np.ndarray, " n"]:
        """One score a person, as the original rescores for COCO.

        Box score x mean of the keypoint scores above 0.2, or 0 where there is none. A score that is not finite does
        not count.
        """
        counted = (self.scores > RESCORE_THRESHOLD) & np.isfinite(self.scores)
        total = np.where(counted, self.scores, 0).sum(axis=1)
        return (self.box_scores * total / np.maximum(counted.sum(axis=1), 1)).astype(np.float32)

    @property
    def track_ids(self) -> list[int | None]:
        """The track ID of each instance, for files; None for untracked ones."""
        if self.ids is None:
            return [None] * len(self)
        return [None if id == UNTRACKED else id for id in self.ids.tolist()]

    def __repr__(self) -> str:
        people = "nobody" if not len(self) else "1 pose" if len(self) == 1 else f"{len(self)} poses"
        lines = [f"Poses: {people}, {len(self.skeleton)} keypoints each ({self.skeleton.name})"]
        seen = self.visible().sum(axis=1)
        for row, score in enumerate(self.pose_scores[:10]):
            box = " ".join(f"{value:.0f}" for value in self.boxes[row])
            name = f"{row}" if (id := self.track_ids[row]) is None else f"{row} (id {id})"
            points = f"{seen[row]} of {len(self.skeleton)} points score 0.3 or more"
            lines.append(f"  {name}: {points}, pose {score:.2f}, box [{box}]")
        if len(self) > 10:
            lines.append(f"  ... and {len(self) - 10} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists and dictionaries, ready for JSON: one entry a person, points by name.

        Untracked instances have no `id`. A number that is not finite becomes None, since JSON has none such.
        """
        people = []
        for row, id in enumerate(self.track_ids):
            rows = zip(self.skeleton.keypoints, self.xy[row], self.scores[row], strict=True)
            points = {
                name: {"x": _round(x), "y": _round(y), "score": _round(score, 4)}
                for name, (x, y), score in rows
            }
            person = {
                "box_xyxy": [_round(value) for value in self.boxes[row]],
                "box_score": _round(self.box_scores[row], 4),
                "score": _round(self.pose_scores[row], 4),
                "keypoints": points,
            }
            people.append(person if id is None else {"id": id, **person})
        edges = [[self.skeleton.keypoints[a], self.skeleton.keypoints[b]] for a, b in self.skeleton.edges]
        return {"skeleton": self.skeleton.name, "edges": edges, "poses": people}

    def to_json(self, indent: int | None = None) -> str:
        """Returns `to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """Returns COCO's keypoint results, rescored as the original does (see `pose_scores`).

        A keypoint that is not finite becomes 0, 0, 0, as COCO writes what is not there. The box that a pose was looked
        for in is `box_xywh` (left, top, width, height, px) and not `bbox`: pycocotools would take its area for the
        pose's, which changes AP medium and AP large; the original's results have no `bbox` either.

        Args:
            image_id: The image's id in the annotation file.
            category_id: The category's id there; 1 is COCO's person.
        """
        boxes = xywh_from_xyxy(self.boxes)
        points = np.concatenate([self.xy, self.scores[:, :, None]], axis=2)
        points = np.where(np.isfinite(points).all(axis=2, keepdims=True), points, 0)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": [round(value, 4) for value in points[row].ravel().tolist()],
                "score": _round(score, 6) or 0.0,
                BOX_KEY: [_round(value) or 0.0 for value in boxes[row]],
            }
            for row, score in enumerate(self.pose_scores)
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table with one row a person and keypoint: pose, id, keypoint, x, y, score.

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
        """Returns supervision's key points.

        Args:
            threshold: Keypoints that score less are marked as not visible, so that its annotators leave
                them out; None marks all as visible that are finite. The number of keypoints never changes.

        supervision guesses a skeleton from the number of points unless it is told the edges: pass
        `edges=poses.skeleton.supervision_edges` to its annotators. They travel in `data["edges"]` too.

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
