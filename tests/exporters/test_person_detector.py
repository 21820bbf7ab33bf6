from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitpose.detectors import OnnxDetector
from vitpose.detectors.person import PersonDetector
from vitpose.detectors.person_network import PersonNetwork
from vitpose.exporters.person_detector import export_person_detector
from vitpose.geometry.boxes import iou

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


@pytest.mark.slow
def test_the_exported_file_detects_what_torch_detects(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PersonNetwork()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    network(
        torch.rand(2, 3, 320, 320) * 255
    )  # the statistics of one batch, so that predictions differ by cell
    weights = tmp_path / "weights.safetensors"
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items() if value.ndim}, weights
    )
    file = export_person_detector(tmp_path / "person.onnx", weights)
    images = list(np.random.default_rng(0).integers(0, 255, (3, 320, 320, 3), np.uint8))
    options = {"min_score": 0.011, "max_iou": 0.3, "device": "cpu"}
    expected = PersonDetector(weights, **options).detect(images, [""] * 3)
    found = OnnxDetector(file, **options).detect(images, [""] * 3)
    assert min(map(len, expected)) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        assert iou(one.boxes, other.boxes).max(axis=1).min() > 0.999  # nearly equal scores may change places
        assert one.labels == other.labels
