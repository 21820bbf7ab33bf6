"""Records `PoseFrame`s, frame by frame: JSON lines, CSV, Parquet, and the formats of COCO, PoseTrack and DeepLabCut.

Every file is written whole or not at all (`files.writing.replace_file`). Except for DeepLabCut's formats, memory does
not grow with the video. Does not know networks or terminals.
"""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import UnknownNameError, require
from ..files.writing import replace_file
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton
from ..results.poses import BOX_KEY
from ..results.tables import PoseRows
from .stream import PoseFrame

_ROW_GROUP_SIZE = 4096
"""Rows per row group of a Parquet file, held in memory until it is written."""


@runtime_checkable
class Recorder(Protocol):
    """Writes the frames of a video to one file."""

    def add(self, frame: PoseFrame) -> None:
        """Adds the next frame."""
        ...

    def close(self) -> None:
        """Finishes the file."""
        ...


class Recording:
    """Context manager that records a video in several formats; the files exist after its block ends without an error.

    Args:
        folder: Directory of the files.
        stem: Name of the files, without suffix.
        kinds: Formats, keys of `KINDS`.
        skeleton: Skeleton of the poses.
        source: Name of the source that the files record.

    Attributes:
        files: Paths of the files, in the order of `kinds`.

    Raises:
        UnknownNameError: A format is not in `KINDS`.
        OutputError: A file cannot be written.
        MissingDependencyError: The package for a format is not installed.
    """

    def __init__(self, folder: Path, stem: str, kinds: list[str], skeleton: Skeleton, source: str) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of recording", kind, KINDS)
        self.files = [folder / f"{stem}{_SUFFIXES[kind]}" for kind in kinds]
        self._kinds, self._skeleton, self._source = kinds, skeleton, source
        self._stack = ExitStack()
        self._recorders: list[Recorder] = []

    def __enter__(self) -> Recording:
        with ExitStack() as stack:
            for kind, path in zip(self._kinds, self.files, strict=True):
                partial = stack.enter_context(replace_file(path))
                recorder = KINDS[kind](partial, self._skeleton, self._source)
                stack.callback(recorder.close)  # inside `replace_file`, which discards the file on an error
                self._recorders.append(recorder)
            self._stack = stack.pop_all()
        return self

    def add(self, frame: PoseFrame) -> None:
        """Adds the next frame to every file."""
        for recorder in self._recorders:
            recorder.add(frame)

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)


class _JsonLines:
    """One line per frame: its index and time, and the poses of `Poses.to_dict`."""

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")

    def add(self, frame: PoseFrame) -> None:
        entry = {"frame": frame.index, "time_s": float(frame.time_s), "detected": frame.detected}
        self._file.write(json.dumps(entry | {"poses": frame.poses.to_dict()["poses"]}) + "\n")

    def close(self) -> None:
        self._file.close()


class _Csv:
    """One row per instance and keypoint."""

    columns = (
        "frame", "time_s", "instance", "id", "left", "top", "right", "bottom", "box_score", "pose_score",
        "keypoint", "x", "y", "score",
    )  # fmt: skip

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._file)
        self._table.writerow(self.columns)

    def add(self, frame: PoseFrame) -> None:
        for row, pose in enumerate(frame.poses.to_dict()["poses"]):
            instance = (row, pose.get("id", ""), *pose["box_xyxy"], pose["box_score"], pose["score"])
            for name, keypoint in pose["keypoints"].items():
                self._table.writerow((frame.index, float(frame.time_s), *instance, name, *keypoint.values()))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """One row per instance and frame; see `results.tables`."""

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        parquet = require("pyarrow.parquet", "tables", "to write Parquet")
        self._rows = PoseRows(skeleton, {"frame": "int64", "time_s": "float64"})
        self._file = parquet.ParquetWriter(path, self._rows.schema, compression="zstd")

    def add(self, frame: PoseFrame) -> None:
        self._rows.add(frame.poses, frame.index, float(frame.time_s))
        if len(self._rows) >= _ROW_GROUP_SIZE:
            self._file.write_table(self._rows.take())

    def close(self) -> None:
        if len(self._rows):
            self._file.write_table(self._rows.take())
        self._file.close()


class _Coco:
    """COCO results; `image_id` is the index of the frame, and `track_id` the track ID, if there is one."""

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        self._list = _JsonList(path)

    def add(self, frame: PoseFrame) -> None:
        for entry, track_id in zip(frame.poses.to_coco(frame.index), frame.poses.track_ids, strict=True):
            self._list.add(entry if track_id is None else {**entry, "track_id": track_id})

    def close(self) -> None:
        self._list.close()


