"""Poses: the keypoints of the instances in one image, and their exports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError, check_number, require
from ..files.schemas import check, parse_json
from ..geometry.boxes import Size, xywh_from_xyxy
from ..keypoints.mapping import KeypointMapping
from ..keypoints.skeleton import Skeleton
from .instances import Instances
from .json_form import UNTRACKED as UNTRACKED
from .json_form import (
    PosesForm,
    arrays_of,
    edge_names,
    image_dict,
    instance_dicts,
    rounded,
    shipped_skeleton,
)

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

BOX_KEY = "box_xywh"
"""Key in COCO results for the box that a pose was estimated in."""

RESCORE_THRESHOLD = 0.2
"""Keypoints with a higher score count in the rescoring of `Poses.pose_scores`; the value of the original's config."""


@dataclass(frozen=True, eq=False, repr=False)
class Poses(Instances):
    """The k keypoints of each of n instances (people or animals) in one image; immutable.

    Attributes:
        xy: Keypoints in pixels of the image, (0, 0) being the centre of the top left pixel.
        scores: Maxima of the heatmaps, about 0 to 1: confidence in the position, not visibility.
        boxes: Boxes that the poses were estimated in, xyxy in pixels of the image.
        box_scores: Scores of the detector, 1 for given boxes.
        skeleton: Names and edges of the k keypoints.
        ids: Track IDs, `UNTRACKED` for an instance without a track; None: tracking was not used.
        image_size: Size of the image; None: unknown.
        path: Path or URL that the image was read from; None: unknown, as for arrays. The pixels are not kept.

    Raises:
        InputError: The shapes of the arrays do not match each other or the skeleton, or the arrays are not numeric.
    """

    xy: Float[np.ndarray, "n k 2"]
    scores: Float[np.ndarray, "n k"]
    boxes: Float[np.ndarray, "n 4"]
    box_scores: Float[np.ndarray, " n"]
    skeleton: Skeleton
    ids: Int[np.ndarray, " n"] | None = None
    image_size: Size | None = None
    path: str | None = None

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
    def empty(cls, skeleton: Skeleton, image_size: Size | None = None) -> Poses:
        """Returns poses of zero instances."""
        return cls(**arrays_of([], skeleton), skeleton=skeleton, image_size=image_size)

    def __len__(self) -> int:
        return len(self.xy)

    @overload
    def __getitem__(self, index: str) -> Float[np.ndarray, "n 3"]: ...
    @overload
    def __getitem__(self, index: Any) -> Poses: ...
    def __getitem__(self, index: Any) -> Poses | Float[np.ndarray, "n 3"]:
        """Selects instances by index, slice, mask or list, always as `Poses`, or one keypoint of all by its name.

        Returns:
            `Poses`; for the name of a keypoint its x, y (pixels of the image) and score in each instance, (n, 3).

        Raises:
            IndexError: An index is out of range.
            UnknownNameError: The skeleton has no keypoint of this name.
        """
        if isinstance(index, str):
            k = self.skeleton.index(index)
            return np.concatenate([self.xy[:, k], self.scores[:, k, None]], axis=1)
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} poses, counted from 0")
            index = [int(index)]
        chosen = np.arange(len(self))[index]
        ids = None if self.ids is None else self.ids[chosen]
        rows = {name: getattr(self, name)[chosen] for name in ("xy", "scores", "boxes", "box_scores")}
        return replace(self, **rows, ids=ids)

    @property
    def xyn(self) -> Float[np.ndarray, "n k 2"]:
        """Keypoints relative to the size of the image: `xy` divided by (width, height), 0 to 1 inside the image.

        Raises:
            InputError: The size of the image is unknown.
        """
        if self.image_size is None:
            raise InputError(
                "the size of the image of these poses is unknown; set it: "
                "dataclasses.replace(poses, image_size=vitpose.Size(width, height))"
            )
        return self.xy / np.array([self.image_size.width, self.image_size.height], np.float32)

    def with_path(self, path: str | None) -> Poses:
        """Returns the poses with another `path`."""
        return replace(self, path=path)

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

    def _title(self) -> str:
        return f", {len(self.skeleton)} keypoints each ({self.skeleton.name})"

    def _name(self, row: int) -> str:
        return f"{row}" if (id := self.track_ids[row]) is None else f"{row} (id {id})"

    def to_dict(self) -> dict[str, Any]:
        """Returns lists and dictionaries that JSON can represent: one entry for each instance, keypoints by name.

        Instances without a track have no `id`. Numbers that are not finite become None. Coordinates are rounded to 0.01
        px, scores to 0.0001.
        """
        shared = {"skeleton": self.skeleton.name, "edges": edge_names(self.skeleton)}
        return image_dict(self.path, self.image_size) | shared | {"poses": instance_dicts(self)}

    @classmethod
    def from_dict(cls, data: Any, skeleton: str | Path | Skeleton | None = None) -> Poses:
        """Returns the poses of a dictionary as `to_dict` returns it, or of an entry of the `poses.json` of a run.

        Args:
            data: The dictionary.
            skeleton: Skeleton of the poses; default: the shipped one that the dictionary names.

        Raises:
            InputError: The dictionary has another form, or the keypoints of another skeleton.
            UnknownNameError: No skeleton of that name ships with vitpose, so `skeleton` is required.
            SkeletonError: The file of the skeleton does not exist or is invalid.
        """
        form = check(PosesForm, data, "poses")
        known = shipped_skeleton(form.skeleton) if skeleton is None else Skeleton.load(skeleton)
        return cls(**arrays_of(form.poses, known), skeleton=known, image_size=form.size, path=form.image)

    @classmethod
    def from_json(cls, text: str | bytes, skeleton: str | Path | Skeleton | None = None) -> Poses:
        """Returns the poses of a JSON string as `to_json` returns it; see `from_dict`.

        Raises:
            InputError: The string is not JSON; and see `from_dict`.
        """
        return cls.from_dict(parse_json(text, "poses"), skeleton)

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
                "score": rounded(score, 6) or 0.0,
                BOX_KEY: [rounded(value) or 0.0 for value in boxes[row]],
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
