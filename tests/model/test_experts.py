from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitpose.errors import InputError
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]


@pytest.fixture
def model(build: Build) -> VitPoseForPoseEstimation:
    return build(num_experts=4)


# ------------------------------------------------------------------ which expert runs


@torch.no_grad()
def test_mixed_batch_equals_single_samples(model: VitPoseForPoseEstimation, pixels: Tensor) -> None:
    index = torch.tensor([3, 0, 1])
    mixed = model(pixels, index).heatmaps
    for number in range(3):
        alone = model(pixels[number : number + 1], int(index[number])).heatmaps[0]
        assert torch.allclose(mixed[number], alone, atol=1e-5)
    assert not torch.allclose(model(pixels, 0).heatmaps, model(pixels, 1).heatmaps, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    "index", [2, [2, 2, 2], [2], (2, 2, 2), torch.tensor(2), torch.tensor([[2]] * 3), np.array([2, 2, 2])]
)
def test_one_expert_for_all_can_be_given_in_many_forms(
    model: VitPoseForPoseEstimation, pixels: Tensor, index: Any
) -> None:
    wanted = model.backbone(pixels, 2).feature_maps[0]
    assert torch.equal(model.backbone(pixels, index).feature_maps[0], wanted)


@torch.no_grad()
def test_fault_only_the_chosen_experts_compute_and_only_their_rows(
    model: VitPoseForPoseEstimation, pixels: Tensor
) -> None:
    seen: list[tuple[int, int]] = []
    for number, expert in enumerate(model.backbone.blocks[0].mlp.experts):
        expert.register_forward_hook(lambda _, given, __, number=number: seen.append((number, len(given[0]))))
    model(pixels, [3, 0, 3])
    assert seen == [(0, 1), (3, 2)]
    seen.clear()
    model(pixels, 1)
    assert seen == [(1, 3)]


@torch.no_grad()
@pytest.mark.parametrize("index", [1, [], [1]])
def test_no_crops_need_no_expert(model: VitPoseForPoseEstimation, index: Any) -> None:
    assert model.backbone(torch.zeros(0, 3, 64, 48), index).feature_maps[0].shape == (0, 12, 32)


@torch.no_grad()
def test_dense_network_takes_any_index_as_transformers_does(build: Build, pixels: Tensor) -> None:
    model = build()
    assert torch.equal(model(pixels, dataset_index=5).heatmaps, model(pixels).heatmaps)


# ------------------------------------------------------------------ wrong indices


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, r"this network has 4 experts, so dataset_index is required: 0 to 3, .*\(0 is COCO"),
        (4, "dataset_index 4 is not a valid expert index; this network has 4 experts, 0 to 3"),
        (-1, "dataset_index -1 is not a valid expert index"),
        ([0, 1, 7], "dataset_index 7 is not a valid expert index"),
        (torch.tensor([0, 9, 1]), "dataset_index 9 is not a valid expert index"),
        (True, "dataset_index True is not a valid expert index"),
        (torch.tensor([True, False, True]), "dataset_index True is not a valid expert index"),
        (1.0, "dataset_index 1.0 is not a valid expert index"),
        (torch.tensor([0.0, 1.0, 2.0]), "dataset_index 0.0 is not a valid expert index"),
        ([0, 1], "dataset_index has 2 entries for a batch of 3; give one, or one per sample"),
        (torch.zeros(4, dtype=torch.long), "dataset_index has 4 entries for a batch of 3"),
        ([], "dataset_index has 0 entries for a batch of 3"),
        ("coco", "dataset_index 'coco' is not numeric; give integers, 0 to 3"),
        ([0, None, 1], r"dataset_index \[0, None, 1\] is not numeric"),
    ],
)
def test_fault_an_expert_that_does_not_exist_is_refused(
    model: VitPoseForPoseEstimation, pixels: Tensor, index: Any, message: str, unchecked: None
) -> None:
    with pytest.raises(InputError, match=message):
        model(pixels, index)


# ------------------------------------------------------------------ folding


@torch.no_grad()
@pytest.mark.parametrize("simple", [True, False])
def test_folded_expert_is_a_dense_network_with_the_same_heatmaps(
    build: Build, pixels: Tensor, simple: bool
) -> None:
    model = build(num_experts=4, use_simple_decoder=simple)
    for expert in range(4):
        folded = model.fold_expert(expert)
        assert folded.config.backbone_config.num_experts == 1
        assert not any("experts" in name for name, _ in folded.named_parameters())
        assert torch.allclose(folded(pixels).heatmaps, model(pixels, expert).heatmaps, atol=1e-5)
    assert model.config.backbone_config.num_experts == 4


@torch.no_grad()
def test_folded_network_shares_nothing_with_its_source(
    model: VitPoseForPoseEstimation, pixels: Tensor
) -> None:
    before = model(pixels, 1).heatmaps
    for parameter in model.fold_expert(1).parameters():
        parameter.zero_()
    assert torch.equal(model(pixels, 1).heatmaps, before)


def test_folded_network_keeps_mode_type_and_trainability(model: VitPoseForPoseEstimation) -> None:
    assert not model.fold_expert(0).training
    folded = model.train().to(torch.bfloat16).fold_expert(0)
    assert folded.training
    assert folded.dtype is torch.bfloat16
    assert all(parameter.requires_grad for parameter in folded.parameters())


def test_folding_a_missing_expert_is_refused(build: Build, model: VitPoseForPoseEstimation) -> None:
    with pytest.raises(InputError, match="this network has no experts to fold; it is dense already"):
        build().fold_expert(0)
    with pytest.raises(InputError, match="expert 4 does not exist; the network has 4, 0 to 3"):
        model.fold_expert(4)
    with pytest.raises(InputError, match="expert -1 does not exist"):
        model.fold_expert(-1)
