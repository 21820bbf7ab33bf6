from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.detectors import Detector, OnnxDetector
from vitpose.detectors.onnx import PAD_GREY, fit_inside, letterbox
from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.geometry.boxes import Size, iou, xyxy_from_xywh
from vitpose.images import read_image

pytest.importorskip("onnxruntime")


# A writer of the few fields of an ONNX file (protocol buffers) that these tests need.


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def entry(field: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(content)) + content


def node(kind: str, inputs: Sequence[str], output: str, **numbers: list[int]) -> bytes:
    attributes = b"".join(
        entry(5, entry(1, name) + b"".join(entry(8, value) for value in values) + entry(20, 7))
        for name, values in numbers.items()
    )
    return b"".join(entry(1, name) for name in inputs) + entry(2, output) + entry(4, kind) + attributes


def tensor(name: str, array: np.ndarray) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    sides = b"".join(entry(1, side) for side in array.shape)
    return sides + entry(2, kind) + entry(8, name) + entry(9, array.tobytes())


def argument(name: str, shape: Sequence[int | str], kind: int = 1) -> bytes:
    sides = b"".join(entry(1, entry(1 if isinstance(side, int) else 2, side)) for side in shape)
    return entry(1, name) + entry(2, entry(1, entry(1, kind) + entry(2, sides)))


def write_onnx(
    path: Path, image: Sequence[int | str], outputs: dict[str, np.ndarray | Sequence[int | str]],
    nodes: Sequence[bytes] = (), constants: dict[str, np.ndarray] | None = None, kind: int = 1,
) -> Path:  # fmt: skip
    """Write a network with one input; an output is a constant array, or computed by `nodes`."""
    fixed = {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}
    nodes = [*nodes, *(node("Identity", [f"the_{name}"], name) for name in fixed)]
    held = {**(constants or {}), **{f"the_{name}": value for name, value in fixed.items()}}
    graph = b"".join(entry(1, part) for part in nodes) + entry(2, "graph")
    graph += b"".join(entry(5, tensor(name, array)) for name, array in held.items())
    graph += entry(11, argument("image", image, kind))
    for name, value in outputs.items():
        is_number = isinstance(value, np.ndarray) and value.dtype == np.int64
        shape = value.shape if isinstance(value, np.ndarray) else value
        graph += entry(12, argument(name, shape, 7 if is_number else 1))
    path.write_bytes(entry(1, 7) + entry(8, entry(1, "") + entry(2, 11)) + entry(7, graph))
    return path


