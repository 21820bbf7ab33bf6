"""RT-DETR through `transformers`.

`transformers` provides the network, its preprocessing and its postprocessing, and is imported only when a detector is
created.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..errors import CheckpointError, check_number, require
from ..files.hub import download_repository
from ..files.paths import existing_path
from ..geometry.boxes import Size
from ..hardware.devices import choose_device
from .labels import Labels, choose_labels
from .protocol import Detections

BATCH = 8
"""Batch size."""


class RtDetrDetector:
    """RT-DETR (arXiv 2304.08069), from a hub repository or a directory.

    Args:
        name: A hub repository or a directory in the format of `transformers`, with `model.safetensors`.
        labels: Class names of the model's configuration; default: "person"; "all": every class.
        min_score: Boxes whose score is not higher are dropped.
        device: A device name of torch; "auto": the accelerator if there is one, else the CPU.
        revision: Branch, tag or commit of the repository.
        cache_dir: Directory for downloads; default: that of the hub.
        local_files_only: Use only files that are already on this machine.

    Raises:
        CheckpointError: The weights cannot be downloaded or read, or are not of an RT-DETR.
        UnknownNameError: A label is not a class of the model, or there is no such device.
        InputError: This machine does not have the device, the score is not from 0 to 1, or the labels are not class
            names.
        MissingDependencyError: torch or transformers is not installed.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        labels: Labels = None,
        min_score: float = 0.3,
        device: str = "auto",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        check_number("min_score", min_score, 0, 1)
        origin = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        self.name, self.min_score = str(name), min_score
        self._processor, model = _load(self.name, origin)
        self._names = model.config.id2label
        self._wanted = choose_labels(labels, self._names.values())
        self._device = choose_device(device)
        self._model = model.eval().to(self._device)

    def detect(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], names: Sequence[str]) -> list[Detections]:
        """Detect the boxes of each image; see `Detector`."""
        starts = range(0, len(images), BATCH)
        return [found for start in starts for found in self._detect_batch(images[start : start + BATCH])]

    def _detect_batch(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Detections]:
        import torch

        inputs = self._processor(list(images), input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            outputs = self._model(pixel_values=inputs["pixel_values"].to(self._device))
        heights_widths = [image.shape[:2] for image in images]
        results = self._processor.post_process_object_detection(outputs, self.min_score, heights_widths)
        return [self._finish(result, Size.of(image)) for result, image in zip(results, images, strict=True)]

    def _finish(self, result: dict[str, Any], size: Size) -> Detections:
        labels = [self._names[int(number)] for number in result["labels"]]
        rows = [row for row, label in enumerate(labels) if label in self._wanted]
        boxes, scores = (result[key].float().cpu().numpy()[rows] for key in ("boxes", "scores"))
        return Detections.found(boxes, scores, [labels[row] for row in rows], size)


def _load(name: str, origin: dict[str, Any]) -> tuple[Any, Any]:
    """Return the image processor and the model.

    The processor is the PIL variant: the other one requires torchvision.
    """
    for package, extra in (("torch", None), ("transformers", "detect")):
        require(package, extra, "for the detector rtdetr, not for onnx:FILE, boxes:FILE and whole-image")
    import torch
    from transformers import AutoConfig, RTDetrForObjectDetection, RTDetrImageProcessorPil

    try:
        # As a directory, so that transformers asks the hub for no other file.
        folder = existing_path(name) or download_repository(name, **origin)
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != "rt_detr":
            raise ValueError(f"its model type is {config.model_type!r}")
        processor = RTDetrImageProcessorPil.from_pretrained(folder)
        model, report = RTDetrForObjectDetection.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
        if report["missing_keys"]:  # transformers initialises them randomly
            missing = sorted(report["missing_keys"])
            raise ValueError(f"{len(missing)} weights are missing, among them {missing[:5]}")
    except Exception as error:  # the errors of transformers, hub and safetensors share no base class
        raise CheckpointError(
            f"no RT-DETR could be loaded from {name!r}: {str(error).rstrip('.')}.\nCheck the name, or use another "
            "detector: person (in the package), rtmdet-nano, yolox-nano, onnx:FILE (YOLOX or RTMDet), boxes:FILE or "
            "--boxes FILE (a COCO file), whole-image (one person per image)."
        ) from error
    return processor, model
