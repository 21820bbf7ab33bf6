from __future__ import annotations

import csv
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vitpose.errors import OutputError, UnknownNameError
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import Poses
from vitpose.video.recording import KINDS, Recording
from vitpose.video.stream import PoseFrame

COCO = Skeleton.load("coco")
IMAGE = np.zeros((48, 64, 3), np.uint8)
IDS = [[1, 2], [], [2], [-1, 2, 3]]


def frames(tracked: bool = True) -> list[PoseFrame]:
    rng = np.random.default_rng(0)
    recorded = []
    for index, ids in enumerate(IDS):
        n = len(ids)
        poses = Poses(
            xy=rng.uniform(0, 60, (n, 17, 2)).astype(np.float32),
            scores=rng.uniform(0, 1, (n, 17)).astype(np.float32),
            boxes=np.tile(np.array([1, 2, 30, 40], np.float32), (n, 1)),
            box_scores=np.full(n, 0.5, np.float32),
            skeleton=COCO,
        )
        if tracked:
            poses = replace(poses, ids=np.array(ids, np.int64))
        recorded.append(PoseFrame(index, Fraction(index * 1001, 30000), IMAGE, poses, detected=index != 2))
    return recorded


def record(folder: Path, kinds: list[str], tracked: bool = True) -> list[Path]:
    recording = Recording(folder, "clip", kinds, COCO, "videos/clip.mp4")
    with recording:
        for frame in frames(tracked):
            recording.add(frame)
    return recording.files


def test_all_formats_are_written_and_no_other_file(tmp_path: Path) -> None:
    files = record(tmp_path, list(KINDS))
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert {path.name for path in files} == {
        "clip.jsonl", "clip.csv", "clip.parquet", "clip.coco.json", "clip.posetrack.json", "clip.dlc.csv",
        "clip.dlc.h5",
    }  # fmt: skip


def test_json_lines(tmp_path: Path) -> None:
    (path,) = record(tmp_path, ["jsonl"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["detected"] for line in lines] == [True, True, False, True]
    assert lines[3]["time_s"] == pytest.approx(0.1001)
    assert [[pose.get("id") for pose in line["poses"]] for line in lines] == [
        [1, 2],
        [],
        [2],
        [None, 2, 3],
    ]
    assert lines[0]["poses"] == frames()[0].poses.to_dict()["poses"]


def test_csv(tmp_path: Path) -> None:
    (path,) = record(tmp_path, ["csv"])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 6 * 17
    assert rows[-1]["id"] == "3"
    assert [row["id"] for row in rows[:: len(COCO)]] == ["1", "2", "2", "", "2", "3"]
    assert rows[0]["keypoint"] == "nose"
    assert float(rows[0]["x"]) == pytest.approx(frames()[0].poses.xy[0, 0, 0], abs=0.01)


@pytest.mark.parametrize("tracked", [True, False])
def test_parquet_has_typed_columns(tmp_path: Path, tracked: bool) -> None:
    (path,) = record(tmp_path, ["parquet"], tracked)
    table = pq.read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    assert list(types)[:4] == ["frame", "time_s", "instance", "id"]
    assert (types["frame"], types["time_s"], types["instance"], types["id"]) == (
        "int64",
        "double",
        "int32",
        "int64",
    )
    assert types["left_ankle_score"] == "float"
    assert table.schema.metadata[b"skeleton"] == b"coco"
    rows = table.to_pylist()
    assert [row["frame"] for row in rows] == [0, 0, 2, 3, 3, 3]
    assert [row["instance"] for row in rows] == [0, 1, 0, 0, 1, 2]
    assert [row["id"] for row in rows] == ([1, 2, 2, None, 2, 3] if tracked else [None] * 6)
    assert rows[3]["nose_x"] == frames()[3].poses.xy[0, 0, 0]


def test_many_rows_are_several_row_groups(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "clip", ["parquet"], COCO, "clip.mp4")
    with recording:
        for index in range(3000):
            recording.add(replace(frames()[3], index=index))
    file = pq.ParquetFile(recording.files[0])
    assert file.metadata.num_rows == 9000
    assert file.metadata.num_row_groups == 3


def test_coco(tmp_path: Path) -> None:
    (path,) = record(tmp_path, ["coco"])
    results = json.loads(path.read_text())
    assert [(entry["image_id"], entry.get("track_id")) for entry in results] == [
        (0, 1),
        (0, 2),
        (2, 2),
        (3, None),
        (3, 2),
        (3, 3),
    ]
    assert "track_id" not in results[3]  # fmt: skip
    assert len(results[0]["keypoints"]) == 51


def test_posetrack(tmp_path: Path) -> None:
    (path,) = record(tmp_path, ["posetrack"])
    content = json.loads(path.read_text())
    assert [image["frame_id"] for image in content["images"]] == [0, 1, 2, 3]
    assert content["images"][0]["width"] == 64
    annotations = content["annotations"]
    assert [entry["id"] for entry in annotations] == [1, 2, 3, 4, 5, 6]
    assert {entry["image_id"] for entry in annotations} <= {image["id"] for image in content["images"]}
    assert annotations[2]["track_id"] == 2
    assert ["track_id" in entry for entry in annotations] == [True, True, True, False, True, True]
    assert len(annotations[0]["scores"]) == 17
    (category,) = content["categories"]
    assert category["keypoints"] == list(COCO.keypoints)
    assert min(min(edge) for edge in category["skeleton"]) == 1


@pytest.mark.parametrize("kind", ["dlc", "dlc-h5"])
def test_deeplabcut(tmp_path: Path, kind: str) -> None:
    (path,) = record(tmp_path, [kind])
    if kind == "dlc":
        table = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    else:
        table = pd.read_hdf(path, "df_with_missing")
    assert table.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    assert list(table.index) == [0, 1, 2, 3]
    assert list(table.columns.levels[1]) == ["individual1", "individual2", "individual3"]
    assert table.shape == (4, 3 * 17 * 3)
    second = table["vitpose"]["individual2"]["nose"]
    expected = [frames()[index].poses.xy[row, 0, 0] for index, row in ((0, 1), (2, 0), (3, 1))]
    np.testing.assert_allclose(second["x"].dropna(), expected, rtol=1e-5)
    assert second["likelihood"].isna().tolist() == [False, True, False, False]


def test_deeplabcut_without_track_ids_or_instances(tmp_path: Path) -> None:
    (path,) = record(tmp_path, ["dlc"], tracked=False)
    assert len(pd.read_csv(path, header=[0, 1, 2, 3], index_col=0).columns.levels[1]) == 3
    empty = Recording(tmp_path, "empty", ["dlc", "dlc-h5", "coco", "posetrack", "parquet"], COCO, "clip.mp4")
    with empty:
        empty.add(frames()[1])
    assert json.loads(empty.files[2].read_text()) == []
    assert pq.read_table(empty.files[4]).num_rows == 0


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="stop"),
        Recording(tmp_path, "clip", list(KINDS), COCO, "x") as recording,
    ):
        recording.add(frames()[0])
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_unwritable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown kind of recording 'jsonn'; did you mean jsonl"):
        Recording(tmp_path, "clip", ["jsonn"], COCO, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"clip.jsonl cannot be written"):
        record(tmp_path / "file", ["jsonl"])


def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(OutputError, match=r"clip.jsonl cannot be written: .*File too large"),
            Recording(tmp_path, "clip", ["jsonl"], COCO, "x") as recording,
        ):
            for _ in range(100):
                recording.add(frames()[3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
