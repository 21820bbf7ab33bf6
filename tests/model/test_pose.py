from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitpose.errors import InputError
from vitpose.model.outputs import VitPoseEstimatorOutput
from vitpose.model.pose import VitPoseForPoseEstimation, flip_back, heatmap_loss

Build = Callable[..., VitPoseForPoseEstimation]


# ------------------------------------------------------------------ outputs


@torch.no_grad()
def test_output_is_read_by_name_by_key_and_by_position(build: Build, pixels: Tensor) -> None:
    output = build()(pixels, labels=torch.zeros(3, 5, 16, 12), output_hidden_states=True)
    assert isinstance(output, VitPoseEstimatorOutput)
    assert output["heatmaps"] is output.heatmaps
    assert output[0] is output.loss
    assert output[1] is output.heatmaps
    assert output[1:] == (output.heatmaps, output.hidden_states)
    loss, heatmaps, states = output.to_tuple()
    assert loss is output.loss
    assert heatmaps is output.heatmaps
    assert states is output.hidden_states


@torch.no_grad()
def test_tuple_has_only_the_requested_results(build: Build, pixels: Tensor) -> None:
    model = build()
    output = model(pixels)
    assert output[0] is output.heatmaps
    assert (output.loss, output.hidden_states, output.attentions) == (None, None, None)
    (heatmaps,) = model(pixels, return_dict=False)
    assert torch.equal(heatmaps, output.heatmaps)
    outputs = model(
        pixels,
        labels=heatmaps,
        output_attentions=True,
        output_hidden_states=True,
        return_dict=False,
    )
    assert [type(part) for part in outputs] == [Tensor, Tensor, tuple, tuple]


def test_device_and_type_are_those_of_the_weights(build: Build, pixels: Tensor) -> None:
    model = build().to(torch.bfloat16)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert model(pixels.bfloat16()).heatmaps.dtype is torch.float32


@torch.no_grad()
def test_simple_decoder_scales_as_configured_and_keeps_what_is_positive(build: Build, pixels: Tensor) -> None:
    model = build()
    model.head.scale = 2
    tokens = model.backbone(pixels).feature_maps[-1].transpose(1, 2).unflatten(2, (4, 3))
    wanted = model.head.final_layer(
        nn.functional.interpolate(tokens.clamp(min=0), scale_factor=2, mode="bilinear")
    )
    assert torch.allclose(model(pixels).heatmaps, wanted, atol=1e-5)


# ------------------------------------------------------------------ flip_pairs


@torch.no_grad()
@pytest.mark.parametrize("pairs", [[[1, 2], [3, 4]], [(1, 2), (3, 4)], torch.tensor([[1, 2], [3, 4]])])
def test_flip_pairs_swap_channels_and_reverse_columns(build: Build, pixels: Tensor, pairs: Any) -> None:
    model = build()
    plain, flipped = model(pixels).heatmaps, model(pixels, flip_pairs=pairs).heatmaps
    for channel, source in enumerate((0, 2, 1, 4, 3)):
        for column in range(12):
            assert torch.equal(flipped[:, channel, :, column], plain[:, source, :, 11 - column])


def test_flipping_twice_is_the_identity_and_no_pairs_only_reverse() -> None:
    heatmaps = torch.randn(2, 5, 3, 4)
    assert torch.equal(flip_back(flip_back(heatmaps, [[0, 4]]), [[0, 4]]), heatmaps)
    assert torch.equal(flip_back(heatmaps, []), heatmaps.flip(-1))
    assert torch.equal(flip_back(heatmaps, [[1, 2], [2, 1]]), flip_back(heatmaps, [[1, 2]]))


@pytest.mark.parametrize(
    "pairs",
    [
        [[0, 5]],
        [[-1, 2]],
        [1, 2],
        [[0, 1, 2]],
        [[0, 1], [1, 2]],
        [[0.0, 1.0]],
        [[0, 1], [2]],
        [["left", "right"]],
        torch.tensor([[0.5, 1.7]]),
        3,
    ],
)
def test_wrong_flip_pairs_are_refused(pairs: Any) -> None:
    with pytest.raises(
        InputError,
        match="flip_pairs must be pairs of keypoint indices, 0 to 4, each in one pair at most, not",
    ):
        flip_back(torch.zeros(1, 5, 2, 2), pairs)


# ------------------------------------------------------------------ loss


