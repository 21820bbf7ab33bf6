from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitpose
import vitpose.detectors
from vitpose.detectors import (
    CocoBoxes,
    Detections,
    Detector,
    OnnxDetector,
    PersonDetector,
    RtDetrDetector,
    WholeImage,
    load_detector,
)
from vitpose.detectors.labels import read_labels
from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.files.registry import list_detectors


def test_importing_the_package_imports_no_inference_library():
    code = "import sys, vitpose.detectors; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "onnxruntime", "cv2"} & set(result.stdout.split())


def test_public_names_exist():
    assert all(hasattr(vitpose.detectors, name) for name in vitpose.detectors.__all__)


def test_the_whole_image():
    assert isinstance(load_detector("whole-image"), WholeImage)


def test_a_detector_is_returned_unchanged():
    detector = WholeImage()
    assert load_detector(detector) is detector


def test_the_detector_in_the_package():
    assert isinstance(load_detector("person", device="cpu", labels="all", min_score=0.5), PersonDetector)


def test_boxes_from_a_file(tmp_path: Path):
    path = tmp_path / "boxes.json"
    path.write_text("[]")
    detector = load_detector(f"boxes:{path}", labels="dog", min_score=0.5, device="cpu")
    assert isinstance(detector, CocoBoxes)
    assert detector.path == path


@pytest.mark.parametrize(
    ("spec", "kind"),
    [("rtdetr", RtDetrDetector), ("rtdetr:owner/name", RtDetrDetector), ("onnx:a:b.onnx", OnnxDetector)],
)
def test_the_parts_of_a_string_are_passed_to_the_detector(
    monkeypatch: pytest.MonkeyPatch, spec: str, kind: type
):
    calls: list[Any] = []
    monkeypatch.setattr(kind, "__init__", lambda self, *args, **options: calls.append((args, options)))
    assert isinstance(load_detector(spec, device="cpu", labels=("cat",), min_score=0.5), kind)
    load_detector(spec)
    load_detector(spec, dataset_labels=["dog"])
    load_detector(spec, labels="dataset", dataset_labels=["dog"])
    load_detector(spec, labels="all", dataset_labels=["dog"])
    given = (spec.partition(":")[2] or list_detectors()[spec].source,)
    assert calls == [
        (given, {"device": "cpu", "labels": ("cat",), "min_score": 0.5}),
        (given, {"device": "auto", "labels": ("person",)}),
        (given, {"device": "auto", "labels": ("dog",)}),
        (given, {"device": "auto", "labels": ("dog",)}),
        (given, {"device": "auto", "labels": "all"}),
    ]


def test_the_string_is_checked_before_anything_is_loaded():
    with pytest.raises(UnknownNameError, match="unknown detector 'yolox'; did you mean yolox-nano"):
        vitpose.load("not resolved", "yolox")


@pytest.mark.parametrize("options", [{"labels": "dog"}, {"dataset_labels": ["person", "dog"]}])
def test_a_detector_of_people_refuses_other_classes(options: dict[str, Any]):
    with pytest.raises(
        UnknownNameError,
        match=r"unknown label 'dog'; known: person. The detector 'rtmdet-nano' detects people only; ",
    ):
        load_detector("rtmdet-nano", **options)


def test_a_short_name_is_the_file_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VITPOSE_CACHE", str(tmp_path))
    path = tmp_path / "detectors" / "yolox-nano.onnx"
    path.parent.mkdir()
    path.write_bytes(b"another file")
    with pytest.raises(CheckpointError, match=f"{path} has the SHA-256 .* it is damaged or was replaced"):
        load_detector("yolox-nano")


def test_errors_of_the_detector_are_raised(tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no file"):
        load_detector(f"onnx:{tmp_path / 'none.onnx'}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rtdert", r"unknown detector 'rtdert'; did you mean rtdetr"),
        ("whole_image", r"did you mean whole-image\?"),
        ("whole-image:1", r"did you mean whole-image\?"),
        (
            "onnx",
            "known: boxes:FILE, onnx:FILE, person, rtdetr, rtdetr:NAME, rtmdet-nano, whole-image, yolox-nano",
        ),
        ("boxes:", r"did you mean boxes:FILE"),
        ("rtdetr:", r"did you mean rtdetr"),
        ("", "unknown detector ''"),
    ],
)
def test_an_unknown_string_is_reported_with_the_nearest(spec: str, message: str):
    with pytest.raises(UnknownNameError, match=message):
        load_detector(spec)


