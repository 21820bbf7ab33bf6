"""Poses as typed columns: Arrow tables, and so Parquet files.

One row a person; a person's keypoints are three columns each (`nose_x`, `nose_y`, `nose_score`). Knows no video
and no folder: what a row is about (an image, a frame) stands in columns that the caller names.
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
    """Returns the columns of poses of a skeleton.

    Args:
        skeleton: Its name and keypoints are kept in the schema's metadata too.
        about: What each row is about: names and Arrow types (`{"image": "string"}`) of the first columns.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = require("pyarrow", "tables", "for tables of poses")
    person = {"person": "int32", "id": "int64"}
    box = dict.fromkeys(("left", "top", "right", "bottom", "box_score", "pose_score"), "float32")
    points = {f"{name}_{part}": "float32" for name in skeleton.keypoints for part in ("x", "y", "score")}
    fields = [
        (name, arrow.type_for_alias(kind)) for name, kind in {**about, **person, **box, **points}.items()
    ]
    return arrow.schema(fields, {"skeleton": skeleton.name, "keypoints": ",".join(skeleton.keypoints)})


class PoseRows:
    """Collects the rows of people, and gives them as a table.

    Rows wait as plain arrays: an Arrow table of its own for every frame would cost a megabyte each.

    Args:
        skeleton: That of the poses.
        about: As in `table_schema`.

    Attributes:
        schema: The columns.

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
        """How many columns stand before those of floats."""
        return self.schema.get_field_index("left")

    def __len__(self) -> int:
        return len(self._about)

    def add(self, poses: Poses, *about: Any) -> None:
        """Adds the people in one image or frame.

        Args:
            poses: The people; the column `id` is null for those who are not tracked.
            *about: The values of the first columns, the same for all of them.
        """
        n, k = poses.scores.shape
        points = np.concatenate([poses.xy, poses.scores[:, :, None]], axis=2).reshape(n, 3 * k)
        scores = np.stack([poses.box_scores, poses.pose_scores], axis=1)
        self._numbers.append(np.concatenate([poses.boxes, scores, points], axis=1).astype(np.float32))
        self._about += [(*about, person) for person in range(n)]
        self._ids += poses.track_ids

    def take(self) -> pa.Table:
        """Returns the rows that were added since the last time."""
        about = list(zip(*self._about, strict=True)) or [()] * (self._leading - 1)
        columns = [*about, self._ids, *np.ascontiguousarray(np.concatenate(self._numbers).T)]
        arrays = [
            self._arrow.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)
        ]
        self._clear()
        return self._arrow.Table.from_arrays(arrays, schema=self.schema)
