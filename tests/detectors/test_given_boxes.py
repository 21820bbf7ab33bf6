from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.detectors import CocoBoxes, Detections, Detector, WholeImage, detections_from
from vitpose.errors import BoxError, InputError, UnknownNameError

IMAGE = np.zeros((40, 60, 3), np.uint8)


def row(image_id: Any = 7, bbox: Any = (10, 5, 20, 30), **fields: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": list(bbox), "score": 0.5, **fields}


def annotations(*rows: dict[str, Any], **image: Any) -> dict[str, Any]:
    images = [{"id": 7, "file_name": "a/one.jpg", **image}, {"id": 8, "file_name": "b/two.jpg"}]
    return {"images": images, "annotations": list(rows), "categories": [{"id": 1, "name": "person"}]}


@pytest.fixture
def coco(tmp_path: Path):
    def read(content: Any, **options: Any) -> CocoBoxes:
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps(content))
        return CocoBoxes(path, **options)

    return read


def find(detector: Detector, name: str) -> Detections:
    return detector.detect([IMAGE], [name])[0]


class TestDetectionsFrom:
    @pytest.mark.parametrize(
        "boxes", [[[20, 2, 30, 9], [1, 2, 3, 4]], np.array([[20, 2, 30, 9], [1, 2, 3, 4]], np.float64)]
    )
    def test_rows_keep_their_order(self, boxes: Any):
        found = detections_from(boxes)
        np.testing.assert_array_equal(found.boxes, [[20, 2, 30, 9], [1, 2, 3, 4]])
        np.testing.assert_array_equal(found.scores, [1, 1])
        assert found.labels == ("person", "person")

    def test_an_empty_list_means_no_boxes(self):
        assert len(detections_from([])) == 0

    def test_detections_pass_through(self):
        found = Detections.of_boxes([[0, 0, 1, 1]], "dog")
        assert detections_from(found) is found

    def test_supervision(self):
        supervision = pytest.importorskip("supervision")
        given = supervision.Detections(
            xyxy=np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
            confidence=np.array([0.25, 0.75]),
            data={"class_name": np.array(["dog", "person"])},
        )
        found = detections_from(given)
        np.testing.assert_array_equal(found.boxes, given.xyxy)
        np.testing.assert_array_equal(found.scores, np.float32([0.25, 0.75]))
        assert found.labels == ("dog", "person")
        assert len(detections_from(supervision.Detections.empty())) == 0
        bare = detections_from(supervision.Detections(xyxy=given.xyxy))
        assert (bare.scores.tolist(), bare.labels) == ([1, 1], ("person", "person"))

    def test_invalid_boxes_are_rejected(self):
        with pytest.raises(BoxError, match=r"box 1 of 2, .* has no area"):
            detections_from([[0, 0, 1, 1], [5, 5, 4, 9]])

    def test_confidences_must_be_finite(self):
        supervision = pytest.importorskip("supervision")
        given = supervision.Detections(xyxy=np.array([[1.0, 2, 3, 4]]), confidence=np.array([np.nan]))
        with pytest.raises(
            BoxError, match=r"scores must be one finite number for each box, not array\(\[nan\]"
        ):
            detections_from(given)


def test_the_whole_image_is_a_box_to_refine():
    detector = WholeImage()
    assert isinstance(detector, Detector)
    assert detector.refine_boxes
    found = detector.detect([IMAGE, IMAGE[:1, :1]], ["", ""])
    assert [part.boxes.tolist() for part in found] == [[[0, 0, 60, 40]], [[0, 0, 1, 1]]]
    assert found[0].labels == ("person",)


