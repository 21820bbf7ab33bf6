"""MixedPoses: poses of instances of several datasets in one image, such as people and animals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError, UnknownNameError, require
from .poses import Poses

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv


@dataclass(frozen=True, eq=False)
class MixedPoses:
    """The keypoints of n instances with several skeletons in one image; immutable.

    Attributes:
        groups: Poses by name of their dataset, including empty ones.
        places: Group index and row in the group of each instance, in the order of the boxes.
        labels: The detector's class of each instance, such as "person" or "dog".

    Raises:
        InputError: `places` or `labels` do not contain every instance exactly once.
    """

    groups: Mapping[str, Poses]
    places: Int[np.ndarray, "n 2"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        rows = [(group, row) for group, poses in enumerate(self.groups.values()) for row in range(len(poses))]
        if sorted(map(tuple, self.places.tolist())) != rows or len(self.labels) != len(rows):
            raise InputError(
                f"places {self.places.tolist()} and labels {self.labels} must contain each of the {len(rows)} "
                f"instances of {list(self.groups)} exactly once"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Poses]:
        """Yields each instance as `Poses` of length 1, in the order of the boxes."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | str) -> Poses:
        """Returns one instance by its index, or the poses of a dataset by its name.

        Raises:
            UnknownNameError: There is no such dataset.
            IndexError: The index is out of range.
        """
        if isinstance(index, str):
            if index not in self.groups:
                raise UnknownNameError("dataset of these poses", index, self.groups)
            return self.groups[index]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} poses, counted from 0")
        group, row = self.places[index].tolist()
        return list(self.groups.values())[group][row]

    def select(self, chosen: Bool[np.ndarray, " n"]) -> MixedPoses:
        """Returns the instances that a mask selects, in the same order."""
        places, groups = self.places[chosen].copy(), {}
        for number, (name, poses) in enumerate(self.groups.items()):
            members = places[:, 0] == number
            rows = np.sort(places[members, 1])
            groups[name] = poses[rows]
            places[members, 1] = np.searchsorted(rows, places[members, 1])
        labels = tuple(label for label, kept in zip(self.labels, chosen, strict=True) if kept)
        return MixedPoses(groups, places, labels)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Name of the dataset of each instance."""
        names = list(self.groups)
        return tuple(names[group] for group in self.places[:, 0].tolist())

    @property
    def boxes(self) -> Float[np.ndarray, "n 4"]:
        """Boxes of all instances, xyxy in pixels of the image."""
        return self._joined("boxes", (4,))

    @property
    def box_scores(self) -> Float[np.ndarray, " n"]:
        """Scores of the detector for all instances."""
        return self._joined("box_scores", ())

    @property
    def pose_scores(self) -> Float[np.ndarray, " n"]:
        """Score of each instance; see `Poses.pose_scores`."""
        return self._joined("pose_scores", ())

    def _joined(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = np.zeros((len(self), *shape), np.float32)
        for group, poses in enumerate(self.groups.values()):
            members = self.places[:, 0] == group
            values[members] = getattr(poses, name)[self.places[members, 1]]
        return values

    def __repr__(self) -> str:
        count = "1 pose" if len(self) == 1 else f"{len(self)} poses"
        lines = [f"MixedPoses: {count} of {', '.join(self.groups)}"]
        for number in range(min(len(self), 10)):
            pose = self[number]
            keypoints = f"{int(pose.visible().sum())} of {len(pose.skeleton)} keypoints score 0.3 or more"
            box = " ".join(f"{value:.0f}" for value in pose.boxes[0])
            name = f"{self.labels[number]} ({self.datasets[number]})"
            lines.append(f"  {number}: {name}: {keypoints}, pose {pose.pose_scores[0]:.2f}, box [{box}]")
        if len(self) > 10:
            lines.append(f"  ... and {len(self) - 10} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns lists and dictionaries that JSON can represent; see `Poses.to_dict`.

        Each instance has its dataset and label too.
        """
        parts = {name: poses.to_dict() for name, poses in self.groups.items()}
        names = list(parts)
        instances = [
            {"dataset": names[group], "label": label, **parts[names[group]]["poses"][row]}
            for (group, row), label in zip(self.places.tolist(), self.labels, strict=True)
        ]
        return {"edges": {name: part["edges"] for name, part in parts.items()}, "poses": instances}

    def to_json(self, indent: int | None = None) -> str:
        """Returns `to_dict()` as a JSON string."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_coco(
        self, image_id: int | str, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Returns COCO keypoint results, whose numbers of keypoints differ between datasets; see `Poses.to_coco`.

        Args:
            image_id: ID of the image in the annotation file.
            category_ids: ID of the category of each dataset; default: 1, 2, … in the order of the groups.
        """
        ids = category_ids or {name: number for number, name in enumerate(self.groups, start=1)}
        return [pose.to_coco(image_id, ids[name])[0] for pose, name in zip(self, self.datasets, strict=True)]

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table with one row for each keypoint of each instance, with pose, dataset and label.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = require("pandas", "tables", "for to_pandas()")
        rows = zip(self, self.datasets, self.labels, strict=True)
        tables = [
            pose.to_pandas().assign(pose=number, dataset=name, label=label)
            for number, (pose, name, label) in enumerate(rows)
        ]
        columns = ["pose", "dataset", "label", "keypoint", "x", "y", "score"]
        empty = pandas.DataFrame(columns=columns)
        return pandas.concat(tables, ignore_index=True)[columns] if tables else empty

    def to_supervision(self, threshold: float | None = None) -> dict[str, sv.KeyPoints]:
        """Returns `supervision.KeyPoints` of each dataset; see `Poses.to_supervision`.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return {name: poses.to_supervision(threshold) for name, poses in self.groups.items()}
