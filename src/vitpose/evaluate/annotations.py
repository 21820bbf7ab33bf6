"""Annotation files: what people marked in the pictures.

Owns the reading of COCO's form with any keypoints, of CrowdPose's and of COCO-WholeBody's additions.
A row that cannot be used is counted and named, and stops nothing. Knows no prediction and no measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..boxes import Size
from ..data.annotations import mpii_box, mpii_points
from ..errors import InputError, SkeletonError
from ..skeleton import Skeleton
from .problems import Problems

AREA_PER_BOX = 0.53
"""Area of a person in its box, where the file has no area; the value of CrowdPose's own evaluation."""

WHOLEBODY_FIELDS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
"""Where COCO-WholeBody keeps its 133 points, in their order."""


@dataclass(frozen=True)
class Picture:
    """One picture of the file.

    Attributes:
        id: A number or a text.
        file_name: As in the file; empty if it has none.
        size: Its size, px, if the file says so.
        crowd_index: CrowdPose's measure of crowding, 0 to 1, if the file has it.
    """

    id: Any
    file_name: str
    size: Size | None
    crowd_index: float | None

    def __str__(self) -> str:
        return self.file_name or f"image {self.id}"


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person (or animal).

    Attributes:
        id: Of the annotation.
        image_id: Of its picture.
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
class Annotations:
    """The usable content of an annotation file.

    Attributes:
        path: The file.
        pictures: By id.
        people: In the order of the file.
        skeleton: What the points are called.
        categories: Ids of the categories.
        problems: Rows that could not be used.
    """

    path: Path
    pictures: Mapping[Any, Picture]
    people: tuple[Person, ...]
    skeleton: Skeleton
    categories: frozenset[Any]
    problems: Problems

    def name_of(self, person: Person) -> str:
        """Returns how messages call a person."""
        return f"{self.pictures[person.image_id]}, annotation {person.id}"


def read_annotations(path: str | Path, skeleton: str | Path | Skeleton | None = None) -> Annotations:
    """Reads an annotation file in COCO's form, or MPII's own json.

    Args:
        path: `{images, annotations, categories}`. Images of CrowdPose have a `crowdIndex`, people of
            COCO-WholeBody `foot_kpts`, `face_kpts`, `lefthand_kpts` and `righthand_kpts`; `head_bbox` (left, top,
            width, height) is what PCKh needs. Or MPII's list of `{image, center, scale, joints, joints_vis}`, which may
            have `head_bbox` too; its boxes are squares of 200 px times `scale`.
        skeleton: Names and sigmas of the points, where those of the file's categories are not wanted.

    Raises:
        InputError: The file cannot be read, is not in that form, or holds no keypoints.
        SkeletonError: The points have no names, or the skeleton does not fit them.
    """
    path = Path(path)
    content = _read_json(path)
    if isinstance(content, list):
        content, skeleton = _coco_from_mpii(path, content), skeleton or "mpii"
    problems = Problems()
    pictures = dict(_pictures(path, content["images"]))
    rows = [row for row in content["annotations"] if _is_usable(row, pictures, problems)]
    if not rows:
        raise InputError(
            f"{path} has {len(content['annotations'])} annotations, none with keypoints of a picture it lists; give a "
            "file of keypoint annotations"
        )
    bones = _skeleton(path, content.get("categories"), rows, pictures.values(), skeleton)
    whole_body = len(bones) == 133
    people = [_person(row, len(bones), whole_body, str(pictures[row["image_id"]]), problems) for row in rows]
    found = tuple(person for person in people if person is not None)
    if not any(person.wanted for person in found):
        raise InputError(
            f"{path}: nobody has a labelled point of the {len(bones)} points of the skeleton {bones.name!r}; "
            "look at its visibilities, and at the number of its points"
        )
    categories = {row["id"] for row in content.get("categories") or () if "id" in row}
    categories |= {person.category_id for person in found}
    return Annotations(path, pictures, found, bones, frozenset(categories), problems)


def with_areas_of_boxes(people: Iterable[Person]) -> list[Person]:
    """Returns people whose areas are `AREA_PER_BOX` of their boxes, as CrowdPose measures them."""
    return [replace(person, area=person.xywh[3] * person.xywh[2] * AREA_PER_BOX) for person in people]


def _read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give an annotation file") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}; give an annotation file in COCO's form") from error
    if isinstance(content, list):
        return content
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        keys = f"the keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise InputError(
            f"{path} holds {keys}; annotations in COCO's form are {{images, annotations, categories}}"
        )
    return content


