"""Annotations: who was labelled where, in columns, and what was wrong with the files.

Owns the reading of COCO's and MPII's forms and the mapping of keypoints between skeletons. Reads no
pixels, except headers of pictures whose size no file gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..boxes import Size
from ..errors import ImageError, InputError, SkeletonError
from ..image import read_image, read_size
from ..layout import place_name
from ..skeleton import Skeleton, plain_name

if TYPE_CHECKING:
    from typing import Self

COCO_PARTS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
"""Where a row of COCO-WholeBody keeps its 133 points, in the order of the skeleton `coco-wholebody`."""

MPII_BOX_PX = 200.0
"""MPII's `scale` is the person's height over this many pixels (the data set's README)."""

MPII_DROP = 15.0
"""MPII's centre is moved down by this many pixels times `scale`, as the original's converter has it:
the feet were cut off otherwise."""


@dataclass(frozen=True)
class Report:
    """What was read and what was wrong with it.

    Attributes:
        source: The file.
        people: How many people are usable.
        pictures: In how many pictures.
        problems: Each kind of problem with the names of the rows that have it. A row may have several.
    """

    source: str
    people: int
    pictures: int
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.people} people in {self.pictures} pictures"]
        for problem, names in self.problems.items():
            some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            lines.append(f"  {problem}: {len(names)} ({some})")
        return "\n".join(lines)

    def with_problems(self, problem: str, names: Sequence[str], people: int) -> Report:
        """Returns the report with one more kind of problem, which left that many people."""
        return replace(self, people=people, problems={**self.problems, problem: tuple(names)})


@dataclass(frozen=True, eq=False)
class Annotations:
    """n labelled people in columns.

    Attributes:
        pictures: Files of the pictures; those without people may be among them.
        picture_index: Which picture each person is in.
        boxes: xyxy, px of the picture.
        xy: Keypoints, px of the picture; zero where there is no label.
        visibility: 0 no label, 1 labelled but hidden, 2 seen.
        areas: Area of each person, px², as OKS wants it.
        ids: The rows' ids in their file.
        skeleton: What the k keypoints are.
        report: What was wrong with the file.
    """

    pictures: tuple[Path, ...]
    picture_index: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    xy: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    areas: Float[np.ndarray, " n"]
    ids: Int[np.ndarray, " n"]
    skeleton: Skeleton
    report: Report

    columns: ClassVar[tuple[str, ...]] = ("picture_index", "boxes", "xy", "visibility", "areas", "ids")
    """What has one entry a person."""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def labelled(self) -> Bool[np.ndarray, "n k"]:
        """Which points have a label, seen or hidden."""
        return self.visibility > 0

    def select(self, rows: Any) -> Self:
        """Returns some of the people: a slice, a mask or indices (n) of rows."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.columns})

    def map_to(self, skeleton: Skeleton) -> Self:
        """Returns the same people with the keypoints of another skeleton.

        Points are found by name, spelt in any way ("L_Eye" is "left_eye"). Those that these people lack get no
        label, so that sets with different points can train one network together. Who has no label
        left is left out and named in the report.

        Raises:
            SkeletonError: The two share no keypoint.
        """
        own = {place_name(name): index for index, name in enumerate(self.skeleton.keypoints)}
        source = np.array([own.get(place_name(name), -1) for name in skeleton.keypoints])
        if (source < 0).all():
            raise SkeletonError(
                f"the skeletons {self.skeleton.name!r} and {skeleton.name!r} share no keypoint: "
                f"{', '.join(self.skeleton.keypoints)} against {', '.join(skeleton.keypoints)}; rename the points "
                "that mean the same"
            )
        absent = source < 0
        visibility = np.where(absent, 0, self.visibility[:, source]).astype(np.uint8)
        xy = np.where(absent[:, None], 0, self.xy[:, source]).astype(np.float32)
        mapped = replace(self, xy=xy, visibility=visibility, skeleton=skeleton)
        without = ~mapped.labelled.any(axis=1)
        if not without.any():
            return mapped
        names = [f"annotation {number}" for number in self.ids[without]]
        problem = f"no label that {skeleton.name} has"
        report = self.report.with_problems(problem, names, int((~without).sum()))
        return replace(mapped.select(~without), report=report)

    def read_picture(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes the picture of a person.

        Raises:
            ImageError: It cannot be read.
        """
        return read_image(self.pictures[self.picture_index[row]])