def yolox_output(size: Size, *boxes: tuple[int, int, int, list[float], int, float]) -> np.ndarray:
    """Encode (stride, column, row, xyxy, class, score) as the output of YOLOX."""
    grids = {stride: (size.width // stride, size.height // stride) for stride in (8, 16, 32)}
    output = np.zeros((1, sum(columns * rows for columns, rows in grids.values()), 85), np.float32)
    for stride, column, row, (left, top, right, bottom), number, score in boxes:
        before = sum(columns * rows for other, (columns, rows) in grids.items() if other < stride)
        anchor = output[0, before + row * grids[stride][0] + column]
        anchor[:2] = (left + right) / 2 / stride - column, (top + bottom) / 2 / stride - row
        anchor[2:4] = np.log([(right - left) / stride, (bottom - top) / stride])
        anchor[4], anchor[5 + number] = 0.5, score / 0.5
    return output


FRAME = Size(64, 32)
OUTPUT = yolox_output(
    FRAME,
    (8, 1, 0, [4, 2, 20, 14], 0, 0.4),
    (8, 2, 1, [5, 2, 21, 14], 0, 0.45),  # the same person, better
    (16, 1, 1, [6, 2, 22, 14], 16, 0.35),  # a dog at the same position
    (32, 0, 0, [1, 1, 3, 3], 0, 0.1),  # below the minimum score
    (32, 1, 0, [20, 10, 90, 40], 0, 0.5),  # reaches out of the image
)
IMAGE = np.full((64, 64, 3), 50, np.uint8)  # 32 x 32 in the frame: half its size


@pytest.fixture
def yolox(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "any.name", [1, 3, FRAME.height, FRAME.width], {"out": OUTPUT})


def test_yolox_is_decoded_suppressed_and_scaled_to_the_image(yolox: Path):
    detector = OnnxDetector(yolox)
    assert isinstance(detector, Detector)
    found = detector.detect([IMAGE], [""])[0]
    np.testing.assert_allclose(found.boxes, [[40, 20, 64, 64], [10, 4, 42, 28]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.5, 0.45], rtol=1e-6)
    assert found.labels == ("person", "person")
    assert found.boxes.dtype == np.float32


def test_each_class_is_suppressed_separately(yolox: Path):
    found = OnnxDetector(yolox, labels="all", min_score=0.05).detect([IMAGE], [""])[0]
    assert found.labels == ("person", "person", "dog", "person")
    assert OnnxDetector(yolox, labels=["dog"]).detect([IMAGE], [""])[0].labels == ("dog",)
    assert len(OnnxDetector(yolox, max_iou=0.95).detect([IMAGE], [""])[0]) == 3


def test_no_images_and_no_boxes(yolox: Path):
    assert OnnxDetector(yolox).detect([], []) == []
    assert len(OnnxDetector(yolox, min_score=0.9).detect([IMAGE[:1, :1]], [""])[0]) == 0


def test_yolox_with_a_dynamic_batch_runs_on_several_images(tmp_path: Path):
    nodes = [
        node("ReduceMean", ["image"], "mean", axes=[1, 2, 3]),
        node("Squeeze", ["mean"], "level", axes=[1]),
        node("Mul", ["level", "nothing"], "nothings"),
        node("Add", ["nothings", "output"], "out"),
    ]
    constants = {"nothing": np.zeros(1, np.float32), "output": OUTPUT}
    shape = ["b", 3, FRAME.height, FRAME.width]
    path = write_onnx(tmp_path / "many.onnx", shape, {"out": ["b", *OUTPUT.shape[1:]]}, nodes, constants)
    images = [IMAGE, IMAGE[::2, ::2]] * 5
    found = OnnxDetector(path).detect(images, [""] * 10)
    assert [len(part) for part in found] == [2] * 10
    np.testing.assert_allclose(found[9].boxes * 2, found[8].boxes, atol=1e-4)


def test_a_yolox_file_that_decodes_its_boxes_is_rejected(tmp_path: Path):
    output = OUTPUT.copy()
    output[:, :, 2:4] = 30
    path = write_onnx(tmp_path / "decoded.onnx", [1, 3, 32, 64], {"out": output})
    with pytest.raises(CheckpointError, match="it returns a box of 30 pixels"):
        OnnxDetector(path).detect([IMAGE], [""])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 4])
def test_an_output_that_is_not_finite_is_rejected(tmp_path: Path, bad: float, column: int):
    """If such boxes were dropped, the image would seem to be without people."""
    output = OUTPUT.copy()
    output[:, 3, column] = bad
    path = write_onnx(tmp_path / "overflow.onnx", [1, 3, 32, 64], {"out": output})
    with pytest.raises(
        CheckpointError, match=r"overflow.onnx returns NaN or infinity for an image; the file"
    ):
        OnnxDetector(path).detect([IMAGE], [""])


def test_an_error_of_the_runtime_is_a_checkpoint_error(tmp_path: Path):
    path = write_onnx(
        tmp_path / "broken.onnx", [1, 3, "h", "w"], {"dets": [1, "n", 5], "labels": np.zeros((1, 2), np.int64)},
        # Seven numbers cannot be added to the 320 of a row.
        [node("Add", ["image", "seven"], "sums"), node("Reshape", ["sums", "shape"], "dets")],
        {"seven": np.zeros(7, np.float32), "shape": np.array([1, -1, 5])},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"broken.onnx failed on an image: .*; check the file"):
        OnnxDetector(path).detect([IMAGE], [""])


