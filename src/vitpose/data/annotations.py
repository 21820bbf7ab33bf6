"""TrainingAnnotations: who was labelled where, in columns, and what was wrong with the files.

Owns who of a file can be trained on, and the mapping of keypoints between skeletons. Reads no
pixels, except headers of images whose size no file gives.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..errors import ImageError, InputError, SkeletonError
from ..geometry.boxes import Size, are_outside, xyxy_from_xywh
from ..images import read_image, read_size
from ..keypoints.mapping import place_name
from ..keypoints.skeleton import Skeleton
from .annotation_file import (
    UNUSABLE_ID,
    AnnotationFile,
    ImageFinder,
    ImageRow,
    Row,
    is_file,
    read_annotation_file,
)

if TYPE_CHECKING:
    from typing import Self

_MOST_AREA_PX = 1e30
"""px²; what is larger is no area of anybody, and no float32."""


@dataclass(frozen=True)
class AnnotationReport:
    """What was read and what was wrong with it.

    Attributes:
        source: The file.
        people: How many people are usable.
        images: In how many images.
        problems: Each kind of problem with the names of the rows that have it. A row may have several.
    """

    source: str
    people: int
    images: int
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.people} people in {self.images} images"]
        for problem, names in self.problems.items():
            some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            lines.append(f"  {problem}: {len(names)} ({some})")
        return "\n".join(lines)

    def with_problems(self, problem: str, names: Sequence[str], people: int) -> AnnotationReport:
        """Returns the report with one more kind of problem, which left that many people."""
        return replace(self, people=people, problems={**self.problems, problem: tuple(names)})


@dataclass(frozen=True, eq=False)
class TrainingAnnotations:
    """n labelled people in columns.

    Attributes:
        images: Files of the images; those without people may be among them.
        image_index: Which image each person is in.
        boxes: xyxy, px of the image.
        xy: Keypoints, px of the image; zero where there is no label.
        visibility: 0 no label, 1 labelled but hidden, 2 seen.
        areas: Area of each person, px², as OKS wants it.
        ids: The rows' ids in their file; -1 for those that are no numbers.
        skeleton: What the k keypoints are.
        report: What was wrong with the file.
    """

    images: tuple[Path, ...]
    image_index: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    xy: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    areas: Float[np.ndarray, " n"]
    ids: Int[np.ndarray, " n"]
    skeleton: Skeleton
    report: AnnotationReport

    columns: ClassVar[tuple[str, ...]] = ("image_index", "boxes", "xy", "visibility", "areas", "ids")
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

    def read_image(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes the image of a person.

        Raises:
            ImageError: It cannot be read.
        """
        return read_image(self.images[self.image_index[row]])


def read_training_annotations(
    path: str | Path, images: str | Path | None = None, skeleton: str | Path | Skeleton | None = None
) -> TrainingAnnotations:
    """Reads a file of COCO's or MPII's form, told apart by what is in it.

    Args:
        path: The file; see `vitpose.data.annotation_file`.
        images: Folder of the images; without it the folder `images` beside the file, and the file's own. An image
            that is not where the file says is looked for under its base name, unless
            the file lists another one with that name.
        skeleton: What the keypoints of a COCO file are: a shipped name, a `.toml` file, a `Skeleton`. Without it the
            `keypoints` and `skeleton` of the file's category say so.

    Returns:
        Everybody with a box and at least one labelled point in an image that exists. The `report` names
        every other row. A point outside its image loses its label.

    Raises:
        InputError: The file cannot be read or is neither.
        SkeletonError: The skeleton does not fit the file.
    """
    file = read_annotation_file(path, skeleton)
    own = file.path.parent
    folders = (own / "images", own) if images is None else (Path(images).expanduser(),)
    reader = _Reader(file, ImageFinder(file.images.values(), *folders))
    for name in file.broken_images:
        reader.note(UNUSABLE_ID, name)
    for row in file.rows:
        reader.add(row)
    return reader.annotations()


def split_source(source: str) -> tuple[str, str | None]:
    """Splits FILE=FOLDER, as commands take it, into the annotations and the folder of their images.

    The folder is None where only a file is named.
    """
    exists = os.path.exists(source)  # noqa: PTH110 - Path.exists raises for a name that no file can have
    file, _, folder = (source, "", "") if exists else source.partition("=")
    return file, folder or None


def check_images(people: TrainingAnnotations) -> AnnotationReport:
    """Decodes every image that has people, and reports those that are damaged or of another size than the file says.

    A size that is not the file's shows where points lie beyond the image that was found.
    """
    damaged, beyond, kept = [], [], 0
    for index in np.unique(people.image_index):
        rows = np.flatnonzero(people.image_index == index)
        try:
            size = Size.of(people.read_image(int(rows[0])))
        except ImageError as error:
            damaged += [f"annotation {people.ids[row]} ({error})" for row in rows]
            continue
        kept += len(rows)
        for row in rows:
            if _outside(people.xy[row][people.labelled[row]], size).any():
                beyond.append(f"annotation {people.ids[row]} ({people.images[index].name} is {size})")
    report = people.report
    if damaged:
        report = report.with_problems("image cannot be read", damaged, kept)
    if beyond:
        report = report.with_problems("points outside the image as it is", beyond, kept)
    return report


