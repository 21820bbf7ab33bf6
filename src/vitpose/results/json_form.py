"""The JSON form of poses: schemas, and the conversion of instances from and to dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ..errors import InputError, UnknownNameError
from ..files.schemas import Row, Schema
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton

if TYPE_CHECKING:
    from .poses import Poses

UNTRACKED = -1
"""Value in `Poses.ids` of an instance without a track."""


class KeypointForm(Schema):
    """A keypoint: pixels of the image and score; None: not finite."""

    x: float | None
    y: float | None
    score: float | None


class InstanceForm(Schema):
    """An instance; `dataset` and `label` are those of mixed poses, `score` is derived from the others."""

    id: int | None = None
    dataset: str = ""
    label: str = ""
    box_xyxy: Row[float | None]
    box_score: float | None
    score: float | None = None
    keypoints: dict[str, KeypointForm]


class PosesForm(Schema):
    """An image; `drawn` is the path of its drawing in the files of `vitpose predict`."""

    image: str | None = None
    drawn: str | None = None
    width: int | None = None
    height: int | None = None
    skeleton: str = ""
    skeletons: dict[str, str] = Field(default_factory=dict)
    edges: Any = None
    poses: list[InstanceForm]

    @property
    def size(self) -> Size | None:
        """The size of the image, if it is stored."""
        return None if self.width is None or self.height is None else Size(self.width, self.height)


def image_dict(path: str | None, size: Size | None) -> dict[str, Any]:
    """Returns the keys of the image that are known."""
    named = {} if path is None else {"image": path}
    return named if size is None else named | {"width": size.width, "height": size.height}


def shipped_skeleton(name: str) -> Skeleton:
    """Returns a shipped skeleton by the name in a dictionary, which must not select a file.

    Raises:
        UnknownNameError: No skeleton of that name ships with vitpose.
    """
    if name not in Skeleton.available():
        hint = "If the poses have another skeleton, pass it."
        raise UnknownNameError("skeleton", name, Skeleton.available(), hint)
    return Skeleton.load(name)


def edge_names(skeleton: Skeleton) -> list[list[str]]:
    """Returns the edges of a skeleton by the names of their keypoints."""
    return [[skeleton.keypoints[a], skeleton.keypoints[b]] for a, b in skeleton.edges]


def instance_dicts(poses: Poses) -> list[dict[str, Any]]:
    """Returns a dictionary for each instance, with keypoints by name."""
    instances = []
    for row, id in enumerate(poses.track_ids):
        rows = zip(poses.skeleton.keypoints, poses.xy[row], poses.scores[row], strict=True)
        instance = {
            "box_xyxy": [rounded(value) for value in poses.boxes[row]],
            "box_score": rounded(poses.box_scores[row], 4),
            "score": rounded(poses.pose_scores[row], 4),
            "keypoints": {
                name: {"x": rounded(x), "y": rounded(y), "score": rounded(score, 4)}
                for name, (x, y), score in rows
            },
        }
        instances.append(instance if id is None else {"id": id, **instance})
    return instances


def arrays_of(instances: Sequence[InstanceForm], skeleton: Skeleton) -> dict[str, Any]:
    """Returns the arrays of `Poses`.

    Raises:
        InputError: An instance does not have the keypoints of the skeleton, or its box is not four numbers.
    """
    keypoints = []
    for row, instance in enumerate(instances):
        if set(instance.keypoints) != set(skeleton.keypoints):
            wrong = sorted(set(instance.keypoints) ^ set(skeleton.keypoints))
            raise InputError(
                f"poses.{row}.keypoints and the skeleton {skeleton.name!r} differ in {', '.join(wrong)}; pass the "
                "skeleton of the poses"
            )
        if len(instance.box_xyxy) != 4:
            raise InputError(
                f"poses.{row}.box_xyxy is {list(instance.box_xyxy)}; it must be left, top, right, bottom"
            )
        named = [instance.keypoints[name] for name in skeleton.keypoints]
        keypoints.append([(keypoint.x, keypoint.y, keypoint.score) for keypoint in named])
    values = np.array(keypoints, np.float32).reshape(len(instances), len(skeleton), 3)  # None becomes NaN
    ids = [UNTRACKED if instance.id is None else instance.id for instance in instances]
    tracked = any(instance.id is not None for instance in instances)
    return {
        "xy": values[:, :, :2],
        "scores": values[:, :, 2],
        "boxes": np.array([instance.box_xyxy for instance in instances], np.float32).reshape(-1, 4),
        "box_scores": np.array([instance.box_score for instance in instances], np.float32),
        "ids": np.array(ids, np.int64) if tracked else None,
    }


def rounded(value: Any, digits: int = 2) -> float | None:
    """Returns a number rounded for JSON, None if it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None
