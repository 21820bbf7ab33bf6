from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

import vitpose
from vitpose.errors import CheckpointError, InputError, MissingDependencyError, VitPoseError
from vitpose.model.config import VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 16,
    "image_size": 64,
}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
SWIN = {
    "model_type": "swin",
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "image_size": 64,
    "window_size": 2,
}


def build(**options: Any) -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation(VitPoseConfig(num_labels=3, **options)).eval()


@pytest.fixture
def saved_backbone(tmp_path: Path) -> Path:
    """A directory of `transformers` with a tiny random backbone in half precision."""
    torch.manual_seed(11)
    config = transformers.Dinov2Config(**{name: DINOV2[name] for name in DINOV2 if name != "model_type"})
    body = transformers.AutoBackbone.from_config(config)
    body.to(torch.bfloat16).save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


# ------------------------------------------------------------------ transformers


@torch.no_grad()
@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize(
    ("table", "grid"), [(DINOV2, (4, 3)), (RESNET, (8, 6)), (SWIN, (8, 6))], ids=["dinov2", "resnet", "swin"]
)
def test_backbone_from_its_configuration_is_saved_and_loaded(
    table: dict[str, Any], grid: tuple[int, int], simple: bool, pixels: Tensor, tmp_path: Path
) -> None:
    model = build(backbone_config=table, use_simple_decoder=simple)
    heatmaps = model(pixels).heatmaps
    assert heatmaps.shape == (3, 3, 4 * grid[0], 4 * grid[1])
    model.save_pretrained(tmp_path)
    again = VitPoseForPoseEstimation.from_pretrained(tmp_path)
    assert torch.equal(again(pixels).heatmaps, heatmaps)
    assert again.config == model.config
    half = VitPoseForPoseEstimation.from_pretrained(tmp_path, dtype="bfloat16")
    assert half(pixels.bfloat16()).heatmaps.dtype is torch.float32


def test_pipeline_requires_the_input_size_of_another_backbone(tmp_path: Path) -> None:
    build(backbone_config=RESNET).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"another library and no preprocessor_config.json.*add that file"
    ):
        vitpose.load(tmp_path, detector=None)


def test_configuration_object_of_transformers_is_taken(pixels: Tensor) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    assert build(backbone_config=config)(pixels).heatmaps.shape == (3, 3, 32, 24)


@torch.no_grad()
def test_named_backbone_is_built_with_and_without_its_weights(saved_backbone: Path, pixels: Tensor) -> None:
    trained = build(backbone=str(saved_backbone), use_pretrained_backbone=True)
    wanted = transformers.Dinov2Backbone.from_pretrained(saved_backbone, dtype=torch.float32).state_dict()
    for name, tensor in trained.backbone.body.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    fresh = build(backbone=str(saved_backbone))
    name = "embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(fresh.backbone.body.state_dict()[name], wanted[name])
    for model in (trained, fresh):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model(pixels).heatmaps.shape == (3, 3, 16, 12)


@torch.no_grad()
def test_pretrained_backbone_is_saved_with_the_model_and_not_loaded_again(
    saved_backbone: Path, pixels: Tensor, tmp_path: Path
) -> None:
    model = build(backbone=str(saved_backbone), use_pretrained_backbone=True)
    model.save_pretrained(tmp_path / "model")
    (saved_backbone / "model.safetensors").unlink()
    again = VitPoseForPoseEstimation.from_pretrained(tmp_path / "model")
    assert torch.equal(again(pixels).heatmaps, model(pixels).heatmaps)


@pytest.mark.parametrize("trained", [True, False])
def test_arguments_reach_the_backbone(saved_backbone: Path, trained: bool) -> None:
    model = build(
        backbone=str(saved_backbone), use_pretrained_backbone=trained, backbone_kwargs={"out_indices": [1]}
    )
    assert model.backbone.body.out_indices == [1]