def joints_mse_loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The original's loss, keypoint by keypoint: prediction and target are both multiplied by the weight."""
    criterion, loss = nn.MSELoss(reduction="mean"), torch.zeros(())
    for joint in range(output.shape[1]):
        predicted, wanted = output[:, joint].flatten(1), target[:, joint].flatten(1)
        loss = loss + criterion(predicted * weight[:, joint, None], wanted * weight[:, joint, None])
    return loss / output.shape[1]


@torch.no_grad()
def test_fault_labels_give_the_loss_of_the_original(build: Build, pixels: Tensor) -> None:
    model, labels = build(), torch.rand(3, 5, 16, 12)
    weights = torch.tensor([[0.0, 1.0, 1.5, 1.2, 1.0], [1.0, 0.0, 1.0, 1.0, 1.0], [0.5, 1.0, 0.0, 1.0, 2.0]])
    weighted = model(pixels, labels=labels, label_weights=weights)
    assert torch.allclose(weighted.loss, joints_mse_loss(weighted.heatmaps, labels, weights))
    plain = model(pixels, labels=labels)
    assert torch.allclose(plain.loss, joints_mse_loss(plain.heatmaps, labels, torch.ones(3, 5)))
    assert weighted.loss.shape == ()


def test_keypoints_without_a_label_have_no_gradient() -> None:
    heatmaps = torch.randn(1, 2, 3, 3, requires_grad=True)
    heatmap_loss(heatmaps, torch.zeros(1, 2, 3, 3), torch.tensor([[0.0, 1.0]])).backward()
    assert heatmaps.grad[:, 0].abs().max() == 0
    assert heatmaps.grad[:, 1].abs().min() > 0


def test_loss_of_half_precision_heatmaps_is_computed_in_float32() -> None:
    heatmaps = torch.full((1, 1, 64, 48), 300.0, dtype=torch.float16)
    assert (
        heatmap_loss(heatmaps, torch.zeros_like(heatmaps)).item() == 90000.0
    )  # above the largest of float16


def test_loss_of_other_shapes_is_refused(build: Build, pixels: Tensor, unchecked: None) -> None:
    model = build()
    message = (
        r"labels have the shape \(3, 5, 64, 48\), the heatmaps \(3, 5, 16, 12\); make targets of that size"
    )
    with pytest.raises(InputError, match=message):
        model(pixels, labels=torch.zeros(3, 5, 64, 48))
    with pytest.raises(
        InputError, match=r"label_weights have the shape \(3, 5, 1\); give the shape \(3, 5\), one weight"
    ):
        model(pixels, labels=torch.zeros(3, 5, 16, 12), label_weights=torch.ones(3, 5, 1))


# ------------------------------------------------------------------ other ways to run it


@pytest.fixture
def small_batches(unchecked: None) -> list[Tensor]:
    """Batches of several sizes; the runtime checks are disabled, because tracing would follow them."""
    return [torch.randn(count, 3, 64, 48) for count in (2, 3, 5)]


@torch.no_grad()
@pytest.mark.parametrize("simple", [True, False])
def test_exported_network_takes_any_number_of_crops(
    build: Build, small_batches: list[Tensor], simple: bool
) -> None:
    model = build(use_simple_decoder=simple)
    shapes = {"pixel_values": {0: torch.export.Dim("crops", min=1, max=64)}, "return_dict": None}
    program = torch.export.export(
        model, (small_batches[0],), {"return_dict": False}, dynamic_shapes=shapes, strict=False
    )
    for batch in small_batches:
        (heatmaps,) = program.module()(batch, return_dict=False)
        assert torch.allclose(heatmaps, model(batch).heatmaps, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*get_attr:UserWarning")  # torch 2.6's, about the constant index
@torch.no_grad()
def test_one_expert_is_exported_by_its_number(build: Build, small_batches: list[Tensor]) -> None:
    model = build(num_experts=3)
    options = {"dataset_index": 2, "return_dict": False}
    program = torch.export.export(model, (small_batches[0],), options, strict=False)
    (heatmaps,) = program.module()(small_batches[0], **options)
    assert torch.allclose(heatmaps, model(small_batches[0], 2).heatmaps, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # raised inside torch
@torch.no_grad()
@pytest.mark.parametrize("experts", [1, 3])
def test_compiled_network_gives_the_same_heatmaps(
    build: Build, small_batches: list[Tensor], experts: int
) -> None:
    model = build(num_experts=experts)
    compiled = torch.compile(model)
    for batch in small_batches:
        index = [number % 3 for number in range(len(batch))] if experts > 1 else None
        assert torch.allclose(compiled(batch, index).heatmaps, model(batch, index).heatmaps, atol=1e-4)
