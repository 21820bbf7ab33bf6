"""Rows of annotation files; the handling of unusable rows is tested in data, evaluation and detectors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.data.annotation_file import (
    ImageFinder,
    ImageRow,
    is_number,
    numbers,
    read_annotation_file,
    read_id,
    read_json,
)
from vitpose.data.annotations import read_training_annotations, split_source
from vitpose.data.pack import read_pack
from vitpose.errors import InputError, SkeletonError, UnknownNameError
from vitpose.evaluation.ground_truth import read_ground_truth
from vitpose.evaluation.results import image_directory
from vitpose.geometry.boxes import Size
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.skeleton import Skeleton

GOOD = {
    "id": 7, "image_id": 1, "category_id": 2, "bbox": [10, 20, 30, 40], "area": 500.5, "num_keypoints": 2,
    "keypoints": [12, 25, 2, 14, 24, 1, 0, 0, 0], "head_bbox": [1, 2, 3, 4],
}  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    file = folder / "file.json"
    file.write_text(json.dumps(content))
    return file


def coco(*rows: Any, **image: Any) -> dict[str, Any]:
    category = {"id": 2, "name": "face", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]}
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80, **image}]
    return {
        "images": images,
        "annotations": list(rows),
        "categories": [category, {"id": 3, "name": "no keypoints"}],
    }


def test_coco_format(tmp_path: Path) -> None:
    file = read_annotation_file(write(tmp_path, coco(GOOD)))
    assert file.skeleton.keypoints == ("nose", "left_eye", "right_eye")
    assert (file.skeleton.edges, file.categories) == (((0, 1),), {2, 3})
    assert (str(file.images[1]), file.images[1].size) == ("a.jpg", Size(100, 80))
    (row,) = file.rows
    assert (row.name, row.id, row.image_id, row.category_id, row.area, row.num_keypoints, row.crowd) == (
        "annotation 7", 7, 1, 2, 500.5, 2, False,
    )  # fmt: skip
    assert row.keypoints.tolist() == [[12, 25, 2], [14, 24, 1], [0, 0, 0]]
    assert (row.xywh.tolist(), row.head_xywh.tolist()) == ([10, 20, 30, 40], [1, 2, 3, 4])


def test_malformed_values_are_none(tmp_path: Path) -> None:
    broken = {
        "id": 8,
        "image_id": [1],
        "category_id": {},
        "bbox": [1, 2, None, 4],
        "area": "x",
        "keypoints": [1, 2],
    }
    bare, none = {"id": 9, "image_id": 1}, "nonsense"
    rows = read_annotation_file(write(tmp_path, coco(GOOD, broken, bare, none, width="wide"))).rows
    assert [row.name for row in rows] == ["annotation 7", "annotation 8", "annotation 9", "'nonsense'"]
    assert [row.has_keypoints for row in rows] == [True, True, False, False]
    for row in rows[1:]:
        assert (row.keypoints, row.xywh, row.area, row.num_keypoints, row.head_xywh) == (None,) * 5
    assert [row.image_id for row in rows] == [1, None, 1, None]


def test_images_without_an_id_are_listed(tmp_path: Path) -> None:
    table = coco(GOOD, id=1.0, file_name=None)
    table["images"] += [{"file_name": "b.jpg"}, {"id": [2]}, 5]
    file = read_annotation_file(write(tmp_path, table))
    assert file.images == {1: ImageRow(1, "", Size(100, 80))}
    assert file.broken_images == ("image 1, {'file_name': 'b.jpg'}", "image 2, {'id': [2]}", "image 3, 5")


@pytest.mark.parametrize("size", [{"width": 0}, {"height": -1}])
def test_invalid_sizes_are_none(tmp_path: Path, size: dict[str, int]) -> None:
    assert read_annotation_file(write(tmp_path, coco(GOOD, **size))).images[1].size is None


def test_invalid_edges_are_dropped_and_invalid_names_raise(tmp_path: Path) -> None:
    table = coco(GOOD, {"image_id": 1, "keypoints": 5})
    category = table["categories"][0]
    category["skeleton"] = [1, ["a", "b"], [1, 2, 3], [1, 3], [1, 17], [[1], 2]]
    assert read_annotation_file(write(tmp_path, table)).skeleton.edges == ((0, 2),)
    category["skeleton"] = 5
    assert read_annotation_file(write(tmp_path, table)).skeleton.edges == ()
    for names in ([1, 2, 3], 5, [["nose"]]):
        category["keypoints"] = names
        with pytest.raises(SkeletonError, match="its categories do not name the keypoints; give a skeleton"):
            read_annotation_file(write(tmp_path, table))
    for categories in (5, [{"id": [1]}]):
        file = write(tmp_path, table | {"categories": categories})
        assert read_annotation_file(file, Skeleton("three", ("a", "b", "c"))).categories == frozenset()


def test_a_crowd_index_that_is_not_a_number_is_ignored(tmp_path: Path) -> None:
    names = [f"keypoint_{index}" for index in range(14)]
    table = coco(GOOD | {"keypoints": [1, 2, 2] * 14}, crowdIndex="hard")
    table["categories"][0]["keypoints"] = names
    file = read_annotation_file(write(tmp_path, table))
    assert (file.images[1].crowd_index, file.skeleton.keypoints) == (None, tuple(names))


def test_read_id() -> None:
    assert [read_id(value) for value in (3, 3.0, np.int64(3), "3")] == [3, 3, 3, "3"]
    assert read_id(1.5) is read_id(float("nan")) is read_id([1]) is read_id(None) is None


def test_mpii_coordinates_start_at_one(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "center": [301, 201], "scale": 1.5, "joints": [[11.0, 21.0]] * 16}
    rows = [row | {"joints_vis": [1] * 15 + [0]}, row | {"joints_vis": "x"}, row | {"joints": [[1, "x"]]}]
    file = read_annotation_file(write(tmp_path, rows))
    assert (file.skeleton.name, [image.file_name for image in file.images.values()]) == (
        "mpii",
        ["a.jpg"],
    )
    first, *others = file.rows
    assert first.xywh.tolist() == [150, 72.5, 300, 300]
    assert first.keypoints.tolist() == [[10, 20, 2]] * 15 + [[10, 20, 0]]
    assert [other.keypoints for other in others] == [None, None]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json cannot be read \(No such file.*\); give a list"):
        read_json(tmp_path / "none.json", "a list")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes.json is not valid JSON: .*; give a list"):
        read_json(tmp_path / "bytes.json", "a list")


def test_images_are_found_by_file_name_or_base_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first / "b.jpg", second / "a/b.jpg", second / "c.jpg"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    images = [ImageRow(1, "a/b.jpg"), ImageRow(2, "x/c.jpg"), ImageRow(3, "x/none.jpg")]
    assert ImageFinder(images, first).find(images[0]) == first / "b.jpg"
    finder = ImageFinder(images, first, second)
    found = [finder.find(image) for image in images]
    assert found == [second / "a/b.jpg", second / "c.jpg", first / "x/none.jpg"]


def test_images_with_a_shared_base_name_are_found_by_file_name_only(tmp_path: Path) -> None:
    for name in ("c.jpg", "x/b.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ("x/b.jpg", "y/b.jpg", "b.jpg", "z/c.jpg", "z/c.jpg")
    images = [ImageRow(id, name) for id, name in enumerate(names)]
    finder = ImageFinder(images, tmp_path)
    found = [finder.find(image).relative_to(tmp_path).as_posix() for image in images]
    assert found == ["x/b.jpg", "y/b.jpg", "b.jpg", "c.jpg", "c.jpg"]
    assert [finder.shares_name(image) for image in images] == [True, True, True, False, False]


def test_malformed_json(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    for content, message in (
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"images": ' * 50_000, "it is nested too deeply"),
        (b"[" + b"1" * 5000 + b"]", "Exceeds the limit"),
        (b'{"a": "\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
    ):
        file.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"odd\.json is not valid JSON: {message}.*; give an annotation file"
        ):
            read_annotation_file(file)
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(InputError, match=r"cannot be a path: .*a file can have"):
            read_annotation_file(name)


def test_byte_order_mark_and_non_finite_numbers(tmp_path: Path) -> None:
    table = coco(GOOD, GOOD | {"area": float("nan"), "bbox": [0, 0, float("inf"), 1]})
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(table).encode())
    first, second = read_annotation_file(tmp_path / "a.json").rows
    assert (first.area, second.area, second.xywh) == (500.5, None, None)


def test_integers_beyond_float64_are_none(tmp_path: Path) -> None:
    huge = 10**400
    rows = coco(
        GOOD | {"bbox": [huge, 0, 1, 1], "area": huge, "keypoints": [huge] * 9, "id": huge}, width=huge
    )
    file = read_annotation_file(write(tmp_path, rows))
    (row,) = file.rows
    assert (row.id, row.xywh, row.area, row.keypoints, file.images[1].size) == (huge, None, None, None, None)
    joints = {
        "image": "a.jpg",
        "center": [huge, 1],
        "scale": 1,
        "joints": [[huge, 1]] * 16,
        "joints_vis": [1] * 16,
    }
    (row,) = read_annotation_file(write(tmp_path, [joints])).rows
    assert (row.xywh, row.keypoints) == (None, None)


def test_errors_in_category_keypoints_name_the_file(tmp_path: Path) -> None:
    table = coco(GOOD)
    table["categories"][0]["keypoints"] = ["nose", "nose", "eye"]
    message = (
        r"file\.json, the keypoints of its categories: skeleton 'custom': keypoints must not repeat a name"
    )
    with pytest.raises(SkeletonError, match=message):
        read_annotation_file(write(tmp_path, table))


def test_is_number() -> None:
    assert [value for value in (1, 2.5, 10**400, float("nan"), "1", None, [1]) if is_number(value)] == [
        1,
        2.5,
    ]


def test_numbers() -> None:
    assert numbers([1, 2.5]).tolist() == [1, 2.5]
    assert numbers(["x"]) is numbers(5) is numbers(None) is numbers([[1]]) is numbers([1], 2) is None
    assert numbers([float("nan")], 1) is None
    assert numbers([float("nan")]) is not None


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_file_can_have_raise(name: str, tmp_path: Path) -> None:
    annotations = write(tmp_path, coco(GOOD))
    assert split_source(f"{name}=folder") == (name, "folder")
    truth = read_ground_truth(annotations)
    for read in (
        read_pack,
        lambda path: image_directory(path, truth),
        partial(read_training_annotations, annotations),
    ):
        with pytest.raises(InputError, match=r"cannot be a path: .*a file can have"):
            read(name)
    with pytest.raises(UnknownNameError, match="unknown skeleton"):
        DatasetSpec.from_dict({"name": "mine", "skeleton": name}, folder=tmp_path)
