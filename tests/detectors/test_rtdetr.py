from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.detectors import Detector, RtDetrDetector, load_detector
from vitpose.errors import CheckpointError, MissingDependencyError, UnknownNameError
from vitpose.geometry.boxes import iou, xyxy_from_xywh
from vitpose.images import read_image

NAMES = {0: "person", 1: "dog", 2: "traffic light"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RT-DETR with random weights, saved by `transformers`."""
    import torch

    transformers = pytest.importorskip("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    narrow = ("encoder_hidden_dim", "d_model", "encoder_ffn_dim", "decoder_ffn_dim")
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[16, 16, 16],
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=30,
        id2label=NAMES,
        **dict.fromkeys(narrow, 16),
    )
    torch.manual_seed(0)
    network = transformers.RTDetrForObjectDetection(config)
    for name, weights in network.named_parameters():
        if "_embed" in name:  # so that boxes and classes differ from query to query
            torch.nn.init.normal_(weights, std=1.0)
    path = tmp_path_factory.mktemp("rtdetr")
    network.save_pretrained(path)
    transformers.RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [(90, 70), (33, 120), (1, 1)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def raw_results(folder: Path, image: np.ndarray) -> dict[str, Any]:
    """Return the detections of `transformers` in one image."""
    import torch
    from PIL import Image
    from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil

    processor = RTDetrImageProcessorPil.from_pretrained(folder)
    network = RTDetrForObjectDetection.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = network(**processor(Image.fromarray(image), return_tensors="pt"))
    sizes = torch.tensor([image.shape[:2]])
    result = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=sizes)[0]
    return {key: value.numpy() for key, value in result.items()}


def test_boxes_are_those_of_transformers_clipped_to_the_image(folder: Path, images: list[np.ndarray]):
    detector = RtDetrDetector(folder, labels="all", device="cpu")
    assert isinstance(detector, Detector)
    image = images[0]
    found, raw = detector.detect([image], [""])[0], raw_results(folder, image)
    boxes = raw["boxes"].clip(0, [70, 90, 70, 90])
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert (raw["boxes"] != boxes).any(), "some boxes must reach out of the image"
    assert solid.sum() > 5
    np.testing.assert_allclose(found.boxes, boxes[solid], atol=1e-3)
    np.testing.assert_allclose(found.scores, raw["scores"][solid], atol=1e-5)
    assert found.labels == tuple(NAMES[number] for number in raw["labels"][solid])
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_images_of_different_sizes_in_one_batch(folder: Path, images: list[np.ndarray]):
    detector = RtDetrDetector(folder, labels="all", device="cpu")
    many = images * 3  # more than one batch
    together = detector.detect(many, [""] * len(many))
    assert len(together) == len(many)
    for image, found in zip(images, together[-3:], strict=True):
        alone = detector.detect([image], [""])[0]
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-2)
        assert found.labels == alone.labels
    assert detector.detect([], []) == []


def test_boxes_are_filtered_by_label_and_score(folder: Path, images: list[np.ndarray]):
    unfiltered = RtDetrDetector(folder, labels="all", device="cpu").detect(images[:1], [""])[0]
    assert {"person", "dog"} <= set(unfiltered.labels)
    dogs = RtDetrDetector(folder, labels="dog", device="cpu").detect(images[:1], [""])[0]
    assert set(dogs.labels) == {"dog"}
    assert len(dogs) == unfiltered.labels.count("dog")
    confident = RtDetrDetector(folder, labels="all", min_score=0.9, device="cpu").detect(images[:1], [""])[0]
    assert len(confident) == (unfiltered.scores > 0.9).sum() < len(unfiltered)


def test_an_unknown_label_is_reported_with_the_nearest(folder: Path):
    with pytest.raises(UnknownNameError, match=r"unknown label 'traffic lamp'; did you mean traffic light\?"):
        RtDetrDetector(folder, labels=["traffic lamp"])


def test_an_unknown_device(folder: Path):
    with pytest.raises(UnknownNameError, match="unknown device 'gpu'; "):
        RtDetrDetector(folder, device="gpu")


@pytest.mark.parametrize("name", ["nobody/has-this", "not a name at all"])
def test_a_model_that_does_not_exist(tmp_path: Path, name: str):
    pytest.importorskip("transformers")
    message = (
        rf"(?s)no RT-DETR could be loaded from '{name}': .*person .*onnx:FILE .*--boxes FILE .*whole-image"
    )
    with pytest.raises(CheckpointError, match=message):
        RtDetrDetector(name, cache_dir=tmp_path, local_files_only=True)


def test_a_repository_in_the_cache_is_loaded_without_a_network(folder: Path, tmp_path: Path):
    repository = tmp_path / "models--me--mine"
    shutil.copytree(folder, repository / "snapshots" / "0123456789")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123456789")
    detector = RtDetrDetector("me/mine", cache_dir=tmp_path, local_files_only=True, device="cpu")
    assert detector.name == "me/mine"


class TestDamagedDirectories:
    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    def test_another_model(self, copy: Path):
        (copy / "config.json").write_text(json.dumps({"model_type": "vitpose"}))
        with pytest.raises(CheckpointError, match="its model type is 'vitpose'"):
            RtDetrDetector(copy)

    @pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
    def test_a_missing_file(self, copy: Path, file: str):
        (copy / file).unlink()
        with pytest.raises(CheckpointError, match="no RT-DETR could be loaded from"):
            RtDetrDetector(copy, local_files_only=True)

    def test_truncated_weights(self, copy: Path):
        (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:5000])
        with pytest.raises(CheckpointError, match="no RT-DETR could be loaded from"):
            RtDetrDetector(copy)

    def test_missing_weights(self, copy: Path):
        from safetensors.numpy import load_file, save_file

        weights = load_file(copy / "model.safetensors")
        name = next(key for key in weights if "enc_score_head" in key)
        del weights[name]
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=rf"1 weights are missing, among them .*{name}"):
            RtDetrDetector(copy)


@pytest.mark.network
def test_the_real_weights_find_people(shared_data: Path):
    samples = shared_data / "samples" / "coco"
    content = json.loads((samples / "test_coco.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    found = load_detector("rtdetr").detect([read_image(samples / name) for name in names], names)
    for image, detections in zip(content["images"], found, strict=True):
        people = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = xyxy_from_xywh(np.array(people, np.float32))
        big = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) > 64 * 64]
        assert (iou(big, detections.boxes).max(axis=1, initial=0) >= 0.5).all()


@pytest.mark.parametrize(
    ("package", "install"), [("torch", "vitpose"), ("transformers", r"'vitpose\[detect\]'")]
)
def test_without_its_packages(
    package: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        f"'{package}' is required for the detector rtdetr, not for onnx:FILE, boxes:FILE and whole-image"
    )
    with pytest.raises(MissingDependencyError, match=f"{message}; install it with: pip install {install}$"):
        RtDetrDetector(tmp_path)
