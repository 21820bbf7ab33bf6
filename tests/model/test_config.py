from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitpose.errors import CheckpointError, InputError, OutputError, UnknownNameError
from vitpose.files.registry import list_models
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation


def count_parameters(config: VitPoseConfig) -> float:
    """Returns the number of parameters in millions, without allocating them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VitPoseForPoseEstimation(config).parameters()) / 1e6


# ------------------------------------------------------------------ defaults and presets


def test_fault_default_configuration_is_the_base_model_of_coco() -> None:
    config = VitPoseConfig()
    assert config.num_labels == 17
    assert (config.id2label[0], config.id2label[16]) == ("nose", "right_ankle")
    assert config.label2id["left_wrist"] == 9
    assert config.skeleton == Skeleton.load("coco")
    assert (config.backbone_config.hidden_size, config.backbone_config.out_indices) == (768, [12])
    with torch.device("meta"):
        heatmaps = VitPoseForPoseEstimation(config)(torch.zeros(1, 3, 256, 192)).heatmaps
    assert heatmaps.shape == (1, 17, 64, 48)


PUBLISHED = [
    ("small", "classic", 1, 24.3),
    ("small", "simple", 1, 21.7),
    ("base", "classic", 1, 90.0),
    ("base", "simple", 1, 85.9),
    ("large", "classic", 1, 308.5),
    ("large", "simple", 1, 303.5),
    ("huge", "classic", 1, 637.2),
    ("huge", "simple", 1, 631.1),
    ("small", "classic", 6, 33.1),
    ("base", "classic", 6, 125.4),
    ("large", "classic", 6, 434.4),
    ("huge", "classic", 6, 899.4),
]


@pytest.mark.parametrize(("size", "decoder", "experts", "millions"), PUBLISHED)
def test_preset_has_the_published_number_of_parameters(
    size: str, decoder: str, experts: int, millions: float
) -> None:
    config = VitPoseConfig.preset(size, decoder=decoder, num_experts=experts)
    assert count_parameters(config) == pytest.approx(millions, abs=0.06)


def test_giant_has_about_a_billion_parameters() -> None:
    config = VitPoseConfig.preset("g")
    assert 950 < count_parameters(config) < 1050
    assert config.backbone_config.image_size == (576, 432)


def test_models_with_a_short_name_have_the_listed_number_of_parameters() -> None:
    presets = {
        "vitpose-base-simple": VitPoseConfig.preset("base", decoder="simple"),
        "vitpose-base": VitPoseConfig.preset("base"),
        "vitpose-base-coco-aic-mpii": VitPoseConfig.preset("base"),
        "vitpose-plus-small": VitPoseConfig.preset("small", num_experts=6),
        "vitpose-plus-base": VitPoseConfig.preset("base", num_experts=6),
        "vitpose-plus-large": VitPoseConfig.preset("large", num_experts=6),
        "vitpose-plus-huge": VitPoseConfig.preset("huge", num_experts=6),
        "vitpose-tiny": VitPoseConfig.from_pretrained("vitpose-tiny"),
    }
    assert presets.keys() == list_models().keys()
    for name, config in presets.items():
        assert count_parameters(config) == pytest.approx(list_models()[name].parameters, abs=0.06), name
        assert config.backbone_config.num_experts == list_models()[name].experts, name


def test_preset_accepts_a_first_letter_a_skeleton_and_other_sizes() -> None:
    config = VitPoseConfig.preset("S", skeleton="mpii", decoder="simple", num_experts=6, drop_path_rate=0.0)
    assert (config.num_labels, config.use_simple_decoder) == (16, True)
    assert config.edges == [list(edge) for edge in Skeleton.load("mpii").edges]
    backbone = config.backbone_config
    assert (backbone.hidden_size, backbone.part_features, backbone.drop_path_rate) == (384, 96, 0.0)
    assert backbone.layer_norm_eps == 1e-6


def test_preset_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown size 'huuge'; did you mean huge"):
        VitPoseConfig.preset("huuge")
    with pytest.raises(UnknownNameError, match="unknown decoder 'clasic'; did you mean classic"):
        VitPoseConfig.preset("base", decoder="clasic")


# ------------------------------------------------------------------ the whole configuration


def test_backbone_may_be_a_dictionary_ours_or_that_of_transformers() -> None:
    ours = VitPoseBackboneConfig(hidden_size=96, num_attention_heads=4)
    assert VitPoseConfig(backbone_config=ours).backbone_config is ours
    assert VitPoseConfig(backbone_config=ours.to_dict()).backbone_config == ours
    assert (
        VitPoseConfig(backbone_config={"hidden_size": 96, "num_attention_heads": 4}).backbone_config == ours
    )
    transformers = pytest.importorskip("transformers")
    theirs = transformers.VitPoseBackboneConfig(hidden_size=96, num_attention_heads=4, out_indices=[12])
    assert VitPoseConfig(backbone_config=theirs).backbone_config == ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": "resnet18", "backbone_config": {}},
            "both backbone 'resnet18' and backbone_config are given",
        ),
        ({"use_timm_backbone": True}, "use_timm_backbone and use_pretrained_backbone require backbone="),
        (
            {"use_pretrained_backbone": True},
            "use_timm_backbone and use_pretrained_backbone require backbone=",
        ),
        (
            {"backbone_config": "base"},
            "backbone_config is a str; give a VitPoseBackboneConfig or a dictionary",
        ),
        (
            {"id2label": {0: "nose", 2: "tail"}},
            r"must number the keypoints from 0 without gaps, not \[0, 2\]",
        ),
        ({"num_labels": 0}, "num_labels is 0; input should be greater than or equal to 1"),
        ({"id2label": {0: "nose"}, "num_labels": 2}, "num_labels is 2, but id2label names 1 keypoints"),
    ],
)
def test_contradicting_configuration_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VitPoseConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": [None]}, "edges.0 is None; input should be a valid list"),
        ({"edges": [[0, None]]}, "edges.0.1 is None; input should be a valid integer"),
        ({"edges": [[0]]}, r"edges.0 is \[0\]; list should have at least 2 items"),
        ({"edges": [[0, -1]]}, "edges.0.1 is -1; input should be greater than or equal to 0"),
        ({"edges": [[0, 17]]}, r"edges has \[0, 17\], but the keypoints are numbered 0 to 16"),
        ({"datasets": 5}, "datasets is 5; input should be a valid list"),
        ({"datasets": [5] * 300}, "datasets: 300 entries; 256 at most"),
        (
            {"backbone_config": {f"a{i}": 1 for i in range(5000)}},
            "backbone_config: it has 5000 keys; 4096 at most",
        ),
        ({"datasets": [5]}, "a dataset must be a name, a .toml file or a vitpose.DatasetSpec, not 5"),
        ({"num_labels": 100_000_000}, "num_labels is 100000000; input should be less than or equal to 10000"),
        ({"num_labels": 2.5}, "num_labels is 2.5; input should be a valid integer"),
        ({"id2label": {str(i): i for i in range(20_000)}}, "id2label: 20000 entries; 10000 at most"),
        ({"label2id": {str(i): "x" for i in range(20_000)}}, "label2id: 20000 entries; 10000 at most"),
        ({"edges": [None] * 20_000}, "edges: 20000 entries; 10000 at most"),
        ({"id2label": {"0": 7}}, "id2label.0 is 7; input should be a valid string"),
        ({"id2label": 7}, "id2label is 7; it must be a table"),
        ({"label2id": {"nose": "x"}}, "label2id.nose is 'x'; input should be a valid integer"),
        ({"label2id": {"nose": 3}}, "label2id {'nose': 3} and id2label .* disagree; give one"),
        ({"scale_factor": 1000}, "scale_factor is 1000; input should be less than or equal to 32"),
        ({"use_simple_decoder": "yes"}, "use_simple_decoder is 'yes'; input should be a valid boolean"),
        ({"initializer_range": -1}, "initializer_range is -1; input should be greater than or equal to 0"),
        ({"backbone_config": {"hidden_size": "x"}}, "backbone_config: .*hidden_size is 'x'; input should be"),
        ({"backbone_config": 3}, "backbone_config is a int; give a VitPoseBackboneConfig or a dictionary"),
        ({"backbone": 3}, "backbone is 3; input should be a valid string"),
    ],
)
def test_wrong_types_and_sizes_are_refused_from_python_and_from_files(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        VitPoseConfig(**options)
    labels = {"id2label": {str(index): f"keypoint_{index}" for index in range(17)}}
    (tmp_path / "config.json").write_text(
        json.dumps(options if "num_labels" in options else labels | options)
    )
    with pytest.raises(CheckpointError, match=rf"^config.json of '.*' cannot be used: .*{message}"):
        VitPoseConfig.from_pretrained(tmp_path)


def test_total_number_of_keypoints_is_limited() -> None:
    skeleton = Skeleton("long", tuple(f"k{index}" for index in range(6000)), ())
    heads = [DatasetSpec(name=name, skeleton=skeleton) for name in ("a", "b")]
    with pytest.raises(InputError, match="the datasets have 12000 keypoints in total; the maximum is 10000"):
        VitPoseConfig(datasets=heads)


def test_unknown_attributes_are_refused_with_the_nearest(tmp_path: Path) -> None:
    message = "unknown argument of VitPoseConfig 'num_lables'; did you mean num_labels"
    with pytest.raises(UnknownNameError, match=message):
        VitPoseConfig(num_lables=3)
    config = VitPoseConfig()
    with pytest.raises(UnknownNameError, match=message):
        config.num_lables = 3
    config.save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match=message):
        VitPoseConfig.from_pretrained(tmp_path, num_lables=3)
    with pytest.raises(CheckpointError, match="unknown key 'num_lables'; did you mean num_labels"):
        VitPoseConfig.from_dict({"num_lables": 3})
    assert VitPoseConfig.from_dict({"torchscript": False, "dtype": "float16", "num_beams": 1}).num_labels == 2


def test_number_of_keypoints_can_be_changed_and_is_saved(tmp_path: Path) -> None:
    config = VitPoseConfig(datasets=["coco"])
    config.num_labels = 3
    assert config == VitPoseConfig(num_labels=3)
    assert config.label2id == {"keypoint_0": 0, "keypoint_1": 1, "keypoint_2": 2}
    config.save_pretrained(tmp_path)
    assert VitPoseConfig.from_pretrained(tmp_path) == config
    assert VitPoseConfig.from_pretrained(tmp_path, num_labels=5).num_labels == 5


def test_changed_names_of_keypoints_update_the_dependent_attributes() -> None:
    config = VitPoseConfig(num_labels=2, edges=[[0, 1]])
    config.id2label = {0: "head", 1: "tail"}
    assert (config.label2id, config.num_labels, config.edges) == ({"head": 0, "tail": 1}, 2, [[0, 1]])
    config.id2label = {0: "head"}
    assert (config.label2id, config.num_labels, config.edges) == ({"head": 0}, 1, None)
    changed = VitPoseConfig.from_dict(
        VitPoseConfig().to_dict(), num_labels=1, id2label={"0": "head"}, label2id={"head": "0"}
    )
    assert changed == config
    config.datasets = ["aic"]
    assert (config.num_labels, config.skeleton.name) == (14, "aic")
    config.id2label = dict(config.id2label)
    assert [head.name for head in config.datasets] == ["aic"]


def test_a_file_names_shipped_datasets_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"datasets": [str(tmp_path / "secret.toml")]}))
    with pytest.raises(CheckpointError, match=r"cannot be used: unknown dataset '.*secret.toml'"):
        VitPoseConfig.from_pretrained(tmp_path)


def test_keypoints_without_names_are_numbered() -> None:
    config = VitPoseConfig(num_labels=3)
    assert config.id2label == {0: "keypoint_0", 1: "keypoint_1", 2: "keypoint_2"}
    assert config.edges is None


# ------------------------------------------------------------------ config.json


def test_file_gives_back_the_same_configuration(tmp_path: Path) -> None:
    config = VitPoseConfig.preset("small", skeleton="ap10k", num_experts=6, drop_path_rate=0.2)
    config.save_pretrained(tmp_path / "new")
    assert VitPoseConfig.from_pretrained(tmp_path / "new") == config
    assert VitPoseConfig.from_pretrained(tmp_path / "new").skeleton.flip_pairs == config.skeleton.flip_pairs


def test_integral_mlp_ratio_is_written_as_an_integer() -> None:
    assert repr(VitPoseBackboneConfig(mlp_ratio=4.0).to_dict()["mlp_ratio"]) == "4"
    assert VitPoseBackboneConfig(mlp_ratio=2.5).to_dict()["mlp_ratio"] == 2.5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"model_type": "vit"}, "the configuration is of a 'vit' model, not of 'vitpose'"),
        ({"id2label": {"nose": "0"}}, r"id2label.nose.\[key\] is 'nose'; input should be a valid integer"),
        ({"id2label": ["nose"]}, r"id2label is \['nose'\]; it must be a table"),
    ],
)
def test_file_of_something_else_is_refused(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=message):
        VitPoseConfig.from_pretrained(tmp_path)


def test_outputs_of_a_forward_pass_are_kept_in_the_file(tmp_path: Path) -> None:
    config = VitPoseConfig(output_attentions=True, output_hidden_states=True, return_dict=False)
    config.save_pretrained(tmp_path)
    assert VitPoseConfig.from_pretrained(tmp_path) == config
    assert not {"output_attentions", "output_hidden_states", "return_dict"} & VitPoseConfig().to_dict().keys()


def test_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        VitPoseConfig().save_pretrained(tmp_path / "taken")
