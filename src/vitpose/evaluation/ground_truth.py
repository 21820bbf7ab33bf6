"""Ground truth: the annotated instances that predictions are measured against.

Rows that cannot be used are counted and named; the others are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..data.annotation_file import UNUSABLE_ID, AnnotationFile, AnnotationRow, ImageRow, read_annotation_file
from ..errors import InputError, counted, require
from ..files.paths import user_path
from ..keypoints.skeleton import Skeleton
from .problems import Problems

AREA_PER_BOX = 0.53
"""Area of an instance per area of its box, if the file has no areas; the value of CrowdPose's evaluation code."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated person or animal.

    Attributes:
        id: ID of the annotation.
        image_id: ID of its image.
        category_id: ID of its category.
        keypoints: x, y (px) and visibility of each keypoint; above 0 is labelled.
        xywh: Box: left, top, width, height, px.
        area: Area, px².
        crowd: Whether it is a region of several instances, which no metric counts.
        num_keypoints: Number of labelled keypoints according to the file; COCO's metrics ignore instances in which
            it is 0.
        head_xywh: Head box in the form of `xywh`, if the file has one.
    """

    id: Any
    image_id: Any
    category_id: Any
    keypoints: Float[np.ndarray, "k 3"]
    xywh: tuple[float, float, float, float]
    area: float
    crowd: bool
    num_keypoints: int
    head_xywh: tuple[float, float, float, float] | None = None

    @property
    def labelled(self) -> Bool[np.ndarray, " k"]:
        """Which keypoints are labelled."""
        return self.keypoints[:, 2] > 0

    @property
    def usable(self) -> bool:
        """Whether it is a single instance with at least one labelled keypoint."""
        return not self.crowd and bool(self.labelled.any())


@dataclass(frozen=True)
class GroundTruth:
    """The usable content of an annotation file.

    Attributes:
        path: The file.
        images: Rows of the images, by ID.
        instances: The instances, in the order of the file.
        skeleton: Skeleton of the keypoints.
        categories: IDs of the categories.
        problems: Rows that could not be used.
        beyond_limit: IDs of the images that the limit leaves out.
    """

    path: Path
    images: Mapping[Any, ImageRow]
    instances: tuple[Instance, ...]
    skeleton: Skeleton
    categories: frozenset[Any]
    problems: Problems
    beyond_limit: frozenset[Any] = frozenset()

    def name_of(self, instance: Instance) -> str:
        """Return the name of an instance in messages."""
        return f"{self.images[instance.image_id]}, annotation {instance.id}"


def read_ground_truth(
    path: str | Path,
    skeleton: str | Path | Skeleton | None = None,
    head_boxes: str | Path | None = None,
    limit: int | None = None,
) -> GroundTruth:
    """Read an annotation file.

    Args:
        path: A file in COCO's or MPII's form; see `vitpose.data.annotation_file`. PCKh requires `head_bbox` (left,
            top, width, height) in its rows.
        skeleton: Skeleton with the names and sigmas of the keypoints; default: that of the file's categories.
        head_boxes: MPII's file of head boxes, for rows without `head_bbox`; see `read_head_boxes`.
        limit: Read only the first images, this many, and their instances; default: all.

    Raises:
        InputError: The file cannot be read, is not in that form, or has no keypoints; the number of head boxes differs
            from the number of its rows; or the limit is below 1.
        MissingDependencyError: scipy, which reads head boxes, is not installed.
        SkeletonError: The keypoints have no names, or the skeleton does not fit them.
    """
    file, problems = read_annotation_file(path, skeleton), Problems()
    if head_boxes is not None:
        file = replace(file, rows=_with_heads(file, user_path(head_boxes)))
    beyond: frozenset[Any] = frozenset()
    if limit is not None:
        if limit < 1:
            raise InputError(f"the limit is {limit} images; give 1 or more, or omit it")
        beyond = frozenset([*file.images][limit:])
        images = {id: image for id, image in file.images.items() if id not in beyond}
        file = replace(
            file, images=images, rows=tuple(row for row in file.rows if row.image_id not in beyond)
        )
    for name in file.broken_images:
        problems.add(UNUSABLE_ID, name)
    rows = [row for row in file.rows if _is_usable(row, file.images, problems)]
    if not rows:
        raise InputError(
            f"{path} has {counted(len(file.rows), 'annotation')}, none with keypoints of an image it lists; give a "
            "file of keypoint annotations"
        )
    read = (_read_instance(row, str(file.images[row.image_id]), len(file.skeleton), problems) for row in rows)
    instances = tuple(instance for instance in read if instance is not None)
    if not any(instance.usable for instance in instances):
        raise InputError(
            f"{path}: no instance has a labelled keypoint of the skeleton {file.skeleton.name!r} with "
            f"{counted(len(file.skeleton), 'keypoint')}; check the visibilities and the number of keypoints in the file"
        )
    categories = file.categories | {instance.category_id for instance in instances}
    return GroundTruth(file.path, file.images, instances, file.skeleton, categories, problems, beyond)


def read_head_boxes(path: Path) -> Float[np.ndarray, "n 4"]:
    """Read the head boxes of MPII's evaluation, `mpii_gt_val.mat`, which its JSON does not contain.

    Returns:
        Left, top, width and height, px, counted from 0; in the order of the rows of `mpii_val.json`.

    Raises:
        InputError: The file cannot be read, or has no `headboxes_src`.
        MissingDependencyError: scipy is not installed.
    """
    reader = require("scipy.io", "evaluate", "to read MATLAB files")
    try:
        corners = reader.loadmat(str(path), variable_names=["headboxes_src"])["headboxes_src"]
    except (OSError, ValueError, KeyError, NotImplementedError, reader.matlab.MatReadError) as error:
        raise InputError(f"{path} has no head boxes ({error!r}); give MPII's mpii_gt_val.mat") from error
    if corners.ndim != 3 or corners.shape[:2] != (2, 2):
        raise InputError(
            f"{path}: headboxes_src must have the shape (2 corners, x and y, instances), not {corners.shape}; give "
            "MPII's mpii_gt_val.mat"
        )
    low, high = corners.transpose(0, 2, 1).astype(np.float64)
    return np.concatenate([low - 1, high - low], axis=1)


def with_box_areas(instances: Iterable[Instance]) -> list[Instance]:
    """Return the instances with areas of `AREA_PER_BOX` times their boxes, as CrowdPose defines them."""
    return [
        replace(instance, area=instance.xywh[3] * instance.xywh[2] * AREA_PER_BOX) for instance in instances
    ]


def _with_heads(file: AnnotationFile, path: Path) -> tuple[AnnotationRow, ...]:
    heads = read_head_boxes(path)
    if len(heads) != len(file.rows):
        raise InputError(
            f"{path} has {counted(len(heads), 'head box', 'head boxes')} and {file.path} has "
            f"{counted(len(file.rows), 'annotation')}; give two files of the same instances"
        )
    return tuple(replace(row, head_xywh=head) for row, head in zip(file.rows, heads, strict=True))


def _is_usable(row: AnnotationRow, images: Mapping[Any, ImageRow], problems: Problems) -> bool:
    if row.image_id not in images:
        problems.add("annotations of an image that the file does not list", row.name)
        return False
    if not row.has_keypoints:
        problems.add("annotations without keypoints", f"{images[row.image_id]}, {row.name}")
        return False
    return True


def _read_instance(row: AnnotationRow, image: str, k: int, problems: Problems) -> Instance | None:
    name = f"{image}, {row.name}"
    if row.keypoints is None or not np.isfinite(row.keypoints).all():
        problems.add(f"annotations with keypoints that are not {k} times x, y, visibility", name)
        return None
    if row.xywh is None or min(row.xywh[2:]) < 0:
        problems.add("annotations without a box of four finite numbers", name)
        return None
    if row.area is None:
        problems.add(f"annotations without an area: {AREA_PER_BOX} x box is used", name)
    return Instance(
        id=row.id,
        image_id=row.image_id,
        category_id=row.category_id,
        keypoints=row.keypoints,
        xywh=_quadruple(row.xywh),
        area=float(row.xywh[2:].prod()) * AREA_PER_BOX if row.area is None else row.area,
        crowd=row.crowd,
        num_keypoints=int((row.keypoints[:, 2] > 0).sum())
        if row.num_keypoints is None
        else row.num_keypoints,
        head_xywh=None if row.head_xywh is None else _quadruple(row.head_xywh),
    )


def _quadruple(box: Float[np.ndarray, " 4"]) -> tuple[float, float, float, float]:
    left, top, width, height = box.tolist()
    return left, top, width, height