def _coco_from_mpii(path: Path, rows: Sequence[Any]) -> dict[str, Any]:
    """Returns MPII's list in COCO's form; a picture's id is its name, a person's the row's number."""
    if not all(isinstance(row, dict) and {"image", "joints"} <= row.keys() for row in rows):
        raise InputError(
            f"{path} holds a list, whose rows are not MPII's {{image, center, scale, joints, joints_vis}}; annotations "
            "in COCO's form are {images, annotations, categories}"
        )
    people = []
    for number, row in enumerate(rows):
        box, points = mpii_box(row), mpii_points(row, 16)
        sides = None if box is None else [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
        people.append(
            {
                "id": number,
                "image_id": str(row["image"]),
                "category_id": 1,
                "keypoints": [np.nan] if points is None else points.ravel().tolist(),
                "bbox": sides,
                "area": None if sides is None else sides[2] * sides[3],
                "head_bbox": row.get("head_bbox"),
            }
        )
    names = dict.fromkeys(str(row["image"]) for row in rows)
    images = [{"id": name, "file_name": name} for name in names]
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def _pictures(path: Path, rows: Sequence[Any]) -> Iterable[tuple[Any, Picture]]:
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("id"), int | str):
            raise InputError(f"{path}, image {index}: an image needs an id, not {row!r:.200}")
        width, height = row.get("width"), row.get("height")
        size = Size(width, height) if isinstance(width, int) and isinstance(height, int) else None
        yield row["id"], Picture(row["id"], str(row.get("file_name", "")), size, row.get("crowdIndex"))


def _is_usable(row: Any, pictures: Mapping[Any, Picture], problems: Problems) -> bool:
    name = f"annotation {row.get('id')}" if isinstance(row, dict) else repr(row)[:50]
    if not isinstance(row, dict) or row.get("image_id") not in pictures:
        problems.add("annotations of a picture that the file does not list", name)
        return False
    if not isinstance(row.get("keypoints"), list) or not row["keypoints"]:
        problems.add("annotations without keypoints", f"{pictures[row['image_id']]}, {name}")
        return False
    return True


def _skeleton(
    path: Path,
    categories: Any,
    rows: Sequence[dict[str, Any]],
    pictures: Iterable[Picture],
    given: str | Path | Skeleton | None,
) -> Skeleton:
    if given is not None:
        return Skeleton.load(given)
    lengths = {len(row["keypoints"]) for row in rows}
    if any("face_kpts" in row for row in rows) or lengths == {3 * 133}:
        return Skeleton.load("coco-wholebody")  # such files name the first 17 points only
    if lengths == {3 * 14} and any(picture.crowd_index is not None for picture in pictures):
        return Skeleton.load("crowdpose")  # whose file calls the top of the head "head"
    used = {row.get("category_id") for row in rows}
    named = [
        c for c in categories or () if isinstance(c, dict) and c.get("id") in used and c.get("keypoints")
    ]
    kinds = {tuple(category["keypoints"]) for category in named}
    if len(kinds) != 1:
        why = (
            "its categories do not name the keypoints"
            if not kinds
            else "its categories have different keypoints"
        )
        raise SkeletonError(f"{path}: {why}; pass a skeleton, by name or as a .toml file")
    edges = [[a - 1, b - 1] for a, b in named[0].get("skeleton") or ()]
    k = len(named[0]["keypoints"])
    # Some files carry another data set's limbs.
    inside = [edge for edge in edges if all(0 <= end < k for end in edge)]
    return Skeleton.from_labels(list(named[0]["keypoints"]), inside)


def _person(row: dict[str, Any], k: int, whole_body: bool, picture: str, problems: Problems) -> Person | None:
    name = f"{picture}, annotation {row.get('id')}"
    split = whole_body and len(row["keypoints"]) != 3 * k
    numbers = [v for key in WHOLEBODY_FIELDS for v in row.get(key) or ()] if split else row["keypoints"]
    points = _numbers(numbers, 3 * k)
    box = _numbers(row.get("bbox"), 4)
    if points is None:
        problems.add(f"annotations whose keypoints are not {k} times x, y, visibility", name)
        return None
    if box is None or min(box[2:]) < 0:
        problems.add("annotations without a box of four finite numbers", name)
        return None
    xywh = _quadruple(box)
    area = _numbers([row.get("area")], 1)
    if area is None:
        problems.add(f"annotations without an area, for which {AREA_PER_BOX} x box stands", name)
    grid = points.reshape(k, 3)
    # Of split files `num_keypoints` counts the body alone.
    counted = None if split else row.get("num_keypoints")
    return Person(
        id=row.get("id"),
        image_id=row["image_id"],
        category_id=row.get("category_id", 1),
        points=grid,
        xywh=xywh,
        area=xywh[2] * xywh[3] * AREA_PER_BOX if area is None else float(area[0]),
        crowd=bool(row.get("iscrowd")),
        counted=counted if isinstance(counted, int) else int((grid[:, 2] > 0).sum()),
        head_xywh=None if (head := _numbers(row.get("head_bbox"), 4)) is None else _quadruple(head),
    )


def _numbers(values: Any, count: int) -> Float[np.ndarray, " count"] | None:
    """Returns that many finite numbers, or None if these are none such."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (count,) and np.isfinite(array).all() else None


def _quadruple(box: Float[np.ndarray, " 4"]) -> tuple[float, float, float, float]:
    left, top, width, height = box.tolist()
    return left, top, width, height
