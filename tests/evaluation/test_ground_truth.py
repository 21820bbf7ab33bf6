from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitpose.errors import InputError, SkeletonError
from vitpose.evaluation.ground_truth import read_ground_truth, with_areas_of_boxes
from vitpose.geometry.boxes import Size

NAMES = ["nose", "left_eye", "right_eye"]
GOOD = {
    "id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 500.5, "iscrowd": 0,
    "num_keypoints": 2, "keypoints": [12, 25, 2, 14, 24, 1, 0, 0, 0],
}  # fmt: skip


def content(*people: Any, **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": list(people),
        "categories": [{"id": 1, "name": "face", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [16, 14]]}],
        **more,
    }


def test_reads_people_and_images(write: Callable[..., Path]) -> None:
    found = read_ground_truth(write(content(GOOD)))
    (person,) = found.people
    assert person.points.tolist() == [[12, 25, 2], [14, 24, 1], [0, 0, 0]]
    assert person.labelled.tolist() == [True, True, False]
    assert (person.xywh, person.area, person.counted, person.wanted) == ((10, 20, 30, 40), 500.5, 2, True)
    assert found.images[1].size == Size(100, 80)
    assert found.skeleton.keypoints == tuple(NAMES)
    assert found.skeleton.edges == ((0, 1), (0, 2))  # another dataset's edge is left out
    assert found.name_of(person) == "a.jpg, annotation 7"
    assert len(found.problems) == 0


def test_rows_that_cannot_be_used_are_named(write: Callable[..., Path]) -> None:
    rows = [
        GOOD,
        {**GOOD, "id": 8, "image_id": 99},
        {**GOOD, "id": 9, "keypoints": []},
        {**GOOD, "id": 10, "keypoints": [1, 2, 2]},
        {**GOOD, "id": 11, "keypoints": [float("nan")] * 9},
        {**GOOD, "id": 12, "bbox": [1, 2, 3]},
        {**GOOD, "id": 13, "bbox": [1, 2, -3, 4]},
        {**GOOD, "id": 14, "area": None},
        "nonsense",
    ]
    found = read_ground_truth(write(content(*rows)))
    assert [person.id for person in found.people] == [7, 14]
    assert found.people[1].area == 0.53 * 30 * 40
    assert found.problems.names == {
        "annotations of an image that the file does not list": ["annotation 8", "'nonsense'"],
        "annotations without keypoints": ["a.jpg, annotation 9"],
        "annotations whose keypoints are not 3 times x, y, visibility": [
            "a.jpg, annotation 10",
            "a.jpg, annotation 11",
        ],
        "annotations without a box of four finite numbers": ["a.jpg, annotation 12", "a.jpg, annotation 13"],
        "annotations without an area, for which 0.53 x box stands": ["a.jpg, annotation 14"],
    }


def test_images_without_an_id_are_named(write: Callable[..., Path]) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"file_name": "b.jpg"}]
    found = read_ground_truth(write(content(GOOD, images=images)))
    assert found.problems.names == {
        "images whose id is neither an integer nor a string": ["image 1, {'file_name': 'b.jpg'}"]
    }


def test_crowds_and_people_without_points_are_not_looked_for(write: Callable[..., Path]) -> None:
    crowd = {**GOOD, "iscrowd": 1}
    bare = {**GOOD, "keypoints": [0] * 9}
    people = read_ground_truth(write(content(GOOD, crowd, bare))).people
    assert [person.wanted for person in people] == [True, False, False]


def test_areas_of_boxes(write: Callable[..., Path]) -> None:
    people = read_ground_truth(write(content(GOOD))).people
    assert [person.area for person in with_areas_of_boxes(people)] == [0.53 * 30 * 40]


def test_a_skeleton_of_ones_own(write: Callable[..., Path], tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nkeypoints = ["a", "b", "c"]\n[sigmas]\na = 0.1\nb = 0.2\nc = 0.3\n')
    assert read_ground_truth(write(content(GOOD)), own).skeleton.sigmas == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ([GOOD], r"neither in MPII format, .*, nor in COCO format, \{images, annotations, categories\}"),
        ({"images": []}, r"contains the keys \['images'\]"),
        (
            content(images=[{"file_name": "a"}]),
            "has 0 annotations, none with keypoints of an image it lists",
        ),
        (
            content({**GOOD, "keypoints": None}),
            "has 1 annotations, none with keypoints of an image it lists",
        ),
        (content({**GOOD, "keypoints": [0] * 9}), "nobody has a labelled point of the 3 points"),
    ],
)
def test_files_that_are_none(file: Any, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        read_ground_truth(write(file))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(No such file.*give an annotation file"):
        read_ground_truth(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json is not valid JSON"):
        read_ground_truth(tmp_path / "broken.json")


def test_points_without_one_list_of_names(write: Callable[..., Path]) -> None:
    kinds = [{"id": 1, "keypoints": NAMES}, {"id": 2, "keypoints": ["x", "y", "z"]}]
    with pytest.raises(SkeletonError, match="its categories have different keypoints; give a skeleton"):
        read_ground_truth(write(content(GOOD, {**GOOD, "category_id": 2}, categories=kinds)))


@pytest.mark.parametrize(
    ("sample", "skeleton", "people"),
    [
        ("coco/test_coco.json", "coco", 14),
        ("coco/test_coco_wholebody.json", "coco-wholebody", 14),
        ("crowdpose/test_crowdpose.json", "crowdpose", 5),
        ("aic/test_aic.json", "aic", 9),
        ("ap10k/test_ap10k.json", "ap10k", 2),
        ("ochuman/test_ochuman.json", "coco", 5),
    ],
)
def test_published_formats(shared_data: Path, sample: str, skeleton: str, people: int) -> None:
    found = read_ground_truth(shared_data / "samples" / sample)
    assert found.skeleton.keypoints == read_skeleton(skeleton)
    assert len(found.people) == people


def read_skeleton(name: str) -> tuple[str, ...]:
    from vitpose.keypoints.skeleton import Skeleton

    return Skeleton.load(name).keypoints