@torch.no_grad()
@pytest.mark.parametrize("table", [RESNET, SWIN], ids=["resnet", "swin"])
def test_hidden_states_of_several_sizes_are_returned(table: dict[str, Any], pixels: Tensor) -> None:
    output = build(backbone_config=table)(pixels, output_hidden_states=True)
    assert len({state.shape for state in output.hidden_states}) > 1


@torch.no_grad()
def test_attentions_and_hidden_states_are_returned(pixels: Tensor) -> None:
    model = build(backbone_config=DINOV2)
    output = model(pixels, output_attentions=True, output_hidden_states=True)
    assert [tuple(layer.shape) for layer in output.attentions] == [(3, 2, 13, 13)] * 2
    assert torch.allclose(output.attentions[0].sum(-1), torch.ones(3, 2, 13), atol=1e-5)
    assert len(output.hidden_states) == 3
    assert torch.allclose(output.heatmaps, model(pixels).heatmaps, atol=1e-6)


# ------------------------------------------------------------------ code in files


def hostile_repository(directory: Path, trace: Path) -> Path:
    """A directory whose configuration refers to code in it, which writes a marker file when executed."""
    directory.mkdir()
    table = {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "code.Strange", "AutoBackbone": "code.Backbone"},
    }
    (directory / "config.json").write_text(json.dumps(table))
    (directory / "code.py").write_text(
        f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n"
        "from transformers import PretrainedConfig\n"
        "class Strange(PretrainedConfig):\n    model_type = 'strange'\n"
    )
    return directory


def test_fault_code_of_a_named_backbone_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    trace = tmp_path / "it-ran"
    repository = hostile_repository(tmp_path / "hostile", trace)
    model = tmp_path / "model"
    model.mkdir()
    table = {"model_type": "vitpose", "backbone": str(repository), "id2label": {"0": "a"}}
    for kwargs in ({"trust_remote_code": True}, {}):
        (model / "config.json").write_text(json.dumps(table | {"backbone_kwargs": kwargs}))
        save_file({"head.conv.bias": torch.zeros(1)}, model / "model.safetensors")
        with pytest.raises(VitPoseError, match=r"trust_remote_code|cannot build the backbone"):
            VitPoseForPoseEstimation.from_pretrained(model)
    config = VitPoseConfig(backbone=str(repository), num_labels=1)
    object.__setattr__(
        config, "backbone_kwargs", {"trust_remote_code": True}
    )  # bypasses the check of the configuration
    with pytest.raises(CheckpointError, match="cannot build the backbone"):
        VitPoseForPoseEstimation(config)
    assert not trace.exists()
    transformers.AutoConfig.from_pretrained(
        repository, trust_remote_code=True
    )  # shows that the code could run
    assert trace.exists()


def test_configuration_that_exceeds_the_file_is_refused_before_the_backbone_is_built(
    tmp_path: Path,
) -> None:
    model = build(backbone_config=DINOV2)
    model.save_pretrained(tmp_path)
    table = json.loads((tmp_path / "config.json").read_text())
    table["backbone_config"]["hidden_size"] = 16384
    (tmp_path / "config.json").write_text(json.dumps(table))
    # Two blocks of that width would take 26 GB.
    with pytest.raises(
        CheckpointError, match=r"different shape \(\d+\): backbone.body.* in the model, .* in the file"
    ):
        VitPoseForPoseEstimation.from_pretrained(tmp_path)


# ------------------------------------------------------------------ choices


@torch.no_grad()
def test_attention_of_another_backbone_is_selected(pixels: Tensor, tmp_path: Path) -> None:
    build(backbone_config=DINOV2).save_pretrained(tmp_path)
    plain = VitPoseForPoseEstimation.from_pretrained(tmp_path, attn_implementation="eager")
    assert plain.backbone.body.config._attn_implementation == "eager"
    fused = VitPoseForPoseEstimation.from_pretrained(tmp_path, attn_implementation="sdpa")
    torch.testing.assert_close(plain(pixels).heatmaps, fused(pixels).heatmaps, atol=1e-5, rtol=1e-4)
    with pytest.raises(
        InputError, match=r"Dinov2Backbone does not support attn_implementation 'eagre': .*leave it out"
    ):
        plain.set_attn_implementation("eagre")


