from __future__ import annotations

import pytest

from vitpose.model.config import VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.training.optimizer import freeze_parts, parameter_groups, rate_factor
from vitpose.training.recipe import ModelRecipe, OptimizerRecipe


@pytest.fixture
def network() -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation(VitPoseConfig.preset("tiny", num_hidden_layers=3, image_size=(64, 48)))


def test_rates_shrink_layer_by_layer_and_flat_parameters_do_not_decay(
    network: VitPoseForPoseEstimation,
) -> None:
    groups = parameter_groups(network, 3, OptimizerRecipe(lr=1.0, weight_decay=0.1, layer_decay=0.5))
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {
        "backbone.pos_embed": (0.5**4, 0.0),
        "backbone.patch_embed.proj.weight": (0.5**4, 0.1),
        "backbone.patch_embed.proj.bias": (0.5**4, 0.0),
        "backbone.blocks.0.attn.qkv.weight": (0.5**3, 0.1),
        "backbone.blocks.2.norm1.weight": (0.5, 0.0),
        "backbone.last_norm.weight": (1.0, 0.0),
        "head.deconv_layers.0.weight": (1.0, 0.1),
        "head.final_layer.bias": (1.0, 0.0),
    }
    parameters = dict(network.named_parameters())
    assert {name: found[id(parameters[name])] for name in expected} == expected
    assert len(found) == len(parameters)


def test_frozen_parts_do_not_learn(network: VitPoseForPoseEstimation) -> None:
    count = freeze_parts(network, ModelRecipe(freeze=("attention", "embeddings"), freeze_blocks=1))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert "backbone.pos_embed" in frozen
    assert "backbone.blocks.2.attn.qkv.weight" in frozen
    assert "backbone.blocks.0.mlp.fc1.weight" in frozen
    assert "backbone.blocks.1.mlp.fc1.weight" not in frozen
    assert not any(name.startswith("head") for name in frozen)
    assert count == sum(dict(network.named_parameters())[name].numel() for name in frozen)
    groups = parameter_groups(network, 3, OptimizerRecipe())
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])


def test_rates_warm_up_and_fall() -> None:
    published = OptimizerRecipe()
    assert rate_factor(0, 10_000, published) == pytest.approx(0.001)
    assert rate_factor(250, 10_000, published) == pytest.approx(0.5005)
    assert rate_factor(500, 10_000, published) == 1
    assert rate_factor(8_200, 10_000, published) == pytest.approx(0.1)
    assert rate_factor(9_999, 10_000, published) == pytest.approx(0.01)
    cosine = OptimizerRecipe(schedule="cosine", warmup_steps=0)
    assert [rate_factor(step, 100, cosine) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
