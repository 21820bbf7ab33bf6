"""Boxes without a network: the whole image, or boxes in a COCO file.

Reads COCO's detection and annotation files. Runs no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..data.annotation_file import ImageRow, coco_tables, is_number, numbers, read_id, read_json
from ..errors import BoxError, InputError, check_number
from ..files.paths import user_path
from ..geometry.boxes import Size, refuse_outside, xyxy_from_xywh
from .labels import Labels, choose_labels, coco_labels
from .protocol import Detections

_MAX_SCORE = 1e30
"""Far above any detector's scores, and within the range of float32."""


class WholeImage:
    """A detector whose only box is the whole image, for images of one person.

    The box is only a first guess (`refine_boxes`): the pose estimated in it gives a better one.
    """

    refine_boxes = True

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Return the whole image as the only box of each image; see `Detector`."""
        sizes = [Size.of(image) for image in images]
        return [Detections.of_boxes([[0, 0, size.width, size.height]]) for size in sizes]


class CocoBoxes:
    """Boxes from a COCO file of detections or annotations (the score is 1 where the file has none).

    An image is identified by its base name among the `file_name`s of the file's `images`. In a file without `images`,
    it is identified by the number at the end of its stem, which is the `image_id` (`000000000785.jpg` is 785), or by
    the stem itself if the ids are strings. An image without rows has no boxes. Crowd regions (`iscrowd`) are skipped.

    Args:
        path: A JSON list of `{image_id, category_id, bbox, score}`, or an object `{images, annotations, categories}`;
            `bbox` is (left, top, width, height) in pixels.
        labels: Names of the categories to use; default: "person"; "all": every category. Files without `categories`
            have COCO's ids; an unknown id 93 is named "category 93".
        min_score: Boxes with a lower score are dropped.

    Raises:
        InputError: The file cannot be read, is not JSON or has another layout; or the labels or the score are invalid.
        BoxError: A row's box is not four finite numbers, or its size is negative.
        UnknownNameError: A label is not a category of the file.
    """

    suppress_duplicates = False

    def __init__(self, path: str | Path, labels: Labels = None, min_score: float = 0.0) -> None:
        check_number("min_score", min_score, 0, 1)
        self.path = user_path(path)
        file = _read_coco(self.path)
        if file.faults:
            raise file.faults[0]
        wanted = choose_labels(labels, file.known_labels())
        self._images = file.images
        self._ids_by_name: dict[str, list[Any]] = {}
        for image in file.images.values():
            if image.file_name:
                self._ids_by_name.setdefault(_base_name(image.file_name), []).append(image.id)
        self._rows: dict[Any, list[BoxRow]] = {}
        for row in file.rows:
            if row.label in wanted and row.score >= min_score and min(row.xywh[2:]) > 0:
                self._rows.setdefault(row.image_id, []).append(row)
        self._numbered = bool(file.rows) and all(isinstance(row.image_id, int) for row in file.rows)

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Look up the boxes of each image; see `Detector`.

        Raises:
            InputError: An image has no name, or a name that matches no image or several images of the file.
            BoxError: The size of an image differs from the one in the file, or a box lies outside the image.
        """
        if len(names) != len(images):
            raise InputError(
                f"got {len(names)} names for {len(images)} images, but {self.path} identifies images by name; pass the "
                "file name of every image"
            )
        return [self._look_up(Size.of(image), name) for image, name in zip(images, names, strict=True)]

    def _look_up(self, size: Size, name: str) -> Detections:
        image_id = self._identify(name)
        image = self._images.get(image_id)
        annotated = size if image is None or image.size is None else image.size
        if annotated != size:
            raise BoxError(
                f"{name} has {size} pixels, but the boxes of {self.path} are for {annotated}; use the annotated image, "
                "or scale its boxes"
            )
        rows = self._rows.get(image_id, [])
        boxes = xyxy_from_xywh([row.xywh for row in rows])
        refuse_outside(boxes, size)
        scores = np.array([row.score for row in rows], np.float32)
        return Detections.found(boxes, scores, [row.label for row in rows], size)

    def _identify(self, name: str) -> Any:
        """Return the image's id in the file."""
        if not name:
            raise InputError(
                f"an image without a file name cannot be looked up in {self.path}; read it from a file, or "
                "pass its boxes directly"
            )
        if self._ids_by_name:
            return self._identify_by_name(name)
        stem = PurePath(_base_name(name)).stem
        number = re.search(r"\d+$", stem)
        if self._numbered and number is None:
            raise InputError(
                f"{name!r} cannot be looked up in {self.path}: the file identifies images by number only, and "
                "this name does not end with a number; add `images` to the file, or rename the image"
            )
        return stem if stem in self._rows or number is None else int(number[0])

    def _identify_by_name(self, name: str) -> Any:
        ids = self._ids_by_name.get(_base_name(name), [])
        if len(ids) > 1:  # the same base name in several directories: compare the whole path
            given = "/" + name.replace("\\", "/")
            ids = [i for i in ids if given.endswith("/" + self._images[i].file_name)] or ids
        if len(ids) > 1:
            raise InputError(
                f"{name!r} matches the images {ids} of {self.path}, which share its base name; "
                "give the path as written in the file"
            )
        if not ids:
            raise InputError(
                f"{name!r} is not among the {len(self._images)} images of {self.path}; use the file of boxes for this "
                "image, or add the image to its `images`"
            )
        return ids[0]


