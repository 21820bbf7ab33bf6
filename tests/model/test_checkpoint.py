from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitpose.errors import CheckpointError, InputError, OutputError, UnknownNameError
from vitpose.model.checkpoint import Checkpoint
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]
load = VitPoseForPoseEstimation.from_pretrained


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> Path:
    """Edits the parameters of a saved network."""
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")
    return folder


# ------------------------------------------------------------------ there and back


@torch.no_grad()
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_saved_network_comes_back_the_same(
    build: Build, pixels: Tensor, tmp_path: Path, experts: int, simple: bool, bias: bool
) -> None:
    model = build(num_experts=experts, use_simple_decoder=simple, qkv_bias=bias)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    index = 1 if experts > 1 else None
    assert torch.equal(again(pixels, index).heatmaps, model(pixels, index).heatmaps)
    assert again.config == model.config
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())


@torch.no_grad()
def test_packaged_network_loads_with_the_names_of_its_keypoints() -> None:
    model = load("vitpose-tiny")
    assert model(torch.zeros(1, 3, 256, 192)).heatmaps.shape == (1, 17, 64, 48)
    assert model.config.id2label[0] == "nose"
    assert model.dtype is torch.float32


def test_saving_over_the_loaded_directory_changes_nothing(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    load(folder).save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_loading_uses_no_random_numbers(folder: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_files_follow_the_umask_and_no_temporary_files_remain(folder: Path, tmp_path: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    (tmp_path / "new").touch()  # with the mode of the umask
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "new").stat().st_mode}


@torch.no_grad()
def test_counter_that_some_files_lack_starts_at_zero(build: Build, pixels: Tensor, tmp_path: Path) -> None:
    model = build(use_simple_decoder=False)
    model.save_pretrained(tmp_path)
    change(tmp_path, lambda state: [state.pop(name) for name in list(state) if "num_batches" in name])
    again = load(tmp_path)
    assert torch.equal(again(pixels).heatmaps, model(pixels).heatmaps)
    assert again.head.deconv_layers[1].num_batches_tracked == 0


def test_building_from_a_checkpoint_does_not_change_it(build: Build) -> None:
    model = build(use_simple_decoder=False)
    state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    names = list(state)
    VitPoseForPoseEstimation.from_checkpoint(Checkpoint(model.config, state, "memory"))
    assert list(state) == names


# ------------------------------------------------------------------ type and device


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, torch.float32),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("torch.float16", torch.float16),
        (torch.float16, torch.float16),
        ("float64", torch.float64),
        ("auto", torch.bfloat16),
    ],
)
def test_dtype_is_the_requested_one(build: Build, tmp_path: Path, given: Any, wanted: torch.dtype) -> None:
    build(use_simple_decoder=False).to(torch.bfloat16).save_pretrained(tmp_path)
    model = load(tmp_path, dtype=given)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {wanted, torch.int64}


@pytest.mark.parametrize("name", ["float31", "int64", torch.int64, ""])
def test_unsupported_dtype_is_refused(folder: Path, name: Any) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown dtype '.*known: auto, bfloat16, float16, float32, float64"
    ):
        load(folder, dtype=name)


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cpu"},
        {"device": torch.device("cpu")},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"device_map": {"backbone": "cpu", "head": torch.device("cpu")}},
        {},
    ],
)
def test_device_is_accepted_in_every_form(folder: Path, options: dict[str, Any]) -> None:
    assert load(folder, **options).device.type == "cpu"


def test_automatic_device_is_the_gpu_where_there_is_one(folder: Path) -> None:
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert load(folder, device_map="auto").device.type == wanted
    assert load(folder, device="auto").device.type == wanted


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'; .*known: auto, cpu, cuda, cuda:0, mps"),
        ({"device_map": "balanced"}, UnknownNameError, "unknown device 'balanced'"),
        (
            {"device": "cpu", "device_map": "auto"},
            InputError,
            "both device 'cpu' and device_map 'auto' are given; give one",
        ),
        (
            {"device_map": {"backbone": 0, "head": 1}},
            InputError,
            r"device_map \{'backbone': 0, 'head': 1\} must put the whole network on one device",
        ),
        ({"device_map": {}}, InputError, r"device_map \{\} must put the whole network on one device"),
    ],
)
def test_impossible_device_is_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(folder, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_missing_gpu_is_reported(folder: Path) -> None:
    for options in ({"device": "cuda"}, {"device_map": 0}):
        with pytest.raises(
            InputError,
            match=r"device '(cuda|0)' is not available on this machine: .*; choose 'cpu' or 'auto'",
        ):
            load(folder, **options)


# ------------------------------------------------------------------ what does not fit


def test_misfit_is_reported_in_three_lists(folder: Path) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        del state["backbone.layernorm.weight"]
        state["backbone.cls_token"] = torch.zeros(1)
        state["head.conv.bias"] = torch.zeros(9)

    with pytest.raises(CheckpointError) as caught:
        load(change(folder, edit))
    assert str(caught.value) == (
        f"{folder / 'model.safetensors'} does not fit the model; "
        "only in the model (1): backbone.last_norm.weight; "
        "only in the file (1): backbone.cls_token; "
        "different shape (1): head.final_layer.bias: (5,) in the model, (9,) in the file"
    )


def test_long_lists_are_cut_and_counted(folder: Path) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if ".layer.1." in name and "layernorm_before.bias" not in name]:
            del state[name]

    with pytest.raises(
        CheckpointError, match=r"only in the model \(11\): backbone.blocks.1.attn.+, and 3 more$"
    ):
        load(change(folder, edit))


