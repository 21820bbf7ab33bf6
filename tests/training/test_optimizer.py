from __future__ import annotations

import copy

import pytest
import torch

from vitpose.errors import InputError
from vitpose.model.config import VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.training.muon import orthogonalise
from vitpose.training.optimizer import freeze_parts, make_optimizer, parameter_groups, rate_factor
from vitpose.training.recipe_tables import ModelRecipe, OptimizerRecipe


@pytest.fixture
def network() -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation(VitPoseConfig.preset("tiny", num_hidden_layers=3, image_size=(64, 48)))


def test_layer_decay_and_parameters_without_weight_decay(
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


def test_frozen_parts_do_not_require_gradients(network: VitPoseForPoseEstimation) -> None:
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


def test_freezing_more_blocks_than_exist_raises(network: VitPoseForPoseEstimation) -> None:
    with pytest.raises(
        InputError, match=r"model.freeze_blocks is 99, and the network has 3 blocks; give that number or less"
    ):
        freeze_parts(network, ModelRecipe(freeze_blocks=99))


def test_learning_rate_schedules() -> None:
    published = OptimizerRecipe()
    assert rate_factor(0, 10_000, published) == pytest.approx(0.001)
    assert rate_factor(250, 10_000, published) == pytest.approx(0.5005)
    assert rate_factor(500, 10_000, published) == 1
    assert rate_factor(8_200, 10_000, published) == pytest.approx(0.1)
    assert rate_factor(9_999, 10_000, published) == pytest.approx(0.01)
    cosine = OptimizerRecipe(schedule="cosine", warmup_steps=0)
    assert [rate_factor(step, 100, cosine) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    trapezoid = OptimizerRecipe(schedule="trapezoid", warmup_steps=0, cooldown=0.5)
    assert [rate_factor(step, 100, trapezoid) for step in (0, 49, 75, 100)] == pytest.approx([1, 1, 0.5, 0])


def test_orthogonalised_matrices_have_singular_values_of_about_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 40, 40), (2, 160, 40), (2, 40, 160)):
        matrices = torch.randn(shape)
        turned = orthogonalise(matrices)
        assert turned.shape == shape
        assert (torch.linalg.svdvals(turned).median() - 1).abs() < 0.4
        assert torch.linalg.svdvals(turned).max() < 1.4
        # The singular vectors are the same: the product with the old matrix is symmetric and positive definite.
        product = turned.mT @ matrices if shape[1] > shape[2] else turned @ matrices.mT
        torch.testing.assert_close(product, product.mT, atol=1e-3, rtol=1e-3)
        assert torch.linalg.eigvalsh(product).min() > 0
    assert not orthogonalise(torch.zeros(1, 4, 4)).any()


@pytest.mark.parametrize("shape", [(2, 40, 40), (3, 40, 160)])
def test_orthogonalising_in_bfloat16_gives_the_same_up_to_rounding(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    exact, rounded = orthogonalise(matrices), orthogonalise(matrices, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (rounded - exact).norm() < 0.06 * exact.norm()


@pytest.mark.parametrize(("precision", "dtype"), [("32", None), ("bf16", torch.bfloat16)])
def test_muon_computes_in_the_precision_of_the_run(
    network: VitPoseForPoseEstimation, precision: str, dtype: torch.dtype | None
) -> None:
    assert make_optimizer(network, 3, OptimizerRecipe(kind="muon"), precision).dtype == dtype


def test_muon_updates_matrices_of_blocks_and_adamw_the_rest(
    network: VitPoseForPoseEstimation,
) -> None:
    recipe = OptimizerRecipe(kind="muon", lr=1e-3, matrix_lr=0.02, weight_decay=0.0, layer_decay=1.0)
    optimizer = make_optimizer(network, 3, recipe)
    parameters = dict(network.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    torch.manual_seed(0)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = {name: parameters[name].detach() - before[name] for name in parameters}
    for part in moved["backbone.blocks.1.attn.qkv.weight"].chunk(3):  # each of the three is a matrix
        assert torch.linalg.svdvals(part).median() == pytest.approx(0.02, rel=0.4)
    assert torch.linalg.svdvals(moved["backbone.blocks.1.mlp.fc1.weight"]).median() == pytest.approx(
        0.04, rel=0.4
    )
    head = moved["head.deconv_layers.0.weight"].abs()
    assert head.median() == pytest.approx(1e-3, rel=1e-3)  # Adam's first step


def test_muon_resumes_from_its_state(network: VitPoseForPoseEstimation) -> None:
    recipe = OptimizerRecipe(kind="muon")
    optimizer = make_optimizer(network, 3, recipe)

    def step(used: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        used.step()

    step(optimizer, 0)
    weights, state = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    step(optimizer, 1)
    undisturbed = network.backbone.blocks[0].mlp.fc1.weight.detach().clone()
    network.load_state_dict(weights)
    resumed = make_optimizer(network, 3, recipe)
    resumed.load_state_dict(state)
    step(resumed, 1)
    assert torch.equal(network.backbone.blocks[0].mlp.fc1.weight, undisturbed)
