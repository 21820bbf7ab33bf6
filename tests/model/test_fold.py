from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vitpose.engines.metadata import Metadata
from vitpose.exporters.conversion import make_program
from vitpose.geometry.boxes import Size
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.model.decoder import ClassicDecoder
from vitpose.model.fold import CROPS_PER_PASS, InferenceNetwork, fold_decoder

Build = Callable[..., Any]


def heatmaps_of(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(pixels)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"use_simple_decoder": False},
        {"use_simple_decoder": True},
        {"use_simple_decoder": True, "qkv_bias": False},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"out_indices": [1]},
    ],
    ids=str,
)
def test_heatmaps_are_those_of_the_original_network(
    build: Build, pixels: torch.Tensor, options: dict[str, Any], in_place: bool
) -> None:
    model = build(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = heatmaps_of(model, pixels).heatmaps
    folded = InferenceNetwork(model, in_place)
    assert folded.in_place is in_place
    torch.testing.assert_close(heatmaps_of(folded, pixels), plain, rtol=1e-4, atol=1e-5 * plain.abs().max())
    # Neither construction nor inference changes the original network.
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_expert_folded_first_is_the_same(build: Build, pixels: torch.Tensor) -> None:
    model = build(num_experts=3)
    plain = model(pixels, dataset_index=2).heatmaps
    folded = InferenceNetwork(model.fold_expert(2))
    assert folded.in_place
    torch.testing.assert_close(heatmaps_of(folded, pixels), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, CROPS_PER_PASS, CROPS_PER_PASS + 3])
def test_any_number_of_crops(build: Build, count: int) -> None:
    model = build(use_simple_decoder=True)
    pixels = torch.randn(count, 3, 64, 48)
    plain = heatmaps_of(model, pixels).heatmaps
    folded = heatmaps_of(InferenceNetwork(model, in_place=True), pixels)
    assert folded.shape == (count, 5, 16, 12)
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-5)


def test_other_sizes_of_crops(build: Build) -> None:
    model = build(use_simple_decoder=True)
    pixels = torch.randn(2, 3, 80, 112)
    plain = heatmaps_of(model, pixels).heatmaps
    torch.testing.assert_close(heatmaps_of(InferenceNetwork(model), pixels), plain, rtol=1e-4, atol=1e-5)


def test_batch_norm_is_folded(build: Build) -> None:
    head = build(use_simple_decoder=False).head
    assert isinstance(head, ClassicDecoder)
    folded = fold_decoder(head)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    features = torch.randn(2, 32, 4, 3)
    torch.testing.assert_close(folded(features), head(features), rtol=1e-4, atol=1e-4)


def test_half_precision_is_close(build: Build, pixels: torch.Tensor) -> None:
    model = build(use_simple_decoder=True)
    plain = heatmaps_of(model, pixels).heatmaps
    model = model.bfloat16()
    folded = heatmaps_of(InferenceNetwork(model), pixels.bfloat16()).float()
    assert (folded - plain).abs().max() < 0.03 * plain.abs().max()


def test_tensor_subclasses_do_not_run_in_place(build: Build) -> None:
    class Packed(torch.Tensor):
        """Stands in for the weights of a quantised layer."""

    model = build()
    layer = model.backbone.blocks[0].mlp.fc1
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Packed), requires_grad=False)
    assert not InferenceNetwork(model, in_place=True).in_place


@pytest.mark.parametrize("of_model", [True, False])
def test_other_outputs_in_the_configuration_change_nothing(
    build: Build, pixels: torch.Tensor, of_model: bool
) -> None:
    model = build(num_hidden_layers=3)
    wanted = heatmaps_of(model, pixels).heatmaps
    config = model.config if of_model else model.config.backbone_config
    config.update({"output_hidden_states": True, "output_attentions": True, "return_dict": False})
    for in_place in (True, False):
        found = heatmaps_of(InferenceNetwork(model, in_place), pixels)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_exported_program_returns_only_heatmaps(build: Build, pixels: torch.Tensor) -> None:
    model = build()
    wanted = heatmaps_of(model, pixels).heatmaps
    model.config.update({"output_hidden_states": True, "output_attentions": True, "return_dict": False})
    spec = ModelSpec(dataset=model.config.heads[0], input_size=Size(width=48, height=64))
    program = make_program(model, Metadata("tiny", "float32", spec)).module()
    torch.testing.assert_close(heatmaps_of(program, pixels), wanted, atol=1e-5, rtol=1e-4)
