"""Detectors in ONNX files, run by ONNX Runtime.

Defines the preprocessing and the output layout of two families of networks. The family of a file is recognised by the
shapes of its inputs and outputs, never by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ..errors import CheckpointError, check_number
from ..files.paths import user_path
from ..geometry.boxes import Size, suppress_overlaps, xyxy_from_cxcywh
from ..hardware.onnx_session import open_session
from .labels import Labels, choose_labels, coco_labels
from .protocol import Detections

BATCH = 8
"""Batch size of networks that accept more than one image."""
PAD_GREY = 114
"""Grey level around a letterboxed image, as in the training of both families."""
MIN_SCORE = 0.3
"""Measured on 361 people in 250 COCO images, recall at 0.3 and at 0.2: RTMDet nano 89 and 94 %, with a fifth and a half
of its boxes not on a labelled person; YOLOX nano 84 and 88 %, with a quarter and a third."""
MAX_IOU = 0.6
"""Measured on the same images: 0.45 misses people who stand close together. RTMDet's files apply 0.6 themselves."""
SUPPORTED_LAYOUTS = (
    "YOLOX, not decoded (one output, anchors x 85, for the strides 8, 16 and 32) and RTMDet end2end (two "
    "outputs, dets, n x 5, and labels, n), each with one float input of b x 3 x h x w, b being 1 or dynamic; or the "
    "exported detector of this package"
)


