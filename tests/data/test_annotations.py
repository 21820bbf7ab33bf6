from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitpose.data.annotations import (
    TrainingAnnotations,
    check_images,
    read_training_annotations,
    shared_skeleton,
)
from vitpose.errors import InputError, SkeletonError
from vitpose.keypoints.skeleton import Skeleton

THREE = ["left_tip", "right_tip", "pivot"]


def write(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    Image.new("RGB", (100, 80)).save(folder / "a.png")
    (folder / "broken.png").write_bytes(b"not an image")
    names = ["a.png", "gone.png", "broken.png"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    categories = [{"id": 1, "name": "scissors", "keypoints": THREE, "skeleton": [[1, 3], [2, 3]]}]
    table = {"images": images, "annotations": rows, "categories": categories} | changes
    file = folder / "people.json"
    file.write_text(json.dumps({name: value for name, value in table.items() if value is not None}))
    return file


def row(number: int, **changes: Any) -> dict[str, Any]:
    good = {
        "image_id": 0,
        "bbox": [10, 10, 40, 30],
        "area": 500,
        "keypoints": [12, 15, 2, 30, 20, 1, 0, 0, 0],
    }
    return {"id": number, **good, **changes}


def test_columns_and_skeleton_of_the_category(tmp_path: Path) -> None:
    people = read_training_annotations(write(tmp_path, [row(7)]))
    assert people.skeleton.keypoints == tuple(THREE)
    assert people.skeleton.edges == ((0, 2), (1, 2))
    assert people.skeleton.flip_pairs == ((0, 1),)
    np.testing.assert_array_equal(people.boxes, [[10, 10, 50, 40]])
    np.testing.assert_array_equal(people.xy, [[[12, 15], [30, 20], [0, 0]]])
    np.testing.assert_array_equal(people.visibility, [[2, 1, 0]])
    assert (people.areas[0], people.ids[0], people.images[people.image_index[0]].name) == (
        500,
        7,
        "a.png",
    )
    assert people.read_image(0).shape == (80, 100, 3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bbox": [10, 10, 0, 30]}, "box without area"),
        ({"bbox": None}, "box without area"),
        ({"bbox": [float("nan"), 1, 2, 3]}, "box without area"),
        ({"bbox": [0, 0, 1e300, 5]}, "box without area"),
        ({"bbox": [5000, 5000, 50, 100]}, "box outside the image"),
        ({"bbox": [1e30] * 4}, "box outside the image"),
        ({"bbox": [-40, 10, 40, 30]}, "box outside the image"),
        ({"image_id": 1}, "image missing or unreadable"),
        ({"image_id": 2}, "image missing or unreadable"),
        ({"image_id": 99}, "image not listed in the file"),
        ({"keypoints": [0] * 9}, "no labelled keypoints"),
        ({"keypoints": [1, 2, 2]}, "not 3 numeric keypoints (x, y, visibility)"),
        ({"keypoints": ["x"] * 9}, "not 3 numeric keypoints (x, y, visibility)"),
        ({"iscrowd": 1}, "crowd region"),
        ({"keypoints": [500, 20, 2] * 3}, "keypoints outside the image (labels removed)"),
    ],
)
def test_unusable_rows_are_reported_and_the_others_kept(tmp_path: Path, changes: Any, problem: str) -> None:
    people = read_training_annotations(write(tmp_path, [row(1), row(2, **changes), row(3)]))
    assert people.ids.tolist() == [1, 3]
    assert problem in people.report.problems
    assert people.report.problems[problem][0].startswith("annotation 2")
    assert f"{problem}: 1 (annotation 2" in str(people.report)
    assert "2 instances in 1 image" in str(people.report)


@pytest.mark.parametrize(
    ("name", "path", "images"),
    [
        ("images/b.png", "images/b.png", None),
        ("images/b.png", "images/b.png", "images"),
        ("images/b.png", "images/b.png", "."),
        ("/elsewhere/b.png", "images/b.png", None),
        ("images/part/b.png", "images/part/b.png", None),
        ("part/b.png", "part/b.png", None),
    ],
)
def test_images_are_found_beside_the_file(tmp_path: Path, name: str, path: str, images: str | None) -> None:
    """In the directory `images`, or under the base name of an absolute path from another computer."""
    file = write(tmp_path, [row(1, image_id=9)], images=[{"id": 9, "file_name": name}])
    (tmp_path / path).parent.mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(tmp_path / path)
    people = read_training_annotations(file, None if images is None else tmp_path / images)
    assert (people.images, len(people)) == ((tmp_path / path,), 1)


def test_invalid_values_affect_only_their_row(tmp_path: Path) -> None:
    images = [
        {"id": 0, "file_name": "a.png", "width": 0, "height": 80},
        {"file_name": "a.png"},
        {"id": 2, "file_name": "x" * 300},
    ]
    rows = [row(2**70), row(2, keypoints=5), row(3, image_id=2)]
    people = read_training_annotations(write(tmp_path, rows, images=images))
    assert people.ids.tolist() == [-1]
    assert people.report.problems == {
        "images whose id is neither an integer nor a string": ("image 1, {'file_name': 'a.png'}",),
        "not 3 numeric keypoints (x, y, visibility)": ("annotation 2",),
        "image missing or unreadable": (f"annotation 3 ({tmp_path}/images/{'x' * 300})",),
    }


def test_only_the_labels_of_keypoints_outside_the_image_are_removed(tmp_path: Path) -> None:
    people = read_training_annotations(write(tmp_path, [row(1, keypoints=[12, 15, 2, 30, 300, 2, 1, 1, 1])]))
    assert people.visibility.tolist() == [[2, 0, 1]]
    assert people.xy[0, 1].tolist() == [0, 0]
    assert people.report.problems == {"keypoints outside the image (labels removed)": ("annotation 1",)}


def test_keypoints_are_mapped_by_name(tmp_path: Path) -> None:
    people = read_training_annotations(write(tmp_path, [row(1)]))
    other = Skeleton("other", ("pivot", "handle", "Right-Tip"))
    mapped = people.map_to(other)
    assert mapped.skeleton is other
    assert mapped.visibility.tolist() == [[0, 0, 1]]
    assert mapped.xy.tolist() == [[[0, 0], [0, 0], [30, 20]]]


def test_instances_without_labels_after_mapping_are_reported(tmp_path: Path) -> None:
    people = read_training_annotations(
        write(tmp_path, [row(1), row(2, keypoints=[1, 1, 2, 0, 0, 0, 0, 0, 0])])
    )
    mapped = people.map_to(Skeleton("tips", ("right_tip", "pivot")))
    assert mapped.ids.tolist() == [1]
    assert mapped.report.problems == {"no labelled keypoint of the skeleton tips": ("annotation 2",)}


def test_skeletons_without_a_common_keypoint(tmp_path: Path) -> None:
    people = read_training_annotations(write(tmp_path, [row(1)]))
    with pytest.raises(
        SkeletonError, match=r"share no keypoint: left_tip, .* and a; give corresponding keypoints"
    ):
        people.map_to(Skeleton("other", ("a",)))


def test_a_file_without_keypoint_names_requires_a_skeleton(tmp_path: Path) -> None:
    file = write(tmp_path, [row(1)], categories=None)
    with pytest.raises(SkeletonError, match=r"categories do not name the keypoints; give a skeleton: aic"):
        read_training_annotations(file)
    given = Skeleton("mine", ("a", "b", "c"))
    assert read_training_annotations(file, skeleton=given).skeleton is given


def test_a_skeleton_in_another_order_raises(tmp_path: Path) -> None:
    file = write(tmp_path, [row(1)])
    with pytest.raises(SkeletonError, match=r"in another order, left_tip, .*; omit the skeleton: .* by name"):
        read_training_annotations(file, skeleton=Skeleton("mine", ("pivot", "left_tip", "right_tip")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"images": []}', r"contains the keys \['images'\]; COCO format is \{images"),
        ("3", "contains 3; COCO format is"),
        ('[{"joints": []}]', "is neither in MPII format, a list of rows with .*, nor in COCO format"),
    ],
)
def test_files_in_other_formats_raise(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_training_annotations(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json cannot be read \(No such file.*give an annotation file"):
        read_training_annotations(tmp_path / "none.json")


def test_mpii_format(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg")
    good = {"image": "a.jpg", "center": [301, 201], "scale": 1.5, "joints": [[11.0, 21.0]] * 16}
    rows = [
        good | {"joints_vis": [1] * 15 + [0]},
        good | {"joints_vis": [1] * 3},
        good | {"joints_vis": [1] * 16, "joints": "x"},
        good | {"joints_vis": [1] * 16, "center": None},
    ]
    (tmp_path / "mpii.json").write_text(json.dumps(rows))
    people = read_training_annotations(tmp_path / "mpii.json")
    assert people.skeleton.name == "mpii"
    assert people.boxes.tolist() == [[150, 72.5, 450, 372.5]]
    assert people.xy[0, 0].tolist() == [10, 20]
    assert people.visibility[0].tolist() == [2] * 15 + [0]
    assert people.report.problems == {
        "not 16 numeric keypoints (x, y, visibility)": ("row 1", "row 2"),
        "box without area": ("row 3",),
    }


def test_check_images(people: TrainingAnnotations) -> None:
    assert check_images(people) == people.report
    people.images[0].write_bytes(people.images[0].read_bytes()[:500])
    Image.new("RGB", (10, 10)).save(people.images[1])
    report = check_images(people)
    assert report.instances == 8
    assert "0.png" in report.problems["image cannot be read"][0]
    assert len(report.problems["keypoints outside the decoded image"]) == 2


def test_shared_skeleton(people: TrainingAnnotations) -> None:
    assert shared_skeleton([people, people]) is people.skeleton
    with pytest.raises(
        InputError,
        match=r"different skeletons: coco \(17\), lsp \(14\); map them to one skeleton with --skeleton, or with map_to",
    ):
        shared_skeleton([people, people.map_to(Skeleton.load("lsp"))])
    with pytest.raises(InputError, match="there are no sources of annotations; give"):
        shared_skeleton([])


@pytest.mark.parametrize(
    ("file", "skeleton", "counts"),
    [
        ("coco/test_coco.json", "coco", (12, 4)),
        ("mpii/test_mpii.json", "mpii", (5, 5)),
        ("aic/test_aic.json", "aic", (9, 3)),
        ("ochuman/test_ochuman.json", "coco", (5, 3)),
    ],
)
def test_published_formats(shared_data: Path, file: str, skeleton: str, counts: tuple[int, int]) -> None:
    people = read_training_annotations(shared_data / "samples" / file)
    assert (people.report.instances, people.report.images) == counts
    assert people.skeleton.name == skeleton


def test_parts_of_whole_bodies_are_joined(shared_data: Path) -> None:
    folder = shared_data / "samples" / "coco"
    people = read_training_annotations(folder / "test_coco_wholebody.json")
    assert people.xy.shape == (12, 133, 2)
    assert (people.labelled.sum(axis=1) > 17).any()


def test_lsp_maps_to_coco(shared_data: Path) -> None:
    coco = read_training_annotations(shared_data / "samples/coco/test_coco.json")
    lsp = read_training_annotations(shared_data / "lsp/val.json").map_to(coco.skeleton)
    assert shared_skeleton([coco, lsp]).name == "coco"
    names = {
        name for name, used in zip(lsp.skeleton.keypoints, lsp.labelled.any(axis=0), strict=True) if used
    }
    joints = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    assert names == {f"{side}_{joint}" for side in ("left", "right") for joint in joints}


def test_images_with_a_shared_base_name_are_not_confused(tmp_path: Path) -> None:
    images = [{"id": 0, "file_name": "first/a.png"}, {"id": 1, "file_name": "second/a.png"}]
    rows = [row(7), row(8, image_id=1)]
    people = read_training_annotations(write(tmp_path, rows, images=images))
    assert len(people) == 0
    problem = "image missing or unreadable, and its base name is shared by other images"
    assert list(people.report.problems) == [problem]
    assert [name.split(" (")[0] for name in people.report.problems[problem]] == [
        "annotation 7",
        "annotation 8",
    ]
    (tmp_path / "first").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "first" / "a.png")
    assert read_training_annotations(tmp_path / "people.json").ids.tolist() == [7]


def test_sizes_beyond_float32_are_unusable_without_warnings(tmp_path: Path) -> None:
    rows = [
        row(1, area=1e300, bbox=[0, 0, 1e160, 1e160]),
        row(2, area=1e300),
        row(3, bbox=[3e38, 0, 3e38, 1]),
        row(4, area=10**400, keypoints=[10**400, 1, 2, 30, 20, 1, 0, 0, 0]),
        row(5, area=None, bbox=[0, 0, 1e30, 1e30]),
    ]
    people = read_training_annotations(write(tmp_path, rows))
    assert people.ids.tolist() == [2, 5]
    np.testing.assert_allclose(people.areas, [1200, 1e30])
