"""The person detector in the package: needs no download and no library beyond torch.

The network is in `person_network`, the weights in `weights/person.safetensors`; `recipes/person.toml` trained them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import CheckpointError, UnknownNameError, check_number
from ..geometry.boxes import Size, suppress_overlaps
from ..hardware.devices import choose_device
from .labels import Labels, read_labels
from .onnx import MAX_IOU, PAD_GREY, fit_inside
from .protocol import Detections

if TYPE_CHECKING:
    from .person_network import PersonNetwork

LONG_SIDE_PX = 320
"""Long side of an image in the network's input."""
MULTIPLE_PX = 32
"""The sides of the input are multiples of the coarsest stride."""
MIN_SCORE = 0.35
"""Measured on 150 images of the training set, recall of people over 32x32 px and share of boxes on no person or
inexact (IoU below 0.5): 80 and 38 % at 0.3, 75 and 25 % at 0.35, 68 and 15 % at 0.4."""
WEIGHTS = "weights/person.safetensors"
BATCH = 8
"""Batch size."""


class PersonDetector:
    """The person detector in the package.

    Args:
        weights: A `.safetensors` file; default: that in the package.
        min_score: Boxes with a lower score are dropped.
        max_iou: Of two boxes with a higher IoU, the one with the lower score is dropped.
        labels: "person" or "all", which are the same; default: "person".
        device: A device name of torch; "auto": the accelerator if there is one, else the CPU.

    Raises:
        CheckpointError: The weights are missing or do not fit.
        UnknownNameError: A label is not "person", or there is no such device.
        InputError: This machine does not have the device, a number is not from 0 to 1, or the labels are not class
            names.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        min_score: float = MIN_SCORE,
        max_iou: float = MAX_IOU,
        labels: Labels = None,
        device: str = "auto",
    ) -> None:
        check_number("min_score", min_score, 0, 1)
        check_number("max_iou", max_iou, 0, 1)
        self.min_score, self.max_iou = min_score, max_iou
        for label in sorted((read_labels(labels) or {"person"}) - {"person"}):
            hint = "The detector 'person' finds people only; detector='rtdetr' finds the classes of COCO."
            raise UnknownNameError("label", label, ["person"], hint)
        self._device = choose_device(device)
        self._network = load_network(weights).to(self._device)

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Detect the boxes of each image; see `Detector`."""
        found: dict[int, Detections] = {}
        frames = [frame_of(Size.of(image)) for image in images]
        for frame in dict.fromkeys(frames):
            rows = [row for row, other in enumerate(frames) if other == frame]
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                found |= zip(batch, self._detect_batch([images[row] for row in batch], frame), strict=True)
        return [found[row] for row in range(len(images))]

    def _detect_batch(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], frame: Size) -> list[Detections]:
        import torch

        stack = torch.from_numpy(np.stack([fit_to(image, frame) for image in images])).to(self._device)
        with torch.inference_mode():
            logits, boxes = self._network(stack.permute(0, 3, 1, 2).float())
        scores = logits.sigmoid().float().cpu().numpy()
        rows = zip(scores, boxes.float().cpu().numpy(), images, strict=True)
        return [self._select(score, box, Size.of(image)) for score, box, image in rows]

    def _select(
        self, scores: Float[np.ndarray, " n"], boxes: Float[np.ndarray, "n 4"], size: Size
    ) -> Detections:
        kept = np.flatnonzero(scores >= self.min_score)
        kept = kept[suppress_overlaps(boxes[kept], scores[kept], self.max_iou)]
        inner = inner_of(size)
        scale = np.array([inner.width / size.width, inner.height / size.height] * 2, np.float32)
        return Detections.found(boxes[kept] / scale, scores[kept], ["person"] * len(kept), size)


def inner_of(size: Size) -> Size:
    """Return the size that an image is resized to."""
    return fit_inside(size, Size(LONG_SIDE_PX, LONG_SIDE_PX))


def frame_of(size: Size) -> Size:
    """Return the size of the network's input for an image: the resized image, padded to whole cells."""
    inner = inner_of(size)
    return Size(*(-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in (inner.width, inner.height)))


def fit_to(image: UInt8[np.ndarray, "h w 3"], frame: Size) -> UInt8[np.ndarray, "hc wc 3"]:
    """Return an image resized into the top left corner of its frame; the rest is grey."""
    import cv2  # takes a third of a second to import

    inner = inner_of(Size.of(image))
    shrinks = inner.width < image.shape[1]
    canvas = np.full((frame.height, frame.width, 3), PAD_GREY, np.uint8)
    canvas[: inner.height, : inner.width] = cv2.resize(
        image, (inner.width, inner.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return canvas


def load_network(weights: str | Path | None) -> PersonNetwork:
    """Return the network in evaluation mode.

    Raises:
        CheckpointError: The file is missing or does not fit.
    """
    from safetensors.torch import load_file

    from .person_network import PersonNetwork, fold

    path = Path(weights or str(resources.files("vitpose") / WEIGHTS))
    network = PersonNetwork()
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except Exception as error:  # the errors of safetensors and torch share no base class
        raise CheckpointError(f"{path} is not a file of the person detector: {error}") from error
    return fold(network.eval())
