"""Output files of `vitpose predict` on images: drawn images, JSON, COCO results, CSV.

Owns the names and formats of these files, and ensures that none overwrites a source.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import vitpose

from ..errors import InputError, OutputError, UnknownNameError
from ..files.writing import replace_file
from ..geometry.boxes import Size
from ..inference.pipeline import Prediction
from ..results.mixed_poses import MixedPoses
from ..results.poses import Poses

KINDS = ("images", "json", "coco", "csv")
"""Kinds of output: drawn images, poses.json, coco.json (with coco_images.json), poses.csv."""

# File names on Linux may not be valid Unicode. Written with this handler, JSON readers restore them.
_ENCODING_ERRORS = "backslashreplace"
_COLUMNS = (
    "image", "person", "left", "top", "right", "bottom", "box_score", "pose_score",
    "keypoint", "x", "y", "score",
)  # fmt: skip
_MIXED_COLUMNS = ("dataset", "label")  # after the first two, for mixed poses of people and animals


def choose_kinds(value: str) -> frozenset[str]:
    """Read a list of kinds such as "images,json".

    Raises:
        UnknownNameError: A name in it is not one of `KINDS`.
    """
    kinds = [kind.strip() for kind in value.split(",") if kind.strip()]
    for kind in kinds or [value]:
        if kind not in KINDS:
            raise UnknownNameError("kind of output", kind, KINDS, "Separate several with commas.")
    return frozenset(kinds)


def refuse_unwritable(folder: Path) -> None:
    """Check, without leaving a file, that files can be written to a directory or that it can be created.

    Raises:
        OutputError: Neither is possible.
    """
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write to {folder}: {reason}; choose another directory") from error


def place_images(sources: Sequence[str | Path]) -> list[Path]:
    """Choose the path of each drawn image, relative to the output directory.

    A drawn image keeps its stem and its path relative to the common directory of all sources; images
    from URLs go to the top. If two paths are equal, ignoring case, the later one gets a number: `a.jpg`,
    `a-2.jpg`.
    """
    files = (source for source in sources if isinstance(source, Path))
    folders = {file: Path(os.path.normpath(file.absolute())).parent for file in files}
    common = os.path.commonpath(folders.values()) if folders else ""
    paths: dict[str, Path] = {}
    for source in sources:
        folder = folders[source].relative_to(common) if isinstance(source, Path) else Path()
        names = (f"{_stem(source)}{'' if number == 1 else f'-{number}'}.jpg" for number in count(1))
        path = next(folder / name for name in names if str(folder / name).casefold() not in paths)
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
        folder: Output directory, created with the first file.
        kinds: Kinds of output, of `KINDS`.
        sources: All images of the run, as returned by `find_images`.
        threshold: Keypoints with a lower score are not drawn; data files contain all keypoints.

    Raises:
        InputError: Drawn images would be written to a directory of sources.
    """

    def __init__(
        self, folder: Path, kinds: frozenset[str], sources: Sequence[str | Path], threshold: float
    ) -> None:
        self.folder, self.kinds, self.threshold = folder, kinds, threshold
        self._paths, self._ids = place_images(sources), number_images(sources)
        self._rows: list[_Row] = []
        if "images" in kinds:
            self._refuse_source_folders(sources)

    def _refuse_source_folders(self, sources: Sequence[str | Path]) -> None:
        files = [source for source in sources if isinstance(source, Path)]
        # A link may be in another directory than its image; both are checked.
        source_folders = {path.resolve() for file in files for path in (file.parent, file.resolve().parent)}
        for folder in sorted({(self.folder / path).parent for path in self._paths}):
            if folder.resolve() in source_folders:
                raise InputError(
                    f"drawn images would be written to {folder}, which contains sources, and could replace them; "
                    "choose another output directory"
                )

    @property
    def images(self) -> int:
        """Number of images with a result."""
        return len(self._rows)

    @property
    def poses(self) -> int:
        """Number of poses in them."""
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
                canvas = vitpose.draw(image, poses, threshold=self.threshold, boxes=True, scores=True)
                vitpose.save_image(self.folder / self._paths[index], canvas)
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
        with replace_file(self.folder / name) as path:
            content = f"[\n{lines}\n]\n" if entries else "[]\n"
            path.write_text(content, encoding="utf-8", errors=_ENCODING_ERRORS)

    def _write_csv(self) -> None:
        with (
            replace_file(self.folder / "poses.csv") as path,
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