class _Raw(NamedTuple):
    """Candidates in one letterboxed image: xyxy boxes in its pixels, scores, class numbers."""

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class _YoloX:
    """YOLOX (arXiv 2107.08430): each cell of three grids predicts one box, relative to the cell.

    The input is BGR, 0 to 255, not normalised.
    """

    size: Size
    batch: int
    mean: ClassVar = (0.0, 0.0, 0.0)
    std: ClassVar = (1.0, 1.0, 1.0)
    strides: ClassVar = (8, 16, 32)

    @classmethod
    def recognise(cls, inputs: Sequence[Any], outputs: Sequence[Any]) -> _YoloX | None:
        """Return the layout if the network has it, else None."""
        size = _input_size(inputs)
        if size is None or [len(output.shape) for output in outputs] != [3]:
            return None
        anchors = sum((size.width // stride) * (size.height // stride) for stride in cls.strides)
        if list(outputs[0].shape[1:]) != [anchors, 85]:
            return None
        return cls(size, batch=1 if inputs[0].shape[0] == 1 else BATCH)

    def read(self, outputs: Sequence[np.ndarray], index: int, min_score: float) -> _Raw:
        """Return the candidates of one image of a batch with at least the minimum score.

        Raises:
            CheckpointError: The file decodes its boxes itself.
        """
        predictions = outputs[0][index]
        # The logarithm of a size in cells is below 5; a file with decoded boxes has pixels here.
        largest = predictions[:, 2:4].max()
        if largest > 20:
            raise CheckpointError(
                f"this YOLOX file decodes its boxes itself (it returns a box of {largest:.0f} pixels); export "
                "it without --decode_in_inference"
            )
        scores = predictions[:, 4:5] * predictions[:, 5:]
        rows, classes = np.nonzero(scores >= min_score)
        corners, strides = self._cells()
        centres = (predictions[rows, :2] + corners[rows]) * strides[rows]
        sizes = np.exp(predictions[rows, 2:4]) * strides[rows]
        return _Raw(xyxy_from_cxcywh(np.hstack([centres, sizes])), scores[rows, classes], classes)

    def _cells(self) -> tuple[Float[np.ndarray, "a 2"], Float[np.ndarray, "a 1"]]:
        """Return the (column, row) and the stride of every anchor, in the order of the output."""
        corners, strides = [], []
        for stride in self.strides:
            rows, columns = np.mgrid[: self.size.height // stride, : self.size.width // stride]
            corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
            strides.append(np.full((rows.size, 1), stride))
        return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


@dataclass(frozen=True)
class _RtmDet:
    """RTMDet (arXiv 2212.07784) as exported end to end by MMDeploy: the outputs are decoded boxes.

    The input is BGR, (0 to 255 - mean) / std. The files declare a dynamic batch, but their non-maximum suppression
    works on one image only.
    """

    size: Size
    batch: ClassVar = 1
    mean: ClassVar = (103.53, 116.28, 123.675)
    std: ClassVar = (57.375, 57.12, 58.395)
    trained_size: ClassVar = Size(320, 320)  # of the nano person model; files of other sizes declare them

    @classmethod
    def recognise(cls, inputs: Sequence[Any], outputs: Sequence[Any]) -> _RtmDet | None:
        """Return the layout if the network has it, else None."""
        size = _input_size(inputs, otherwise=cls.trained_size)
        ranks = [(output.name, len(output.shape)) for output in outputs]
        return cls(size) if size is not None and ranks == [("dets", 3), ("labels", 2)] else None

    def read(self, outputs: Sequence[np.ndarray], index: int, min_score: float) -> _Raw:
        """Return the candidates of one image of a batch with at least the minimum score."""
        dets, classes = outputs[0][index], outputs[1][index].astype(np.int64)
        kept = dets[:, 4] >= min_score
        return _Raw(dets[kept, :4], dets[kept, 4], classes[kept])


@dataclass(frozen=True)
class _Person:
    """The detector in the package, as written by `exporters.person_detector`.

    The input is BGR, 0 to 255, not normalised.
    """

    size: Size
    batch: ClassVar = BATCH
    mean: ClassVar = (0.0, 0.0, 0.0)
    std: ClassVar = (1.0, 1.0, 1.0)

    @classmethod
    def recognise(cls, inputs: Sequence[Any], outputs: Sequence[Any]) -> _Person | None:
        """Return the layout if the network has it, else None."""
        size = _input_size(inputs)
        names = [output.name for output in outputs]
        return cls(size) if size is not None and names == ["person_scores", "person_boxes"] else None

    def read(self, outputs: Sequence[np.ndarray], index: int, min_score: float) -> _Raw:
        """Return the candidates of one image of a batch with at least the minimum score."""
        scores, boxes = outputs[0][index], outputs[1][index]
        kept = scores >= min_score
        return _Raw(boxes[kept], scores[kept], np.zeros(int(kept.sum()), np.int64))


def _input_size(inputs: Sequence[Any], otherwise: Size | None = None) -> Size | None:
    """Return the image size of a network's only input, or None if it is not an image.

    Args:
        inputs: The inputs of the network.
        otherwise: Returned if the network accepts any size.
    """
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        return None
    batch, channels, height, width = inputs[0].shape
    if channels != 3 or (batch not in (1, None) and not isinstance(batch, str)):
        return None
    return Size(width, height) if isinstance(width, int) and isinstance(height, int) else otherwise


class OnnxDetector:
    """A detector in an ONNX file: YOLOX or RTMDet end2end.

    YOLOX detects COCO's 80 classes. RTMDet files do not name their classes: they are taken to be COCO's, which is right
    for models of all 80 classes and for models of people only. Limitation: MMDeploy exports other families with the
    same two outputs but another preprocessing; they are not recognised as such.

    Args:
        path: The `.onnx` file.
        min_score: Boxes with a lower score are dropped.
        max_iou: Of two boxes of one class with a higher IoU, the one with the lower score is dropped.
        labels: COCO class names to detect; default: "person"; "all": every class.
        device: "cpu", "cuda", "cuda:1"; "auto": CUDA if ONNX Runtime supports it, else the CPU.

    Raises:
        CheckpointError: The file is missing, not ONNX, or has an unsupported layout.
        UnknownNameError: A label is not a class of COCO.
        InputError: The device is unknown or unavailable in ONNX Runtime, a number is not from 0 to 1, or the labels are
            not class names.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        min_score: float = MIN_SCORE,
        max_iou: float = MAX_IOU,
        labels: Labels = None,
        device: str = "auto",
    ) -> None:
        check_number("min_score", min_score, 0, 1)
        check_number("max_iou", max_iou, 0, 1)
        self.path, self.min_score, self.max_iou = user_path(path, CheckpointError), min_score, max_iou
        self._names = list(coco_labels().values())
        self._wanted = choose_labels(labels, self._names)
        self._session = open_session(self.path, device)
        self._layout = self._recognise()

    def _recognise(self) -> _YoloX | _RtmDet | _Person:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        families = (_YoloX, _RtmDet, _Person)
        layout = next(
            (one for one in (family.recognise(inputs, outputs) for family in families) if one), None
        )
        if layout is None:
            raise CheckpointError(
                f"{self.path} has an unsupported layout: inputs {_describe(inputs)}, outputs {_describe(outputs)}. "
                f"Export one of the supported layouts: {SUPPORTED_LAYOUTS}."
            )
        return layout

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Detect the boxes of each image; see `Detector`.

        Raises:
            CheckpointError: The network fails, returns NaN or infinity, or values that its layout excludes.
        """
        step = self._layout.batch
        found = []
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            outputs = self._run(np.stack([self._prepare(image) for image in batch]))
            raws = [self._layout.read(outputs, index, self.min_score) for index in range(len(batch))]
            found += [self._finish(raw, Size.of(image)) for raw, image in zip(raws, batch, strict=True)]
        return found

    def _run(self, pixels: Float[np.ndarray, "b 3 hc wc"]) -> list[np.ndarray]:
        try:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise CheckpointError(
                f"{self.path} failed on an image: {str(error).strip()}; check the file"
            ) from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise CheckpointError(
                f"{self.path} returns NaN or infinity for an image; the file is damaged, or its dtype overflows: use a "
                "file in float32"
            )
        return outputs

    def _prepare(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "3 hc wc"]:
        bgr = letterbox(image, self._layout.size)[:, :, ::-1].astype(np.float32)
        mean, std = np.array([self._layout.mean, self._layout.std], np.float32)
        pixels = (bgr - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _finish(self, raw: _Raw, size: Size) -> Detections:
        """Select the requested classes, suppress overlaps, and scale the boxes to pixels of the image."""
        solid = (raw.boxes[:, 2:] > raw.boxes[:, :2]).all(axis=1)
        wanted = [
            number for number in np.unique(raw.classes[solid]).tolist() if self._name(number) in self._wanted
        ]
        rows = np.flatnonzero(solid & np.isin(raw.classes, wanted))
        kept = rows[suppress_overlaps(raw.boxes[rows], raw.scores[rows], self.max_iou, raw.classes[rows])]
        inner = fit_inside(size, self._layout.size)
        scale = np.array([inner.width / size.width, inner.height / size.height] * 2, np.float32)
        labels = [self._name(number) for number in raw.classes[kept].tolist()]
        return Detections.found(raw.boxes[kept] / scale, raw.scores[kept], labels, size)

    def _name(self, number: int) -> str:
        if not 0 <= number < len(self._names):
            raise CheckpointError(
                f"{self.path} returned class {number}, and COCO's classes go from 0 to {len(self._names) - 1}; "
                "use a network of COCO's classes, or of people only"
            )
        return self._names[number]


def fit_inside(size: Size, frame: Size) -> Size:
    """Return the largest size with the same aspect ratio inside the frame, at least 1x1."""
    ratio = min(frame.width / size.width, frame.height / size.height)
    return Size(max(1, round(size.width * ratio)), max(1, round(size.height * ratio)))


def letterbox(image: UInt8[np.ndarray, "h w 3"], frame: Size) -> UInt8[np.ndarray, "hc wc 3"]:
    """Resize an image to fit into the frame's top left corner and pad the rest with grey."""
    import cv2  # takes a third of a second to import, and nothing else here uses it

    inner = fit_inside(Size.of(image), frame)
    canvas = np.full((frame.height, frame.width, 3), PAD_GREY, np.uint8)
    canvas[: inner.height, : inner.width] = cv2.resize(image, (inner.width, inner.height))
    return canvas


def _describe(arguments: Sequence[Any]) -> str:
    return ", ".join(f"{a.name} {a.type} {' x '.join(str(side) for side in a.shape)}" for a in arguments)
