"""TrainingAnnotations: labelled instances in columns, and a report of the rows that cannot be used.

Owns which rows of a file can be trained on, and mapping the keypoints to another skeleton. Reads no pixels, only
the headers of images whose size is not in the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..errors import ImageError, InputError, SkeletonError, counted
from ..files.paths import user_path
from ..geometry.boxes import Size, are_outside, xyxy_from_xywh
from ..images import read_image, read_size
from ..keypoints.mapping import canonical_name
from ..keypoints.skeleton import Skeleton
from .annotation_file import (
    UNUSABLE_ID,
    AnnotationFile,
    AnnotationRow,
    ImageFinder,
    ImageRow,
    is_file,
    read_annotation_file,
)

if TYPE_CHECKING:
    from typing import Self

_MOST_AREA_PX = 1e30
"""Upper limit of areas, px²; within the range of float32."""


@dataclass(frozen=True)
class AnnotationReport:
    """How many instances of a file are usable, and the problems of the others.

    Attributes:
        source: The file.
        instances: Number of usable instances.
        images: Number of images with usable instances.
        problems: Names of the affected rows by problem. A row may have several problems.
    """

    source: str
    instances: int
    images: int
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        used = f"{counted(self.instances, 'instance')} in {counted(self.images, 'image')}"
        lines = [f"{self.source}: {used}"]
        for problem, names in self.problems.items():
            first = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            lines.append(f"  {problem}: {len(names)} ({first})")
        return "\n".join(lines)

    def with_problems(self, problem: str, names: Sequence[str], instances: int) -> AnnotationReport:
        """Return the report with one more problem.

        Args:
            problem: The problem.
            names: Names of the affected rows.
            instances: Number of instances that remain usable.
        """
        return replace(self, instances=instances, problems={**self.problems, problem: tuple(names)})


@dataclass(frozen=True, eq=False)
class TrainingAnnotations:
    """n labelled instances in columns.

    Attributes:
        images: Image files, possibly including images without instances.
        image_index: Index of each instance's image in `images`.
        boxes: Boxes as xyxy in px of the image.
        xy: Keypoints in px of the image; zero where unlabelled.
        visibility: 0 unlabelled, 1 labelled but occluded, 2 visible.
        areas: Area of each instance in px², for OKS.
        ids: Annotation IDs in the file; -1 for those that are not integers.
        skeleton: Skeleton of the k keypoints.
        report: The file's problems.
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
    """Names of the attributes with one entry per instance."""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def labelled(self) -> Bool[np.ndarray, "n k"]:
        """Which keypoints are labelled, visible or occluded."""
        return self.visibility > 0

    def select(self, rows: Any) -> Self:
        """Return the instances of a slice, mask or array of indices."""
        return replace(self, **{name: getattr(self, name)[rows] for name in self.columns})

    def map_to(self, skeleton: Skeleton) -> Self:
        """Return the instances with the keypoints of another skeleton.

        Keypoints are matched by name in any spelling ("L_Eye" is "left_eye"). Keypoints without a match are unlabelled,
        so that datasets with different keypoints can train one head together. Instances without any
        remaining label are dropped and named in the report.

        Args:
            skeleton: The skeleton to map to.

        Raises:
            SkeletonError: The skeletons share no keypoint.
        """
        index_of = {canonical_name(name): index for index, name in enumerate(self.skeleton.keypoints)}
        source = np.array([index_of.get(canonical_name(name), -1) for name in skeleton.keypoints])
        if (source < 0).all():
            raise SkeletonError(
                f"the skeletons {self.skeleton.name!r} and {skeleton.name!r} share no keypoint: "
                f"{', '.join(self.skeleton.keypoints)} and {', '.join(skeleton.keypoints)}; give corresponding "
                "keypoints the same name"
            )
        absent = source < 0
        visibility = np.where(absent, 0, self.visibility[:, source]).astype(np.uint8)
        xy = np.where(absent[:, None], 0, self.xy[:, source]).astype(np.float32)
        mapped = replace(self, xy=xy, visibility=visibility, skeleton=skeleton)
        kept = mapped.labelled.any(axis=1)
        if kept.all():
            return mapped
        names = [f"annotation {number}" for number in self.ids[~kept]]
        problem = f"no labelled keypoint of the skeleton {skeleton.name}"
        report = self.report.with_problems(problem, names, int(kept.sum()))
        return replace(mapped.select(kept), report=report)

    def read_image(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the image of an instance.

        Args:
            row: Index of the instance.

        Raises:
            ImageError: The image cannot be read.
        """
        return read_image(self.images[self.image_index[row]])


def read_training_annotations(
    path: str | Path, images: str | Path | None = None, skeleton: str | Path | Skeleton | None = None
) -> TrainingAnnotations:
    """Read an annotation file in COCO or MPII format; the format is detected from the content.

    Args:
        path: The file; see `vitpose.data.annotation_file`.
        images: Directory of the images. Default: the directory `images` beside the file, then the file's directory. An
            image that is not found under its file name is searched for under its base name, unless the
            file lists another image with that base name.
        skeleton: Skeleton of the keypoints of a COCO file: a shipped name, a `.toml` file or a `Skeleton`.
            Default: `keypoints` and `skeleton` of the file's category.

    Returns:
        All instances with a box and at least one labelled keypoint in an existing image. The `report` names all
        other rows. Keypoints outside their image lose their labels.

    Raises:
        InputError: The file cannot be read or has neither format.
        SkeletonError: The skeleton does not fit the file.
    """
    file = read_annotation_file(path, skeleton)
    parent = file.path.parent
    directories = (parent / "images", parent) if images is None else (user_path(images),)
    reader = _Reader(file, ImageFinder(file.images.values(), *directories))
    for name in file.broken_images:
        reader.note(UNUSABLE_ID, name)
    for row in file.rows:
        reader.add(row)
    return reader.annotations()


def split_source(source: str) -> tuple[str, str | None]:
    """Split the command-line argument FILE=DIR into annotation file and image directory, or None."""
    exists = os.path.exists(source)  # noqa: PTH110 - Path.exists raises for invalid paths
    file, _, directory = (source, "", "") if exists else source.partition("=")
    return file, directory or None


def check_images(instances: TrainingAnnotations) -> AnnotationReport:
    """Decode every image with instances, and report damaged images and keypoints outside the decoded image.

    Keypoints are outside where an image's size differs from the size in the annotation file.
    """
    damaged, outside, kept = [], [], 0
    for index in np.unique(instances.image_index):
        rows = np.flatnonzero(instances.image_index == index)
        try:
            size = Size.of(instances.read_image(int(rows[0])))
        except ImageError as error:
            damaged += [f"annotation {instances.ids[row]} ({error})" for row in rows]
            continue
        kept += len(rows)
        for row in rows:
            if _outside(instances.xy[row][instances.labelled[row]], size).any():
                outside.append(f"annotation {instances.ids[row]} ({instances.images[index].name} is {size})")
    report = instances.report
    if damaged:
        report = report.with_problems("image cannot be read", damaged, kept)
    if outside:
        report = report.with_problems("keypoints outside the decoded image", outside, kept)
    return report


def shared_skeleton(sources: Sequence[TrainingAnnotations]) -> Skeleton:
    """Return the skeleton that all sources have.

    Raises:
        InputError: There are no sources, or their skeletons differ.
    """
    if not sources:
        raise InputError("there are no sources of annotations; give at least one")
    skeletons = [source.skeleton for source in sources]
    if any(skeleton.keypoints != skeletons[0].keypoints for skeleton in skeletons):
        names = ", ".join(f"{skeleton.name} ({len(skeleton)})" for skeleton in skeletons)
        raise InputError(
            f"the sources have different skeletons: {names}; map them to one skeleton with --skeleton, or with map_to"
        )
    return skeletons[0]


@dataclass
class _Reader:
    """Collects usable rows, and the problems of the others."""

    file: AnnotationFile
    finder: ImageFinder
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    found: dict[Any, tuple[Path, Size | None]] = field(default_factory=dict)

    def note(self, problem: str, name: str) -> None:
        self.problems.setdefault(problem, []).append(name)

    def look_up(self, image: ImageRow) -> tuple[Path, Size | None]:
        """Return the path of an image, and its size or None if it is missing or unreadable."""
        if image.id not in self.found:
            path = self.finder.find(image)
            self.found[image.id] = path, _size_of(path, image)
        return self.found[image.id]

    def add(self, row: AnnotationRow) -> None:
        """Add a row, or note its problem."""
        image = self.file.images.get(row.image_id)
        if row.crowd:
            return self.note("crowd region", row.name)
        if image is None or not image.file_name:
            return self.note("image not listed in the file", row.name)
        path, size = self.look_up(image)
        if size is None:
            shared = self.finder.shares_name(image) and not is_file(path)
            reason = ", and its base name is shared by other images" if shared else ""
            return self.note(f"image missing or unreadable{reason}", f"{row.name} ({path})")
        if row.xywh is None or not _has_area(box := xyxy_from_xywh([row.xywh])):
            return self.note("box without area", row.name)
        if are_outside(box, size).any():
            return self.note("box outside the image", row.name)
        if row.keypoints is None:
            return self.note(f"not {len(self.file.skeleton)} numeric keypoints (x, y, visibility)", row.name)
        marked = row.keypoints[:, 2] > 0
        outside = marked & _outside(row.keypoints[:, :2], size)
        if outside.any():
            self.note("keypoints outside the image (labels removed)", row.name)
        labelled = marked & ~outside
        if not labelled.any():
            return self.note("no labelled keypoints", row.name)
        points = np.where(labelled[:, None], row.keypoints, 0)
        area = row.area if row.area is not None and 0 < row.area < _MOST_AREA_PX else _area(row.xywh)
        number = row.id if isinstance(row.id, int) and abs(row.id) < 2**63 else -1
        self.rows.append((path, box[0], points, area, number))
        return None

    def annotations(self) -> TrainingAnnotations:
        n, k = len(self.rows), len(self.file.skeleton)
        images = tuple(dict.fromkeys(path for path, _ in self.found.values()))
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
    # One pixel of tolerance: labels at the border are often rounded outwards.
    return (xy < -1).any(axis=1) | (xy > [size.width, size.height]).any(axis=1) | ~np.isfinite(xy).all(axis=1)
