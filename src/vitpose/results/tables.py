"""Poses as Arrow tables with typed columns, for Parquet files.

One row for each instance, with three columns for each keypoint (`nose_x`, `nose_y`, `nose_score`). The caller adds
columns for the image or frame of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import require
from ..keypoints.skeleton import Skeleton
from .poses import Poses

if TYPE_CHECKING:
    import pyarrow as pa


def table_schema(skeleton: Skeleton, about: Mapping[str, str]) -> pa.Schema:
    """Returns the Arrow schema of poses of a skeleton.

    Args:
        skeleton: Skeleton of the poses; its name and keypoints are stored in the schema's metadata too.
        about: Names and Arrow types (`{"image": "string"}`) of the first columns, which identify the image or frame.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = require("pyarrow", "tables", "for tables of poses")
    instance = {"instance": "int32", "id": "int64"}
    box = dict.fromkeys(("left", "top", "right", "bottom", "box_score", "pose_score"), "float32")
    keypoints = {f"{name}_{part}": "float32" for name in skeleton.keypoints for part in ("x", "y", "score")}
    columns = {**about, **instance, **box, **keypoints}
    fields = [(name, arrow.type_for_alias(kind)) for name, kind in columns.items()]
    return arrow.schema(fields, {"skeleton": skeleton.name, "keypoints": ",".join(skeleton.keypoints)})


class PoseRows:
    """Collects poses as rows of a table.

    Rows are buffered as NumPy arrays: an Arrow table for every frame would take a megabyte each.

    Args:
        skeleton: Skeleton of the poses.
        about: As in `table_schema`.

    Attributes:
        schema: The Arrow schema of the table.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, skeleton: Skeleton, about: Mapping[str, str]) -> None:
        self._arrow = require("pyarrow", "tables", "for tables of poses")
        self.schema = table_schema(skeleton, about)
        self._clear()

    def _clear(self) -> None:
        self._about: list[Sequence[Any]] = []
        self._ids: list[int | None] = []
        self._numbers = [np.zeros((0, len(self.schema) - self._leading), np.float32)]

    @property
    def _leading(self) -> int:
        """Number of columns before the first column of floats."""
        return self.schema.get_field_index("left")

    def __len__(self) -> int:
        return len(self._about)

    def add(self, poses: Poses, *about: Any) -> None:
        """Adds the instances in one image or frame.

        Args:
            poses: Poses of the image; the column `id` is null for instances without a track.
            *about: Values of the first columns, for all instances.
        """
        n, k = poses.scores.shape
        keypoints = np.concatenate([poses.xy, poses.scores[:, :, None]], axis=2).reshape(n, 3 * k)
        scores = np.stack([poses.box_scores, poses.pose_scores], axis=1)
        self._numbers.append(np.concatenate([poses.boxes, scores, keypoints], axis=1).astype(np.float32))
        self._about += [(*about, person) for person in range(n)]
        self._ids += poses.track_ids

    def take(self) -> pa.Table:
        """Returns the rows added since the last call as an Arrow table, and clears them."""
        about = list(zip(*self._about, strict=True)) or [()] * (self._leading - 1)
        columns = [*about, self._ids, *np.ascontiguousarray(np.concatenate(self._numbers).T)]
        arrays = [
            self._arrow.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)
        ]
        self._clear()
        return self._arrow.Table.from_arrays(arrays, schema=self.schema)
