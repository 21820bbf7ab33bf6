"""Boxes that nobody has to look for: the whole image, a COCO file, or what a user hands over.

Owns the reading of COCO's detection and annotation files. Knows no network.
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
from ..geometry.boxes import Size, as_xyxy, refuse_outside, xyxy_from_xywh
from .labels import Labels, choose_labels, coco_labels
from .protocol import Detections


def detections_from(boxes: Any) -> Detections:
    """Turns the boxes that a user gives for one image into detections, in the order given.

    Args:
        boxes: n rows of (left, top, right, bottom) in pixels; `Detections`; or anything with the
            attributes `xyxy` and `confidence`, as `supervision.Detections` has (its class names are
            taken from `data["class_name"]`). An empty list is nobody.

    Raises:
        BoxError: These are no boxes, or a score is not a finite number a box.
    """
    if isinstance(boxes, Detections):
        return boxes
    if not hasattr(boxes, "xyxy"):
        return Detections.of_boxes(boxes)
    array = as_xyxy(boxes.xyxy)
    confidence = getattr(boxes, "confidence", None)
    names = (getattr(boxes, "data", None) or {}).get("class_name")
    scores = np.ones(len(array), np.float32) if confidence is None else confidence
    labels = ("person",) * len(array) if names is None else tuple(str(name) for name in names)
    return Detections(boxes=array, scores=scores, labels=labels)


_MOST_SCORE = 1e30
"""No detector scores more, and float32 can hold it."""


class WholeImage:
    """One box an image: the image itself, for images of one person.

    The box is only a first guess (`settles`): the pose found in it gives a better one.
    """

    settles = True

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Returns the whole image as the one box of each image; see `Detector`."""
        sizes = [Size.of(image) for image in images]
        return [Detections.of_boxes([[0, 0, size.width, size.height]]) for size in sizes]


class CocoBoxes:
    """Boxes from a COCO file: detections, or annotations (whose scores are 1 unless they have one).

    An image is found by its base name among the `file_name`s of the file's `images`; in a file
    without them, by the number at the end of its stem, which is the `image_id`
    (`000000000785.jpg` is 785), or by the stem itself where ids are texts. An image without a
    row has no boxes. Crowd regions (`iscrowd`) are no boxes.

    Args:
        path: A list of `{image_id, category_id, bbox, score}` or a `{images, annotations,
            categories}`; `bbox` is (left, top, width, height) in pixels.
        labels: Names of the categories to take; None or "all" takes every one. Files without
            `categories` are read with COCO's ids, and others are called "category 93".
        min_score: Boxes that score less are left out.

    Raises:
        InputError: The file cannot be read, is not JSON, or is no such file; or the labels or the score are invalid.
        BoxError: A row's box is not four finite numbers, or its size is negative.
        UnknownNameError: A label is none of the file's categories.
    """

    settles = False
    given = True

    def __init__(self, path: str | Path, labels: Labels = ("person",), min_score: float = 0.0) -> None:
        check_number("min_score", min_score, 0, 1)
        self.path = Path(path)
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
        """Looks up each image's boxes; see `Detector`.

        Raises:
            InputError: An image has no name, or a name that cannot be matched with the file.
            BoxError: The file's image has another size than the one given, or a box lies
                outside of it.
        """
        if len(names) != len(images):
            raise InputError(
                f"{len(images)} images came with {len(names)} names, but {self.path} is searched by "
                "name; give every image its file name"
            )
        return [self._look_up(Size.of(image), name) for image, name in zip(images, names, strict=True)]

    def _look_up(self, size: Size, name: str) -> Detections:
        image_id = self._identify(name)
        image = self._images.get(image_id)
        meant = size if image is None or image.size is None else image.size
        if meant != size:
            raise BoxError(
                f"{name} has {size} pixels, but the boxes of {self.path} are for {meant}; use the image "
                "that the file was made for, or scale its boxes"
            )
        rows = self._rows.get(image_id, [])
        boxes = xyxy_from_xywh([row.xywh for row in rows])
        refuse_outside(boxes, size)
        scores = np.array([row.score for row in rows], np.float32)
        return Detections.found(boxes, scores, [row.label for row in rows], size)

    def _identify(self, name: str) -> Any:
        """Returns the image's id in the file."""
        if not name:
            raise InputError(
                f"an image without a file name cannot be found in {self.path}; read it from a file, or "
                "pass its boxes themselves"
            )
        if self._ids_by_name:
            return self._identify_by_name(name)
        stem = PurePath(_base_name(name)).stem
        number = re.search(r"\d+$", stem)
        if self._numbered and number is None:
            raise InputError(
                f"{name!r} cannot be found in {self.path}: the file knows images by number only, and "
                "there is none at the end of this name; add the file's `images`, or rename the image"
            )
        return stem if stem in self._rows or number is None else int(number[0])

    def _identify_by_name(self, name: str) -> Any:
        ids = self._ids_by_name.get(_base_name(name), [])
        if len(ids) > 1:  # the same base name in several folders: the folders must decide
            given = "/" + name.replace("\\", "/")
            ids = [i for i in ids if given.endswith("/" + self._images[i].file_name)] or ids
        if len(ids) > 1:
            raise InputError(
                f"{name!r} could be any of the images {ids} of {self.path}, which share its base name; "
                "give the path as the file has it"
            )
        if not ids:
            raise InputError(
                f"{name!r} is not among the {len(self._images)} images of {self.path}; give the file that was "
                "made for it, or add it to its `images`"
            )
        return ids[0]


