"""Output files of `vitpose predict` on images: drawn images, JSON, COCO results, CSV.

Owns the names and formats of these files, and ensures that none overwrites a source.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import vitpose

from ..errors import InputError
from ..files.writing import replace_file
from ..geometry.boxes import Size
from ..inference.pipeline import Prediction
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses
from .target import Target

# File names on Linux may not be valid Unicode. Written with this handler, JSON readers restore them.
_ENCODING_ERRORS = "backslashreplace"
_COLUMNS = (
    "image", "instance", "left", "top", "right", "bottom", "box_score", "pose_score",
    "keypoint", "x", "y", "score",
)  # fmt: skip
_MIXED_COLUMNS = ("dataset", "label")  # after the first two, for mixed poses of people and animals


def place_images(sources: Sequence[str | Path]) -> list[Path]:
    """Choose the path of each drawn image, relative to the output directory.

    A drawn image keeps its stem and its path relative to the common directory of all sources; images
    from URLs go to the top. If two paths are equal, ignoring case, the later one gets a number: `a.jpg`,
    `a-2.jpg`.
    """
    files = (source for source in sources if isinstance(source, Path))
    parents = {file: Path(os.path.normpath(file.absolute())).parent for file in files}
    common = os.path.commonpath(parents.values()) if parents else ""
    paths: dict[str, Path] = {}
    for source in sources:
        parent = parents[source].relative_to(common) if isinstance(source, Path) else Path()
        names = (f"{_stem(source)}{'' if number == 1 else f'-{number}'}.jpg" for number in count(1))
        path = next(parent / name for name in names if str(parent / name).casefold() not in paths)
        paths[str(path).casefold()] = path
    return list(paths.values())


def number_images(sources: Sequence[str | Path]) -> list[int]:
    """Choose the IDs of the images in COCO's results.

    They are the numbers at the ends of the stems, as in `000000000785.jpg` and
    `COCO_val2014_000000000785.jpg`, if these are present and unique; otherwise 1, 2, 3, ….
    """
    found = [re.search(r"[0-9]+$", _stem(source)) for source in sources]
    numbers = [int(match[0]) for match in found if match]
    return numbers if len(set(numbers)) == len(sources) else list(range(1, len(sources) + 1))


def _stem(source: str | Path) -> str:
    if isinstance(source, Path):
        return source.stem
    stem = PurePosixPath(unquote(urlsplit(source).path)).stem
    return re.sub(r"[^\w.-]+", "_", stem).strip(".") or "image"


@dataclass(frozen=True)
class _Row:
    """The result of one image."""

    image: str
    drawn: Path | None
    image_id: int
    size: Size
    poses: Poses | MixedPoses


class Writer:
    """Context manager that writes the results of a run; on exit, also after an error, it writes the data files.

    Args:
        target: Output directory, created with the first file, or one drawn image.
        kinds: Kinds of output, of `target.KINDS`.
        sources: All images of the run, as returned by `find_images`.
        drawing: Keyword arguments of `vitpose.draw`.

    Raises:
        InputError: Drawn images would be written to a directory of sources.
    """

    def __init__(
        self, target: Target, kinds: frozenset[str], sources: Sequence[str | Path], drawing: Mapping[str, Any]
    ) -> None:
        self.directory, self.kinds, self.drawing = target.directory, kinds, drawing
        self._paths = place_images(sources) if target.file is None else [Path(target.file)]
        self._ids = number_images(sources)
        self._rows: list[_Row] = []
        if "images" in kinds and target.file is None:
            self._refuse_source_directories(sources)

    def _refuse_source_directories(self, sources: Sequence[str | Path]) -> None:
        files = [source for source in sources if isinstance(source, Path)]
        # A link may be in another directory than its image; both are checked.
        taken = {path.resolve() for file in files for path in (file.parent, file.resolve().parent)}
        for directory in sorted({(self.directory / path).parent for path in self._paths}):
            if directory.resolve() in taken:
                raise InputError(
                    f"drawn images would be written to {directory}, which contains sources, and could replace them; "
                    "choose another output directory"
                )

    @property
    def images(self) -> int:
        """Number of images with a result."""
        return len(self._rows)

    @property
    def instances(self) -> int:
        """Number of instances in them."""
        return sum(len(row.poses) for row in self._rows)

    def add(self, index: int, prediction: Prediction) -> None:
        """Add the result of the source at an index, and write its drawn image.

        Raises:
            InputError: The prediction has neither a result nor an error.
            VitPoseError: The error of the prediction; or the drawn image cannot be written, while the data files
                get its poses.
        """
        image, poses = prediction.image, prediction.poses
        if image is None or poses is None:
            raise prediction.error or InputError(f"{prediction.name} has no result; predict it first")
        drawn = None
        try:
            if "images" in self.kinds:
                canvas = vitpose.draw(image, poses, **self.drawing)
                vitpose.save_image(self.directory / self._paths[index], canvas)
                drawn = self._paths[index]
        finally:
            self._rows.append(_Row(prediction.name, drawn, self._ids[index], Size.of(image), poses))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        if "json" in self.kinds:
            self._write_json("poses.json", [_json_entry(row) for row in self._rows])
        if "coco" in self.kinds:
            results = [result for row in self._rows for result in row.poses.to_coco(row.image_id)]
            self._write_json("coco.json", results)
            self._write_json("coco_images.json", [_coco_image(row) for row in self._rows])
        if "csv" in self.kinds:
            self._write_csv()

    def _write_json(self, name: str, entries: list[dict[str, Any]]) -> None:
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        with replace_file(self.directory / name) as path:
            content = f"[\n{lines}\n]\n" if entries else "[]\n"
            path.write_text(content, encoding="utf-8", errors=_ENCODING_ERRORS)

    def _write_csv(self) -> None:
        with (
            replace_file(self.directory / "poses.csv") as path,
            path.open("w", encoding="utf-8", errors=_ENCODING_ERRORS, newline="") as file,
        ):
            table = csv.writer(file)
            mixed = _MIXED_COLUMNS if any(isinstance(row.poses, MixedPoses) for row in self._rows) else ()
            table.writerow((*_COLUMNS[:2], *mixed, *_COLUMNS[2:]))
            for row in self._rows:
                table.writerows(_csv_rows(row, mixed))


def _json_entry(row: _Row) -> dict[str, Any]:
    drawn = {} if row.drawn is None else {"drawn": row.drawn.as_posix()}
    size = {"width": row.size.width, "height": row.size.height}
    return {"image": row.image, **drawn, **size, **row.poses.to_dict()}


def _csv_rows(row: _Row, mixed: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield one row for each keypoint of each pose."""
    for index, pose in enumerate(row.poses.to_dict()["poses"]):
        columns = [pose[column] for column in mixed]
        shared = (row.image, index, *columns, *pose["box_xyxy"], pose["box_score"], pose["score"])
        yield from ((*shared, name, *keypoint.values()) for name, keypoint in pose["keypoints"].items())


def _coco_image(row: _Row) -> dict[str, Any]:
    return {
        "id": row.image_id,
        "file_name": row.image,
        "width": row.size.width,
        "height": row.size.height,
    }
