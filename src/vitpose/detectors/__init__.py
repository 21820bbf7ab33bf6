"""Detectors find the boxes in which poses are estimated.

All of them implement one protocol, `Detector`: images and their names go in, `Detections` come out. Importing this
package loads no inference library; each detector imports the library it uses when it is created.

    WholeImage      the whole image as one box      whole-image
    CocoBoxes       boxes from a COCO file          boxes:FILE
    PersonDetector  the one in the package          person
    OnnxDetector    YOLOX or RTMDet in ONNX         rtmdet-nano, yolox-nano, onnx:FILE
    RtDetrDetector  RT-DETR through transformers    rtdetr, rtdetr:NAME

`files/detectors.toml` lists those with a short name; all but `person` are downloaded when they are loaded.

A custom detector is any function from an image to its boxes, or any object with `detect`. `SelectingDetector` filters
its boxes by label and score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError, check_number
from ..files.cache import find_detector_file
from ..files.registry import list_detectors
from ..hardware.onnx_session import nearest_device
from .custom import DetectFunction, SelectingDetector, check_detector
from .given import CocoBoxes, WholeImage
from .labels import Labels, coco_labels, read_labels
from .onnx import OnnxDetector
from .person import PersonDetector
from .protocol import Detections, Detector, detections_from
from .rtdetr import RtDetrDetector

__all__ = [
    "CocoBoxes",
    "DetectFunction",
    "Detections",
    "Detector",
    "OnnxDetector",
    "PersonDetector",
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
    labels: Labels = None,
    min_score: float | None = None,
    dataset_labels: Sequence[str] = ("person",),
) -> Detector | DetectFunction:
    """Create a detector from a short string.

    Args:
        spec: A short name ("person", "rtdetr", "rtmdet-nano", "yolox-nano"), "rtdetr:NAME" (a hub repository or a
            directory), "onnx:FILE", "boxes:FILE" (a COCO file) or "whole-image"; the `pathlib.Path` of such a file of
            boxes; or a function from an RGB image to its boxes, or an object with `detect`, which are returned
            unchanged unless labels or min_score are given.
        device: Device of the network: "auto", "cpu", "cuda", "cuda:1".
        labels: Class names to detect; "dataset": the classes of the dataset; "all": every class. Default: "dataset"
            for a string, "all" for a function or an object.
        min_score: Boxes with a lower score are dropped; default: that of the detector.
        dataset_labels: The classes of the dataset.

    Raises:
        UnknownNameError: The string is not one of these, or a label is not a class of the detector.
        InputError: `spec` is not a detector, the string is a bare file name, the labels are not class names, the
            score is not from 0 to 1, labels or a score are given for "whole-image", or the file of boxes is invalid.
        CheckpointError: The network's files are missing or do not fit, or their download failed.
        MissingDependencyError: The library that runs the network is not installed.
    """
    check_selection(spec, labels, min_score)
    labels = tuple(dataset_labels) if labels == "dataset" else labels
    if isinstance(spec, str | Path):
        labels = tuple(dataset_labels) if labels is None else labels
        _check_classes(spec, labels)
        return _make(spec, device, labels, min_score)
    return spec if labels is None and min_score is None else SelectingDetector(spec, labels, min_score)


def check_selection(spec: Any, labels: Labels, min_score: float | None) -> None:
    """Check the arguments of `load_detector` without loading anything.

    Args:
        spec: As in `load_detector`; None: no detector.
        labels: As in `load_detector`.
        min_score: As in `load_detector`.

    Raises:
        UnknownNameError: The string is not that of a detector.
        InputError: `spec` is not a detector, the string is a bare file name, the labels are not class names, the score
            is not from 0 to 1, or they are given without a detector.
    """
    if isinstance(spec, str):
        _check_form(spec)
    elif spec is not None and not isinstance(spec, Path):
        check_detector(spec)
    if min_score is not None:
        check_number("min_score", min_score, 0, 1)
    read_labels(labels)
    given = [
        f"{name} {value!r}"
        for name, value in (("labels", labels), ("min_score", min_score))
        if value is not None
    ]
    if given and (spec is None or isinstance(spec, WholeImage) or spec == "whole-image"):
        raise InputError(
            f"{' and '.join(given)} would filter the boxes of a detector, but "
            f"{'there is none' if spec is None else 'whole-image uses each image as one box'}; leave out what filters"
        )


def _check_classes(spec: str | Path, labels: Labels) -> None:
    """Raise for classes that a detector with a short name does not detect; an ONNX file does not name its classes."""
    card = list_detectors().get(str(spec))
    if card is not None and card.classes == "person":
        for label in sorted((read_labels(labels) or {"person"}) - {"person"}):
            hint = f"The detector {card.name!r} detects people only; rtdetr and yolox-nano detect COCO's classes."
            raise UnknownNameError("label", label, ["person"], hint)


def _make(spec: str | Path, device: str, labels: Labels, min_score: float | None) -> Detector:
    options: dict[str, Any] = {"labels": labels} | ({} if min_score is None else {"min_score": min_score})
    if isinstance(spec, Path):
        return CocoBoxes(spec, **options)
    if spec == "whole-image":
        return WholeImage()
    card = list_detectors().get(spec)
    if card is None:
        kind, _, source = spec.partition(":")
    else:
        kind, source = card.kind, card.source if card.in_repository else str(find_detector_file(card))
    match kind:
        case "person":
            return PersonDetector(source, device=device, **options)
        case "rtdetr":
            return RtDetrDetector(source, device=device, **options)
        case "onnx":
            return OnnxDetector(source, device=nearest_device(source, device), **options)
        case _:  # "boxes"; `_check_form` knows all
            return CocoBoxes(source, **options)


def _check_form(spec: str) -> None:
    kind, _, source = spec.partition(":")
    if spec in ("whole-image", *list_detectors()) or (kind in ("rtdetr", "onnx", "boxes") and source):
        return
    if spec.endswith((".onnx", ".json")):
        kind = "onnx" if spec.endswith(".onnx") else "boxes"
        raise InputError(f"the detector {spec!r} is a file without its kind; write {kind}:{spec}")
    forms = [*list_detectors(), "rtdetr:NAME", "onnx:FILE", "boxes:FILE", "whole-image"]
    raise UnknownNameError("detector", spec, forms)