def read_boxes(path: str | Path) -> tuple[list[BoxRow], list[InputError]]:
    """Read the boxes of a COCO file unchanged: neither clipped nor matched with images.

    Crowd regions (`iscrowd`) are skipped.

    Args:
        path: As in `CocoBoxes`.

    Returns:
        The valid rows, and an error for each invalid row.

    Raises:
        InputError: The file cannot be read, is not JSON, or has another layout.
    """
    file = _read_coco(Path(path))
    return file.rows, file.faults


@dataclass(frozen=True)
class BoxRow:
    """One box of a COCO file.

    Attributes:
        number: Index of the row in the file, from 0.
        image_id: The image's id, a number or a string.
        category_id: The category's id in the file.
        label: The category's name.
        xywh: Left, top, width, height, in pixels; a width or height may be 0.
        score: The score; 1 where the file has none.
    """

    number: int
    image_id: Any
    category_id: int
    label: str
    xywh: tuple[float, ...]
    score: float


@dataclass(frozen=True)
class _CocoFile:
    images: Mapping[Any, ImageRow]
    names: Mapping[int, str]
    rows: list[BoxRow]
    faults: list[InputError]

    def known_labels(self) -> set[str]:
        return set(self.names.values()) | {row.label for row in self.rows}


def _read_coco(path: Path) -> _CocoFile:
    content = read_json(path, "a COCO file of boxes")
    if isinstance(content, list):  # of {image_id, category_id, bbox, score}
        content = {"images": [], "annotations": content}
    images, rows, _ = coco_tables(path, content)  # images without an id are dropped: no row can refer to them
    names = _read_categories(path, content["categories"]) if content.get("categories") else coco_labels()
    file = _CocoFile(images, names, [], [])
    for number, row in enumerate(rows):
        if isinstance(row, dict) and row.get("iscrowd"):
            continue
        try:
            file.rows.append(_read_row(path, number, row, names))
        except InputError as error:
            file.faults.append(error)
    return file


def _read_categories(path: Path, categories: Any) -> dict[int, str]:
    try:
        return {category["id"]: str(category["name"]) for category in categories}
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path}: every category must have an id and a name, not {categories!r:.200}; correct `categories`"
        ) from error


def _read_row(path: Path, number: int, row: Any, names: Mapping[int, str]) -> BoxRow:
    where = f"{path}, row {number}"
    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox"} <= row.keys():
        raise InputError(
            f"{where}: image_id, category_id and bbox are required, not {row!r:.200}; correct or delete the row"
        )
    image_id, category = read_id(row["image_id"]), read_id(row["category_id"])
    if image_id is None or not isinstance(category, int):
        raise InputError(
            f"{where}: image_id {row['image_id']!r} must be an integer or a string, and category_id "
            f"{row['category_id']!r} an integer; correct or delete the row"
        )
    xywh = numbers(row["bbox"], 4)
    if xywh is None or min(xywh[2:]) < 0:
        raise BoxError(
            f"{where}: bbox {row['bbox']!r} must be four finite numbers (left, top, width, height), width and height "
            "not negative; correct or delete the row"
        )
    score = row.get("score", 1.0)
    if not is_number(score) or abs(score) > _MAX_SCORE:
        raise InputError(
            f"{where}: score {score!r} must be a finite number, {_MAX_SCORE:g} at most; correct or delete the row"
        )
    label = names.get(category, f"category {category}")
    return BoxRow(number, image_id, category, label, tuple(xywh.tolist()), float(score))


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