class TestCocoBoxes:
    def test_detections_are_found_by_number(self, coco: Any):
        boxes = coco([row(), row(bbox=[50, 0, 20, 10], score=0.9), row(image_id=8)])
        assert isinstance(boxes, Detector)
        assert not boxes.suppress_duplicates
        found = find(boxes, "photos/COCO_val_000000000007.jpg")
        np.testing.assert_array_equal(found.boxes, [[50, 0, 60, 10], [10, 5, 30, 35]])
        np.testing.assert_array_equal(found.scores, np.float32([0.9, 0.5]))

    def test_an_image_without_rows_has_no_boxes(self, coco: Any):
        assert len(find(coco([row()]), "9.jpg")) == 0
        assert len(find(coco(annotations(row())), "two.jpg")) == 0

    def test_images_of_the_file_without_an_id_or_a_name_are_skipped(self, coco: Any):
        content = annotations(row(image_id=7.0))
        content["images"] += [{"file_name": "x.jpg"}, {"id": 9, "file_name": None}]
        boxes = coco(content)
        assert len(find(boxes, "one.jpg")) == 1
        with pytest.raises(InputError, match=r"'x.jpg' is not among the 3 images"):
            find(boxes, "x.jpg")

    def test_an_image_that_is_not_in_the_file_is_rejected(self, coco: Any):
        with pytest.raises(
            InputError, match=r"'7.jpg' is not among the 2 images of .*boxes.json; use the file of boxes for"
        ):
            find(coco(annotations(row())), "7.jpg")

    @pytest.mark.parametrize("score", [float("nan"), -0.1, 2.0])
    def test_a_minimum_score_out_of_range(self, coco: Any, score: float):
        with pytest.raises(InputError, match=r"min_score .* must be a number from 0 to 1"):
            coco([row()], min_score=score)

    def test_an_empty_file_has_no_boxes_for_any_image(self, coco: Any):
        assert len(find(coco([]), "people.jpg")) == 0

    def test_annotations_are_found_by_name_and_score_1(self, coco: Any):
        plain = row()
        del plain["score"]
        found = find(coco(annotations(plain)), r"elsewhere\one.jpg")
        assert (found.boxes.tolist(), found.scores.tolist()) == ([[10, 5, 30, 35]], [1])

    def test_directories_distinguish_equal_base_names(self, coco: Any):
        content = annotations(row(8))
        content["images"][1]["file_name"] = "b/one.jpg"
        assert len(find(coco(content), "set/b/one.jpg")) == 1
        assert len(find(coco(content), "set/a/one.jpg")) == 0
        message = (
            r"'one.jpg' matches the images \[7, 8\] of .*boxes.json, .* give the path as written in the file"
        )
        with pytest.raises(InputError, match=message):
            find(coco(content), "one.jpg")

    def test_ids_may_be_stems(self, coco: Any):
        assert len(find(coco([row("left-07")]), "left-07.jpg")) == 1
        assert len(find(coco([row("left-07")]), "right.jpg")) == 0

    def test_crowds_and_boxes_without_area_are_skipped(self, coco: Any):
        assert len(find(coco([row(iscrowd=1), row(bbox=[1, 1, 0, 5])]), "7.jpg")) == 0

    def test_boxes_are_filtered_by_label_and_score(self, coco: Any):
        rows = [row(), row(category_id=18, score=0.2), row(category_id=93, score=0.1)]
        assert find(coco(rows), "7.jpg").labels == ("person",)
        assert find(coco(rows, labels="dog"), "7.jpg").labels == ("dog",)
        assert find(coco(rows, labels="all"), "7.jpg").labels == ("person", "dog", "category 93")
        assert find(coco(rows, labels="all", min_score=0.2), "7.jpg").labels == ("person", "dog")

    def test_an_unknown_label_is_reported_with_the_known_ones(self, coco: Any):
        content = annotations(row())
        content["categories"][0]["name"] = "antelope"
        with pytest.raises(UnknownNameError, match="unknown label 'person'; known: antelope"):
            coco(content)

    def test_an_image_without_a_name(self, coco: Any):
        with pytest.raises(
            InputError, match=r"without a file name cannot be looked up in .*boxes.json; read it"
        ):
            find(coco([row()]), "")
        with pytest.raises(
            InputError, match=r"got 0 names for 1 images, but .*boxes.json identifies images by"
        ):
            coco([row()]).detect([IMAGE], [])

    def test_a_name_without_a_number(self, coco: Any):
        with pytest.raises(InputError, match=r"'people.jpg' cannot be looked up .* by number only"):
            find(coco([row()]), "people.jpg")

    def test_the_image_must_have_the_annotated_size(self, coco: Any):
        with pytest.raises(BoxError, match=r"one.jpg has 60x40 pixels, but the boxes of .* are for 120x80"):
            find(coco(annotations(row(), width=120, height=80)), "one.jpg")

    def test_a_box_outside_the_image(self, coco: Any):
        with pytest.raises(BoxError, match="lies wholly outside its image of 60x40"):
            find(coco([row(bbox=[60, 0, 5, 5])]), "7.jpg")

    def test_a_missing_file(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"none.json cannot be read \(No such file"):
            CocoBoxes(tmp_path / "none.json")

    @pytest.mark.parametrize("content", [b"[{", b"\xff\xfe\x00\x01"])
    def test_not_json(self, tmp_path: Path, content: bytes):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(InputError, match=r"broken.json is not valid JSON: "):
            CocoBoxes(tmp_path / "broken.json")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"boxes": []}, r"contains the keys \['boxes'\]; COCO format is"),
            (3, "contains 3; COCO format is"),
            (
                [row(), 5],
                "row 1: image_id, category_id and bbox are required, not 5; correct or delete the row",
            ),
            ([{"image_id": 7, "bbox": [0, 0, 1, 1]}], "row 0: image_id, category_id and bbox are required"),
            ([row(None)], "row 0: image_id None must be an integer or a string"),
            ([row(category_id="1")], "category_id '1' an integer; correct or delete the row"),
            ([row(score="high")], "row 0: score 'high' must be a finite number"),
            ([row(score=float("nan"))], "row 0: score nan must be a finite number"),
            ([row(score=1e300)], "row 0: score 1e\\+300 must be a finite number, 1e\\+30 at most; correct"),
            ({**annotations(), "categories": [{"id": 1}]}, "every category must have an id and a name, not"),
        ],
    )
    def test_a_file_of_another_layout(self, coco: Any, content: Any, message: str):
        with pytest.raises(InputError, match=message):
            coco(content)

    @pytest.mark.parametrize(
        "bbox",
        [[0, 0, float("nan"), 1], [0, 0, -1, 1], [0, 0, 1], 5, None, [0, 0, "wide", 1], [[0, 0, 1, 1]]],
    )
    def test_an_invalid_box(self, coco: Any, bbox: Any):
        with pytest.raises(BoxError, match=r"row 1: bbox .* must be four finite numbers"):
            coco([row(), {**row(), "bbox": bbox}])