def read_boxes(path: str | Path) -> tuple[list[BoxRow], list[InputError]]:
    """Reads the boxes of a COCO file as they stand: neither cut nor matched with images.

    Crowd regions (`iscrowd`) are left out.

    Args:
        path: As of `CocoBoxes`.

    Returns:
        The boxes, and what is wrong with each row that is none.

    Raises:
        InputError: The file cannot be read, is not JSON, or is no such file.
    """
    file = _read_coco(Path(path))
    return file.rows, file.faults


@dataclass(frozen=True)
class BoxRow:
    """One box of a COCO file, as it stands there.

    Attributes:
        number: Its place in the file, from 0.
        image_id: The image's id, a number or a text.
        category_id: What it holds, by the file's number.
        label: The same by name.
        xywh: Left, top, width, height, px; a size may be 0.
        score: 1 where the file has none.
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
    images, rows, _ = coco_tables(path, content)  # an image without an id has no boxes here
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
        raise InputError(f"{path}: every category needs an id and a name, not {categories!r:.200}") from error


def _read_row(path: Path, number: int, row: Any, names: Mapping[int, str]) -> BoxRow:
    where = f"{path}, row {number}"
    if not isinstance(row, dict) or not {"image_id", "category_id", "bbox"} <= row.keys():
        raise InputError(f"{where}: image_id, category_id and bbox are needed, not {row!r:.200}")
    image_id, category = read_id(row["image_id"]), read_id(row["category_id"])
    if image_id is None or not isinstance(category, int):
        raise InputError(
            f"{where}: image_id {row['image_id']!r} must be a number or a text, and category_id "
            f"{row['category_id']!r} a number"
        )
    xywh = numbers(row["bbox"], 4)
    if xywh is None or min(xywh[2:]) < 0:
        raise BoxError(
            f"{where}: bbox {row['bbox']!r} must be four finite numbers (left, top, width, height), the "
            "sizes not negative; mend or drop the row"
        )
    score = row.get("score", 1.0)
    if not is_number(score) or abs(score) > _MOST_SCORE:
        raise InputError(
            f"{where}: score {score!r} must be a finite number, {_MOST_SCORE:g} at most; mend or drop the row"
        )
    label = names.get(category, f"category {category}")
    return BoxRow(number, image_id, category, label, tuple(xywh.tolist()), float(score))


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
