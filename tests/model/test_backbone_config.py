from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

# ------------------------------------------------------------------ the backbone's stages


def test_last_stage_is_the_default_and_negative_indices_count_from_it() -> None:
    assert VitPoseBackboneConfig(num_hidden_layers=4).out_features == ["stage4"]
    config = VitPoseBackboneConfig(num_hidden_layers=4, out_indices=[0, -2, -1])
    assert config.out_indices == [0, 3, 4]
    assert config.out_features == ["stem", "stage3", "stage4"]
    assert VitPoseBackboneConfig(num_hidden_layers=4, out_features=["stage1", "stage3"]).out_indices == [1, 3]


def test_sizes_may_be_one_number() -> None:
    config = VitPoseBackboneConfig(image_size=224, patch_size=14)
    assert (config.image_size, config.patch_size, config.grid_size) == ((224, 224), (14, 14), (16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"hidden_size": 100, "num_attention_heads": 12},
            "hidden_size 100 is not a multiple of num_attention_h",
        ),
        (
            {"image_size": (250, 192)},
            "image_size has the height 250, which is not a multiple of the patch's 16; change",
        ),
        ({"image_size": (256, 0)}, "image_size.1 is 0; input should be greater than or equal to 1"),
        (
            {"image_size": (256, 192, 3)},
            r"image_size: '\(256, 192, 3\)' is not a size; give one number, or height and width",
        ),
        ({"patch_size": "large"}, "patch_size: 'large' is not a size; give one number, or height and width"),
        ({"patch_size": 4}, r"patch_size is \(4, 4\); its sides must be longer than 4"),
        ({"num_experts": 0}, "num_experts is 0; input should be greater than or equal to 1"),
        (
            {"num_experts": 6, "part_features": 768},
            "part_features is 768; with 6 experts it must lie between 0",
        ),
        ({"num_experts": 6, "part_features": 0}, "part_features is 0; with 6 experts"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; input should be greater than or equal to 1"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; input should be"),
        ({"hidden_size": -1}, "hidden_size is -1; input should be"),
        ({"num_channels": 0}, "num_channels is 0; input should be"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0; input should be less than 1"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob is -0.1; input should be"),
        ({"attention_probs_dropout_prob": 2}, "attention_probs_dropout_prob is 2; input should be"),
        ({"out_indices": [13]}, r"out_indices has 13, but the stages are numbered 0 \(the stem\) to 12"),
        ({"out_indices": []}, r"out_indices \[\] must name at least one stage"),
        ({"out_indices": [12, 3]}, r"out_indices \[12, 3\] must name at least one stage, in ascending order"),
        ({"out_indices": [12, -1]}, r"out_indices \[12, 12\] must name .* each once"),
        ({"out_indices": [3], "out_features": ["stage4"]}, r"out_features .* and out_indices \[3\] disagree"),
        ({"out_features": ["stage13"]}, "unknown stage in out_features 'stage13'; did you mean stage"),
    ],
)
def test_impossible_backbone_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VitPoseBackboneConfig(**options)


def test_unknown_activation_is_refused() -> None:
    config = VitPoseBackboneConfig(hidden_act="gelo")
    with pytest.raises(UnknownNameError, match="unknown activation in hidden_act 'gelo'; did you mean gelu"):
        VitPoseForPoseEstimation(VitPoseConfig(backbone_config=config))


