from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitpose.errors import InputError
from vitpose.model.backbone import Attention, DropPath, VitPoseBackbone
from vitpose.model.config import VitPoseBackboneConfig
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]


# ------------------------------------------------------------------ attentions and hidden states


@torch.no_grad()
def test_fault_attentions_are_those_of_the_fused_kernel(build: Build, pixels: Tensor) -> None:
    model = build()
    plain, seen = model(pixels), model(pixels, output_attentions=True)
    assert plain.attentions is None
    assert [tuple(layer.shape) for layer in seen.attentions] == [(3, 4, 12, 12)] * 2
    for layer in seen.attentions:
        assert torch.allclose(layer.sum(-1), torch.ones(3, 4, 12), atol=1e-5)
        assert layer.std() > 0.01  # not uniform
    assert torch.allclose(plain.heatmaps, seen.heatmaps, atol=1e-5)


@torch.no_grad()
def test_attention_does_not_depend_on_the_kernel(build: Build, pixels: Tensor) -> None:
    model, results = build(), []
    for kernel in (nn.attention.SDPBackend.MATH, nn.attention.SDPBackend.FLASH_ATTENTION):
        with nn.attention.sdpa_kernel(kernel):
            results.append(model(pixels).heatmaps)
    assert torch.allclose(*results, atol=1e-5)


