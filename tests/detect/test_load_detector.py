from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vitpose.detect as detect
from vitpose.detect import CocoBoxes, OnnxDetector, RtDetrDetector, WholePicture, load_detector
from vitpose.errors import CheckpointError, InputError, UnknownNameError


def test_importing_the_package_loads_no_library_of_networks():
    code = "import sys, vitpose.detect; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "onnxruntime", "cv2"} & set(result.stdout.split())


def test_public_names_exist():
    assert all(hasattr(detect, name) for name in detect.__all__)


def test_the_whole_picture():
    assert isinstance(load_detector("whole-picture"), WholePicture)


def test_a_detector_passes_through():
    detector = WholePicture()
    assert load_detector(detector) is detector


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
def test_the_parts_of_a_text_reach_the_detector(monkeypatch: pytest.MonkeyPatch, spec: str, kind: type):
    calls: list[Any] = []
    monkeypatch.setattr(kind, "__init__", lambda self, *args, **options: calls.append((args, options)))
    assert isinstance(load_detector(spec, device="cpu", labels=("cat",), min_score=0.5), kind)
    load_detector(spec)
    given = tuple(filter(None, [spec.partition(":")[2]]))
    assert calls == [
        (given, {"device": "cpu", "labels": ("cat",), "min_score": 0.5}),
        (given, {"device": "auto", "labels": ("person",)}),
    ]


def test_errors_of_the_detector_come_through(tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no file"):
        load_detector(f"onnx:{tmp_path / 'none.onnx'}")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("rtdert", r"unknown detector 'rtdert'; did you mean rtdetr"),
        ("whole_picture", r"did you mean whole-picture\?"),
        ("whole-picture:1", r"did you mean whole-picture\?"),
        ("onnx", "known: boxes:FILE, onnx:FILE, rtdetr, rtdetr:NAME, whole-picture"),
        ("boxes:", r"did you mean boxes:FILE"),
        ("rtdetr:", r"did you mean rtdetr"),
        ("", "unknown detector ''"),
    ],
)
def test_an_unknown_text_gets_the_nearest(spec: str, told: str):
    with pytest.raises(UnknownNameError, match=told):
        load_detector(spec)


@pytest.mark.parametrize(
    ("spec", "told"), [("a/model.onnx", "onnx:a/model.onnx"), (Path("b.json"), "boxes:b.json")]
)
def test_a_bare_file_gets_its_form(spec: object, told: str):
    with pytest.raises(InputError, match=f"is a file of some kind; write {told}"):
        load_detector(spec)


def test_a_score_that_cannot_be():
    with pytest.raises(InputError, match=r"min_score 50.0 must be from 0 to 1"):
        load_detector("whole-picture", min_score=50.0)


def test_an_object_that_is_no_detector():
    with pytest.raises(InputError, match="5 is no detector: it needs a method `detect` and a flag `settles`"):
        load_detector(5)
