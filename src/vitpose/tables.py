"""Poses as typed columns: Arrow tables, and so Parquet files.

One row a person; a person's keypoints are three columns each (`nose_x`, `nose_y`, `nose_score`). Knows no video
and no folder: what a row is about (a picture, a frame) stands in columns that the caller names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import require
from .poses import Poses
from .skeleton import Skeleton

if TYPE_CHECKING:
    import pyarrow as pa


def table_schema(skeleton: Skeleton, about: Mapping[str, str]) -> pa.Schema:
    """Returns the columns of poses of a skeleton.

    Args:
        skeleton: Its name and keypoints are kept in the schema's metadata too.
        about: What each row is about: names and Arrow types (`{"picture": "string"}`) of the first columns.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = require("pyarrow", "tables", "for tables of poses")
    person = {"person": "int32", "id": "int64"}
    box = dict.fromkeys(("left", "top", "right", "bottom", "box_score", "pose_score"), "float32")
    points = {f"{name}_{part}": "float32" for name in skeleton.keypoints for part in ("x", "y", "score")}
    fields = [(name, arrow.type_for_alias(kind)) for name, kind in {**about, **person, **box, **points}.items()]
    return arrow.schema(fields, {"skeleton": skeleton.name, "keypoints": ",".join(skeleton.keypoints)})


def table_of(schema: pa.Schema, poses: Poses, about: Mapping[str, Any]) -> pa.Table:
    """Returns the rows of the people in one picture or frame.

    Args:
        schema: From `table_schema`.
        poses: The people; the column `id` is null where they have no identities.
        about: The values of the first columns, the same for all of them.
    """
    arrow = require("pyarrow", "tables", "for tables of poses")
    n, k = poses.scores.shape
    numbers = np.concatenate([poses.xy, poses.scores[:, :, None]], axis=2).reshape(n, 3 * k)
    ids = [None] * n if poses.ids is None else poses.ids.tolist()
    columns: list[Any] = [[value] * n for value in about.values()]
    columns += [list(range(n)), ids, *poses.boxes.T, poses.box_scores, poses.pose_scores, *numbers.T]
    arrays = [
        arrow.array(column.astype(np.float32) if isinstance(column, np.ndarray) else column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return arrow.Table.from_arrays(arrays, schema=schema)
