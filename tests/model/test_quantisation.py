"""Weights quantised by torchao: every form of configuration, and what is said where there is no kernel."""

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

import vitpose
from vitpose import TorchAoConfig, VitPoseForPoseEstimation
from vitpose.errors import InputError, MissingDependencyError, UnknownNameError
from vitpose.model.quantisation import is_quantised

Build = Callable[..., VitPoseForPoseEstimation]


@pytest.fixture
def folder(build: Build, tmp_path: Path) -> Path:
    build(num_experts=3).save_pretrained(tmp_path / "plus")
    return tmp_path / "plus"


@torch.inference_mode()
def difference(folder: Path, pixels: torch.Tensor, config: Any) -> float:
    """Returns the norm of the difference that quantising makes, over that of the maps."""
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
def test_what_works_on_a_cpu(config: Any, limit: float, folder: Path, pixels: torch.Tensor) -> None:
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
        r"torchao \S+ cannot run Int4WeightOnlyConfig on cpu in float32: it has no kernel for that \(.*\); on a CPU "
        r"Int8WeightOnlyConfig\(\), Int8Dynamic.* IntxWeightOnlyConfig\(torch.int4, PerGroup\(64\)\) .* work"
    )
    with pytest.raises(InputError, match=message):
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)


def test_the_form_of_the_documentation() -> None:
    """`transformers` 5 refuses it itself."""
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


def test_an_expert_is_folded_before(folder: Path, pixels: torch.Tensor) -> None:
    config = TorchAoConfig("int8_weight_only")
    pipe = vitpose.load(
        folder, None, device="cpu", dataset=0, quantization_config=config,
        skeleton=vitpose.Skeleton("five", tuple("abcde")),
    )  # fmt: skip
    network = pipe.estimator.engine.network.network  # inside what deals the crops out
    assert is_quantised(network)
    whole = VitPoseForPoseEstimation.from_pretrained(folder)
    with torch.inference_mode():
        found, wanted = network(pixels), whole(pixels, 0).heatmaps
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_what_quantised_weights_cannot(folder: Path, tmp_path: Path) -> None:
    network = VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=Int8WeightOnlyConfig())
    with pytest.raises(
        InputError, match="the weights are quantised, and an expert can only be folded into whole"
    ):
        network.fold_expert(0)
    with pytest.raises(InputError, match="the weights are quantised, which the files have no form for"):
        network.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_configuration(folder: Path) -> None:
    for config in ("int8_weight_only", {"quant_type": "int8"}, 8):
        with pytest.raises(InputError, match="is no configuration of torchao, such as"):
            VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
    with pytest.raises(
        UnknownNameError, match="unknown kind of quantisation 'int8_weights_only'; did you mean int8"
    ):
        TorchAoConfig("int8_weights_only")
    with pytest.raises(
        InputError, match=r"'int8_weight_only' cannot be had with \{'groups': 3\}: .*'groups'"
    ):
        TorchAoConfig("int8_weight_only", groups=3)
    with pytest.raises(InputError, match=r"\['group_size'\] belong into torchao's configuration"):
        TorchAoConfig(Int8WeightOnlyConfig(), group_size=3)


def test_without_torchao(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Int8WeightOnlyConfig()
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    message = r"'torchao.quantization' is needed to quantise weights; .*pip install 'vitpose\[torchao\]'"
    with pytest.raises(MissingDependencyError, match=message):
        TorchAoConfig("int8_weight_only")
    with pytest.raises(MissingDependencyError, match=message):
        VitPoseForPoseEstimation.from_pretrained(folder, quantization_config=config)
