"""Rows of annotation files: COCO format with the additions of CrowdPose and COCO-WholeBody, and MPII's JSON format.

Owns the layout of these files and the names of their keypoints. Values that are missing or malformed become
None; callers decide which rows are unusable. Reads no pixels.
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
from ..files.paths import user_path
from ..files.schemas import parse_json
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton, plain_name

WHOLEBODY_FIELDS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
"""Keys of COCO-WholeBody's 133 keypoints, in the order of the skeleton `coco-wholebody`."""

UNUSABLE_ID = "images whose id is neither an integer nor a string"
"""Name of the problem in reports that list `AnnotationFile.broken_images`."""

MAX_FILE_BYTES = 4 * 2**30
"""Largest annotation file that is read; those of COCO-WholeBody have a few hundred megabytes."""

_MOST_PX = 2**31
"""Upper limit of an image's width and height."""

MPII_BOX_PX = 200.0
"""MPII's `scale` is the person's height over this many pixels (the dataset's README)."""

MPII_DROP = 15.0
"""MPII's centre is moved down by this many pixels times `scale`, as in the converter of the original repository:
otherwise the feet are cut off."""


@dataclass(frozen=True)
class ImageRow:
    """One image of the file.

    Attributes:
        id: An integer or a string; in MPII's format the file name.
        file_name: As in the file; empty if it is missing.
        size: Width and height in px, if the file contains them.
        crowd_index: CrowdPose's crowd index, 0 to 1, if the file contains it.
    """

    id: Any
    file_name: str
    size: Size | None = None
    crowd_index: float | None = None

    def __str__(self) -> str:
        return self.file_name or f"image {self.id}"


@dataclass(frozen=True, eq=False)
class AnnotationRow:
    """One annotated instance; None stands for values that are missing or malformed.

    Attributes:
        name: Name of the row in messages.
        id: ID of the annotation.
        image_id: ID of its image, which may not be in the file.
        category_id: ID of its category. Default: 1.
        has_keypoints: Whether there are keypoints, valid or not.
        keypoints: x, y (px) and visibility of each keypoint; may be NaN or infinite.
        xywh: Box: left, top, width, height in px; finite.
        area: Area in px².
        crowd: Whether the row is a region with many people.
        num_keypoints: Number of labelled keypoints according to the file.
        head_xywh: Box of the head, in the format of `xywh`.
    """

    name: str
    id: Any = None
    image_id: Any = None
    category_id: Any = 1
    has_keypoints: bool = False
    keypoints: Float[np.ndarray, "k 3"] | None = None
    xywh: Float[np.ndarray, " 4"] | None = None
    area: float | None = None
    crowd: bool = False
    num_keypoints: int | None = None
    head_xywh: Float[np.ndarray, " 4"] | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """The contents of an annotation file.

    Attributes:
        path: The file.
        images: Images by ID.
        rows: Annotations in the order of the file.
        skeleton: Skeleton of the keypoints.
        categories: IDs of the categories that the file lists.
        broken_images: Names of the images without a usable ID.
    """

    path: Path
    images: Mapping[Any, ImageRow]
    rows: tuple[AnnotationRow, ...]
    skeleton: Skeleton
    categories: frozenset[Any]
    broken_images: tuple[str, ...] = ()


def read_annotation_file(path: str | Path, skeleton: str | Path | Skeleton | None = None) -> AnnotationFile:
    """Read an annotation file in COCO or MPII format; the format is detected from the content.

    Args:
        path: `{images, annotations, categories}`, or MPII's list of `{image, center, scale, joints, joints_vis}`, whose
            pixel coordinates start at 1 as in MATLAB. The result's coordinates start at 0.
        skeleton: Skeleton of the keypoints of a COCO file. Default: the keypoints that the file's categories name.

    Raises:
        InputError: The file cannot be read or has neither format.
        SkeletonError: The keypoints have no names, or the given skeleton has them in another order.
    """
    path = user_path(path)
    content = read_json(path, "an annotation file in COCO or MPII format")
    if isinstance(content, list):
        return _mpii(path, content)
    images, rows, broken = coco_tables(path, content)
    categories = _tables(content.get("categories"))
    found = _skeleton(path, categories, _tables(rows), images, skeleton)
    return AnnotationFile(
        path=path,
        images=images,
        rows=tuple(_coco_row(row, len(found)) for row in rows),
        skeleton=found,
        categories=frozenset(read_id(category.get("id")) for category in categories) - {None},
        broken_images=broken,
    )


