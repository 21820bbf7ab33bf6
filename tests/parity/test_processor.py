"""Pixels and keypoints against `transformers` and OpenCV, on real photographs with real peaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import vitpose
from vitpose.geometry.boxes import xyxy_from_xywh
from vitpose.images import read_image
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.processing.image_processor import VitPoseImageProcessor

STD = np.array([0.229, 0.224, 0.225])


SAMPLES = ("coco/test_coco", "aic/test_aic", "ap10k/test_ap10k", "crowdpose/test_crowdpose")


@pytest.fixture(scope="module", params=SAMPLES)
def photographs(samples: Path, request: pytest.FixtureRequest) -> list[tuple[np.ndarray, list[list[float]]]]:
    """Images with the boxes of their people or animals, xywh."""
    path = samples / f"{request.param}.json"
    table = json.loads(path.read_text())
    found = []
    for image in table["images"]:
        boxes = [row["bbox"] for row in table["annotations"] if row["image_id"] == image["id"]]
        boxes = [box for box in boxes if box[2] > 0 and box[3] > 0]
        if boxes:
            found.append((read_image(path.parent / image["file_name"]), boxes))
    assert found
    return found


@pytest.fixture(scope="module")
def reference() -> Path:
    """The directory of a trained model: the packaged one."""
    return Path(vitpose.__file__).parent / "weights"


@pytest.fixture(scope="module")
def theirs(reference: Path) -> Any:
    module = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    return module.VitPoseImageProcessorPil.from_pretrained(reference)


@pytest.fixture(scope="module")
def ours(reference: Path) -> VitPoseImageProcessor:
    return VitPoseImageProcessor.from_pretrained(reference)


def test_pixels_within_one_grey_level_of_transformers(
    photographs: Any, theirs: Any, ours: VitPoseImageProcessor
) -> None:
    for image, boxes in photographs:
        a = theirs(image, boxes=[boxes], return_tensors="np")["pixel_values"]
        b = ours(image, boxes=[boxes], return_tensors="np")["pixel_values"]
        difference = np.abs(a - b).transpose(0, 2, 3, 1) * STD * 255
        # SciPy returns black just outside the centres of the outermost pixels, where bilinear sampling still
        # includes them: only what is inside is compared.
        warp = ours.warp_boxes(xyxy_from_xywh(np.array(boxes, np.float32)))
        cells = np.stack(np.meshgrid(np.arange(ours.size.width), np.arange(ours.size.height)), axis=-1)
        positions = warp.to_image(
            np.repeat(cells.reshape(1, -1, 2).astype(float), len(boxes), axis=0), ours.size
        )
        last = [image.shape[1] - 1, image.shape[0] - 1]
        border = ((positions > -1) & (positions < 1e-3)) | (
            (positions > np.array(last) - 1e-3) & (positions < np.array(last) + 1)
        )
        inside = ~border.any(axis=2).reshape(len(boxes), ours.size.height, ours.size.width)
        assert inside.mean() > 0.97
        assert difference[inside].max() <= 1.01


def test_pixels_within_one_grey_level_of_opencv(
    photographs: Any, ours: VitPoseImageProcessor, opencv_rounding: float
) -> None:
    """Against OpenCV's warp of the image in floating point, with a matrix from three points."""
    width, height = ours.size.width, ours.size.height
    for image, boxes in photographs:
        crops = ours.warp_boxes(xyxy_from_xywh(np.array(boxes, np.float32))).crop(image)
        for (x, y, w, h), crop in zip(boxes, crops, strict=True):
            side = max(w, h * width / height) * 1.25
            low = np.array([x + w / 2 - side / 2, y + h / 2 - side * height / width / 2])
            high = low + np.array([side, side * height / width])
            corners = np.array([low, [high[0], low[1]], [low[0], high[1]]], np.float32)
            cells = np.array([[0, 0], [width - 1, 0], [0, height - 1]], np.float32)
            expected = cv2.warpAffine(
                image.astype(np.float32), cv2.getAffineTransform(corners, cells), (width, height)
            )
            assert np.abs(crop - expected).max() <= 1.05 + opencv_rounding


def test_keypoints_of_transformers_with_its_decoding(
    photographs: Any, theirs: Any, ours: VitPoseImageProcessor, reference: Path
) -> None:
    model = VitPoseForPoseEstimation.from_pretrained(reference)
    like_theirs = replace(ours, blur_sigma=0.8, border="reflect", max_step=None)
    for image, boxes in photographs:
        with torch.no_grad():
            outputs = model(ours(image, boxes=[boxes], return_tensors="pt").pixel_values)
        expected = theirs.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        found = like_theirs.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        for a, b in zip(expected, found, strict=True):
            assert (a["keypoints"] - b["keypoints"]).abs().max() <= 0.05
            torch.testing.assert_close(a["scores"], b["scores"])


def test_image_to_keypoints_equals_transformers(photographs: Any, theirs: Any, reference: Path) -> None:
    """From image to keypoints with each library's network, processor and files, and the decoding of `transformers`."""
    transformers = pytest.importorskip("transformers")
    their_model = transformers.VitPoseForPoseEstimation.from_pretrained(reference, dtype=torch.float32)
    our_model = VitPoseForPoseEstimation.from_pretrained(reference)
    ours = replace(
        VitPoseImageProcessor.from_pretrained(reference),
        blur_sigma=0.8,
        border="reflect",
        max_step=None,
    )
    moved = []
    for image, boxes in photographs:
        with torch.no_grad():
            a = their_model(theirs(image, boxes=[boxes], return_tensors="pt")["pixel_values"])
            b = our_model(ours(image, boxes=[boxes], return_tensors="pt").pixel_values)
        expected = theirs.post_process_pose_estimation(a, boxes=[boxes])[0]
        found = ours.post_process_pose_estimation(b, boxes=[boxes])[0]
        moved += [(p["keypoints"] - q["keypoints"]).abs() for p, q in zip(expected, found, strict=True)]
    # Their black border (see above) slightly changes the crops of people at the image's edge.
    assert torch.cat(moved).median() < 0.1