def read_annotations(
    path: str | Path, images: str | Path | None = None, skeleton: str | Path | Skeleton | None = None
) -> Annotations:
    """Reads a file of COCO's or MPII's form, told apart by what is in it.

    Args:
        path: The file.
        images: Folder of the pictures; without it the folder `images` beside the file, or the file's own.
        skeleton: What the keypoints of a COCO file are; see `read_coco`.

    Raises:
        InputError: The file cannot be read or is neither.
    """
    path = Path(path).expanduser()
    if images is None:
        images = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    table = _read_json(path)
    return (
        _read_mpii(table, path, images)
        if isinstance(table, list)
        else _read_coco(table, path, images, skeleton)
    )


def check_pictures(people: Annotations) -> Report:
    """Decodes every picture that has people, and reports those that are damaged or of another size than the file says.

    A size that is not the file's shows where points lie beyond the picture that was found.
    """
    damaged, beyond, kept = [], [], 0
    for index in np.unique(people.picture_index):
        rows = np.flatnonzero(people.picture_index == index)
        try:
            size = Size.of(people.read_picture(int(rows[0])))
        except ImageError as error:
            damaged += [f"annotation {people.ids[row]} ({error})" for row in rows]
            continue
        kept += len(rows)
        for row in rows:
            if _outside(people.xy[row][people.labelled[row]], size).any():
                beyond.append(f"annotation {people.ids[row]} ({people.pictures[index].name} is {size})")
    report = people.report
    if damaged:
        report = report.with_problems("picture cannot be read", damaged, kept)
    if beyond:
        report = report.with_problems("points outside the picture as it is", beyond, kept)
    return report


def read_coco(
    path: str | Path, images: str | Path, skeleton: str | Path | Skeleton | None = None
) -> Annotations:
    """Reads annotations in COCO's form, with any keypoints.

    Args:
        path: JSON with `images`, `annotations` and `categories`.
        images: Folder that the pictures' `file_name`s start from.
        skeleton: What the keypoints are: a shipped name, a `.toml` file, a `Skeleton`. Without it the
            `keypoints` and `skeleton` of the file's category say so. `coco-wholebody` joins the body, feet, face
            and hands of a row.

    Returns:
        Everybody with an area and at least one labelled point in a picture that exists. The `report` names
        every other row. A point outside its picture loses its label.

    Raises:
        InputError: The file cannot be read or is not of this form.
        SkeletonError: The skeleton does not fit the file.
    """
    path = Path(path).expanduser()
    return _read_coco(_read_json(path), path, images, skeleton)


def read_mpii(path: str | Path, images: str | Path) -> Annotations:
    """Reads annotations in the form that MPII's are passed around in: a list of people as JSON.

    Args:
        path: JSON, a list of `{image, center, scale, joints, joints_vis}`, counted from 1 as MATLAB does.
        images: Folder of the pictures.

    Returns:
        As `read_coco`; the boxes are squares of 200 px times `scale`.

    Raises:
        InputError: The file cannot be read or is not of this form.
    """
    path = Path(path).expanduser()
    return _read_mpii(_read_json(path), path, images)


def shared_skeleton(sources: Sequence[Annotations]) -> Skeleton:
    """Returns the skeleton that all sources have.

    Raises:
        InputError: There is no source, or their skeletons differ.
    """
    if not sources:
        raise InputError("there is no source of people; give at least one")
    skeletons = [source.skeleton for source in sources]
    if any(skeleton.keypoints != skeletons[0].keypoints for skeleton in skeletons):
        names = ", ".join(f"{skeleton.name} ({len(skeleton)})" for skeleton in skeletons)
        raise InputError(f"the sources have different skeletons: {names}; bring them to one with map_to")
    return skeletons[0]


