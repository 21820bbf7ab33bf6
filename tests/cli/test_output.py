"""Output files of `vitpose predict`, without a network."""

from __future__ import annotations

import csv
import json
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vitpose
from vitpose.cli.output import Writer, number_images, place_images
from vitpose.cli.target import KINDS, Kinds, Target, refuse_unwritable

FILES = {
    "images": {"a.jpg", "b.jpg"},
    "json": {"poses.json"},
    "coco": {"coco.json", "coco_images.json"},
    "csv": {"poses.csv"},
}
COMBINATIONS = list(chain.from_iterable(combinations(KINDS, size) for size in range(1, len(KINDS) + 1)))


def prediction_of(source: Path, people: int = 2) -> vitpose.Prediction:
    poses = vitpose.Poses(
        xy=np.arange(people * 17 * 2, dtype=np.float32).reshape(people, 17, 2),
        scores=np.full((people, 17), 0.5, np.float32),
        boxes=np.tile(np.array([1, 2, 30, 40], np.float32), (people, 1)),
        box_scores=np.ones(people, np.float32),
        skeleton=vitpose.Skeleton.load("coco"),
    )
    return vitpose.Prediction(source, str(source), np.zeros((50, 40, 3), np.uint8), poses)


@pytest.mark.parametrize("kinds", COMBINATIONS, ids="+".join)
def test_exactly_the_requested_kinds_are_written(kinds: tuple[str, ...], tmp_path: Path) -> None:
    sources, out = [Path("in/a.png"), Path("in/b.png")], tmp_path / "new" / "out"
    with Writer(Target(out), frozenset(kinds), sources, {}) as writer:
        for index, source in enumerate(sources):
            writer.add(index, prediction_of(source))
    assert (writer.images, writer.instances) == (2, 4)
    assert {path.name for path in out.iterdir()} == set().union(*(FILES[kind] for kind in kinds))
    if "json" in kinds:
        entries = json.loads((out / "poses.json").read_text())
        assert [entry.get("drawn") for entry in entries] == (
            ["a.jpg", "b.jpg"] if "images" in kinds else [None, None]
        )
        assert entries[1]["poses"][1]["keypoints"]["nose"] == {"x": 34, "y": 35, "score": 0.5}
    if "coco" in kinds:
        results = json.loads((out / "coco.json").read_text())
        assert [result["image_id"] for result in results] == [1, 1, 2, 2]
        assert results[0]["box_xywh"] == [1, 2, 29, 38]
        images = json.loads((out / "coco_images.json").read_text())
        assert [(image["id"], image["file_name"]) for image in images] == [(1, "in/a.png"), (2, "in/b.png")]
    if "csv" in kinds:
        with (out / "poses.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) == 1 + 2 * 2 * 17
        assert ",".join(rows[0]) == (
            "image,instance,left,top,right,bottom,box_score,pose_score,keypoint,x,y,score"
        )
        assert ",".join(rows[-1]) == "in/b.png,1,1.0,2.0,30.0,40.0,1.0,0.5,right_ankle,66.0,67.0,0.5"


def test_older_results_are_replaced_even_without_predictions(tmp_path: Path) -> None:
    (tmp_path / "poses.json").write_text("old")
    with Writer(Target(tmp_path), frozenset({"json", "coco"}), [Path("a.png")], {}):
        pass
    assert (tmp_path / "poses.json").read_text() == "[]\n"
    assert {path.name for path in tmp_path.iterdir()} == {"poses.json", "coco.json", "coco_images.json"}


def test_refuses_predictions_without_a_result(tmp_path: Path) -> None:
    source = Path("a.png")
    error = vitpose.ImageError("a.png is cut off")
    with Writer(Target(tmp_path), frozenset({"json"}), [source], {}) as writer:
        with pytest.raises(vitpose.ImageError, match=r"a\.png is cut off"):
            writer.add(0, vitpose.Prediction(source, "a.png", error=error))
        with pytest.raises(vitpose.InputError, match=r"a\.png has no result; predict it first"):
            writer.add(0, vitpose.Prediction(source, "a.png"))
    assert writer.images == 0


def test_refuses_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "not" / "yet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(vitpose.OutputError, match=r"cannot write to .*file: Not a directory; choose"):
        refuse_unwritable(tmp_path / "file")
    with pytest.raises(vitpose.OutputError, match=r"cannot write to .*below: Not a directory"):
        refuse_unwritable(tmp_path / "file" / "below")


def test_kinds_of_output() -> None:
    assert Kinds.choose(None, ["a.jpg"], []) == Kinds(frozenset({"images", "json"}))
    assert Kinds.choose(None, ["a.jpg"], ["b.mp4"]) == Kinds(
        frozenset({"images", "json"}), ("video", "jsonl")
    )
    assert Kinds.choose(None, [], ["b.mp4"], drawn_only=True) == Kinds(videos=("video",))
    assert Kinds.choose("json,, csv ,json", ["a.jpg"], []).images == {"json", "csv"}
    assert Kinds.choose("jsonl, video,jsonl", [], ["b.mp4"]).videos == ("jsonl", "video")
    assert Kinds.choose("csv,images", ["a.jpg"], ["b.mp4"]) == Kinds(frozenset({"csv", "images"}), ("csv",))
    with pytest.raises(
        vitpose.UnknownNameError,
        match=r"unknown kind of output for images 'jsn'; did you mean json\? known: coco, csv, images, json\. "
        "Separate several with commas",
    ):
        Kinds.choose("csv,jsn", ["a.jpg"], [])
    with pytest.raises(vitpose.UnknownNameError, match="unknown kind of output for videos ''"):
        Kinds.choose("", [], ["b.mp4"])
    with pytest.raises(
        vitpose.InputError, match="--save json has no kind of output for the videos; add one of: video,"
    ):
        Kinds.choose("json", ["a.jpg"], ["b.mp4"])
    with pytest.raises(
        vitpose.InputError, match="--save json does not fit --out, which is one drawn file; give a"
    ):
        Kinds.choose("json", ["a.jpg"], [], drawn_only=True)


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Target.read("out") == Target(Path("out"))
    assert Target.read("x/a.JPG") == Target(Path("x"), "a.JPG")
    assert Target.read("a.mp4").name == "a.mp4"
    Path("odd.png").mkdir()
    assert Target.read("odd.png") == Target(Path("odd.png"))
    for out in ("poses.json", "clip.avi"):
        with pytest.raises(
            vitpose.InputError, match=f"--out {out} is neither a directory nor a drawn image or video"
        ):
            Target.read(out)
    with pytest.raises(vitpose.OutputError, match="cannot be a path"):
        Target.read("a\0b.png")
    image, video = Target.read("a.png"), Target.read("a.mp4")
    image.check([Path("b.png")], [])
    video.check([], ["webcam"])
    with pytest.raises(
        vitpose.InputError, match=r"a\.png is one drawn image, but the sources are 2 images and 1 video"
    ):
        image.check([Path("b.png"), Path("c.png")], ["d.mp4"])
    with pytest.raises(
        vitpose.InputError, match=r"a\.mp4 is one drawn video, but the sources are 1 image; give a dir"
    ):
        video.check([Path("b.png")], [])
    Path("a.png").touch()
    with pytest.raises(
        vitpose.InputError, match=r"a\.png is the source and would be replaced; choose another name"
    ):
        image.check([Path("a.png")], [])


def test_paths_of_drawn_images() -> None:
    def paths_of(*sources: str | Path) -> list[str]:
        return [path.as_posix() for path in place_images(sources)]

    assert paths_of(Path("x/a.png")) == ["a.jpg"]
    assert paths_of(Path("x/a.png"), Path("x/b.c.tiff")) == ["a.jpg", "b.c.jpg"]
    assert paths_of(Path("x/y/a.png"), Path("x/z/w/a.png")) == ["y/a.jpg", "z/w/a.jpg"]
    assert paths_of(Path("x/a.png"), Path("x/y/../a.jpg"), Path("x/A.JPG")) == ["a.jpg", "a-2.jpg", "A-3.jpg"]
    assert paths_of(Path("x/a.png"), "http://h/p/a.png", "http://h/?q=1", "http://h/..") == [
        "a.jpg",
        "a-2.jpg",
        "image.jpg",
        "image-2.jpg",
    ]
    assert paths_of("http://h/sp%20ce%2F..%2Fetc.png") == ["etc.jpg"]
    assert paths_of() == []


FOLDERS = st.sampled_from(["", "x", "x/y", "X", "-2"])
STEMS = st.sampled_from(["a", "A", "a-2", "a-2-2", "b.c", "ä", "-"])
SUFFIXES = st.sampled_from([".jpg", ".png", ".JPG"])
SOURCES = st.builds(lambda folder, stem, suffix: Path(folder, stem + suffix), FOLDERS, STEMS, SUFFIXES)


@given(st.lists(SOURCES, unique=True, max_size=12))
def test_paths_of_drawn_images_are_unique_ignoring_case(sources: list[Path]) -> None:
    paths = place_images(sources)
    assert len({str(path).casefold() for path in paths}) == len(sources)
    assert all(not path.is_absolute() and ".." not in path.parts for path in paths)
    assert all(path.stem.startswith(source.stem) for path, source in zip(paths, sources, strict=True))


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000785.jpg", "COCO_val2014_000000000139.jpg"], [785, 139]),
        (["1.jpg", "x/1.jpg"], [1, 2]),
        (["7.jpg", "seven.jpg"], [1, 2]),
        (["²3²", "4.jpg"], [1, 2]),
        ([], []),
    ],
)
def test_image_ids(names: list[str], ids: list[int]) -> None:
    assert number_images([Path(name) for name in names]) == ids
