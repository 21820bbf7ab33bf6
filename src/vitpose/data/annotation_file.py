"""Annotation files as they stand: COCO's form with CrowdPose's and COCO-WholeBody's additions, and MPII's own.

Owns where things are in such a file and what its keypoints are called. Judges nothing: what a row does not have
is None, and whoever reads says which rows that makes useless. Knows no pixels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError, SkeletonError
from ..files.schemas import parse_json
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton, plain_name

WHOLEBODY_FIELDS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
"""Where COCO-WholeBody keeps its 133 points, in the order of the skeleton `coco-wholebody`."""

UNUSABLE_ID = "images whose id is neither a whole number nor a text"
"""What those who judge call `AnnotationFile.broken_images`."""

MAX_FILE_BYTES = 4 * 2**30
"""Largest annotation file that is read; those of COCO-WholeBody have some hundred megabytes."""

_MOST_PX = 2**31
"""No image has more pixels a side."""

MPII_BOX_PX = 200.0
"""MPII's `scale` is the person's height over this many pixels (the dataset's README)."""

MPII_DROP = 15.0
"""MPII's centre is moved down by this many pixels times `scale`, as the original's converter has it:
the feet were cut off otherwise."""


@dataclass(frozen=True)
class ImageRow:
    """One image of the file.

    Attributes:
        id: A number or a text; in MPII's form the file name.
        file_name: As in the file; empty if it has none.
        size: Its size, px, if the file says so.
        crowd_index: CrowdPose's measure of crowding, 0 to 1, if the file has it.
    """

    id: Any
    file_name: str
    size: Size | None = None
    crowd_index: float | None = None

    def __str__(self) -> str:
        return self.file_name or f"image {self.id}"


@dataclass(frozen=True, eq=False)
class Row:
    """One annotated person (or animal); None is what the file does not have, or not in its form.

    Attributes:
        name: How messages call it.
        id: Of the annotation.
        image_id: Of its image, which the file may not list.
        category_id: What it is; 1 where the file does not say.
        has_keypoints: Whether there are any, of whatever form.
        points: x, y (px) and visibility of each keypoint. They need not be finite.
        xywh: Its box: left, top, width, height, px; finite.
        area: px².
        crowd: Whether it is a region of many people.
        counted: How many labelled points the file says there are.
        head_xywh: The box of the head, of the form of `xywh`.
    """

    name: str
    id: Any = None
    image_id: Any = None
    category_id: Any = 1
    has_keypoints: bool = False
    points: Float[np.ndarray, "k 3"] | None = None
    xywh: Float[np.ndarray, " 4"] | None = None
    area: float | None = None
    crowd: bool = False
    counted: int | None = None
    head_xywh: Float[np.ndarray, " 4"] | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """What a file holds.

    Attributes:
        path: The file.
        images: By id.
        rows: In the order of the file.
        skeleton: What the points are called.
        categories: Ids of the categories that the file lists.
        broken_images: Names of the images that have no usable id.
    """

    path: Path
    images: Mapping[Any, ImageRow]
    rows: tuple[Row, ...]
    skeleton: Skeleton
    categories: frozenset[Any]
    broken_images: tuple[str, ...] = ()


def read_annotation_file(path: str | Path, skeleton: str | Path | Skeleton | None = None) -> AnnotationFile:
    """Reads a file of COCO's or MPII's form, told apart by what is in it.

    Args:
        path: `{images, annotations, categories}`, or MPII's list of `{image, center, scale, joints, joints_vis}`, which
            counts pixels from 1 as MATLAB does. Here they count from 0.
        skeleton: What the keypoints of a COCO file are, where its own names are not wanted or there are none.

    Raises:
        InputError: The file cannot be read or is neither.
        SkeletonError: The points have no names, or the skeleton has them in another order.
    """
    path = Path(path).expanduser()
    content = read_json(path, "an annotation file of COCO's or MPII's form")
    if isinstance(content, list):
        return _mpii(path, content)
    images, rows, broken = coco_tables(path, content)
    categories = _tables(content.get("categories"))
    bones = _skeleton(path, categories, _tables(rows), images, skeleton)
    return AnnotationFile(
        path=path,
        images=images,
        rows=tuple(_coco_row(row, len(bones)) for row in rows),
        skeleton=bones,
        categories=frozenset(read_id(one.get("id")) for one in categories) - {None},
        broken_images=broken,
    )


def read_json(path: Path, wanted: str) -> Any:
    """Reads any JSON file; `wanted` is what the messages ask for.

    Raises:
        InputError: The file cannot be read or is not JSON.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # the latter for names that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); give {wanted}") from error
    try:
        return parse_json(content, path, max_bytes=MAX_FILE_BYTES, allow_nan=True)
    except InputError as error:
        raise InputError(f"{error}; give {wanted}") from error


def coco_tables(path: Path, content: Any) -> tuple[dict[Any, ImageRow], list[Any], tuple[str, ...]]:
    """Returns the images, by id, and the annotations of what COCO's form holds; and names images without an id.

    Raises:
        InputError: The content is not of this form.
    """
    table = content if isinstance(content, dict) else {}
    image_rows, rows = table.get("images"), table.get("annotations")
    if not isinstance(image_rows, list) or not isinstance(rows, list):
        held = f"the keys {sorted(content)}" if isinstance(content, dict) else repr(content)[:50]
        raise InputError(f"{path} holds {held}; COCO's form is {{images, annotations, categories}}")
    images = list(map(_image, image_rows))
    broken = tuple(
        f"image {index}, {row!r:.80}"
        for index, (row, image) in enumerate(zip(image_rows, images, strict=True))
        if image is None
    )
    return {image.id: image for image in images if image is not None}, rows, broken


def is_file(path: Path) -> bool:
    """Tells whether there is such a file. A name that cannot be one, such as one that is too long, is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for such a name


def is_folder(path: Path) -> bool:
    """Tells whether there is such a directory. A name that cannot be one, such as one that is too long, is none."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for such a name


class ImageFinder:
    """Finds the files of the images that an annotation file lists.

    An image lies where the file says; or under its base name, if no other image of the file has the same one, or two
    images could be taken for each other.

    Args:
        images: All images of the file.
        folders: The directories to look in; the first that has an image counts.
    """

    def __init__(self, images: Iterable[ImageRow], *folders: Path) -> None:
        names = {image.file_name for image in images}
        self._sharing = Counter(Path(name).name for name in names)
        self._folders = folders

    def find(self, image: ImageRow) -> Path:
        """Returns where an image lies; if it is nowhere, where it is looked for first."""
        names = [image.file_name, *([] if self.shares_name(image) else [Path(image.file_name).name])]
        paths = [folder / name for name in names for folder in self._folders]
        return next((path for path in paths if is_file(path)), paths[0])

    def shares_name(self, image: ImageRow) -> bool:
        """Tells whether the base name of an image is that of another image, in another directory, too."""
        return self._sharing[Path(image.file_name).name] > 1


def numbers(values: Any, count: int | None = None) -> Float[np.ndarray, " _"] | None:
    """Returns a list of numbers, or that many finite ones, as an array; None if these are none such."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):  # the last for integers that no float can hold
        return None
    if array.ndim != 1 or (count is not None and not (len(array) == count and np.isfinite(array).all())):
        return None
    return array


def is_number(value: Any) -> bool:
    """Tells whether a value is a finite number that a float can hold."""
    return isinstance(value, int | float) and numbers([value], 1) is not None


def read_id(value: Any) -> int | str | None:
    """Returns an id, if it can be one; 1.0, as some programs write it, is 1, and so is numpy's 1."""
    if isinstance(value, float | np.integer) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None


def _image(row: Any) -> ImageRow | None:
    id = read_id(row.get("id")) if isinstance(row, dict) else None
    if id is None:
        return None
    name, width, height = row.get("file_name"), row.get("width"), row.get("height")
    known = all(isinstance(side, int) and 0 < side < _MOST_PX for side in (width, height))
    index = numbers([row.get("crowdIndex")], 1)
    return ImageRow(
        id=id,
        file_name=name if isinstance(name, str) else "",
        size=Size(width, height) if known else None,
        crowd_index=None if index is None else float(index[0]),
    )


def _tables(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _skeleton(
    path: Path,
    categories: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    images: Mapping[Any, ImageRow],
    given: str | Path | Skeleton | None,
) -> Skeleton:
    used = {read_id(row.get("category_id")) for row in rows}
    named = [one for one in categories if _are_names(one.get("keypoints"))]
    named = [one for one in named if read_id(one.get("id")) in used] or named
    kinds = sorted({tuple(one["keypoints"]) for one in named})
    if given is not None:
        return _checked(path, Skeleton.load(given), kinds)
    bodies = [row.get("keypoints") for row in rows]
    lengths = {len(body) for body in bodies if isinstance(body, list)} - {0}
    if any("face_kpts" in row for row in rows) or lengths == {3 * 133}:
        return Skeleton.load("coco-wholebody")  # such files name the first 17 points only
    if lengths == {3 * 14} and any(image.crowd_index is not None for image in images.values()):
        return Skeleton.load("crowdpose")  # whose file calls the top of the head "head"
    if len(kinds) != 1:
        why = "have different keypoints" if kinds else "do not name the keypoints"
        raise SkeletonError(
            f"{path}: its categories {why}; give a skeleton: {', '.join(Skeleton.available())}, or a .toml file"
        )
    try:
        return Skeleton.from_labels(list(kinds[0]), _edges(named[0].get("skeleton"), len(kinds[0])))
    except SkeletonError as error:
        raise SkeletonError(f"{path}, the keypoints of its categories: {error}") from error


def _are_names(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def _edges(edges: Any, k: int) -> list[list[int]]:
    """Returns the edges of a category, counted from 0, that join two of its k points.

    Some files, CrowdPose's among them, carry another dataset's edges: a drawing aid, not worth a refusal.
    """
    if not isinstance(edges, list):
        return []
    pairs = [edge for edge in edges if isinstance(edge, list) and len(edge) == 2]
    return [[int(a) - 1, int(b) - 1] for a, b in pairs if a in range(1, k + 1) and b in range(1, k + 1)]


def _checked(path: Path, skeleton: Skeleton, kinds: Iterable[Sequence[str]]) -> Skeleton:
    """Refuses a skeleton that has the file's points in another order."""
    ours = tuple(map(plain_name, skeleton.keypoints))
    for names in kinds:
        theirs = tuple(map(plain_name, names))
        if ours != theirs and sorted(ours) == sorted(theirs):
            raise SkeletonError(
                f"{path} has the keypoints of the skeleton {skeleton.name!r} in another order, {', '.join(names)}; "
                "leave the skeleton out: points are compared and mapped by name"
            )
    return skeleton


def _coco_row(row: Any, k: int) -> Row:
    if not isinstance(row, dict):
        return Row(repr(row)[:50])
    body = row.get("keypoints")
    split = k == 133 and isinstance(body, list) and len(body) != 3 * k
    parts = [row[key] for key in WHOLEBODY_FIELDS if isinstance(row.get(key), list)]
    values = [value for part in parts for value in part] if split else body
    area, counted = numbers([row.get("area")], 1), row.get("num_keypoints")
    return Row(
        name=f"annotation {row.get('id')}",
        id=row.get("id"),
        image_id=read_id(row.get("image_id")),
        category_id=read_id(row.get("category_id", 1)),
        has_keypoints=isinstance(body, list) and bool(body),
        points=_triples(values, k),
        xywh=numbers(row.get("bbox"), 4),
        area=None if area is None else float(area[0]),
        crowd=bool(row.get("iscrowd")),
        # Of split files `num_keypoints` counts the body alone.
        counted=counted if isinstance(counted, int) and not split else None,
        head_xywh=numbers(row.get("head_bbox"), 4),
    )


def _triples(values: Any, k: int) -> Float[np.ndarray, "k 3"] | None:
    flat = numbers(values)
    return None if flat is None or len(flat) != 3 * k else flat.reshape(k, 3)


def _mpii(path: Path, rows: Sequence[Any]) -> AnnotationFile:
    if any(not isinstance(row, dict) or not isinstance(row.get("image"), str) for row in rows):
        raise InputError(
            f"{path} is not of MPII's form, which is a list of rows with 'image' and 'joints'; nor of COCO's, which is "
            "{images, annotations, categories}"
        )
    skeleton = Skeleton.load("mpii")
    return AnnotationFile(
        path=path,
        images={row["image"]: ImageRow(row["image"], row["image"]) for row in rows},
        rows=tuple(_mpii_row(number, row, len(skeleton)) for number, row in enumerate(rows)),
        skeleton=skeleton,
        categories=frozenset([1]),
    )


def _mpii_row(number: int, row: Mapping[str, Any], k: int) -> Row:
    box = _mpii_box(row)
    return Row(
        name=f"row {number}",
        id=number,
        image_id=row["image"],
        has_keypoints="joints" in row,
        points=_mpii_points(row, k),
        xywh=box,
        area=None if box is None else float(box[2:].prod()),  # the file has none
        head_xywh=numbers(row.get("head_bbox"), 4),
    )


def _mpii_points(row: Mapping[str, Any], k: int) -> Float[np.ndarray, "k 3"] | None:
    seen = numbers(row.get("joints_vis"), k)
    try:
        joints = np.array(row.get("joints"), np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if seen is None or joints.shape != (k, 2):
        return None
    return np.column_stack([joints - 1, np.where(seen > 0, 2.0, 0.0)])


def _mpii_box(row: Mapping[str, Any]) -> Float[np.ndarray, " 4"] | None:
    centre, scale = numbers(row.get("center"), 2), numbers([row.get("scale")], 1)
    if centre is None or scale is None:
        return None
    side = scale[0] * MPII_BOX_PX
    low = centre - 1 + [0, MPII_DROP * scale[0]] - side / 2
    return np.array([*low, side, side])
