"""Weights quantised by torchao: every form of configuration, and the errors where there is no kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torchao.quantization import (
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
)
from transformers.quantizers.quantizers_utils import should_convert_module

import vitpose
from vitpose import TorchAoConfig, VitPoseForPoseEstimation
from vitpose.errors import InputError, MissingDependencyError, UnknownNameError
from vitpose.model.quantisation import is_quantised, quantise

Build = Callable[..., VitPoseForPoseEstimation]


@pytest.fixture
def folder(build: Build, tmp_path: Path) -> Path:
    build(num_experts=3).save_pretrained(tmp_path / "plus")
    return tmp_path / "plus"


@torch.inference_mode()
def difference(folder: Path, pixels: torch.Tensor, config: Any) -> float:
    """Returns the norm of the change by quantisation relative to that of the heatmaps."""
    whole = VitPoseForPoseEstimation.from_pretrained(folder)(pixels, 1).heatmaps
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
    assert is_quantised(network)
    return float((network(pixels, 1).heatmaps - whole).norm() / whole.norm())


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (Int8WeightOnlyConfig(), 0.03),
        (transformers.TorchAoConfig(Int8WeightOnlyConfig()), 0.03),
        (TorchAoConfig("int8_weight_only"), 0.03),
        (TorchAoConfig(Int8WeightOnlyConfig()), 0.03),
        (TorchAoConfig("int8_dynamic_activation_int8_weight"), 0.1),
        (Int8DynamicActivationInt8WeightConfig(), 0.1),
        (IntxWeightOnlyConfig(torch.int4, PerGroup(32)), 0.3),
    ],
)
def test_configurations_supported_on_a_cpu(
    config: Any, limit: float, folder: Path, pixels: torch.Tensor
) -> None:
    assert 1e-5 < difference(folder, pixels, config) < limit


@pytest.mark.parametrize(
    "config",
    [
        TorchAoConfig("int4_weight_only", group_size=32),
        transformers.TorchAoConfig(Int4WeightOnlyConfig(group_size=32)),
        Int4WeightOnlyConfig(group_size=32, int4_packing_format="plain_int32"),
        Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d"),
    ],
)
def test_int4_has_no_kernel_on_a_cpu(config: Any, folder: Path) -> None:
    message = (
        r"torchao \S+ cannot run Int4WeightOnlyConfig on cpu in float32: it has no kernel for that \(.*\); supported "
        r"on a CPU, .*: "
        r"Int8WeightOnlyConfig\(\), Int8Dynamic.* IntxWeightOnlyConfig\(torch.int4, PerGroup\(64\)\), which"
    )
    with pytest.raises(InputError, match=message):
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)


def test_the_form_of_the_documentation() -> None:
    """`transformers` 5 no longer accepts it."""
    config = TorchAoConfig("int4_weight_only", group_size=128)
    assert config.quant_type == Int4WeightOnlyConfig(group_size=128)
    with pytest.raises(ValueError, match="no longer supported"):
        transformers.TorchAoConfig("int4_weight_only", group_size=128)


def test_modules_that_keep_their_weights(folder: Path) -> None:
    config = TorchAoConfig("int8_weight_only", modules_to_not_convert=["backbone.blocks.1"])
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
    first, second = network.backbone.blocks
    assert is_quantised(first)
    assert not is_quantised(second)
    assert not is_quantised(network.head)


@pytest.mark.parametrize(
    "entry", ["fc1", "backbone.blocks.1", "backbone.blocks.1.", "backbone.*fc2", ".*[.]0[.]mlp"]
)
def test_modules_not_to_convert_follow_the_rule_of_transformers(entry: str, folder: Path) -> None:
    config = TorchAoConfig("int8_weight_only", modules_to_not_convert=["backbone.blocks.0.attn", entry])
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    for name, layer in layers.items():
        assert is_quantised(layer) == should_convert_module(name, config.modules_to_not_convert)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ("backbone", "modules_to_not_convert 'backbone' must be a list of names"),
        ([1], r"modules_to_not_convert \[1\] must be a list of names"),
        (
            ["fc1", "fc3"],
            r"modules_to_not_convert \['fc3'\] matches no linear layer.* their names are backbone.*, \.\.\.",
        ),
        (["fc1", "(fc"], "has an entry that is not a valid regular expression: missing"),
        (
            ["backbone"],
            r"there is no layer to quantise: modules_to_not_convert \['backbone'\] matches every linear",
        ),
    ],
)
def test_invalid_modules_not_to_convert_are_refused(kept: Any, message: str, folder: Path) -> None:
    config = transformers.TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    with pytest.raises(InputError, match=message):
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)


def test_layers_that_torchao_skips_are_named(folder: Path) -> None:
    message = (
        r"Int4WeightOnlyConfig did not quantise \d+ of \d+ layers \(backbone.*, \.\.\.\), of width \d+, .*: torchao "
        "skips layers .* Choose a group size that divides their width"
    )
    with pytest.raises(InputError, match=message):
        config = TorchAoConfig("int4_weight_only", group_size=100)
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)


def test_a_quantised_network_is_not_quantised_again(folder: Path) -> None:
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=Int8WeightOnlyConfig())
    with pytest.raises(InputError, match="the weights are quantised already; load the model without"):
        quantise(network, Int8WeightOnlyConfig())


def test_an_expert_is_folded_before_quantisation(folder: Path, pixels: torch.Tensor) -> None:
    config = TorchAoConfig("int8_weight_only")
    pipe = vitpose.load(
        folder, None, device="cpu", dtype="float32", dataset=0, quantization_config=config,
        skeleton=vitpose.Skeleton("five", tuple("abcde")),
    )  # fmt: skip
    assert pipe.estimator.runs_on == "torch, cpu, float32, quantised weights"
    network = pipe.estimator.engine.network.network  # inside the wrapper that distributes the crops
    assert is_quantised(network)
    whole = VitPoseForPoseEstimation.from_pretrained(folder)
    with torch.inference_mode():
        found, wanted = network(pixels), whole(pixels, 0).heatmaps
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_quantised_weights_are_neither_folded_nor_saved(folder: Path, tmp_path: Path) -> None:
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=Int8WeightOnlyConfig())
    with pytest.raises(
        InputError,
        match="the weights are quantised, and an expert can only be folded before that; fold first",
    ):
        network.fold_expert(0)
    with pytest.raises(InputError, match="quantised weights cannot be saved; load the model without"):
        network.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_invalid_configurations_are_refused(folder: Path) -> None:
    for config in ("int8_weight_only", {"quant_type": "int8"}, 8):
        with pytest.raises(InputError, match="is not a configuration of torchao; give one, such as"):
            VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
    with pytest.raises(
        UnknownNameError, match="unknown kind of quantisation 'int8_weights_only'; did you mean int8"
    ):
        TorchAoConfig("int8_weights_only")
    with pytest.raises(
        InputError, match=r"'int8_weight_only' does not accept the options \{'groups': 3\}: .*'groups'"
    ):
        TorchAoConfig("int8_weight_only", groups=3)
    with pytest.raises(
        InputError, match=r"\['group_size'\] are given in addition to a torchao configuration; set"
    ):
        TorchAoConfig(Int8WeightOnlyConfig(), group_size=3)


def test_without_torchao(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Int8WeightOnlyConfig()
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    message = r"'torchao.quantization' is required to quantise weights; .*pip install 'vitpose\[torchao\]'"
    with pytest.raises(MissingDependencyError, match=message):
        TorchAoConfig("int8_weight_only")
    with pytest.raises(MissingDependencyError, match=message):
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
