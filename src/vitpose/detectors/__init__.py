"""Detectors: what finds the boxes that poses are looked for in.

All of them are behind one protocol, `Detector`: images and their names go in, `Detections` come
out. Importing this package loads none of the libraries that run networks: a detector loads its own
when it is made.

    WholeImage    the image is the box            whole-image
    CocoBoxes       boxes from a COCO file            boxes:FILE
    OnnxDetector    YOLOX or RTMDet in ONNX           onnx:FILE
    RtDetrDetector  RT-DETR through transformers      rtdetr, rtdetr:NAME

A detector of the user's is passed as an object. `SelectingDetector` applies labels and a smallest score to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError, check_number
from ..hardware.onnx_session import nearest_device
from .given import CocoBoxes, WholeImage, detections_from
from .labels import OWN_LABELS, Labels, coco_labels, read_labels
from .onnx import OnnxDetector
from .protocol import Detections, Detector
from .rtdetr import RtDetrDetector
from .selecting import SelectingDetector

__all__ = [
    "CocoBoxes",
    "Detections",
    "Detector",
    "OnnxDetector",
    "RtDetrDetector",
    "SelectingDetector",
    "WholeImage",
    "check_selection",
    "coco_labels",
    "detections_from",
    "load_detector",
]


def load_detector(
    spec: Any,
    *,
    device: str = "auto",
    labels: Labels = OWN_LABELS,
    min_score: float | None = None,
    own: Sequence[str] = ("person",),
) -> Detector:
    """Makes a detector of a short string.

    Args:
        spec: "rtdetr" (its default weights), "rtdetr:NAME" (a hub repository or a directory),
            "onnx:FILE", "boxes:FILE" (a COCO file) or "whole-image"; or a detector. The object itself is
            returned unless labels or min_score are given, which are then applied to what it finds.
        device: Device of the networks: "auto", "cpu", "cuda".
        labels: Class names to find; None or "all" is every class; "own" is the classes of the dataset (`own`), and
            of a detector object all that it finds.
        min_score: Boxes that score less are dropped; default: that of the detector.
        own: The classes that "own" stands for.

    Raises:
        UnknownNameError: The string is none of these, or a label is none of the detector's.
        InputError: The object is no detector, the string is a bare file name, the labels are no names, the score is
            not from 0 to 1, labels or a score are given for "whole-image", or the file of boxes is invalid.
        CheckpointError: The network's files are missing or do not fit.
        MissingDependencyError: The library that runs the network is not installed.
    """
    check_selection(spec, labels, min_score)
    if isinstance(spec, str | Path):
        return _make(str(spec), device, own if labels == OWN_LABELS else labels, min_score)
    if not isinstance(spec, Detector):
        raise InputError(f"{spec!r:.200} is no detector: it needs a method `detect` and a flag `settles`")
    if labels == OWN_LABELS and min_score is None:
        return spec
    return SelectingDetector(spec, None if labels == OWN_LABELS else labels, min_score)


def check_selection(spec: Any, labels: Labels, min_score: float | None) -> None:
    """Checks labels and a smallest score, and that there are detections to choose among.

    Args:
        spec: As of `load_detector`; None is no detector.
        labels: As of `load_detector`.
        min_score: As of `load_detector`.

    Raises:
        InputError: The labels are no names, the score is not from 0 to 1, or they are given without a detector.
    """
    if min_score is not None:
        check_number("min_score", min_score, 0, 1)
    read_labels(labels)
    finds_nothing = spec is None or isinstance(spec, WholeImage) or spec == "whole-image"
    if finds_nothing and (labels != OWN_LABELS or min_score is not None):
        raise InputError(
            f"labels {labels!r} and min_score {min_score} choose among the boxes of a detector, and "
            f"{'there is none' if spec is None else 'whole-image takes each image as one box'}; leave them out"
        )


def _make(spec: str, device: str, labels: Labels, min_score: float | None) -> Detector:
    kind, colon, argument = spec.partition(":")
    options: dict[str, Any] = {"labels": labels} | ({} if min_score is None else {"min_score": min_score})
    match kind, argument:
        case "whole-image", "" if not colon:
            return WholeImage()
        case "rtdetr", "" if not colon:
            return RtDetrDetector(device=device, **options)
        case "rtdetr", name if name:
            return RtDetrDetector(name, device=device, **options)
        case "onnx", file if file:
            return OnnxDetector(file, device=nearest_device(file, device), **options)
        case "boxes", file if file:
            return CocoBoxes(file, **options)
    if spec.endswith((".onnx", ".json")):
        kind = "onnx" if spec.endswith(".onnx") else "boxes"
        raise InputError(f"the detector {spec!r} is a file of some kind; write {kind}:{spec}")
    forms = ["rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE", "whole-image"]
    raise UnknownNameError("detector", spec, forms)