class TestRealFiles:
    def read(self, folder: Path, name: str) -> np.ndarray:
        image = pytest.importorskip("PIL.Image").open(folder / name)
        return np.asarray(image.convert("RGB"))

    def test_detections(self, shared_data: Path):
        folder = shared_data / "samples" / "coco"
        names = ["000000000785.jpg", "000000197388.jpg"]
        images = [self.read(folder, name) for name in names]
        boxes = CocoBoxes(folder / "test_coco_det_AP_H_56.json")
        found = boxes.detect(images, names)
        assert [len(part) for part in found] == [22, 37]
        left, top, width, height = 277.118316, 45.699668, 225.091266, 333.560265
        np.testing.assert_allclose(found[0].boxes[0], [left, top, left + width, top + height], rtol=1e-6)
        assert (np.diff(found[1].scores) <= 0).all()
        assert len(CocoBoxes(boxes.path, min_score=0.9).detect(images, names)[0]) == 1

    def test_annotations(self, shared_data: Path):
        folder = shared_data / "samples" / "coco"
        name = "000000197388.jpg"
        found = CocoBoxes(folder / "test_coco.json").detect([self.read(folder, name)], [name])[0]
        content = json.loads((folder / "test_coco.json").read_text())
        wanted = [a["bbox"] for a in content["annotations"] if a["image_id"] == 197388]
        assert len(found) == len(wanted)
        assert set(found.scores) == {1}
        np.testing.assert_allclose(found.boxes[:, :2], np.array(wanted)[:, :2], rtol=1e-6)