@dataclass
class _Reader:
    """Collects rows one by one and keeps the account of those that are broken."""

    source: Path
    folder: Path
    skeleton: Skeleton
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[Path, Size | None] = field(default_factory=dict)

    def note(self, problem: str, name: str) -> None:
        self.problems.setdefault(problem, []).append(name)

    def size_of(self, picture: Path, given: Mapping[str, Any]) -> Size | None:
        """Returns a picture's size, None if there is no such picture."""
        if picture not in self.sizes:
            self.sizes[picture] = self._look_up(picture, given)
        return self.sizes[picture]

    def _look_up(self, picture: Path, given: Mapping[str, Any]) -> Size | None:
        if not picture.is_file():
            return None
        try:
            return Size(int(given["width"]), int(given["height"]))
        except (KeyError, TypeError, ValueError):
            pass
        try:
            return read_size(picture)
        except ImageError:
            return None

    def add(self, name: str, number: int, picture: Path, given: Mapping[str, Any], row: Any) -> None:
        """Takes a row, (box, points with visibility, area), or notes why not."""
        size = self.size_of(picture, given)
        if size is None:
            return self.note("picture missing or unreadable", f"{name} ({picture.name})")
        box, points, area = row
        if box is None or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
            return self.note("box without area", name)
        if points is None:
            return self.note(f"not {len(self.skeleton)} numeric keypoints (x, y, visibility)", name)
        outside = (points[:, 2] > 0) & _outside(points[:, :2], size)
        if outside.any():
            self.note("points outside the picture (they lose their labels)", name)
        labelled = (points[:, 2] > 0) & ~outside
        if not labelled.any():
            return self.note("no labelled points", name)
        points = np.where(labelled[:, None], points, 0)
        self.rows.append((picture, box, points, area, number))
        return None

    def annotations(self) -> Annotations:
        n, k = len(self.rows), len(self.skeleton)
        pictures = tuple(self.sizes)
        index = {picture: i for i, picture in enumerate(pictures)}
        points = np.array([row[2] for row in self.rows], np.float64).reshape(n, k, 3)
        used = len({row[0] for row in self.rows})
        problems = {problem: tuple(names) for problem, names in self.problems.items()}
        return Annotations(
            pictures=pictures,
            picture_index=np.array([index[row[0]] for row in self.rows], np.int64),
            boxes=np.array([row[1] for row in self.rows], np.float32).reshape(n, 4),
            xy=points[:, :, :2].astype(np.float32),
            visibility=np.clip(points[:, :, 2], 0, 2).astype(np.uint8),
            areas=np.array([row[3] for row in self.rows], np.float32),
            ids=np.array([row[4] for row in self.rows], np.int64),
            skeleton=self.skeleton,
            report=Report(str(self.source), n, used, problems),
        )


def _outside(xy: np.ndarray, size: Size) -> np.ndarray:
    # A pixel of tolerance: labels at the border are often rounded outwards.
    return (xy < -1).any(axis=1) | (xy > [size.width, size.height]).any(axis=1) | ~np.isfinite(xy).all(axis=1)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); annotations are of COCO's or MPII's form") from error


def _read_coco(table: Any, path: Path, images: str | Path, skeleton: Any) -> Annotations:
    lists = [table.get(key) for key in ("images", "annotations")] if isinstance(table, dict) else [None]
    if not all(isinstance(value, list) for value in lists):
        raise InputError(f"{path} is not of COCO's form; it needs the lists 'images' and 'annotations'")
    reader = _Reader(path, Path(images).expanduser(), _coco_skeleton(table, path, skeleton))
    pictures = {image.get("id"): image for image in table["images"]}
    for row in table["annotations"]:
        name = f"annotation {row.get('id')}"
        image = pictures.get(row.get("image_id"))
        if row.get("iscrowd"):
            reader.note("crowd region, no person", name)
        elif not image or "file_name" not in image:
            reader.note("picture not listed in the file", name)
        else:
            box = _xyxy(row.get("bbox"))
            parts = (box, _coco_points(row, len(reader.skeleton)), _area(row, box))
            reader.add(name, _id(row), reader.folder / image["file_name"], image, parts)
    return reader.annotations()


