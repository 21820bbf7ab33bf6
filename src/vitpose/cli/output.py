"""What `vitpose predict` leaves behind: drawn images, JSON, COCO results, a table.

Owns the names and forms of these files, and that none of them overwrites a source. Knows no network
and no terminal.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Sequence
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
"""What can be written: drawn images, poses.json, coco.json (with coco_images.json), poses.csv."""

# File names on Linux may be no Unicode. Written so, they are read back from JSON as they were.
_NO_UNICODE = "backslashreplace"
_COLUMNS = (
    "image", "person", "left", "top", "right", "bottom", "box_score", "pose_score",
    "keypoint", "x", "y", "score",
)  # fmt: skip
_KIND_COLUMNS = ("dataset", "label")  # of people and animals, after the first two


def choose_kinds(text: str) -> frozenset[str]:
    """Reads a list such as "images,json".

    Raises:
        UnknownNameError: A name in it is none of `KINDS`.
    """
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    for kind in kinds or [text]:
        if kind not in KINDS:
            raise UnknownNameError("kind of output", kind, KINDS, "Separate several with commas.")
    return frozenset(kinds)


def refuse_unwritable(folder: Path) -> None:
    """Finds out, without leaving a trace, whether files can be written to a folder or it can be made.

    Raises:
        OutputError: They cannot, or it cannot.
    """
    try:
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"nothing can be written to {folder}: {reason}; choose another folder") from error


def place_images(sources: Sequence[str | Path]) -> list[Path]:
    """Chooses where each drawn image goes, relative to the output folder.

    A drawn image keeps its place below the deepest folder that all sources have in common, and its
    stem; images from the network go to the top. Where two would have the same name, ignoring case,
    the later one gets a number: `a.jpg`, `a-2.jpg`.
    """
    paths = (source for source in sources if isinstance(source, Path))
    folders = {path: Path(os.path.normpath(path.absolute())).parent for path in paths}
    common = os.path.commonpath(folders.values()) if folders else ""
    places: dict[str, Path] = {}
    for source in sources:
        folder = folders[source].relative_to(common) if isinstance(source, Path) else Path()
        names = (f"{_stem(source)}{'' if number == 1 else f'-{number}'}.jpg" for number in count(1))
        place = next(folder / name for name in names if str(folder / name).casefold() not in places)
        places[str(place).casefold()] = place
    return list(places.values())


def number_images(sources: Sequence[str | Path]) -> list[int]:
    """Chooses the images' ids in COCO's results.

    They are the numbers at the ends of the stems, as in `000000000785.jpg` and
    `COCO_val2014_000000000785.jpg`, if every image has one of its own; otherwise 1, 2, 3, ….
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
    """One image that is done."""

    image: str
    drawn: Path | None
    image_id: int
    size: Size
    poses: Poses | MixedPoses


class Writer:
    """Writes the results of a run; a context, at whose end, good or bad, the data files are written.

    Args:
        folder: Where to; made with the first file.
        kinds: What to write, of `KINDS`.
        sources: All images of the run, as `find_images` gives them.
        threshold: Keypoints that score less are not drawn; the data files always have all.

    Raises:
        InputError: Drawn images would lie among the sources.
    """

    def __init__(
        self, folder: Path, kinds: frozenset[str], sources: Sequence[str | Path], threshold: float
    ) -> None:
        self.folder, self.kinds, self.threshold = folder, kinds, threshold
        self._places, self._ids = place_images(sources), number_images(sources)
        self._rows: list[_Row] = []
        if "images" in kinds:
            self._refuse_among(sources)

    def _refuse_among(self, sources: Sequence[str | Path]) -> None:
        paths = [source for source in sources if isinstance(source, Path)]
        # A link lies in one folder and its image in another; neither must be written to.
        theirs = {place.resolve() for path in paths for place in (path.parent, path.resolve().parent)}
        for folder in sorted({(self.folder / place).parent for place in self._places}):
            if folder.resolve() in theirs:
                raise InputError(
                    f"drawn images would be written to {folder}, among the sources, and could replace "
                    "some; choose another output folder"
                )

    @property
    def images(self) -> int:
        """How many images are done."""
        return len(self._rows)

    @property
    def poses(self) -> int:
        """How many poses were found in them."""
        return sum(len(row.poses) for row in self._rows)

    def add(self, index: int, prediction: Prediction) -> None:
        """Takes the result of the source of that index, and writes its drawn image.

        Raises:
            VitPoseError: The prediction failed; or the drawn image cannot be written, and only the data
                files have its poses.
        """
        image, poses = prediction.image, prediction.poses
        if image is None or poses is None:
            raise prediction.error or InputError(f"{prediction.name} has no result; predict it first")
        drawn = None
        try:
            if "images" in self.kinds:
                canvas = vitpose.draw(image, poses, threshold=self.threshold, boxes=True)
                vitpose.save_image(self.folder / self._places[index], canvas)
                drawn = self._places[index]
        finally:
            self._rows.append(_Row(prediction.name, drawn, self._ids[index], Size.of(image), poses))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        if "json" in self.kinds:
            self._write_json("poses.json", [self._described(row) for row in self._rows])
        if "coco" in self.kinds:
            results = [one for row in self._rows for one in row.poses.to_coco(row.image_id)]
            self._write_json("coco.json", results)
            self._write_json("coco_images.json", [_coco_image(row) for row in self._rows])
        if "csv" in self.kinds:
            self._write_csv()

    def _described(self, row: _Row) -> dict[str, Any]:
        drawn = {} if row.drawn is None else {"drawn": row.drawn.as_posix()}
        size = {"width": row.size.width, "height": row.size.height}
        return {"image": row.image, **drawn, **size, **row.poses.to_dict()}

    def _write_json(self, name: str, entries: list[dict[str, Any]]) -> None:
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        with replace_file(self.folder / name) as path:
            text = f"[\n{lines}\n]\n" if entries else "[]\n"
            path.write_text(text, encoding="utf-8", errors=_NO_UNICODE)

    def _write_csv(self) -> None:
        with (
            replace_file(self.folder / "poses.csv") as path,
            path.open("w", encoding="utf-8", errors=_NO_UNICODE, newline="") as file,
        ):
            table = csv.writer(file)
            kind = _KIND_COLUMNS if any(isinstance(row.poses, MixedPoses) for row in self._rows) else ()
            table.writerow((*_COLUMNS[:2], *kind, *_COLUMNS[2:]))
            for row in self._rows:
                for person, pose in enumerate(row.poses.to_dict()["poses"]):
                    kinds = [pose[column] for column in kind]
                    shared = (
                        row.image,
                        person,
                        *kinds,
                        *pose["box_xyxy"],
                        pose["box_score"],
                        pose["score"],
                    )
                    points = pose["keypoints"].items()
                    table.writerows((*shared, name, *point.values()) for name, point in points)


def _coco_image(row: _Row) -> dict[str, Any]:
    return {
        "id": row.image_id,
        "file_name": row.image,
        "width": row.size.width,
        "height": row.size.height,
    }
