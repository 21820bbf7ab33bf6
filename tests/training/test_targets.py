"""Targets encoded on a device equal those of the NumPy implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from vitpose.data.annotations import read_training_annotations
from vitpose.data.augment import Augmentation
from vitpose.data.dataset import JointDataset, PoseDataset
from vitpose.geometry import heatmaps
from vitpose.geometry.boxes import Size
from vitpose.geometry.heatmaps import decode
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.training.module import PoseModule
from vitpose.training.recipe import Recipe
from vitpose.training.samples import make_spec
from vitpose.training.start import make_network
from vitpose.training.targets import encode

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
GRID = Size(24, 32)


def drawn(k: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints inside, beside and far from the heatmap, and weights of 0, 1 and 1.5."""
    rng = np.random.default_rng(1)
    return rng.uniform(-15, 60, (6, k, 2)).astype(np.float32), rng.choice([0, 1, 1.5], (6, k)).astype(
        np.float32
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_targets_equal_those_of_numpy(device: str, unbiased: bool, sigma: float) -> None:
    keypoints, weights = drawn()
    expected, seen = heatmaps.encode(keypoints, weights > 0, GRID, sigma, unbiased)
    given = torch.from_numpy(keypoints).to(device), torch.from_numpy(weights).to(device)
    found, kept = encode(*given, GRID, sigma, unbiased)
    np.testing.assert_allclose(found.cpu(), expected, atol=1e-5)
    np.testing.assert_array_equal(kept.cpu(), weights * seen)
    assert 0 < seen.sum() < (weights > 0).sum(), "no keypoint lies outside"


def test_each_sample_has_its_own_convention() -> None:
    keypoints, weights = map(torch.from_numpy, drawn())
    mixed = torch.tensor([True, False, False, True, False, True])
    found, _ = encode(keypoints, weights, GRID, 2.0, mixed)
    for unbiased in (True, False):
        expected, _ = encode(keypoints, weights, GRID, 2.0, unbiased)
        assert torch.equal(found[mixed == unbiased], expected[mixed == unbiased])
        assert not torch.equal(found, expected)


def test_peaks_of_the_targets_are_the_keypoints(recipe: Recipe) -> None:
    """Peaks of the targets of augmented views, transformed back to the image, are the labelled keypoints."""
    source = recipe.sources[0]
    people = read_training_annotations(source.annotations, source.images)
    dataset = PoseDataset(people, augmentation=Augmentation())
    compared = 0
    for index in range(len(people)):
        sample, person = dataset[5, index], people.select([index])
        view = dataset.draw_view(person, 5, index)
        targets, _ = encode(sample["keypoints"][None], sample["weights"][None], Size(48, 64))
        keypoints, scores = decode(targets.numpy())
        back = view.warp.to_image(keypoints.astype(float), Size(48, 64))[0]
        order = people.skeleton.mirror if view.mirrored[0] else np.arange(len(people.skeleton))
        # DARK's blur is truncated at the border of the heatmap, so peaks near it are skipped.
        inside = ((keypoints[0] >= 6) & (keypoints[0] <= [41, 57])).all(axis=1)
        sure = (scores[0] > 0.9) & inside
        compared += sure.sum()
        cell = np.abs(view.warp.extents).max() / 64
        np.testing.assert_allclose(back[sure], person.xy[0][order][sure], atol=0.2 * cell)
    assert compared > 20


def test_joint_samples_of_different_skeletons_have_the_targets_of_their_dataset(
    two_datasets: dict, recipe_of: Callable[[dict], Recipe]
) -> None:
    """The loss of a batch equals that of dense targets from NumPy, per sample with its keypoints and convention."""
    recipe = recipe_of(two_datasets | {"target": {"sigma": 1.5, "joint_weights": True}})
    source = recipe.sources[0]
    people = read_training_annotations(source.annotations, source.images)
    five, three = recipe.datasets
    size = Size(48, 64)
    parts = [
        PoseDataset(
            people.map_to(dataset.skeleton),
            ModelSpec(dataset=dataset, input_size=size),
            Augmentation(),
            seed=4,
            joint_weights=True,
        )
        for dataset in (five, three)
    ]
    joint = JointDataset(parts)
    rows = [(0, 0), (0, 45), (1, 3), (1, 79)]
    samples = [joint[key] for key in rows]
    batch = default_collate(samples)
    assert batch["dataset"].tolist() == [0, 1, 0, 1]
    assert batch["keypoints"].shape == (4, 5, 2)
    network = make_network(recipe.model, recipe.datasets).eval()
    module = PoseModule(network, recipe, 1, make_spec(recipe))
    module.log_dict = lambda *numbers, **options: None  # type: ignore[method-assign]
    scale, offset = module.spec.scale_and_offset
    pixels = torch.from_numpy((batch["pixels"].numpy() * scale + offset).transpose(0, 3, 1, 2))
    predicted = network(pixels, batch["dataset"]).heatmaps
    wanted = torch.tensor(0.0)
    for row, (turn, index) in enumerate(rows):
        part, spec = divmod(index, 40)[0], (five, three)[index // 40]
        person = parts[part].sources[0].select([index % 40])
        view = parts[part].draw_view(person, turn, index % 40)
        keypoints, labelled = view.to_grid(person.xy, person.labelled, spec.skeleton.mirror, Size(12, 16))
        targets, seen = heatmaps.encode(keypoints, labelled, Size(12, 16), 1.5, spec.target == "udp")
        weights = torch.from_numpy(seen[0] * np.array(spec.skeleton.weights, np.float32))
        k = len(spec.skeleton)
        errors = (predicted[row, :k] - torch.from_numpy(targets[0])).square().mean(dim=(1, 2)) * weights**2
        wanted = wanted + errors.mean() / 4
    torch.testing.assert_close(module.training_step(batch, 0), wanted)


def test_targets_follow_the_recipe_without_datasets(recipe: Recipe) -> None:
    network = make_network(recipe.model)
    for convention, unbiased in (("udp", True), ("msra", False)):
        changed = replace(recipe, target=replace(recipe.target, convention=convention))
        module = PoseModule(network, changed, 1, make_spec(changed))
        assert module.unbiased.tolist() == [unbiased]
        assert not {"scale", "offset", "unbiased"} & module.state_dict().keys()
