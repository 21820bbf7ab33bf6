"""What `transformers` asserts of configurations, asserted of both sides' for ViTPose.

Written after what its tests assert.
"""

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
def test_text_and_file_hold_the_values(library: Any, make: Any, tmp_path: Path) -> None:
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
def test_what_a_forward_pass_returns_is_part_of_it(library: Any, make: Any) -> None:
    usual = make(library)
    assert (usual.output_attentions, usual.output_hidden_states, usual.return_dict) == (False, False, True)
    config = make(library, output_attentions=True, output_hidden_states=True, return_dict=False)
    assert (config.output_attentions, config.output_hidden_states, config.return_dict) == (True, True, False)


def test_made_without_arguments() -> None:
    """That of `transformers` has the output of its fourth block and two labels."""
    assert vitpose.VitPoseConfig().num_labels == 17
    assert vitpose.VitPoseBackboneConfig() == vitpose.VitPoseConfig().backbone_config


@MAKERS
def test_each_side_reads_the_files_of_the_other(make: Any, tmp_path: Path) -> None:
    make(vitpose).save_pretrained(tmp_path / "ours")
    theirs = type(make(transformers)).from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert type(make(vitpose)).from_pretrained(tmp_path / "theirs") == make(vitpose)