@pytest.mark.parametrize("number", [{"min_score": float("nan")}, {"min_score": 1.5}, {"max_iou": -0.1}])
def test_numbers_out_of_range(yolox: Path, number: dict[str, float]):
    with pytest.raises(InputError, match=rf"{next(iter(number))} .* must be a number from 0 to 1"):
        OnnxDetector(yolox, **number)


def rtmdet(path: Path, labels: Sequence[int], shape: Sequence[int | str] = ("b", 3, "h", "w")) -> Path:
    dets = np.array([[[32, 16, 160, 320, 0.6], [0, 0, 0, 0, 0.5], [0, 0, 9, 9, 0.2]]], np.float32)
    return write_onnx(path, shape, {"dets": dets, "labels": np.array([labels], np.int64)})


def test_rtmdet_boxes_are_scaled_to_the_image(tmp_path: Path):
    detector = OnnxDetector(rtmdet(tmp_path / "r.onnx", [0, 0, 0]))
    found = detector.detect([np.zeros((640, 480, 3), np.uint8)] * 2, ["", ""])
    assert len(found) == 2
    np.testing.assert_allclose(found[1].boxes, [[64, 32, 320, 640]])
    assert found[1].labels == ("person",)


def test_the_input_of_rtmdet_is_normalised_bgr(tmp_path: Path):
    nodes = [
        node("ReduceMean", ["image"], "means", axes=[2, 3]),
        node("Reshape", ["means", "column"], "scores"),
        node("Concat", ["boxes", "scores"], "dets", axis=[2]),
    ]
    # Concat's axis is one number, which has its own field.
    nodes[2] = nodes[2].replace(entry(8, 2) + entry(20, 7), entry(3, 2) + entry(20, 2))
    boxes = np.tile(np.float32([[[1, 1, 5, 5]]]), (1, 3, 1))
    path = write_onnx(
        tmp_path / "means.onnx",
        [1, 3, 8, 8],
        {"dets": [1, 3, 5], "labels": np.array([[0, 1, 2]])},
        nodes,
        {"column": np.array([1, 3, 1]), "boxes": boxes},
    )
    rgb = np.full((16, 16, 3), [10, 100, 200], np.uint8)
    detector = OnnxDetector(path, labels="all")
    detector.min_score = -9.0  # the scores are the means of the input, which may be negative
    found = detector.detect([rgb], [""])[0]
    scores = dict(zip(found.labels, found.scores.tolist(), strict=True))
    assert scores == pytest.approx(
        {
            "person": (200 - 103.53) / 57.375,
            "bicycle": (100 - 116.28) / 57.12,
            "car": (10 - 123.675) / 58.395,
        },
        rel=1e-5,
    )


def test_a_class_that_coco_does_not_have_is_rejected(tmp_path: Path):
    detector = OnnxDetector(rtmdet(tmp_path / "r.onnx", [112, 0, 0]))
    with pytest.raises(CheckpointError, match="returned class 112, and COCO's classes go from 0 to 79"):
        detector.detect([IMAGE], [""])


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"there is no file .*none.onnx"):
        OnnxDetector(tmp_path / "none.onnx")


def test_a_file_that_is_not_onnx(tmp_path: Path):
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(CheckpointError, match=r"text.onnx cannot be loaded as ONNX: "):
        OnnxDetector(tmp_path / "text.onnx")


