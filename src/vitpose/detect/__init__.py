"""Detectors: what finds the boxes that poses are looked for in.

All of them are behind one protocol, `Detector`: pictures and their names go in, `Detections` come
out. Importing this package loads none of the libraries that run networks: a detector loads its own
when it is made.

    WholePicture    the picture is the box            whole-picture
    CocoBoxes       boxes from a COCO file            boxes:FILE
    OnnxDetector    YOLOX or RTMDet in ONNX           onnx:FILE
    RtDetrDetector  RT-DETR through transformers      rtdetr, rtdetr:NAME
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError
from ..session import nearest_device
from .given import CocoBoxes, WholePicture, detections_from
from .labels import Labels, coco_labels
from .onnx import OnnxDetector
from .protocol import Detections, Detector
from .rtdetr import RtDetrDetector

__all__ = [
    "CocoBoxes",
    "Detections",
    "Detector",
    "OnnxDetector",
    "RtDetrDetector",
    "WholePicture",
    "coco_labels",
    "detections_from",
    "load_detector",
]


def load_detector(
    spec: Any,
    *,
    device: str = "auto",
    labels: Labels = ("person",),
    min_score: float | None = None,
) -> Detector:
    """Makes a detector of a short text.

    Args:
        spec: "rtdetr" (its default weights), "rtdetr:NAME" (a hub repository or a folder),
            "onnx:FILE", "boxes:FILE" (a COCO file) or "whole-picture"; or a detector, which is
            returned as it is.
        device: Where networks run: "auto", "cpu", "cuda".
        labels: Class names to find; None or "all" is every class. The whole picture is a person.
        min_score: Boxes that score less are left out; None is the detector's own default.

    Raises:
        UnknownNameError: The text is none of these, or a label is none of the detector's.
        InputError: The object is no detector, the text is a bare file name, a score is not from 0 to 1, or the
            file of boxes is no such file.
        CheckpointError: The network's files are missing or do not fit.
        MissingDependencyError: The library that runs the network is not installed.
    """
    spec = str(spec) if isinstance(spec, Path) else spec
    if not isinstance(spec, str):
        if not isinstance(spec, Detector):
            raise InputError(f"{spec!r:.200} is no detector: it needs a method `detect` and a flag `settles`")
        return spec
    kind, colon, argument = spec.partition(":")
    options: dict[str, Any] = {"labels": labels}
    if min_score is not None and not 0 <= min_score <= 1:
        raise InputError(f"min_score {min_score} must be from 0 to 1")
    if min_score is not None:
        options["min_score"] = min_score
    match kind, argument:
        case "whole-picture", "" if not colon:
            return WholePicture()
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
    forms = ["rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE", "whole-picture"]
    raise UnknownNameError("detector", spec, forms)
