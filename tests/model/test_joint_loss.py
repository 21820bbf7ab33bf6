"""The loss of several heads against the released code: every head on the whole batch, other datasets weighted 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitpose.errors import UnknownNameError
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

COUNTS = (5, 3, 4)
INDEX = torch.tensor([0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0])  # 12 samples, 3 and 1


@pytest.fixture(params=[True, False], ids=["simple", "classic"])
def network(request: pytest.FixtureRequest) -> VitPoseForPoseEstimation:
    datasets = []
    for number, count in enumerate(COUNTS):
        skeleton = Skeleton(f"set{number}", tuple(f"keypoint_{k}" for k in range(count)))
        datasets.append(DatasetSpec(name=f"set{number}", skeleton=skeleton))
    backbone = VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_experts=3,
        part_features=8,
    )  # fmt: skip
    config = VitPoseConfig(
        backbone_config=backbone, datasets=datasets, use_simple_decoder=bool(request.param)
    )
    network = VitPoseForPoseEstimation(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()  # so that BatchNorm does not depend on which samples a head runs on


def released_loss(
    network: VitPoseForPoseEstimation, pixels: Tensor, labels: Tensor, weights: Tensor
) -> Tensor:
    tokens = network.backbone(pixels, INDEX).feature_maps[-1]
    grid = tokens.transpose(1, 2).reshape(len(pixels), 32, 4, 3)
    criterion, total = nn.MSELoss(reduction="mean"), torch.zeros(())
    for number, (head, count) in enumerate(zip(network.heads, COUNTS, strict=True)):
        heatmaps, chosen = head(grid), (number == INDEX).float()[:, None, None]
        loss = torch.zeros(())
        for joint in range(count):
            weight = weights[:, joint, None, None] * chosen
            loss = loss + criterion(heatmaps[:, joint] * weight, labels[:, joint] * weight)
        total = total + loss / count
    return total


def mean_over_samples_of_dataset(
    network: VitPoseForPoseEstimation, pixels: Tensor, labels: Tensor, weights: Tensor
) -> Tensor:
    heatmaps, total = network(pixels, INDEX).heatmaps, torch.zeros(())
    for number, count in enumerate(COUNTS):
        rows = [row for row in range(len(pixels)) if INDEX[row] == number]
        errors = [
            (weights[row, joint] * (heatmaps[row, joint] - labels[row, joint])).square().mean()
            for row in rows
            for joint in range(count)
        ]
        total = total + sum(errors) / len(errors)
    return total


@pytest.mark.parametrize(
    ("average", "expected"), [("batch", released_loss), ("dataset", mean_over_samples_of_dataset)]
)
def test_fault_a_dataset_counts_by_its_share_of_the_batch(
    network: VitPoseForPoseEstimation, average: str, expected: object
) -> None:
    pixels, labels = torch.randn(16, 3, 64, 48), torch.rand(16, 5, 16, 12)
    weights = torch.randint(0, 3, (16, 5)).float() / 2
    found = network(pixels, INDEX, labels=labels, label_weights=weights, loss_average=average).loss
    wanted = expected(network, pixels, labels, weights)  # type: ignore[operator]
    torch.testing.assert_close(found, wanted)
    gradients = [
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True) for loss in (found, wanted)
    ]
    for first, second in zip(*gradients, strict=True):
        if first is None or second is None:
            assert first is second or not (first if second is None else second).any()
        else:
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_the_published_average_is_the_default(network: VitPoseForPoseEstimation) -> None:
    pixels, labels = torch.randn(16, 3, 64, 48), torch.rand(16, 5, 16, 12)
    losses = [network(pixels, INDEX, labels=labels, **options).loss.item()
              for options in ({}, {"loss_average": "batch"}, {"loss_average": "dataset"})]  # fmt: skip
    assert losses[0] == losses[1] != losses[2]


def test_both_averages_are_one_where_a_batch_is_of_one_dataset(network: VitPoseForPoseEstimation) -> None:
    pixels, labels = torch.randn(2, 3, 64, 48), torch.rand(2, 3, 16, 12)
    one, other = (network(pixels, 1, labels=labels, loss_average=name).loss for name in ("batch", "dataset"))
    torch.testing.assert_close(one, other)


def test_an_average_that_is_not_known(network: VitPoseForPoseEstimation) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown loss_average 'bach'; did you mean batch\?"):
        network(torch.zeros(2, 3, 64, 48), 0, labels=torch.zeros(2, 5, 16, 12), loss_average="bach")