def _id(row: Mapping[str, Any]) -> int:
    return row["id"] if isinstance(row.get("id"), int) else -1


def _xyxy(bbox: Any) -> np.ndarray | None:
    numbers = _numbers(bbox)
    return None if numbers is None or len(numbers) != 4 else np.append(numbers[:2], numbers[:2] + numbers[2:])


def _area(row: Mapping[str, Any], box: np.ndarray | None) -> float:
    area = row.get("area")
    if isinstance(area, int | float) and area > 0:
        return float(area)
    return 0.0 if box is None else float(np.prod(box[2:] - box[:2]))


def _coco_points(row: Mapping[str, Any], count: int) -> np.ndarray | None:
    points = _numbers(row.get("keypoints"))
    if points is not None and len(points) < 3 * count:
        rest = [_numbers(row.get(key)) for key in COCO_PARTS[1:]]
        points = np.concatenate([points, *(part for part in rest if part is not None)])
    return points.reshape(count, 3) if points is not None and len(points) == 3 * count else None


def _numbers(values: Any) -> np.ndarray | None:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.ndim == 1 else None


def _coco_skeleton(table: Mapping[str, Any], path: Path, given: Any) -> Skeleton:
    named = [category for category in table.get("categories") or () if category.get("keypoints")]
    if not named:
        if given is None:
            raise SkeletonError(
                f"{path} does not name its keypoints (no category has 'keypoints'); give a skeleton: "
                f"{', '.join(Skeleton.available())}, or a .toml file"
            )
        return Skeleton.load(given)
    names = tuple(named[0]["keypoints"])
    if given is None:
        edges = [(a - 1, b - 1) for a, b in named[0].get("skeleton") or ()]
        fitting = all(0 <= index < len(names) for edge in edges for index in edge)
        # CrowdPose's own file has COCO's limbs between 14 points: a drawing aid, not worth a refusal.
        return Skeleton.from_labels(names, edges if fitting else None)
    skeleton = Skeleton.load(given)
    ours, theirs = (tuple(map(plain_name, those)) for those in (skeleton.keypoints, names))
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise SkeletonError(
            f"{path} has the keypoints of the skeleton {skeleton.name!r} in another order, {', '.join(names)}; "
            "leave the skeleton out and use map_to, which goes by name"
        )
    return skeleton


def _read_mpii(table: Any, path: Path, images: str | Path) -> Annotations:
    if not isinstance(table, list) or any(not isinstance(row, dict) or "image" not in row for row in table):
        raise InputError(f"{path} is not of MPII's form; it must be a list of rows with 'image' and 'joints'")
    reader = _Reader(path, Path(images).expanduser(), Skeleton.load("mpii"))
    for number, row in enumerate(table):
        box = mpii_box(row)
        area = 0.0 if box is None else float(np.prod(box[2:] - box[:2]))
        points = mpii_points(row, len(reader.skeleton))
        reader.add(f"row {number}", number, reader.folder / row["image"], row, (box, points, area))
    return reader.annotations()


def mpii_box(row: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the box of a row of MPII's json, xyxy, px counted from 0; None if it has none."""
    centre, scale = _numbers(row.get("center")), row.get("scale")
    if centre is None or len(centre) != 2 or not isinstance(scale, int | float):
        return None
    middle = centre - 1 + [0, MPII_DROP * scale]
    return np.concatenate([middle - scale * MPII_BOX_PX / 2, middle + scale * MPII_BOX_PX / 2])


def mpii_points(row: Mapping[str, Any], count: int) -> np.ndarray | None:
    """Returns x, y (px counted from 0) and visibility (0 or 2) of a row's points; None if they are not so many."""
    seen = _numbers(row.get("joints_vis"))
    try:
        joints = np.asarray(row.get("joints"), np.float64)
    except (TypeError, ValueError):
        return None
    if seen is None or seen.shape != (count,) or joints.shape != (count, 2):
        return None
    return np.concatenate([joints - 1, 2 * (seen[:, None] > 0)], axis=1)