# ------------------------------------------------------------------ values of wrong types, and too large ones


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan; input should be a finite number"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio is inf; input should be a finite number"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0; input should be greater than 0"),
        ({"mlp_ratio": 0.001}, "mlp_ratio 0.001 leaves no inner width for hidden_size 768; use a larger"),
        ({"num_experts": 1.5}, "num_experts is 1.5; input should be a valid integer"),
        ({"num_experts": True}, "num_experts is True; input should be a valid integer"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps is 'x'; input should be a valid number"),
        ({"hidden_size": [768]}, r"hidden_size is \[768\]; input should be a valid integer"),
        (
            {"hidden_size": 10**5000},
            "hidden_size is an integer of thousands of digits; input should be less than",
        ),
        ({"qkv_bias": 1}, "qkv_bias is 1; input should be a valid boolean"),
        ({"hidden_act": 3}, "hidden_act is 3; input should be a valid string"),
        ({"out_indices": ["stage3"]}, "out_indices.0 is 'stage3'; input should be a valid integer"),
        ({"out_indices": ["x"] * 300}, "out_indices: 300 entries; 257 at most"),
        ({"out_features": ["x"] * 300}, "out_features: 300 entries; 257 at most"),
        ({"hidden_act": "x" * 300}, "hidden_act is 'x.*'; string should have at most 64 characters"),
        ({"out_indices": 3}, "out_indices is 3; input should be a valid list"),
        ({"out_features": "stage3"}, "out_features is 'stage3'; input should be a valid list"),
        ({"out_features": []}, r"out_indices \[\] must name at least one stage"),
        ({"image_size": "256"}, "image_size: '256' is not a size; give one number, or height and width"),
        (
            {"image_size": None, "patch_size": [16, None]},
            "patch_size.1 is None; input should be a valid integer",
        ),
        ({"return_dict": "no"}, "return_dict is 'no'; input should be a valid boolean"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers is 10000000; .* less than or equal to 256"),
        ({"hidden_size": 1_000_000}, "hidden_size is 1000000; .* less than or equal to 16384"),
        ({"num_experts": 100_000}, "num_experts is 100000; .* less than or equal to 256"),
        ({"mlp_ratio": 1e9}, "mlp_ratio is 1000000000.0; .* less than or equal to 64"),
        ({"num_channels": 10_000}, "num_channels is 10000; .* less than or equal to 256"),
        ({"image_size": 32_000}, "image_size.0 is 32000; .* less than or equal to 4096"),
        (
            {"image_size": 4096, "patch_size": 8},
            r"image_size \(4096, 4096\) has 262144 patches of \(8, 8\); the maximum is 16384",
        ),
        (
            {"hidden_size": 16_384, "num_hidden_layers": 256, "num_attention_heads": 128},
            r"256 layers of width 16384, mlp_ratio 4 and 1 experts has about 8.2e\+11 parameters; the maximum is",
        ),
    ],
)
def test_wrong_types_and_sizes_are_refused_from_python_and_from_files(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        VitPoseBackboneConfig(**options)
    if 10**5000 in options.values() or any(
        isinstance(v, float) and not np.isfinite(v) for v in options.values()
    ):
        return  # the JSON parser rejects these
    table = {"model_type": "vitpose", "backbone_config": {"model_type": "vitpose_backbone", **options}}
    (tmp_path / "config.json").write_text(json.dumps(table))
    for kind in (VitPoseConfig, VitPoseBackboneConfig):
        with pytest.raises(CheckpointError, match=rf"^config.json of '.*' cannot be used: .*{message}"):
            kind.from_pretrained(tmp_path)


def test_numbers_of_numpy_are_accepted() -> None:
    config = VitPoseBackboneConfig(
        hidden_size=np.int64(96), mlp_ratio=np.float32(2), image_size=np.array([64, 48])
    )
    assert (config.hidden_size, config.mlp_ratio, config.image_size) == (96, 2, (64, 48))
    assert json.loads(config.to_json_string())["hidden_size"] == 96


def test_the_largest_published_transformer_is_within_the_limits() -> None:
    giant = VitPoseConfig.preset("giant", num_experts=6).backbone_config
    assert giant.num_parameters > 1.3e9
    vit_6b = VitPoseBackboneConfig(
        hidden_size=3200, num_hidden_layers=45, num_attention_heads=25, image_size=448
    )
    assert 5e9 < vit_6b.num_parameters < 6e9


def test_number_of_parameters_is_that_of_the_network() -> None:
    for config in (VitPoseConfig.preset("tiny"), VitPoseConfig.preset("tiny", num_experts=6)):
        backbone = VitPoseForPoseEstimation(config).backbone
        weights = sum(p.numel() for p in backbone.parameters() if p.ndim > 1)
        assert config.backbone_config.num_parameters == weights


# ------------------------------------------------------------------ changes, and the file of a backbone


def test_unknown_attributes_are_refused_with_the_nearest() -> None:
    message = "unknown argument of VitPoseBackboneConfig 'hiden_size'; did you mean hidden_size"
    with pytest.raises(UnknownNameError, match=message):
        VitPoseBackboneConfig(hiden_size=3)
    config = VitPoseBackboneConfig()
    with pytest.raises(UnknownNameError, match=message):
        config.hiden_size = 3
    with pytest.raises(CheckpointError, match="unknown key 'hiden_size'; did you mean hidden_size"):
        VitPoseBackboneConfig.from_dict({"hiden_size": 3})


def test_assignments_are_checked_and_update_the_dependent_attributes() -> None:
    config = VitPoseBackboneConfig()
    config.num_hidden_layers = 4
    assert (config.out_indices, config.out_features) == ([4], ["stage4"])
    config.out_indices = [1, -1]
    assert config.out_features == ["stage1", "stage4"]
    config.out_features = ["stem"]
    assert config.out_indices == [0]
    with pytest.raises(InputError, match="hidden_size 100 is not a multiple of num_attention_heads 12"):
        config.hidden_size = 100
    assert config.hidden_size == 768
    config.update({"hidden_size": 100, "num_attention_heads": 10})
    assert (config.hidden_size, config.num_attention_heads) == (100, 10)
    assert replace(config, num_attention_heads=5).num_attention_heads == 5


def test_backbone_configuration_is_saved_and_loaded(tmp_path: Path) -> None:
    config = VitPoseBackboneConfig(hidden_size=96, num_attention_heads=4, out_indices=[3, 12])
    assert config.save_pretrained(tmp_path) == [str(tmp_path / "config.json")]
    assert VitPoseBackboneConfig.from_pretrained(tmp_path) == config
    changed = VitPoseBackboneConfig.from_pretrained(tmp_path, hidden_size=48)
    assert changed == replace(config, hidden_size=48)


def test_backbone_configuration_is_read_from_that_of_a_whole_model(tmp_path: Path) -> None:
    whole = VitPoseConfig.preset("small")
    whole.save_pretrained(tmp_path)
    assert VitPoseBackboneConfig.from_pretrained(tmp_path) == whole.backbone_config
    with pytest.raises(CheckpointError, match="of a 'vit' model, not of 'vitpose_backbone'; give a ViTPose"):
        VitPoseBackboneConfig.from_dict({"model_type": "vit"})