@pytest.mark.parametrize(
    ("spec", "form"), [("a/model.onnx", "onnx:a/model.onnx"), ("b.json", "boxes:b.json")]
)
def test_a_bare_file_is_reported_with_the_string_to_write(spec: object, form: str):
    with pytest.raises(InputError, match=f"is a file without its kind; write {form}"):
        load_detector(spec)


def test_a_minimum_score_out_of_range():
    for score in (50.0, -0.1, float("nan")):
        with pytest.raises(InputError, match=rf"min_score {score!r} must be a number from 0 to 1"):
            load_detector("rtdetr", min_score=score)


@pytest.mark.parametrize("labels", [[], 5, [0], b"dog"])
def test_labels_that_are_not_names(labels: object):
    # Types are checked while the tests run, which would reject some of these first.
    read = getattr(read_labels, "__wrapped__", read_labels)
    with pytest.raises(
        InputError, match=r"labels .* must be one or more class names; labels=\"all\" selects every"
    ):
        read(labels)


def test_an_empty_list_of_labels_is_rejected():
    with pytest.raises(InputError, match=r"labels \[\] must be one or more"):
        load_detector("rtdetr", labels=[])


@pytest.mark.parametrize("options", [{"labels": "person"}, {"labels": "all"}, {"min_score": 0.0}])
@pytest.mark.parametrize("spec", ["whole-image", WholeImage()])
def test_labels_and_scores_are_rejected_for_whole_images(spec: object, options: dict[str, Any]):
    with pytest.raises(
        InputError, match=r"but whole-image uses each image as one box; leave out what filters"
    ):
        load_detector(spec, **options)


class Zoo:
    """A custom detector: a person and two dogs in every image."""

    def __init__(self, labels: tuple[str, ...] = ("person", "dog", "dog")) -> None:
        self.labels = labels

    def detect(self, images: list[np.ndarray], names: list[str]) -> list[Detections]:
        boxes = np.float32([[left, 0, left + 4, 4] for left in range(3)])
        return [Detections(boxes, np.float32([0.9, 0.8, 0.2]), self.labels) for _ in images]


def lefts(detector: Any) -> list[float]:
    assert isinstance(detector, Detector)
    return detector.detect([np.zeros((9, 9, 3), np.uint8)], [""])[0].boxes[:, 0].tolist()


def test_detections_of_a_custom_detector_are_filtered_by_label_and_score():
    assert lefts(load_detector(Zoo())) == [0, 1, 2]
    assert lefts(load_detector(Zoo(), labels="dog")) == [1, 2]
    assert lefts(load_detector(Zoo(), labels=["dog", "person"], min_score=0.5)) == [0, 1]
    assert lefts(load_detector(Zoo(), min_score=0.5)) == [0, 1]
    assert lefts(load_detector(Zoo(), labels="all")) == [0, 1, 2]
    assert lefts(load_detector(Zoo(), labels="dataset", dataset_labels=["person"])) == [0]
    assert lefts(load_detector(Zoo(), labels=["cat"])) == []


def test_boxes_without_labels_cannot_be_filtered_by_label():
    unnamed = Zoo(("", "", ""))
    assert lefts(load_detector(unnamed, min_score=0.5)) == [0, 1]
    with pytest.raises(
        InputError, match=r"Zoo returns boxes without labels, so they cannot be filtered by labels \['dog'\]"
    ):
        lefts(load_detector(unnamed, labels="dog"))


def test_a_selecting_detector_copies_the_attributes_of_the_detector():
    zoo = Zoo()
    chosen = load_detector(zoo, labels="dog")
    assert (chosen.refine_boxes, chosen.suppress_duplicates) == (False, True)
    zoo.refine_boxes, zoo.suppress_duplicates = True, False
    chosen = load_detector(zoo, labels="dog")
    assert (chosen.refine_boxes, chosen.suppress_duplicates) == (True, False)


@pytest.mark.parametrize("value", [5, Zoo, [[0, 0, 9, 9]], np.zeros((2, 4))])
def test_an_object_that_is_not_a_detector(value: object):
    with pytest.raises(
        InputError, match=r"is not a detector; pass a name, a function from an RGB image to its boxes, or an"
    ):
        load_detector(value, labels="dog")