@pytest.mark.parametrize(
    ("image", "output", "message"),
    [
        (
            [1, 3, 32, 64],
            [1, 84, 42],
            r"layout: inputs image .*float.* 1 x 3 x 32 x 64, outputs out .* 1 x 84 x 42",
        ),
        ([1, 3, 32, 64], [1, 41, 85], "1 x 41 x 85"),
        ([1, 3, 32, 64], [1, 42, 86], "supported layouts: YOLOX, not decoded .* and RTMDet end2end"),
        ([4, 3, 32, 64], [4, 42, 85], "4 x 3 x 32 x 64"),
        ([1, 1, 32, 64], [1, 42, 85], "1 x 1 x 32 x 64"),
        ([1, 3, "h", "w"], [1, 42, 85], "1 x 3 x h x w"),
        ([1, 64], [1, 42, 85], "image .* 1 x 64, outputs"),
    ],
)
def test_an_unsupported_layout_is_described(
    tmp_path: Path, image: list[int], output: list[int], message: str
):
    path = write_onnx(tmp_path / "other.onnx", image, {"out": np.zeros(output, np.float32)})
    with pytest.raises(CheckpointError, match=message):
        OnnxDetector(path)


def test_an_integer_input_is_an_unsupported_layout(tmp_path: Path):
    path = write_onnx(tmp_path / "bytes.onnx", [1, 3, 32, 64], {"out": OUTPUT}, kind=2)
    with pytest.raises(CheckpointError, match=r"tensor\(uint8\)"):
        OnnxDetector(path)


def test_an_unknown_label_is_reported_with_the_nearest(yolox: Path):
    with pytest.raises(UnknownNameError, match=r"'persn'; did you mean person\?"):
        OnnxDetector(yolox, labels=["persn"])


class TestLetterbox:
    def test_the_image_is_at_the_top_left_on_grey(self):
        image = np.full((50, 100, 3), [200, 100, 0], np.uint8)
        boxed = letterbox(image, Size(40, 40))
        assert boxed.shape == (40, 40, 3)
        np.testing.assert_array_equal(boxed[:20], np.broadcast_to(image[0, 0], (20, 40, 3)))
        assert (boxed[20:] == PAD_GREY).all()

    @pytest.mark.parametrize("size", [Size(1, 1), Size(1, 9000), Size(9000, 2)])
    def test_extreme_shapes_keep_a_pixel(self, size: Size):
        inner = fit_inside(size, Size(64, 32))
        assert 1 <= inner.width <= 64
        assert 1 <= inner.height <= 32


def recall(detector: OnnxDetector, annotations: Path, images: Path, step: int = 1) -> tuple[int, int]:
    """Count people of more than 64 x 64 px: those detected (IoU of at least 0.5) and all."""
    content = json.loads(annotations.read_text())
    chosen = content["images"][::step]
    names = [image["file_name"] for image in chosen]
    found = detector.detect([read_image(images / name) for name in names], names)
    hits = total = 0
    for image, detections in zip(chosen, found, strict=True):
        assert detections.boxes.min(initial=0) >= 0
        assert (detections.boxes <= [image["width"], image["height"]] * 2).all()
        people: list[Any] = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = xyxy_from_xywh(np.array(people, np.float32).reshape(-1, 4))
        boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) > 64 * 64]
        hits += int((iou(boxes, detections.boxes).max(axis=1, initial=0) >= 0.5).sum())
        total += len(boxes)
    return hits, total


# Measured on all 250 images: YOLOX nano 304 of 361 people (0.84), RTMDet nano 322 (0.89).
@pytest.mark.parametrize(
    ("file", "least"), [("yolox_nano.onnx", 0.80), ("rtmdet_nano_person_end2end.onnx", 0.85)]
)
def test_real_people_are_found(shared_data: Path, file: str, least: float):
    detector = OnnxDetector(shared_data / "detectors" / file)
    samples = shared_data / "samples" / "coco"
    hits, total = recall(detector, samples / "test_coco.json", samples)
    print(f"{file}: {hits} of {total} in the samples")
    assert hits >= 10
    assert total == 11
    hits, total = recall(detector, shared_data / "coco" / "val.json", shared_data / "coco" / "images", step=3)
    print(f"{file}: {hits} of {total} in a third of val, {hits / total:.3f}")
    assert hits / total >= least
