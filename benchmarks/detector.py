"""Compare the person detector in the package with RTMDet-nano and YOLOX-nano: average precision and speed.

    python benchmarks/detector.py ../shared/data [--weights runs/person/person.safetensors] [--most 250]

AP50 on coco/val.json, for people over 32x32 px. Only part of the people in these images are annotated, so it is
measured in three ways. "present": boxes without an annotation that both ONNX detectors find (score at least 0.3 each,
IoU at least 0.5) are added to the ground truth. "ignored": boxes without an annotation that either of them finds (score
at least 0.3) count neither as found nor as wrong. "annotated" takes the annotations alone. Then the share of people
found (IoU at least 0.5, the detectors' default scores) among single people who fill the image (lsp/val), and the
median time for a 640x480 image, the detectors in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import vitpose
from vitpose.detectors import Detections, OnnxDetector
from vitpose.detectors.person import PersonDetector
from vitpose.geometry.boxes import iou, xywh_from_xyxy, xyxy_from_xywh

LEAST_AREA_PX = 32**2


def read(annotations: Path, most: int) -> list[tuple[Path, np.ndarray]]:
    """Return the images with their annotated boxes (xyxy)."""
    table = json.loads(annotations.read_text())
    boxes: dict[int, list] = {}
    for row in table["annotations"]:
        boxes.setdefault(row["image_id"], []).append(row["bbox"])
    return [
        (
            annotations.parent / "images" / image["file_name"],
            xyxy_from_xywh(np.array(boxes.get(image["id"], []), np.float32).reshape(-1, 4)),
        )
        for image in table["images"][:most]
    ]


def unannotated(boxes: np.ndarray, annotated: np.ndarray) -> np.ndarray:
    """Return the boxes that overlap no annotated one."""
    return boxes[(iou(boxes, annotated) < 0.5).all(axis=1)]


def agreed(first: Detections, second: Detections) -> np.ndarray:
    """Return the boxes of the first detector that the second also finds, each with a score of at least 0.3."""
    boxes, others = first.boxes[first.scores >= 0.3], second.boxes[second.scores >= 0.3]
    return boxes[(iou(boxes, others) >= 0.5).any(axis=1)]


def either(first: Detections, second: Detections) -> np.ndarray:
    """Return all boxes of both detectors with a score of at least 0.3."""
    return np.concatenate([found.boxes[found.scores >= 0.3] for found in (first, second)])


def average_precision(truth: list[np.ndarray], ignored: list[np.ndarray], found: list[Detections]) -> float:
    """Return AP50 over people larger than 32x32 px.

    Args:
        truth: Boxes (xyxy) of the people in each image.
        ignored: Boxes that count neither as found nor as wrong.
        found: The detections.
    """
    rows: list[dict[str, Any]] = []
    for number, (people, others) in enumerate(zip(truth, ignored, strict=True)):
        for box in xywh_from_xyxy(people).tolist():
            rows.append({"image_id": number, "bbox": box, "area": box[2] * box[3]})
        # COCO's evaluation ignores annotations outside the range of areas
        rows += [{"image_id": number, "bbox": box, "area": 0.0} for box in xywh_from_xyxy(others).tolist()]
    for number, row in enumerate(rows):
        row |= {"id": number + 1, "category_id": 1, "iscrowd": 0}
    results = [
        {"image_id": number, "category_id": 1, "bbox": box, "score": score}
        for number, one in enumerate(found)
        for box, score in zip(xywh_from_xyxy(one.boxes).tolist(), one.scores.tolist(), strict=True)
    ]
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in range(len(truth))],
            "annotations": rows,
            "categories": [{"id": 1, "name": "person"}],
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.params.iouThrs, run.params.areaRng = np.array([0.5]), [[LEAST_AREA_PX, 1e10]]
        run.params.areaRngLbl, run.params.maxDets = ["people"], [100]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"].mean())


def recall(truth: list[np.ndarray], found: list[Detections]) -> float:
    """Return the share of people who are found."""
    hits = [(iou(boxes, one.boxes) >= 0.5).any(axis=1) for boxes, one in zip(truth, found, strict=True)]
    return float(np.concatenate(hits).mean())


def time_each(detectors: dict[str, Any], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each detector on a 640x480 image, the detectors in turn."""
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(rounds + 3):
        for name, detector in detectors.items():
            start = time.perf_counter()
            detector.detect([image], [""])
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: float(np.median(values[3:])) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--most", type=int, default=250, help="images of each set")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    files = {
        "rtmdet-nano": options.data / "detectors/rtmdet_nano_person_end2end.onnx",
        "yolox-nano": options.data / "detectors/yolox_nano.onnx",
    }

    def detectors(**minimum: float) -> dict[str, Any]:
        mine = {"person": PersonDetector(options.weights, device="cpu", **minimum)}
        return mine | {name: OnnxDetector(file, device="cpu", **minimum) for name, file in files.items()}

    def detect(detector: Any, rows: list[tuple[Path, np.ndarray]]) -> list[Detections]:
        return [detector.detect([vitpose.read_image(path)], [""])[0] for path, _ in rows]

    rows = read(options.data / "coco/val.json", options.most)
    found = {name: detect(detector, rows) for name, detector in detectors(min_score=0.02).items()}
    teachers = list(zip(found["rtmdet-nano"], found["yolox-nano"], strict=True))
    people = [boxes for _, boxes in rows]
    none = [np.zeros((0, 4), np.float32)] * len(rows)
    added = [unannotated(agreed(*pair), boxes) for pair, boxes in zip(teachers, people, strict=True)]
    ignored = [unannotated(either(*pair), boxes) for pair, boxes in zip(teachers, people, strict=True)]
    present = [np.concatenate(pair) for pair in zip(people, added, strict=True)]
    print(
        f"{len(rows)} images, {sum(map(len, people))} annotated people, {sum(map(len, added))} added as present"
    )
    usual, singles = detectors(), read(options.data / "lsp/val.json", options.most)
    times = time_each(usual, options.rounds)
    print("detector      AP50 present  ignored  annotated   single people found   ms (640x480)")
    for name, one in found.items():
        values = (present, none), (people, ignored), (people, none)
        scores = [average_precision(truth, others, one) for truth, others in values]
        single = recall([boxes for _, boxes in singles], detect(usual[name], singles))
        print(
            f"{name:12}  {scores[0]:12.3f}  {scores[1]:7.3f}  {scores[2]:9.3f}  {single:20.3f}  {times[name]:13.1f}"
        )


if __name__ == "__main__":
    main()
