"""MixedPoses: poses of instances of several datasets in one image, such as people and animals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Float, Int

from ..errors import InputError, UnknownNameError, require
from ..files.schemas import check, parse_json
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton
from .instances import Instances
from .json_form import PosesForm, arrays_of, edge_names, image_dict, instance_dicts, shipped_skeleton
from .poses import Poses

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv


@dataclass(frozen=True, eq=False, repr=False)
class MixedPoses(Instances):
    """The keypoints of n instances with several skeletons in one image; immutable.

    Attributes:
        groups: Poses by name of their dataset, including empty ones.
        indices: Index of the group, and row in the group, of each instance, in the order of the boxes.
        labels: The detector's class of each instance, such as "person" or "dog".

    Raises:
        InputError: `indices` or `labels` do not contain every instance exactly once.
    """

    groups: Mapping[str, Poses]
    indices: Int[np.ndarray, "n 2"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        rows = [(group, row) for group, poses in enumerate(self.groups.values()) for row in range(len(poses))]
        if sorted(map(tuple, self.indices.tolist())) != rows or len(self.labels) != len(rows):
            raise InputError(
                f"indices {self.indices.tolist()} and labels {self.labels} must contain each of the {len(rows)} "
                f"instances of {list(self.groups)} exactly once"
            )

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int | str) -> Poses: ...
    @overload
    def __getitem__(self, index: Any) -> MixedPoses: ...
    def __getitem__(self, index: Any) -> Poses | MixedPoses:
        """Returns one instance by its index, the poses of a dataset by its name, or a selection.

        Args:
            index: A whole number or the name of a dataset, which give `Poses`; a slice, mask or list of indices, which
                give `MixedPoses`.

        Raises:
            UnknownNameError: There is no such dataset.
            IndexError: An index is out of range.
        """
        if isinstance(index, str):
            if index not in self.groups:
                raise UnknownNameError("dataset of these poses", index, self.groups)
            return self.groups[index]
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is out of range for {len(self)} poses, counted from 0")
            group, row = self.indices[index].tolist()
            return list(self.groups.values())[group][row]
        chosen = np.arange(len(self))[index]
        indices, groups = self.indices[chosen], {}
        for number, (name, poses) in enumerate(self.groups.items()):
            members = indices[:, 0] == number
            groups[name] = poses[indices[members, 1]]
            indices[members, 1] = np.arange(members.sum())
        return MixedPoses(groups, indices, tuple(self.labels[row] for row in chosen))

    @property
    def path(self) -> str | None:
        """Path or URL that the image was read from; None: unknown, as for arrays."""
        return next((poses.path for poses in self.groups.values()), None)

    @property
    def image_size(self) -> Size | None:
        """Size of the image; None: unknown."""
        return next((poses.image_size for poses in self.groups.values()), None)

    def with_path(self, path: str | None) -> MixedPoses:
        """Returns the poses with another `path`."""
        groups = {name: poses.with_path(path) for name, poses in self.groups.items()}
        return MixedPoses(groups, self.indices, self.labels)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Name of the dataset of each instance."""
        names = list(self.groups)
        return tuple(names[group] for group in self.indices[:, 0].tolist())

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

    def _joined(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "n *shape"]:
        values = np.zeros((len(self), *shape), np.float32)
        for group, poses in enumerate(self.groups.values()):
            members = self.indices[:, 0] == group
            values[members] = getattr(poses, name)[self.indices[members, 1]]
        return values

    def _title(self) -> str:
        return f" of {', '.join(self.groups)}"

    def _name(self, row: int) -> str:
        return f"{row}: {self.labels[row]} ({self.datasets[row]})"

    def to_dict(self) -> dict[str, Any]:
        """Returns lists and dictionaries that JSON can represent; see `Poses.to_dict`.

        Each instance has its dataset and label too; the skeleton of each dataset is named in `skeletons`.
        """
        parts = {name: instance_dicts(poses) for name, poses in self.groups.items()}
        rows = zip(self.datasets, self.indices[:, 1].tolist(), self.labels, strict=True)
        return {
            **image_dict(self.path, self.image_size),
            "skeletons": {name: poses.skeleton.name for name, poses in self.groups.items()},
            "edges": {name: edge_names(poses.skeleton) for name, poses in self.groups.items()},
            "poses": [{"dataset": name, "label": label, **parts[name][row]} for name, row, label in rows],
        }

    @classmethod
    def from_dict(cls, data: Any, skeletons: Mapping[str, str | Path | Skeleton] | None = None) -> MixedPoses:
        """Returns the poses of a dictionary as `to_dict` returns it, or of an entry of the `poses.json` of a run.

        Args:
            data: The dictionary.
            skeletons: Skeleton of each dataset; default: the shipped ones that the dictionary names.

        Raises:
            InputError: The dictionary has another form, or the keypoints of another skeleton.
            UnknownNameError: No skeleton of that name ships with vitpose, so `skeletons` is required; or an instance
                belongs to another dataset.
            SkeletonError: The file of a skeleton is invalid.
        """
        form = check(PosesForm, data, "poses")
        named = skeletons or {name: shipped_skeleton(known) for name, known in form.skeletons.items()}
        order = {name: number for number, name in enumerate(named)}
        groups = {}
        for name, skeleton in named.items():
            members = [instance for instance in form.poses if instance.dataset == name]
            known = Skeleton.load(skeleton)
            arrays = arrays_of(members, known)
            groups[name] = Poses(**arrays, skeleton=known, image_size=form.size, path=form.image)
        count = dict.fromkeys(order, 0)
        indices = np.zeros((len(form.poses), 2), np.int64)
        for row, instance in enumerate(form.poses):
            if instance.dataset not in order:
                raise UnknownNameError("dataset of an instance", instance.dataset, order)
            indices[row] = order[instance.dataset], count[instance.dataset]
            count[instance.dataset] += 1
        return cls(groups, indices, tuple(instance.label for instance in form.poses))

    @classmethod
    def from_json(
        cls, text: str | bytes, skeletons: Mapping[str, str | Path | Skeleton] | None = None
    ) -> MixedPoses:
        """Returns the poses of a JSON string as `to_json` returns it; see `from_dict`.

        Raises:
            InputError: The string is not JSON; and see `from_dict`.
        """
        return cls.from_dict(parse_json(text, "poses"), skeletons)

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