@torch.no_grad()
def test_configuration_selects_the_outputs_of_another_backbone(pixels: Tensor) -> None:
    model = build(backbone_config=DINOV2)
    model.config.update({"output_hidden_states": True, "return_dict": False})
    heatmaps, states = model(pixels)
    assert heatmaps.shape == (3, 3, 16, 12)
    assert len(states) == 3


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone_config": {"model_type": "nonsense"}},
            "transformers cannot build the backbone .*nonsense",
        ),
        ({"backbone_config": {"model_type": "bert"}}, "transformers cannot build the backbone .*'bert'"),
        ({"backbone": "/no/such/folder"}, "transformers cannot build the backbone '/no/such/folder': "),
    ],
)
def test_backbone_that_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(**options)


def test_options_of_our_backbone_are_refused(pixels: Tensor) -> None:
    model = build(backbone_config=RESNET)
    with pytest.raises(InputError, match="dataset_index 1 was given, but only VitPoseBackbone has experts"):
        model(pixels, dataset_index=1)
    with pytest.raises(InputError, match="ResNetBackbone has no attentions; leave output_attentions out"):
        model(pixels, output_attentions=True)
    with pytest.raises(InputError, match="gradient checkpointing is supported by VitPoseBackbone only"):
        model.gradient_checkpointing_enable()
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    with pytest.raises(
        InputError, match=r"get_input_embeddings is supported by VitPoseBackbone only; use model.backbone"
    ):
        model.get_input_embeddings()
    with pytest.raises(InputError, match="this network has no experts to fold"):
        model.fold_expert(0)


def test_backbone_that_returns_tokens_is_refused(pixels: Tensor) -> None:
    model = build(backbone_config=DINOV2 | {"reshape_hidden_states": False})
    message = r"Dinov2Backbone returns features of the shape \(3, 13, 32\), .* reshape_hidden_states=True"
    with pytest.raises(InputError, match=message):
        model(pixels)


def test_missing_transformers_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = (
        r"the package 'transformers' is required for a backbone other than VitPoseBackbone; install it with: "
        r"pip install 'vitpose\[detect\]'"
    )
    with pytest.raises(MissingDependencyError, match=message):
        build(backbone_config=RESNET)


# ------------------------------------------------------------------ timm


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_missing_timm_is_reported_with_its_extra() -> None:
    message = r"the package 'timm' is required for use_timm_backbone; install it with: pip install 'vitpose\[timm\]'"
    with pytest.raises(MissingDependencyError, match=message):
        build(backbone="resnet18", use_timm_backbone=True)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet10t", {"out_indices": [1]}, (64, 48)),
        ("vit_tiny_patch16_224", {"img_size": [64, 48], "depth": 2, "out_indices": [1]}, (16, 12)),
    ],
)
def test_backbone_of_timm_is_saved_and_loaded(
    name: str, options: dict[str, Any], size: tuple[int, int], pixels: Tensor, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    model = build(backbone=name, use_timm_backbone=True, backbone_kwargs=options)
    heatmaps = model(pixels).heatmaps
    assert heatmaps.shape == (3, 3, *size)
    model.save_pretrained(tmp_path)
    again = VitPoseForPoseEstimation.from_pretrained(tmp_path)
    assert torch.equal(again(pixels).heatmaps, heatmaps)
    with pytest.raises(InputError, match="a timm backbone returns neither attentions nor hidden states"):
        model(pixels, output_attentions=True)
    with pytest.raises(
        InputError, match="a timm backbone does not support attn_implementation 'eager'; leave it out"
    ):
        model.set_attn_implementation("eager")


def test_unknown_backbone_of_timm_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(CheckpointError, match="timm cannot build the backbone 'resnet_unknown'"):
        build(backbone="resnet_unknown", use_timm_backbone=True)