class _PoseTrack:
    """The format of PoseTrack 2018: images, annotations with `track_id`, and one category.

    The keypoints are those of the skeleton, all with visibility 1; `scores` holds their scores.
    """

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        self._path, self._skeleton, self._source = path, skeleton, source
        self._parts = {name: path.with_name(f"{path.name}.{name}") for name in ("images", "annotations")}
        self._lists = {name: _JsonList(part) for name, part in self._parts.items()}
        self._count = 0

    def add(self, frame: PoseFrame) -> None:
        size, video = Size.of(frame.image), Path(self._source).stem
        image = {"id": frame.index, "frame_id": frame.index, "file_name": f"{video}/{frame.index:06d}.jpg"}
        about = {"vid_id": video, "is_labeled": True, "time_s": float(frame.time_s)}
        self._lists["images"].add({**image, **about, "width": size.width, "height": size.height})
        for entry, track_id, scores in zip(
            frame.poses.to_coco(frame.index), frame.poses.track_ids, frame.poses.scores, strict=True
        ):
            keypoints = np.array(entry["keypoints"]).reshape(-1, 3)
            keypoints[:, 2] = 1
            self._count += 1
            entry["keypoints"] = keypoints.ravel().tolist()
            entry["bbox"] = entry.pop(BOX_KEY)  # annotations have a box, COCO results do not
            entry |= {"id": self._count, "scores": [round(float(score), 4) for score in scores]}
            self._lists["annotations"].add(entry if track_id is None else {**entry, "track_id": track_id})

    def close(self) -> None:
        edges = [[a + 1, b + 1] for a, b in self._skeleton.edges]
        category = {"id": 1, "name": "person", "supercategory": "person", "skeleton": edges}
        category["keypoints"] = list(self._skeleton.keypoints)
        try:
            for entries in self._lists.values():
                entries.close()
            with self._path.open("wb") as file:
                for name, part in self._parts.items():
                    file.write(b'{"images": ' if name == "images" else b', "annotations": ')
                    with part.open("rb") as content:
                        shutil.copyfileobj(content, file)
                file.write(f', "categories": {json.dumps([category])}}}\n'.encode())
        finally:
            for part in self._parts.values():
                part.unlink(missing_ok=True)


class _DeepLabCut:
    """DeepLabCut's table: one row per frame; columns (scorer, individuals, bodyparts, coords).

    The individuals are the tracks; instances without a track ID are omitted, since the format has no column for them.
    Without tracking, the individuals are the rows of `Poses`. The columns are only known at the end, so the values
    are held in memory, 12 bytes per keypoint.
    """

    scorer = "vitpose"

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        self._pandas = require("pandas", "tables", "for DeepLabCut's files")
        self._path, self._skeleton = path, skeleton
        self._frames: list[int] = []
        self._tracks: dict[int, tuple[list[int], list[np.ndarray]]] = {}

    def add(self, frame: PoseFrame) -> None:
        poses = frame.poses
        track_ids = range(1, len(poses) + 1) if poses.ids is None else poses.track_ids
        values = np.concatenate([poses.xy, poses.scores[:, :, None]], axis=2).reshape(
            len(poses), 3 * len(self._skeleton)
        )
        for track_id, row in zip(track_ids, values.astype(np.float32), strict=True):
            if track_id is not None:
                frames, rows = self._tracks.setdefault(track_id, ([], []))
                frames.append(len(self._frames))
                rows.append(row)
        self._frames.append(frame.index)

    def _table(self) -> Any:
        names = [f"individual{track_id}" for track_id in sorted(self._tracks)]
        parts = [self.scorer], names, self._skeleton.keypoints, ("x", "y", "likelihood")
        columns = self._pandas.MultiIndex.from_product(
            parts, names=["scorer", "individuals", "bodyparts", "coords"]
        )
        width = 3 * len(self._skeleton)
        values = np.full((len(self._frames), len(columns)), np.nan, np.float32)
        for column, track_id in enumerate(sorted(self._tracks)):
            frames, rows = self._tracks[track_id]
            values[frames, column * width : (column + 1) * width] = rows
        return self._pandas.DataFrame(values, index=self._frames, columns=columns)

    def close(self) -> None:
        self._table().to_csv(self._path)


class _DeepLabCutH5(_DeepLabCut):
    """The same table in HDF5, under the key that DeepLabCut reads."""

    def __init__(self, path: Path, skeleton: Skeleton, source: str) -> None:
        super().__init__(path, skeleton, source)
        require("tables", "deeplabcut", "for DeepLabCut's h5 files")

    def close(self) -> None:
        self._table().to_hdf(self._path, key="df_with_missing", mode="w", format="fixed")


class _JsonList:
    """A JSON list that is written entry by entry."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._file.write("[")
        self._separator = "\n"

    def add(self, entry: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(entry))
        self._separator = ",\n"

    def close(self) -> None:
        self._file.write("\n]\n")
        self._file.close()


KINDS: dict[str, Any] = {
    "jsonl": _JsonLines,
    "csv": _Csv,
    "parquet": _Parquet,
    "coco": _Coco,
    "posetrack": _PoseTrack,
    "dlc": _DeepLabCut,
    "dlc-h5": _DeepLabCutH5,
}
"""Recorders by the name of their format."""
_SUFFIXES = {
    "jsonl": ".jsonl",
    "csv": ".csv",
    "parquet": ".parquet",
    "coco": ".coco.json",
    "posetrack": ".posetrack.json",
    "dlc": ".dlc.csv",
    "dlc-h5": ".dlc.h5",
}
