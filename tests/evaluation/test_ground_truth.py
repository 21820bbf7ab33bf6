from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitpose.errors import InputError, SkeletonError
from vitpose.evaluation.ground_truth import read_ground_truth, with_box_areas
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


def test_reads_instances_and_images(write: Callable[..., Path]) -> None:
    found = read_ground_truth(write(content(GOOD)))
    (person,) = found.instances
    assert person.keypoints.tolist() == [[12, 25, 2], [14, 24, 1], [0, 0, 0]]
    assert person.labelled.tolist() == [True, True, False]
    assert (person.xywh, person.area, person.num_keypoints, person.usable) == (
        (10, 20, 30, 40),
        500.5,
        2,
        True,
    )
    assert found.images[1].size == Size(100, 80)
    assert found.skeleton.keypoints == tuple(NAMES)
    assert found.skeleton.edges == ((0, 1), (0, 2))  # another dataset's edge is left out
    assert found.name_of(person) == "a.jpg, annotation 7"
    assert len(found.problems) == 0


def test_rows_that_cannot_be_used_are_reported(write: Callable[..., Path]) -> None:
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
    assert [person.id for person in found.instances] == [7, 14]
    assert found.instances[1].area == 0.53 * 30 * 40
    assert found.problems.names == {
        "annotations of an image that the file does not list": ["annotation 8", "'nonsense'"],
        "annotations without keypoints": ["a.jpg, annotation 9"],
        "annotations with keypoints that are not 3 times x, y, visibility": [
            "a.jpg, annotation 10",
            "a.jpg, annotation 11",
        ],
        "annotations without a box of four finite numbers": ["a.jpg, annotation 12", "a.jpg, annotation 13"],
        "annotations without an area: 0.53 x box is used": ["a.jpg, annotation 14"],
    }


def test_images_without_an_id_are_reported(write: Callable[..., Path]) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"file_name": "b.jpg"}]
    found = read_ground_truth(write(content(GOOD, images=images)))
    assert found.problems.names == {
        "images whose id is neither an integer nor a string": ["image 1, {'file_name': 'b.jpg'}"]
    }


def test_crowds_and_instances_without_keypoints_are_not_usable(write: Callable[..., Path]) -> None:
    crowd = {**GOOD, "iscrowd": 1}
    bare = {**GOOD, "keypoints": [0] * 9}
    people = read_ground_truth(write(content(GOOD, crowd, bare))).instances
    assert [person.usable for person in people] == [True, False, False]


def test_areas_from_boxes(write: Callable[..., Path]) -> None:
    people = read_ground_truth(write(content(GOOD))).instances
    assert [person.area for person in with_box_areas(people)] == [0.53 * 30 * 40]


def test_a_skeleton_file_replaces_the_names_in_the_annotations(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "custom.toml"
    path.write_text('name = "custom"\nkeypoints = ["a", "b", "c"]\n[sigmas]\na = 0.1\nb = 0.2\nc = 0.3\n')
    assert read_ground_truth(write(content(GOOD)), path).skeleton.sigmas == (0.1, 0.2, 0.3)


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
            "has 1 annotation, none with keypoints of an image it lists",
        ),
        (content({**GOOD, "keypoints": [0] * 9}), "no instance has a labelled keypoint .* with 3 keypoints"),
    ],
)
def test_refuses_other_files(file: Any, message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=message):
        read_ground_truth(write(file))


def test_refuses_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(No such file.*give an annotation file"):
        read_ground_truth(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json is not valid JSON"):
        read_ground_truth(tmp_path / "broken.json")


def test_refuses_categories_with_different_keypoints(write: Callable[..., Path]) -> None:
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
    assert len(found.instances) == people


def read_skeleton(name: str) -> tuple[str, ...]:
    from vitpose.keypoints.skeleton import Skeleton

    return Skeleton.load(name).keypoints
