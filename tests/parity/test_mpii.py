"""MPII's crops against the formulas of the original's dataset class and UDP warp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitpose
from vitpose.data.annotations import read_training_annotations
from vitpose.data.augment import Augmentation
from vitpose.data.dataset import MixSampler, PoseDataset
from vitpose.data.device_samples import DeviceLoader
from vitpose.data.pack import read_pack, write_pack
from vitpose.detectors.protocol import Detections
from vitpose.engines.fake import FakeEngine
from vitpose.engines.metadata import Metadata
from vitpose.geometry.boxes import Size
from vitpose.geometry.warp import Warp
from vitpose.inference.estimator import Estimator
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.model.preprocessor_config import PreprocessorConfig

SIZE, HEATMAP_SIZE = Size(width=192, height=256), Size(width=48, height=64)
MPII = DatasetSpec.load("mpii")
SPEC = vitpose.ModelSpec(dataset=MPII, input_size=SIZE)


def original_square(row: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Returns the centre (px, from 0) and the side (px) of the crop's square for a row of MPII's JSON."""
    centre, scale = np.array(row["center"], float), float(row["scale"])
    centre[1] += 15 * scale
    return centre - 1, scale * 1.25 * 200


def to_crop(keypoints: np.ndarray, centre: np.ndarray, side: float, grid: Size) -> np.ndarray:
    """UDP: the square's borders are the centres of the grid's first and last cells, on each axis separately."""
    factors = np.array([grid.width - 1, grid.height - 1]) / side
    return (keypoints - (centre - side / 2)) * factors


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows = []
    for scale in (0.4, 0.55, 0.7):
        centre = rng.uniform(90, 120, 2)
        joints = centre + rng.uniform(-70, 70, (16, 2)) * scale
        rows.append({"image": "a.png", "center": centre.tolist(), "scale": scale, "joints": joints.tolist(),
                     "joints_vis": [1] * 16})  # fmt: skip
    return rows


@pytest.fixture
def file(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (11, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((240, 220), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    (tmp_path / "mpii.json").write_text(json.dumps(rows))
    return tmp_path / "mpii.json"


def test_fault_the_square_fills_the_crop(rows: list[dict[str, Any]], file: Path) -> None:
    people = read_training_annotations(file)
    warp = SPEC.warp_boxes(people.boxes)
    expected = [to_crop(np.array(row["joints"]) - 1, *original_square(row), SIZE) for row in rows]
    np.testing.assert_allclose(warp.to_grid(people.xy.astype(float), SIZE), expected, atol=1e-3)
    kept = Warp.from_boxes(people.boxes, SIZE)
    np.testing.assert_allclose(
        warp.extents[:, 0] / warp.extents[:, 1] * kept.extents[:, 1] / kept.extents[:, 0], 4 / 3
    )
    tall = np.diff(warp.to_grid(np.array([[[0.0, 0], [1, 1]]] * 3), SIZE), axis=1)[:, 0]
    np.testing.assert_allclose(tall[:, 1] / tall[:, 0], 255 / 191)  # stretched by 1.335


def test_estimates_are_mapped_back_from_the_same_square(rows: list[dict[str, Any]], file: Path) -> None:
    people = read_training_annotations(file)
    cells = np.random.default_rng(3).uniform(5, 40, (16, 2))
    estimator = Estimator(FakeEngine(cells, HEATMAP_SIZE), SPEC)
    image = people.read_image(0)
    (poses,) = estimator.estimate([image], [Detections(people.boxes, np.ones(3, np.float32), ("",) * 3)])
    for row, found in zip(rows, poses.xy, strict=True):
        centre, side = original_square(row)
        expected = (
            cells * side / np.array([HEATMAP_SIZE.width - 1, HEATMAP_SIZE.height - 1]) + centre - side / 2
        )
        np.testing.assert_allclose(found, expected, atol=side / 48 * 0.05)


@pytest.mark.parametrize("kind", ["host", "device"])
def test_training_samples_are_of_the_square(
    rows: list[dict[str, Any]], file: Path, tmp_path: Path, kind: str
) -> None:
    people = read_training_annotations(file)
    if kind == "host":
        found = torch.stack([PoseDataset(people, SPEC)[index]["keypoints"] for index in range(3)])
    else:
        write_pack([people], tmp_path / "pack", aspect=MPII.aspect)
        packed = read_pack(tmp_path / "pack")
        (batch,) = DeviceLoader(packed, MixSampler([3]), 3, SPEC, device="cpu")
        found = batch["keypoints"][torch.from_numpy(batch["meta"]["index"]).argsort()]
    for row, keypoints in zip(rows, found, strict=True):
        wanted = to_crop(np.array(row["joints"]) - 1, *original_square(row), HEATMAP_SIZE)
        assert np.abs(keypoints.numpy() - wanted).max() < 1e-3


def test_rotated_and_scaled_views_are_those_of_the_original(rows: list[dict[str, Any]], file: Path) -> None:
    """Its UDP warp rotates the square in the image and then scales each axis separately."""
    people = read_training_annotations(file)
    varied = Augmentation(shift_probability=0.0, half_body=0.0)
    view = varied.draw(people, SIZE, "udp", np.random.default_rng(5), "stretch")
    assert (view.warp.angles != 0).any()
    assert view.mirrored.any()
    for row, (warp, keypoints) in enumerate(zip(view.warp.angles, people.xy, strict=True)):
        centre, side = original_square(rows[row])
        side = np.abs(view.warp.extents[row, 1])
        assert 0.5 <= side / original_square(rows[row])[1] <= 1.5
        angle = np.deg2rad(-warp)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = (keypoints - centre) @ turn.T
        expected = (turned / side + 0.5) * [SIZE.width - 1, SIZE.height - 1]
        if view.mirrored[row]:
            expected[:, 0] = SIZE.width - 1 - expected[:, 0]
        found = view.warp[row : row + 1].to_grid(keypoints[None].astype(float), SIZE)[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_exported_file_contains_the_declaration() -> None:
    read = Metadata.from_json(Metadata("m", "float32", SPEC).to_json(), "a file")
    assert read.spec.dataset.aspect == "stretch"
    assert read.spec == SPEC


def test_processor_file_contains_the_aspect(tmp_path: Path) -> None:
    PreprocessorConfig.from_spec(SPEC).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["aspect"] == "stretch"
    assert vitpose.VitPoseImageProcessor.from_pretrained(tmp_path).to_spec(MPII) == SPEC