@pytest.mark.parametrize("name", ["num_hidden_layers", "num_experts"])
def test_configuration_of_more_than_the_file_has_is_refused_before_it_is_built(
    build: Build, tmp_path: Path, name: str
) -> None:
    """Two hundred blocks of two hundred experts would be 40,000 layers, without memory for a single weight."""
    build(num_experts=3).save_pretrained(tmp_path)
    table = json.loads((tmp_path / "config.json").read_text())
    table["backbone_config"] |= {name: 200, "out_indices": [1], "out_features": ["stage1"]}
    del table["backbone_config"]["stage_names"]
    (tmp_path / "config.json").write_text(json.dumps(table))
    with pytest.raises(
        CheckpointError, match=rf"{name} is 200 in the configuration, .* parameters for [23];"
    ):
        load(tmp_path)


def test_query_without_its_key_is_unexpected(folder: Path) -> None:
    name = "backbone.encoder.layer.0.attention.attention.key.weight"
    with pytest.raises(CheckpointError, match=r"only in the file \(2\): backbone.blocks.0.attn.query.weight"):
        load(change(folder, lambda state: state.pop(name)))


def test_given_configuration_replaces_the_one_in_the_directory(folder: Path) -> None:
    config = load(folder).config
    config.id2label = {index: f"joint {index}" for index in range(5)}
    (folder / "config.json").unlink()
    assert load(folder, config=config).config.id2label[4] == "joint 4"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_directory_without_a_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"the directory .*saved has no {name}"):
        load(folder)


def test_configuration_of_another_kind_of_model_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "rt_detr"}')
    with pytest.raises(CheckpointError, match="the configuration is of a 'rt_detr' model, not of 'vitpose'"):
        load(folder)


def test_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'vitpose-tinny'; did you mean vitpose-tiny"):
        load("vitpose-tinny")


# ------------------------------------------------------------------ sharded files


def split(folder: Path, names: tuple[str, str] = ("shard-1.safetensors", "shard-2.safetensors")) -> None:
    """Turns a saved network into two files and their index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {name: names[number % 2] for number, name in enumerate(sorted(state))}
    for shard in names:
        save_file({name: state[name] for name in state if halves[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": halves}))


@torch.no_grad()
def test_sharded_checkpoint_is_read(folder: Path, pixels: Tensor) -> None:
    wanted = load(folder)(pixels).heatmaps
    split(folder)
    assert torch.equal(load(folder)(pixels).heatmaps, wanted)


def test_missing_shard_is_reported(folder: Path) -> None:
    split(folder)
    (folder / "shard-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no shard-2.safetensors"):
        load(folder)


def test_shard_cannot_be_outside_the_directory(folder: Path) -> None:
    split(folder, ("shard-1.safetensors", "../shard-2.safetensors"))
    with pytest.raises(CheckpointError, match=r"'../shard-2.safetensors' is not a plain file name"):
        load(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 3}}])
def test_index_without_a_weight_map_is_refused(folder: Path, index: dict[str, Any]) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has no 'weight_map' from parameters to files"):
        load(folder)


# ------------------------------------------------------------------ writing that fails


def test_full_disk_leaves_the_old_network_and_no_half_of_the_new(
    build: Build, folder: Path, pixels: Tensor
) -> None:
    """A limit on the size of files stands in for a full disk."""
    resource = pytest.importorskip("resource")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"model.safetensors cannot be written: .*free disk space"):
            build(num_experts=3).save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_saving_to_a_file_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"taken.model.safetensors cannot be written"):
        build().save_pretrained(tmp_path / "taken")