def read_json(path: Path, wanted: str) -> Any:
    """Read a JSON file; `wanted` is the expected kind of file, for messages.

    Raises:
        InputError: The file cannot be read or is not JSON.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); give {wanted}") from error
    try:
        return parse_json(content, path, max_bytes=MAX_FILE_BYTES, allow_nan=True)
    except InputError as error:
        raise InputError(f"{error}; give {wanted}") from error


def coco_tables(path: Path, content: Any) -> tuple[dict[Any, ImageRow], list[Any], tuple[str, ...]]:
    """Return the images by ID, the annotation rows and the names of images without an ID of a file in COCO format.

    Raises:
        InputError: The content is not in COCO format.
    """
    table = content if isinstance(content, dict) else {}
    image_rows, rows = table.get("images"), table.get("annotations")
    if not isinstance(image_rows, list) or not isinstance(rows, list):
        found = f"the keys {sorted(content)}" if isinstance(content, dict) else repr(content)[:50]
        raise InputError(f"{path} contains {found}; COCO format is {{images, annotations, categories}}")
    images = list(map(_image, image_rows))
    broken = tuple(
        f"image {index}, {row!r:.80}"
        for index, (row, image) in enumerate(zip(image_rows, images, strict=True))
        if image is None
    )
    return {image.id: image for image in images if image is not None}, rows, broken


def is_file(path: Path) -> bool:
    """Return whether the path is a file; False for invalid paths such as one that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for invalid paths


class ImageFinder:
    """Find the files of the images that an annotation file lists.

    The path of an image is its file name in the annotations, or the base name of that if no other image of the file
    shares it: otherwise two images could be confused.

    Args:
        images: All images of the file.
        directories: Directories to search; the first one that contains an image is used.
    """

    def __init__(self, images: Iterable[ImageRow], *directories: Path) -> None:
        names = {image.file_name for image in images}
        self._sharing = Counter(Path(name).name for name in names)
        self._directories = directories

    def find(self, image: ImageRow) -> Path:
        """Return the path of an image; if it does not exist, the first path that was tried."""
        names = [image.file_name, *([] if self.shares_name(image) else [Path(image.file_name).name])]
        paths = [directory / name for name in names for directory in self._directories]
        return next((path for path in paths if is_file(path)), paths[0])

    def shares_name(self, image: ImageRow) -> bool:
        """Return whether another image, in another directory, has the same base name."""
        return self._sharing[Path(image.file_name).name] > 1


def numbers(values: Any, count: int | None = None) -> Float[np.ndarray, " _"] | None:
    """Return a list of numbers as an array, or None; with `count` it must have that many, and all finite."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):  # OverflowError: integers beyond float64
        return None
    if array.ndim != 1 or (count is not None and not (len(array) == count and np.isfinite(array).all())):
        return None
    return array


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number within the range of float64."""
    return isinstance(value, int | float) and numbers([value], 1) is not None


def read_id(value: Any) -> int | str | None:
    """Return an ID as an integer or a string, or None; 1.0, as some tools write, becomes 1."""
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
    named = [category for category in categories if _are_names(category.get("keypoints"))]
    named = [category for category in named if read_id(category.get("id")) in used] or named
    kinds = sorted({tuple(category["keypoints"]) for category in named})
    if given is not None:
        return _checked(path, Skeleton.load(given), kinds)
    listed = [row.get("keypoints") for row in rows]
    lengths = {len(values) for values in listed if isinstance(values, list)} - {0}
    if any("face_kpts" in row for row in rows) or lengths == {3 * 133}:
        return Skeleton.load("coco-wholebody")  # such files name only the first 17 keypoints
    if lengths == {3 * 14} and any(image.crowd_index is not None for image in images.values()):
        return Skeleton.load("crowdpose")  # its file names the top of the head "head"
    if len(kinds) != 1:
        problem = "have different keypoints" if kinds else "do not name the keypoints"
        raise SkeletonError(
            f"{path}: its categories {problem}; give a skeleton: {', '.join(Skeleton.available())}, or a .toml file"
        )
    try:
        return Skeleton.from_labels(list(kinds[0]), _edges(named[0].get("skeleton"), len(kinds[0])))
    except SkeletonError as error:
        raise SkeletonError(f"{path}, the keypoints of its categories: {error}") from error