def shared_skeleton(sources: Sequence[TrainingAnnotations]) -> Skeleton:
    """Returns the skeleton that all sources have.

    Raises:
        InputError: There is no source, or their skeletons differ.
    """
    if not sources:
        raise InputError("there is no source of people; give at least one")
    skeletons = [source.skeleton for source in sources]
    if any(skeleton.keypoints != skeletons[0].keypoints for skeleton in skeletons):
        names = ", ".join(f"{skeleton.name} ({len(skeleton)})" for skeleton in skeletons)
        raise InputError(
            f"the sources have different skeletons: {names}; bring them to one with --skeleton, or map_to"
        )
    return skeletons[0]


@dataclass
class _Reader:
    """Collects rows one by one and keeps the account of those that are broken."""

    file: AnnotationFile
    finder: ImageFinder
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    places: dict[Any, tuple[Path, Size | None]] = field(default_factory=dict)

    def note(self, problem: str, name: str) -> None:
        self.problems.setdefault(problem, []).append(name)

    def look_up(self, image: ImageRow) -> tuple[Path, Size | None]:
        """Returns where an image lies and its size, None if there is no such image."""
        if image.id not in self.places:
            path = self.finder.find(image)
            self.places[image.id] = path, _size_of(path, image)
        return self.places[image.id]

    def add(self, row: Row) -> None:
        """Takes a row, or notes why not."""
        image = self.file.images.get(row.image_id)
        if row.crowd:
            return self.note("crowd region, no person", row.name)
        if image is None or not image.file_name:
            return self.note("image not listed in the file", row.name)
        path, size = self.look_up(image)
        if size is None:
            shared = self.finder.shares_name(image) and not is_file(path)
            why = ", and not looked for under its base name, which others have too" if shared else ""
            return self.note(f"image missing or unreadable{why}", f"{row.name} ({path})")
        if row.xywh is None or not _has_area(box := xyxy_from_xywh([row.xywh])):
            return self.note("box without area", row.name)
        if are_outside(box, size).any():
            return self.note("box wholly outside its image", row.name)
        if row.points is None:
            return self.note(f"not {len(self.file.skeleton)} numeric keypoints (x, y, visibility)", row.name)
        marked = row.points[:, 2] > 0
        outside = marked & _outside(row.points[:, :2], size)
        if outside.any():
            self.note("points outside the image (they lose their labels)", row.name)
        labelled = marked & ~outside
        if not labelled.any():
            return self.note("no labelled points", row.name)
        points = np.where(labelled[:, None], row.points, 0)
        area = row.area if row.area is not None and 0 < row.area < _MOST_AREA_PX else _area(row.xywh)
        number = row.id if isinstance(row.id, int) and abs(row.id) < 2**63 else -1
        self.rows.append((path, box[0], points, area, number))
        return None

    def annotations(self) -> TrainingAnnotations:
        n, k = len(self.rows), len(self.file.skeleton)
        images = tuple(dict.fromkeys(path for path, _ in self.places.values()))
        index = {image: i for i, image in enumerate(images)}
        points = np.array([row[2] for row in self.rows], np.float64).reshape(n, k, 3)
        used = len({row[0] for row in self.rows})
        problems = {problem: tuple(names) for problem, names in self.problems.items()}
        return TrainingAnnotations(
            images=images,
            image_index=np.array([index[row[0]] for row in self.rows], np.int64),
            boxes=np.array([row[1] for row in self.rows], np.float32).reshape(n, 4),
            xy=points[:, :, :2].astype(np.float32),
            visibility=np.clip(points[:, :, 2], 0, 2).astype(np.uint8),
            areas=np.array([row[3] for row in self.rows], np.float32),
            ids=np.array([row[4] for row in self.rows], np.int64),
            skeleton=self.file.skeleton,
            report=AnnotationReport(str(self.file.path), n, used, problems),
        )


def _size_of(path: Path, image: ImageRow) -> Size | None:
    if not is_file(path):
        return None
    try:
        return image.size or read_size(path)
    except ImageError:
        return None


def _area(xywh: Float[np.ndarray, " 4"]) -> float:
    with np.errstate(over="ignore"):
        return min(float(xywh[2:].prod()), _MOST_AREA_PX)


def _has_area(box: Float[np.ndarray, "1 4"]) -> bool:
    return bool(np.isfinite(box).all() and (box[:, 2:] > box[:, :2]).all())


def _outside(xy: np.ndarray, size: Size) -> np.ndarray:
    # A pixel of tolerance: labels at the border are often rounded outwards.
    return (xy < -1).any(axis=1) | (xy > [size.width, size.height]).any(axis=1) | ~np.isfinite(xy).all(axis=1)
