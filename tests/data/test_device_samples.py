"""Samples computed on a device equal those computed with NumPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitpose.data.annotations import TrainingAnnotations
from vitpose.data.augment import Augmentation, View
from vitpose.data.dataset import MixSampler, in_cells
from vitpose.data.device_samples import CropFrames, DeviceLoader
from vitpose.data.pack import Packed, read_pack, write_pack
from vitpose.geometry.boxes import Size
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec

COCO = DatasetSpec.load("coco")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
RECIPE = Augmentation(brightness=0.3, contrast=0.3, saturation=0.5, occlusion=0.7)


@pytest.fixture
def packed(people: TrainingAnnotations, tmp_path: Path) -> Packed:
    write_pack([people], tmp_path / "pack", side=160)
    return read_pack(tmp_path / "pack")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("convention", "weighted"), [("udp", True), ("plain", False)])
def test_the_same_view_gives_the_same_sample(
    packed: Packed, convention: str, weighted: bool, device: str, opencv_rounding: float
) -> None:
    dataset = replace(COCO, warp=convention)
    spec = ModelSpec(dataset=dataset, input_size=Size(96, 128))
    loader = DeviceLoader(packed, MixSampler([10]), 4, spec, RECIPE, joint_weights=weighted, device=device)
    rows = np.array([3, 9, 3, 0, 7])
    people = packed.select(rows)
    view = RECIPE.draw(people, spec.input_size, convention, np.random.default_rng(2))
    assert view.mirrored.any()
    assert (view.hidden_cells[:, 2:] > view.hidden_cells[:, :2]).all(axis=1).any()
    batch = loader.make_views(rows, view)
    expected = np.stack([view.crop(people.read_image(row), row) for row in range(5)])
    levels = batch["pixels"].cpu().numpy()
    # The NumPy implementation rounds after the warp and after the colour transform; the device does not.
    assert np.abs(levels.transpose(0, 2, 3, 1) - expected).max() <= 2 + opencv_rounding
    keypoints, weights = in_cells(people, view, weighted)
    np.testing.assert_array_equal(batch["keypoints"].cpu(), keypoints)
    np.testing.assert_allclose(batch["weights"].cpu(), weights, rtol=1e-6)


def test_resuming_continues_the_batches(packed: Packed) -> None:
    frames, size = CropFrames(packed, "cpu"), ModelSpec(dataset=COCO, input_size=Size(24, 32))
    sampler = MixSampler([10], seed=5)
    loader = DeviceLoader(packed, sampler, 3, size, RECIPE, seed=5, frames=frames)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [len(batch["pixels"]) for batch in batches] == [3, 3, 3]
    sampler.advance(3)
    for expected, batch in zip(batches[1:], loader, strict=True):
        assert torch.equal(expected["pixels"], batch["pixels"])
        np.testing.assert_array_equal(expected["meta"]["index"], batch["meta"]["index"])


def test_a_batch_depends_only_on_its_keys(packed: Packed) -> None:
    """So that it does not depend on the step at which a training run resumes."""
    frames, size = CropFrames(packed, "cpu"), ModelSpec(dataset=COCO, input_size=Size(24, 32))
    keys = [(0, 3), (0, 4), (1, 3), (1, 4)]
    whole = DeviceLoader(packed, keys, 2, size, RECIPE, frames=frames)
    late = DeviceLoader(packed, keys[2:], 2, size, RECIPE, frames=frames)
    (first, second), (again,) = whole, late
    assert torch.equal(second["pixels"], again["pixels"])
    assert not torch.equal(first["pixels"], second["pixels"])


def test_without_augmentation(packed: Packed) -> None:
    spec = ModelSpec(dataset=COCO, input_size=Size(48, 64))
    loader = DeviceLoader(packed, MixSampler([10]), 10, spec, device="cpu")
    (batch,) = loader
    rows = batch["meta"]["index"]
    view = View.plain(packed.boxes[rows], spec.input_size)
    for index, row in enumerate(rows):
        crop = view.crop(packed.read_image(int(row)), index)
        assert np.abs(batch["pixels"][index].permute(1, 2, 0).numpy() - crop).max() <= 1
    assert set(batch["weights"].unique().tolist()) <= {0.0, 1.0}
