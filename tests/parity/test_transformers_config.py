"""The assertions of the configuration tests of `transformers`, on the ViTPose configurations of both libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vitpose

transformers = pytest.importorskip("transformers")

KINDS = pytest.mark.parametrize("library", [vitpose, transformers], ids=["ours", "theirs"])
SMALL: dict[str, Any] = {
    "hidden_size": 36,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "out_indices": [2],
}


def whole(library: Any, **options: Any) -> Any:
    return library.VitPoseConfig(backbone_config=library.VitPoseBackboneConfig(**SMALL), **options)


def backbone(library: Any, **options: Any) -> Any:
    return library.VitPoseBackboneConfig(**SMALL, **options)


MAKERS = pytest.mark.parametrize("make", [whole, backbone])


@KINDS
def test_common_attributes_are_read_given_and_set(library: Any) -> None:
    config = backbone(library)
    for name, value in (("num_hidden_layers", 2), ("num_attention_heads", 6), ("hidden_size", 72)):
        assert hasattr(config, name)
        setattr(config, name, value)
        assert getattr(config, name) == value
    assert config.stage_names == ["stem", "stage1", "stage2"]
    assert (config.out_features, config.out_indices) == (["stage2"], [2])


@KINDS
@MAKERS
def test_json_string_and_file_contain_the_values(library: Any, make: Any, tmp_path: Path) -> None:
    config = make(library)
    table = json.loads(config.to_json_string())
    inner = table.get("backbone_config", table)
    assert {name: inner[name] for name in SMALL} == SMALL
    config.to_json_file(tmp_path / "config.json")
    assert type(config).from_json_file(tmp_path / "config.json").to_dict() == config.to_dict()


@KINDS
@MAKERS
def test_saved_and_loaded(library: Any, make: Any, tmp_path: Path) -> None:
    config = make(library)
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).to_dict() == config.to_dict()
    changed = type(config).from_pretrained(tmp_path, output_hidden_states=True)
    assert changed.output_hidden_states is True
    with pytest.raises((OSError, ValueError)):
        type(config).from_pretrained(f".{tmp_path}")


@KINDS
@MAKERS
def test_loaded_from_a_subfolder(library: Any, make: Any, tmp_path: Path) -> None:
    config = make(library)
    config.save_pretrained(tmp_path / "test")
    assert type(config).from_pretrained(tmp_path, subfolder="test").to_dict() == config.to_dict()


@KINDS
def test_a_configuration_of_the_backbone_is_read_from_that_of_the_model(library: Any, tmp_path: Path) -> None:
    whole(library).save_pretrained(tmp_path)
    assert library.VitPoseBackboneConfig.from_pretrained(tmp_path).hidden_size == 36


@KINDS
def test_number_of_labels_can_be_given_and_set(library: Any) -> None:
    config = whole(library, num_labels=5)
    assert (len(config.id2label), len(config.label2id), config.num_labels) == (5, 5, 5)
    config.num_labels = 3
    assert (len(config.id2label), len(config.label2id), config.num_labels) == (3, 3, 3)


@KINDS
def test_names_of_labels_can_be_given_as_in_json(library: Any) -> None:
    config = whole(library, id2label={"0": "head", "1": "tail"}, label2id={"head": 0, "tail": 1})
    assert config.id2label == {0: "head", 1: "tail"}
    assert whole(library, id2label={0: "label"}, label2id={"label": "0"}).num_labels == 1


@KINDS
@MAKERS
def test_outputs_of_a_forward_pass_are_attributes(library: Any, make: Any) -> None:
    usual = make(library)
    assert (usual.output_attentions, usual.output_hidden_states, usual.return_dict) == (False, False, True)
    config = make(library, output_attentions=True, output_hidden_states=True, return_dict=False)
    assert (config.output_attentions, config.output_hidden_states, config.return_dict) == (True, True, False)


def test_made_without_arguments() -> None:
    """The default of `transformers` returns the fourth stage and has two labels."""
    assert vitpose.VitPoseConfig().num_labels == 17
    assert vitpose.VitPoseBackboneConfig() == vitpose.VitPoseConfig().backbone_config


@MAKERS
def test_each_library_reads_the_files_of_the_other(make: Any, tmp_path: Path) -> None:
    make(vitpose).save_pretrained(tmp_path / "ours")
    theirs = type(make(transformers)).from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert type(make(vitpose)).from_pretrained(tmp_path / "theirs") == make(vitpose)


# ------------------------------------------------------------------ files of both libraries


COPIED = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_experts", "part_features", "mlp_ratio"),
    *("hidden_act", "hidden_dropout_prob", "layer_norm_eps", "qkv_bias", "initializer_range"),
    *("out_indices", "out_features"),
)


def test_configuration_is_preserved_by_transformers(tmp_path: Path) -> None:
    backbone = vitpose.VitPoseBackboneConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_experts=5,
        part_features=24,
        layer_norm_eps=1e-6,
        drop_path_rate=0.25,
        hidden_dropout_prob=0.1,
        image_size=(128, 96),
        qkv_bias=False,
        out_indices=[1, 3],
    )
    ours = vitpose.VitPoseConfig(
        backbone_config=backbone,
        id2label={0: "head", 1: "tail", 2: "paw"},
        edges=[[0, 1], [1, 2]],
        use_simple_decoder=False,
        scale_factor=2,
    )
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.VitPoseConfig.from_pretrained(tmp_path / "ours")
    assert type(theirs.backbone_config) is transformers.VitPoseBackboneConfig
    for name in COPIED:
        assert getattr(theirs.backbone_config, name) == getattr(backbone, name), name
    assert tuple(theirs.backbone_config.image_size) == (128, 96)
    assert theirs.id2label == ours.id2label
    assert (theirs.num_labels, theirs.scale_factor, theirs.use_simple_decoder) == (3, 2, False)
    theirs.save_pretrained(tmp_path / "theirs")
    assert vitpose.VitPoseConfig.from_pretrained(tmp_path / "theirs") == ours


@pytest.mark.parametrize("keypoints", [1, 2, 3, 133])
def test_any_number_of_keypoints_is_read_from_their_file(keypoints: int, tmp_path: Path) -> None:
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=1, out_indices=[1]
    )
    theirs = transformers.VitPoseConfig(backbone_config=backbone, num_labels=keypoints)
    theirs.save_pretrained(tmp_path)
    assert vitpose.VitPoseConfig.from_pretrained(tmp_path).num_labels == keypoints


def test_configuration_as_the_public_converter_wrote_it_is_read(tmp_path: Path) -> None:
    """With keys that later versions of `transformers` no longer write."""
    table = {
        "architectures": ["VitPoseForPoseEstimation"],
        "backbone": None,
        "backbone_config": {
            "model_type": "vitpose_backbone",
            "num_experts": 1,
            "out_features": ["stage12"],
            "out_indices": [12],
            "part_features": 0,
        },
        "backbone_kwargs": None,
        "edges": [[15, 13], [13, 11]],
        "id2label": {str(index): f"point {index}" for index in range(17)},
        "initializer_range": 0.02,
        "label2id": {f"point {index}": index for index in range(17)},
        "model_type": "vitpose",
        "scale_factor": 4,
        "torch_dtype": "float32",
        "transformers_version": "4.48.0.dev0",
        "use_pretrained_backbone": False,
        "use_simple_decoder": False,
        "use_timm_backbone": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(table))
    config = vitpose.VitPoseConfig.from_pretrained(tmp_path)
    assert (config.num_labels, config.use_simple_decoder, config.edges) == (17, False, [[15, 13], [13, 11]])
    assert config.backbone_config == vitpose.VitPoseBackboneConfig(part_features=0)
