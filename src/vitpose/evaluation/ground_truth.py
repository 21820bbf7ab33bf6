"""What people marked in the images, as far as it can be measured against.

A row that cannot be used is counted and named, and stops nothing. Knows no prediction and no measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..data.annotation_file import UNUSABLE_ID, AnnotationFile, ImageRow, Row, read_annotation_file
from ..errors import InputError, require
from ..keypoints.skeleton import Skeleton
from .problems import Problems

AREA_PER_BOX = 0.53
"""Area of a person in its box, where the file has no area; the value of CrowdPose's own evaluation."""


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person (or animal).

    Attributes:
        id: Of the annotation.
        image_id: Of its image.
        category_id: What it is.
        points: x, y (px) and visibility of each keypoint; above 0 is labelled.
        xywh: Its box: left, top, width, height, px.
        area: px².
        crowd: Whether it is a region of many people, which no measure counts.
        counted: How many labelled points the file says there are; 0 makes COCO's measures ignore the person.
        head_xywh: The box of the head, of the form of `xywh`, if the file has it.
    """

    id: Any
    image_id: Any
    category_id: Any
    points: Float[np.ndarray, "k 3"]
    xywh: tuple[float, float, float, float]
    area: float
    crowd: bool
    counted: int
    head_xywh: tuple[float, float, float, float] | None = None

    @property
    def labelled(self) -> Bool[np.ndarray, " k"]:
        """Which points the annotator placed."""
        return self.points[:, 2] > 0

    @property
    def wanted(self) -> bool:
        """Whether there is something to find: a person, and a point at least."""
        return not self.crowd and bool(self.labelled.any())


@dataclass(frozen=True)
class GroundTruth:
    """The usable content of an annotation file.

    Attributes:
        path: The file.
        images: By id.
        people: In the order of the file.
        skeleton: What the points are called.
        categories: Ids of the categories.
        problems: Rows that could not be used.
    """

    path: Path
    images: Mapping[Any, ImageRow]
    people: tuple[Person, ...]
    skeleton: Skeleton
    categories: frozenset[Any]
    problems: Problems

    def name_of(self, person: Person) -> str:
        """Returns how messages call a person."""
        return f"{self.images[person.image_id]}, annotation {person.id}"


def read_ground_truth(
    path: str | Path,
    skeleton: str | Path | Skeleton | None = None,
    head_boxes: str | Path | None = None,
) -> GroundTruth:
    """Reads an annotation file.

    Args:
        path: A file of COCO's or MPII's form; see `vitpose.data.annotation_file`. PCKh needs `head_bbox` (left, top,
            width, height) in its rows.
        skeleton: Names and sigmas of the points, where those of the file's categories are not wanted.
        head_boxes: MPII's file of the heads' boxes, where the rows have none; see `read_head_boxes`.

    Raises:
        InputError: The file cannot be read, is not in that form, or holds no keypoints; or the boxes of heads
            are not of its people.
        SkeletonError: The points have no names, or the skeleton does not fit them.
    """
    file, problems = read_annotation_file(path, skeleton), Problems()
    if head_boxes is not None:
        file = replace(file, rows=_with_heads(file, Path(head_boxes).expanduser()))
    for name in file.broken_images:
        problems.add(UNUSABLE_ID, name)
    rows = [row for row in file.rows if _is_usable(row, file.images, problems)]
    if not rows:
        raise InputError(
            f"{path} has {len(file.rows)} annotations, none with keypoints of an image it lists; give a file of "
            "keypoint annotations"
        )
    people = (_person(row, str(file.images[row.image_id]), len(file.skeleton), problems) for row in rows)
    found = tuple(person for person in people if person is not None)
    if not any(person.wanted for person in found):
        raise InputError(
            f"{path}: nobody has a labelled point of the {len(file.skeleton)} points of the skeleton "
            f"{file.skeleton.name!r}; look at its visibilities, and at the number of its points"
        )
    categories = file.categories | {person.category_id for person in found}
    return GroundTruth(file.path, file.images, found, file.skeleton, categories, problems)


def read_head_boxes(path: Path) -> Float[np.ndarray, "n 4"]:
    """Reads the boxes of the heads as MPII's evaluation has them, which its json lacks: `mpii_gt_val.mat`.

    Returns:
        Left, top, width and height, px, counted from 0; in the order of the people of `mpii_val.json`.

    Raises:
        InputError: The file cannot be read, or has no `headboxes_src`.
        MissingDependencyError: scipy is not installed.
    """
    reader = require("scipy.io", "evaluate", "to read MATLAB's files")
    try:
        corners = reader.loadmat(str(path), variable_names=["headboxes_src"])["headboxes_src"]
    except (OSError, ValueError, KeyError, NotImplementedError, reader.matlab.MatReadError) as error:
        raise InputError(
            f"{path} holds no boxes of heads ({error!r}); give MPII's mpii_gt_val.mat"
        ) from error
    if corners.ndim != 3 or corners.shape[:2] != (2, 2):
        raise InputError(f"{path}: headboxes_src must be 2 corners x (x, y) x people, not {corners.shape}")
    low, high = corners.transpose(0, 2, 1).astype(np.float64)
    return np.concatenate([low - 1, high - low], axis=1)


def with_areas_of_boxes(people: Iterable[Person]) -> list[Person]:
    """Returns people whose areas are `AREA_PER_BOX` of their boxes, as CrowdPose measures them."""
    return [replace(person, area=person.xywh[3] * person.xywh[2] * AREA_PER_BOX) for person in people]


def _with_heads(file: AnnotationFile, path: Path) -> tuple[Row, ...]:
    heads = read_head_boxes(path)
    if len(heads) != len(file.rows):
        raise InputError(
            f"{path} has the heads of {len(heads)} people, and {file.path} has {len(file.rows)}; the two files must be "
            "of the same people"
        )
    return tuple(replace(row, head_xywh=head) for row, head in zip(file.rows, heads, strict=True))


def _is_usable(row: Row, images: Mapping[Any, ImageRow], problems: Problems) -> bool:
    if row.image_id not in images:
        problems.add("annotations of an image that the file does not list", row.name)
        return False
    if not row.has_keypoints:
        problems.add("annotations without keypoints", f"{images[row.image_id]}, {row.name}")
        return False
    return True


def _person(row: Row, image: str, k: int, problems: Problems) -> Person | None:
    name = f"{image}, {row.name}"
    if row.points is None or not np.isfinite(row.points).all():
        problems.add(f"annotations whose keypoints are not {k} times x, y, visibility", name)
        return None
    if row.xywh is None or min(row.xywh[2:]) < 0:
        problems.add("annotations without a box of four finite numbers", name)
        return None
    if row.area is None:
        problems.add(f"annotations without an area, for which {AREA_PER_BOX} x box stands", name)
    return Person(
        id=row.id,
        image_id=row.image_id,
        category_id=row.category_id,
        points=row.points,
        xywh=_quadruple(row.xywh),
        area=float(row.xywh[2:].prod()) * AREA_PER_BOX if row.area is None else row.area,
        crowd=row.crowd,
        counted=int((row.points[:, 2] > 0).sum()) if row.counted is None else row.counted,
        head_xywh=None if row.head_xywh is None else _quadruple(row.head_xywh),
    )


def _quadruple(box: Float[np.ndarray, " 4"]) -> tuple[float, float, float, float]:
    left, top, width, height = box.tolist()
    return left, top, width, height