def _are_names(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def _edges(edges: Any, k: int) -> list[list[int]]:
    """Return the edges of a category between two of its k keypoints, as 0-based indices.

    Other edges are dropped: some files, such as CrowdPose's, list those of another dataset, and edges are only drawn.
    """
    if not isinstance(edges, list):
        return []
    pairs = [edge for edge in edges if isinstance(edge, list) and len(edge) == 2]
    return [[int(a) - 1, int(b) - 1] for a, b in pairs if a in range(1, k + 1) and b in range(1, k + 1)]


def _checked(path: Path, skeleton: Skeleton, kinds: Iterable[Sequence[str]]) -> Skeleton:
    """Return the skeleton; raise an error if the file has the same keypoints in another order."""
    given = tuple(map(plain_name, skeleton.keypoints))
    for names in kinds:
        listed = tuple(map(plain_name, names))
        if given != listed and sorted(given) == sorted(listed):
            raise SkeletonError(
                f"{path} has the keypoints of the skeleton {skeleton.name!r} in another order, {', '.join(names)}; "
                "omit the skeleton: keypoints are matched by name"
            )
    return skeleton


def _coco_row(row: Any, k: int) -> AnnotationRow:
    if not isinstance(row, dict):
        return AnnotationRow(repr(row)[:50])
    keypoints = row.get("keypoints")
    split = k == 133 and isinstance(keypoints, list) and len(keypoints) != 3 * k
    parts = [row[key] for key in WHOLEBODY_FIELDS if isinstance(row.get(key), list)]
    values = [value for part in parts for value in part] if split else keypoints
    area, count = numbers([row.get("area")], 1), row.get("num_keypoints")
    return AnnotationRow(
        name=f"annotation {row.get('id')}",
        id=row.get("id"),
        image_id=read_id(row.get("image_id")),
        category_id=read_id(row.get("category_id", 1)),
        has_keypoints=isinstance(keypoints, list) and bool(keypoints),
        keypoints=_triples(values, k),
        xywh=numbers(row.get("bbox"), 4),
        area=None if area is None else float(area[0]),
        crowd=bool(row.get("iscrowd")),
        # In COCO-WholeBody files `num_keypoints` counts only the keypoints of the body.
        num_keypoints=count if isinstance(count, int) and not split else None,
        head_xywh=numbers(row.get("head_bbox"), 4),
    )


def _triples(values: Any, k: int) -> Float[np.ndarray, "k 3"] | None:
    flat = numbers(values)
    return None if flat is None or len(flat) != 3 * k else flat.reshape(k, 3)


def _mpii(path: Path, rows: Sequence[Any]) -> AnnotationFile:
    if any(not isinstance(row, dict) or not isinstance(row.get("image"), str) for row in rows):
        raise InputError(
            f"{path} is neither in MPII format, a list of rows with 'image' and 'joints', nor in COCO format, "
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


def _mpii_row(number: int, row: Mapping[str, Any], k: int) -> AnnotationRow:
    box = _mpii_box(row)
    return AnnotationRow(
        name=f"row {number}",
        id=number,
        image_id=row["image"],
        has_keypoints="joints" in row,
        keypoints=_mpii_keypoints(row, k),
        xywh=box,
        area=None if box is None else float(box[2:].prod()),  # the file contains no areas
        head_xywh=numbers(row.get("head_bbox"), 4),
    )


def _mpii_keypoints(row: Mapping[str, Any], k: int) -> Float[np.ndarray, "k 3"] | None:
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
