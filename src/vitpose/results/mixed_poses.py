"""MixedPoses: people and animals of one image, each with the keypoints of its own dataset.

Keeps `Poses`, one for each skeleton, in the order in which they were found. Knows no network, no heat
map and no drawing.
"""

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
    """The keypoints of n instances of several skeletons in one image. Never changes.

    Attributes:
        groups: Poses by the name of their dataset; empty ones too.
        places: Where each instance is, in the order of the boxes: number of its group, and row in it.
        labels: What the detector called each instance: "person", "dog".

    Raises:
        InputError: The places are not those of all instances, each once.
    """

    groups: Mapping[str, Poses]
    places: Int[np.ndarray, "n 2"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        own = [(group, row) for group, poses in enumerate(self.groups.values()) for row in range(len(poses))]
        if sorted(map(tuple, self.places.tolist())) != own or len(self.labels) != len(own):
            raise InputError(
                f"places {self.places.tolist()} and labels {self.labels} must name each of the {len(own)} instances "
                f"of {list(self.groups)} once"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Poses]:
        """Yields every instance as `Poses` of one, in the order of the boxes."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | str) -> Poses:
        """Returns one instance by its number, or the poses of a dataset by its name."""
        if isinstance(index, str):
            if index not in self.groups:
                raise UnknownNameError("dataset of these poses", index, self.groups)
            return self.groups[index]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no pose {index}: there are {len(self)}, counted from 0")
        group, row = self.places[index].tolist()
        return list(self.groups.values())[group][row]

    def select(self, chosen: Bool[np.ndarray, " n"]) -> MixedPoses:
        """Returns the instances that a mask chooses, in the same order."""
        places, groups = self.places[chosen].copy(), {}
        for number, (name, poses) in enumerate(self.groups.items()):
            own = places[:, 0] == number
            rows = np.sort(places[own, 1])
            groups[name] = poses[rows]
            places[own, 1] = np.searchsorted(rows, places[own, 1])
        labels = tuple(label for label, kept in zip(self.labels, chosen, strict=True) if kept)
        return MixedPoses(groups, places, labels)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Name of the dataset of each instance."""
        names = list(self.groups)
        return tuple(names[group] for group in self.places[:, 0].tolist())

    @property
    def boxes(self) -> Float[np.ndarray, "n 4"]:
        """The boxes of all instances, xyxy in pixels of the image."""
        return self._joined("boxes", (4,))

    @property
    def box_scores(self) -> Float[np.ndarray, " n"]:
        """The detector's scores of all instances."""
        return self._joined("box_scores", ())

    @property
    def pose_scores(self) -> Float[np.ndarray, " n"]:
        """One score an instance; see `Poses.pose_scores`."""
        return self._joined("pose_scores", ())

    def _joined(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = np.zeros((len(self), *shape), np.float32)
        for group, poses in enumerate(self.groups.values()):
            own = self.places[:, 0] == group
            values[own] = getattr(poses, name)[self.places[own, 1]]
        return values

    def __repr__(self) -> str:
        instances = "nobody" if not len(self) else "1 pose" if len(self) == 1 else f"{len(self)} poses"
        lines = [f"MixedPoses: {instances} of {', '.join(self.groups)}"]
        for number in range(min(len(self), 10)):
            own = self[number]
            points = f"{int(own.visible().sum())} of {len(own.skeleton)} points score 0.3 or more"
            box = " ".join(f"{value:.0f}" for value in own.boxes[0])
            name = f"{self.labels[number]} ({self.datasets[number]})"
            lines.append(f"  {number}: {name}: {points}, pose {own.pose_scores[0]:.2f}, box [{box}]")
        if len(self) > 10:
            lines.append(f"  ... and {len(self) - 10} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists and dictionaries, ready for JSON: one entry an instance, with its dataset and label."""
        parts = {name: poses.to_dict() for name, poses in self.groups.items()}
        names = list(parts)
        instances = [
            {"dataset": names[group], "label": label, **parts[names[group]]["poses"][row]}
            for (group, row), label in zip(self.places.tolist(), self.labels, strict=True)
        ]
        return {"edges": {name: part["edges"] for name, part in parts.items()}, "poses": instances}

    def to_json(self, indent: int | None = None) -> str:
        """Returns `to_dict()` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_coco(
        self, image_id: int | str, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Returns COCO's keypoint results, rows of different lengths; see `Poses.to_coco`.

        Args:
            image_id: The image's id in the annotation file.
            category_ids: The category's id of each dataset; 1, 2, … in the order of the groups without it.
        """
        ids = category_ids or {name: number for number, name in enumerate(self.groups, start=1)}
        return [own.to_coco(image_id, ids[name])[0] for own, name in zip(self, self.datasets, strict=True)]

    def to_pandas(self) -> pd.DataFrame:
        """Returns a table with one row an instance and keypoint: pose, dataset, label, keypoint, x, y, score.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        pandas = require("pandas", "tables", "for to_pandas()")
        rows = zip(self, self.datasets, self.labels, strict=True)
        tables = [
            own.to_pandas().assign(pose=number, dataset=name, label=label)
            for number, (own, name, label) in enumerate(rows)
        ]
        columns = ["pose", "dataset", "label", "keypoint", "x", "y", "score"]
        empty = pandas.DataFrame(columns=columns)
        return pandas.concat(tables, ignore_index=True)[columns] if tables else empty

    def to_supervision(self, threshold: float | None = None) -> dict[str, sv.KeyPoints]:
        """Returns supervision's key points of each dataset; see `Poses.to_supervision`.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return {name: poses.to_supervision(threshold) for name, poses in self.groups.items()}