def gradients(attention: Attention, x: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the output of the layer under autocast, and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    attention.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        output, _ = attention(x)
    output.float().square().sum().backward()
    return [output.float(), x.grad, *(parameter.grad for parameter in attention.parameters())]


def test_products_in_bfloat16_have_the_gradients_of_the_fused_kernel_up_to_rounding() -> None:
    """Training on a CPU in bfloat16 computes two products, otherwise the fused kernel."""
    torch.manual_seed(0)
    attention = Attention(VitPoseBackboneConfig(hidden_size=48, num_attention_heads=3))
    x = torch.randn(2, 20, 48)
    exact = gradients(attention, x)
    attention.eager = True
    for found, expected in zip(gradients(attention, x), exact, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    products = gradients(attention, x, torch.bfloat16)
    attention.eager = False
    training = gradients(attention, x, torch.bfloat16)
    fused = gradients(attention.eval(), x, torch.bfloat16)
    for one, same, other, expected in zip(training, products, fused, exact, strict=True):
        assert torch.equal(one, same)
        scale = expected.norm()
        assert (one - expected).norm() < 0.02 * scale
        assert (one - expected).norm() < 1.5 * (other - expected).norm() + 1e-3 * scale
    assert not all(torch.equal(one, other) for one, other in zip(training, fused, strict=True))


@torch.no_grad()
def test_hidden_states_are_the_stem_and_every_block(build: Build, pixels: Tensor) -> None:
    backbone = build().backbone
    output = backbone(pixels, output_hidden_states=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(3, 12, 32)] * 3
    assert torch.equal(output.hidden_states[0], backbone.embed(pixels))
    assert torch.equal(backbone.last_norm(output.hidden_states[-1]), output.feature_maps[-1])
    assert backbone(pixels).hidden_states is None


@torch.no_grad()
def test_chosen_stages_are_returned_normalised(build: Build, pixels: Tensor) -> None:
    backbone = build(out_features=["stem", "stage2"]).backbone
    output = backbone(pixels, output_hidden_states=True)
    assert backbone.config.out_indices == [0, 2]
    assert len(output.feature_maps) == 2
    for features, index in zip(output.feature_maps, (0, 2), strict=True):
        assert torch.equal(features, backbone.last_norm(output.hidden_states[index]))


@torch.no_grad()
def test_decoder_reads_the_last_chosen_stage(build: Build, pixels: Tensor) -> None:
    model = build(out_indices=[1])
    before = model(pixels).heatmaps
    model.backbone.blocks[1].attn.qkv.weight.zero_()
    assert torch.equal(model(pixels).heatmaps, before)
    model.backbone.blocks[0].attn.qkv.weight.zero_()
    assert not torch.allclose(model(pixels).heatmaps, before)


# ------------------------------------------------------------------ input sizes


@torch.no_grad()
@pytest.mark.parametrize("size", [(384, 288), (224, 224), (256, 192), (16, 16)])
def test_fault_any_size_that_the_patch_divides_gives_heatmaps_of_a_quarter(
    build: Build, size: tuple[int, int]
) -> None:
    model = build(image_size=(256, 192), num_hidden_layers=1)
    assert model(torch.randn(2, 3, *size)).heatmaps.shape == (2, 5, size[0] // 4, size[1] // 4)


def test_positions_of_the_trained_size_are_untouched(build: Build) -> None:
    backbone = build().backbone
    assert torch.equal(backbone.positions(4, 3), backbone.pos_embed[:, 1:] + backbone.pos_embed[:, :1])


@torch.no_grad()
def test_positions_are_interpolated_on_another_grid(build: Build) -> None:
    """A ramp from top to bottom is kept, and rows and columns are not swapped."""
    backbone = build().backbone
    ramp = torch.arange(4.0).repeat_interleave(3)
    backbone.pos_embed[:] = torch.cat([torch.zeros(1), ramp])[None, :, None]
    grid = backbone.positions(8, 6).unflatten(1, (8, 6))[0, :, :, 0]
    assert torch.allclose(grid, grid[:, :1].expand(8, 6), atol=1e-5)
    assert (grid[1:, 0] > grid[:-1, 0]).all()
    assert torch.allclose(grid[3:5, 0].mean(), torch.tensor(1.5), atol=1e-5)


def test_wrong_crops_are_refused(build: Build, unchecked: None) -> None:
    model = build()
    with pytest.raises(
        InputError, match=r"pixel_values of 50x64 \(width x height\) cannot be divided into patches"
    ):
        model(torch.zeros(1, 3, 64, 50))
    with pytest.raises(InputError, match=r"pixel_values of 48x0 .* cannot be divided"):
        model(torch.zeros(1, 3, 0, 48))
    with pytest.raises(InputError, match="pixel_values have 4 channels, but the network requires 3; convert"):
        model(torch.zeros(1, 4, 64, 48))
    with pytest.raises(InputError, match=r"pixel_values have the shape \(3, 64, 48\); give a batch"):
        model(torch.zeros(3, 64, 48))


@torch.no_grad()
@pytest.mark.parametrize("simple", [True, False])
def test_no_crops_give_no_heatmaps(build: Build, simple: bool) -> None:
    model = build(use_simple_decoder=simple)
    assert model(torch.zeros(0, 3, 64, 48)).heatmaps.shape == (0, 5, 16, 12)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("experts", [1, 3])
def test_gradient_checkpointing_changes_memory_and_nothing_else(
    build: Build, pixels: Tensor, experts: int
) -> None:
    model = build(num_experts=experts, use_simple_decoder=True).train()
    index = [2, 0, 1] if experts > 1 else None
    gradients = []
    for enabled in (False, True):
        (model.gradient_checkpointing_enable if enabled else model.gradient_checkpointing_disable)()
        assert model.is_gradient_checkpointing is enabled
        model.zero_grad()
        calls = count_calls(model.backbone.blocks[0].attn.qkv)
        model(pixels, index).heatmaps.square().mean().backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
        assert len(calls) == 1 + enabled  # computed again in the backward pass
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7), name


def count_calls(module: nn.Module) -> list[Any]:
    """Returns a list that gets one entry per call of the module."""
    calls: list[Any] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    layer = DropPath(0.4).train()
    result = layer(torch.ones(4000, 2, 3))
    assert result.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert torch.equal(result, result[:, :1, :1].expand_as(result))
    assert result.mean() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(torch.ones(9, 2, 3)), torch.ones(9, 2, 3))


def test_drop_path_grows_from_the_first_block_to_the_last() -> None:
    backbone = VitPoseBackbone(
        VitPoseBackboneConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=5, drop_path_rate=0.4)
    )
    assert [block.drop_path.rate for block in backbone.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@torch.no_grad()
@pytest.mark.parametrize("option", ["drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_every_kind_of_dropout_is_random_in_training_only(build: Build, pixels: Tensor, option: str) -> None:
    model = build(**{option: 0.5})
    assert torch.equal(model(pixels).heatmaps, model(pixels).heatmaps)
    model.backbone.train()
    assert not torch.allclose(model(pixels).heatmaps, model(pixels).heatmaps)
    seen = [model(pixels, output_attentions=True).heatmaps for _ in range(2)]
    assert not torch.allclose(*seen)


def test_weights_are_initialised_as_in_the_original() -> None:
    model = VitPoseForPoseEstimation()
    assert model.backbone.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.head.final_layer.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert model.head.final_layer.bias.abs().max() == 0
    assert model.backbone.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
