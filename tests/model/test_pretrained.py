"""`from_pretrained` by the keywords of `transformers`, for the whole network and for its backbone."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.model.backbone import VitPoseBackbone
from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]
load = VitPoseForPoseEstimation.from_pretrained


@pytest.fixture
def directory(build: Build, tmp_path: Path) -> Path:
    """A saved tiny network."""
    build().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# ------------------------------------------------------------------ keywords


def test_former_name_of_the_type_is_taken(directory: Path) -> None:
    assert load(directory, torch_dtype=torch.bfloat16).dtype is torch.bfloat16
    assert load(directory, torch_dtype="float16", dtype="float16").dtype is torch.float16
    with pytest.raises(InputError, match=r"both dtype 'float16' and torch_dtype torch.bfloat16 are given"):
        load(directory, dtype="float16", torch_dtype=torch.bfloat16)


@torch.no_grad()
def test_attention_is_computed_as_asked_for(directory: Path, pixels: Tensor) -> None:
    fused, plain = load(directory, attn_implementation="sdpa"), load(directory, attn_implementation="eager")
    assert [block.attn.eager for block in plain.backbone.blocks] == [True, True]
    assert [block.attn.eager for block in fused.backbone.blocks] == [False, False]
    torch.testing.assert_close(plain(pixels).heatmaps, fused(pixels).heatmaps, atol=1e-5, rtol=1e-5)
    assert plain(pixels).attentions is None
    with pytest.raises(
        UnknownNameError,
        match=r"unknown attn_implementation 'eagre'; did you mean eager.* known: eager, sdpa",
    ):
        load(directory, attn_implementation="eagre")


@pytest.mark.parametrize(
    ("keyword", "nearest"),
    [("tourch_dtype", "torch_dtype"), ("num_label", "num_labels"), ("trust_remote_codes", "")],
)
def test_unknown_keyword_is_refused_with_the_nearest(directory: Path, keyword: str, nearest: str) -> None:
    hint = f"did you mean {nearest}" if nearest else "known: "
    for loader in (load, VitPoseBackbone.from_pretrained):
        with pytest.raises(
            UnknownNameError, match=f"unknown argument of from_pretrained '{keyword}'"
        ) as caught:
            loader(directory, **{keyword: 1})
        assert loader is not load or hint in str(caught.value)


@pytest.mark.parametrize("simple", [True, False])
def test_another_number_of_keypoints_initialises_the_last_layer_and_saves_what_loads_again(
    build: Build,
    pixels: Tensor,
    tmp_path: Path,
    simple: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = build(use_simple_decoder=simple)
    old.save_pretrained(tmp_path / "old")
    with pytest.raises(
        CheckpointError, match=r"different shape \(2\): head.final_layer.bias: \(9,\) in the model"
    ):
        load(tmp_path / "old", num_labels=9)
    with caplog.at_level(logging.WARNING):
        model, info = load(
            tmp_path / "old", num_labels=9, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert (
        "reinitialised because of mismatched shapes: head.final_layer.bias, head.final_layer.w" in caplog.text
    )
    assert {(name, tuple(file), tuple(fresh)) for name, file, fresh in info["mismatched_keys"]} == {
        ("head.final_layer.bias", (5,), (9,)),
        ("head.final_layer.weight", *((k, 32 if simple else 256, *[3 if simple else 1] * 2) for k in (5, 9))),
    }
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert info["error_msgs"] == []
    assert model.config.num_labels == 9
    assert model(pixels).heatmaps.shape == (3, 9, 16, 12)
    assert torch.equal(model.backbone.pos_embed, old.backbone.pos_embed)
    model.save_pretrained(tmp_path / "new")
    again = load(tmp_path / "new")
    assert again.config == model.config
    assert torch.equal(again(pixels).heatmaps, model(pixels).heatmaps)
    theirs = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path / "new")
    assert theirs.config.num_labels == 9


def test_names_of_keypoints_are_changed(directory: Path, tmp_path: Path) -> None:
    names = {index: f"joint {index}" for index in range(5)}
    model = load(directory, id2label=names)
    assert (model.config.id2label, model.config.label2id["joint 3"]) == (names, 3)
    model.save_pretrained(tmp_path / "new")
    assert load(tmp_path / "new").config.id2label == names


def test_whole_fit_has_nothing_to_report(directory: Path) -> None:
    model, info = load(directory, output_loading_info=True, ignore_mismatched_sizes=True)
    assert isinstance(model, VitPoseForPoseEstimation)
    assert not any(info.values())


def test_missing_parameters_are_refused_whatever_sizes_are_ignored(directory: Path) -> None:
    with pytest.raises(CheckpointError, match=r"only in the model \(\d+\): head.deconv_layers.0.weight"):
        load(directory, use_simple_decoder=False, ignore_mismatched_sizes=True)


@torch.no_grad()
def test_attributes_of_the_configuration_are_changed(directory: Path, pixels: Tensor) -> None:
    model = load(directory, output_hidden_states=True, scale_factor=2)
    output = model(pixels)
    assert len(output.hidden_states) == 3
    assert output.heatmaps.shape == (3, 5, 8, 6)


def test_configuration_and_changes_to_it_contradict(directory: Path) -> None:
    for loader, config in (
        (load, load(directory).config),
        (VitPoseBackbone.from_pretrained, load(directory).backbone.config),
    ):
        with pytest.raises(InputError, match="both config and output_attentions are given; set them in the"):
            loader(directory, config=config, output_attentions=True)


@torch.no_grad()
def test_files_are_found_in_a_subfolder(build: Build, pixels: Tensor, tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "weights" / "tiny")
    found = load(tmp_path, subfolder="weights/tiny")
    assert torch.equal(found(pixels).heatmaps, model(pixels).heatmaps)
    with pytest.raises(CheckpointError, match=r"subfolder '../saved' must be a directory inside the model's"):
        load(tmp_path, subfolder="../saved")
    with pytest.raises(CheckpointError, match=r"has no weights/small/config.json"):
        load(tmp_path, subfolder="weights/small")


@torch.no_grad()
def test_torch_file_of_transformers_is_read_where_asked_for(directory: Path, pixels: Tensor) -> None:
    wanted = load(directory, use_safetensors=True)(pixels).heatmaps
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    assert torch.equal(load(directory, use_safetensors=False)(pixels).heatmaps, wanted)
    for given in (None, True):
        with pytest.raises(CheckpointError, match=r"has no model.safetensors"):
            load(directory, use_safetensors=given)


@pytest.mark.parametrize("options", [{"use_safetensors": True}, {"subfolder": "a"}])
def test_original_file_has_neither_safetensors_nor_subfolders(
    directory: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="is an original file; use_safetensors and subfolder apply to dir"):
        load(directory / "vitpose.pth", **options)


# ------------------------------------------------------------------ outputs set in the configuration


@torch.no_grad()
@pytest.mark.parametrize("of_backbone", [False, True])
def test_configuration_says_what_is_returned(build: Build, pixels: Tensor, of_backbone: bool) -> None:
    model = build()
    config = model.config.backbone_config if of_backbone else model.config
    config.output_hidden_states, config.output_attentions = True, True
    output = model(pixels)
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    output = model(pixels, output_attentions=False, output_hidden_states=False)
    assert list(output) == ["heatmaps"]


@torch.no_grad()
def test_configuration_says_whether_a_tuple_is_returned(build: Build, pixels: Tensor) -> None:
    model = build()
    wanted = model(pixels).heatmaps
    model.config.return_dict = model.config.backbone_config.return_dict = False
    (found,) = model(pixels)
    assert torch.equal(found, wanted)
    assert torch.equal(model(pixels, return_dict=True).heatmaps, wanted)
    ((features,), states) = model.backbone(pixels, output_hidden_states=True)
    assert torch.equal(features, model.backbone(pixels, return_dict=True).feature_maps[0])
    assert len(states) == 3


# ------------------------------------------------------------------ the backbone


@torch.no_grad()
@pytest.mark.parametrize("experts", [1, 3])
def test_backbone_is_saved_and_loaded_alone(
    build: Build, pixels: Tensor, tmp_path: Path, experts: int
) -> None:
    backbone = build(num_experts=experts, out_features=["stem", "stage2"]).backbone
    index = None if experts == 1 else torch.tensor([0, 2, 1])
    backbone.save_pretrained(tmp_path)
    again = VitPoseBackbone.from_pretrained(tmp_path)
    assert again.config == backbone.config == VitPoseBackboneConfig.from_pretrained(tmp_path)
    wanted = backbone(pixels, index).feature_maps
    assert [found.tolist() for found in again(pixels, index).feature_maps] == [
        features.tolist() for features in wanted
    ]
    theirs = transformers.VitPoseBackbone.from_pretrained(tmp_path).eval()
    assert theirs.out_features == backbone.out_features
    for found, expected in zip(wanted, theirs(pixels, dataset_index=index).feature_maps, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_backbone_of_transformers_is_loaded(pixels: Tensor, tmp_path: Path) -> None:
    config = transformers.VitPoseBackboneConfig(
        image_size=[64, 48], hidden_size=32, num_hidden_layers=2, num_attention_heads=4, out_indices=[1, 2]
    )
    theirs = transformers.VitPoseBackbone(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = VitPoseBackbone.from_pretrained(tmp_path, attn_implementation="eager")
    for found, expected in zip(ours(pixels).feature_maps, theirs(pixels).feature_maps, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_backbone_is_taken_out_of_a_whole_network(directory: Path, pixels: Tensor) -> None:
    whole = load(directory).backbone
    backbone = VitPoseBackbone.from_pretrained(directory, out_indices=[1, 2])
    assert backbone.out_features == ["stage1", "stage2"]
    assert torch.equal(backbone(pixels).feature_maps[1], whole(pixels).feature_maps[0])


@torch.no_grad()
def test_backbone_of_one_dataset_is_taken_out_of_several(
    build: Build, pixels: Tensor, tmp_path: Path
) -> None:
    model = build(num_experts=3)
    model.save_pretrained(tmp_path / "whole")
    backbone = VitPoseBackbone.from_pretrained(tmp_path / "whole", dataset=2)
    assert backbone.config.num_experts == 1
    torch.testing.assert_close(backbone(pixels).feature_maps, model.backbone(pixels, 2).feature_maps)
    model.backbone.save_pretrained(tmp_path / "alone")
    with pytest.raises(
        InputError, match=r"is the checkpoint of a backbone, which has no datasets; leave out dataset=2"
    ):
        VitPoseBackbone.from_pretrained(tmp_path / "alone", dataset=2)


def test_files_of_other_kinds_are_told_apart(build: Build, tmp_path: Path) -> None:
    build().backbone.save_pretrained(tmp_path / "alone")
    with pytest.raises(CheckpointError, match="the configuration is of a 'vitpose_backbone' model, not of"):
        load(tmp_path / "alone")
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    other = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=resnet, num_labels=2))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="has a backbone of another library; load the whole network"):
        VitPoseBackbone.from_pretrained(tmp_path / "other")


def test_backbone_that_does_not_fit_is_refused(build: Build, tmp_path: Path) -> None:
    build().backbone.save_pretrained(tmp_path)
    table = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | {"hidden_size": 64}))
    with pytest.raises(
        CheckpointError, match=r"different shape .* blocks.0.attn.proj.bias: \(64,\) in the model"
    ):
        VitPoseBackbone.from_pretrained(tmp_path)


# ------------------------------------------------------------------ the model interface of transformers


def test_numbers_of_parameters_are_those_of_transformers(build: Build, tmp_path: Path) -> None:
    model = build(num_experts=3)
    model.save_pretrained(tmp_path)
    theirs = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path)
    assert model.num_parameters() == theirs.num_parameters()
    model.head.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == model.backbone.num_parameters()


def test_input_embeddings_are_the_patches(build: Build) -> None:
    model = build()
    assert model.get_input_embeddings() is model.backbone.get_input_embeddings() is model.backbone.patch_embed


@pytest.mark.parametrize("reentrant", [True, False])
def test_arguments_of_gradient_checkpointing_reach_torch(
    build: Build, pixels: Tensor, monkeypatch: pytest.MonkeyPatch, reentrant: bool
) -> None:
    model, calls = build().train(), []
    original = torch.utils.checkpoint.checkpoint

    def recorded(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return original(*arguments, **options)

    monkeypatch.setattr("vitpose.model.backbone.checkpoint", recorded)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model(pixels).heatmaps.mean().backward()
    assert calls == [{"use_reentrant": reentrant}] * 2


def test_wrong_arguments_of_gradient_checkpointing_are_refused(build: Build, unchecked: None) -> None:
    model = build()
    with pytest.raises(InputError, match="gradient_checkpointing_kwargs is True; give a dictionary of arg"):
        model.gradient_checkpointing_enable(True)
    with pytest.raises(
        UnknownNameError,
        match="unknown argument of gradient checkpointing 'use_rentrant'; did you mean use_reentrant",
    ):
        model.gradient_checkpointing_enable({"use_rentrant": False})
    assert not model.is_gradient_checkpointing


@torch.no_grad()
def test_tokens_of_blocks_are_kept_only_where_they_are_asked_for(build: Build, pixels: Tensor) -> None:
    """Once a block has run, the tokens of earlier blocks are freed."""
    import weakref

    backbone = build(num_hidden_layers=6, out_indices=[2, 5]).backbone
    alive: list[weakref.ref] = []
    counts: list[int] = []

    def watch(_: Any, __: Any, output: Any) -> None:
        counts.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(output[0]))

    for block in backbone.blocks:
        block.register_forward_hook(watch)
    backbone(pixels)
    assert counts == [0, 1, 1, 1, 1]  # of the five blocks up to the last stage, each sees its input
    alive.clear()
    counts.clear()
    backbone(pixels, output_hidden_states=True)
    assert counts == [0, 1, 2, 3, 4, 5]
