"""Untrusted files of parameters: each gives one clear error before it costs time or memory."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitpose.errors import CheckpointError, OutputError, UnknownNameError
from vitpose.model.backbone import VitPoseBackbone
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.training.recipe_tables import ModelRecipe
from vitpose.training.start import make_network

Build = Callable[..., VitPoseForPoseEstimation]
load = VitPoseForPoseEstimation.from_pretrained

LONG = "x" * 5000


@pytest.fixture
def directory(build: Build, tmp_path: Path) -> Path:
    """A saved tiny network."""
    build().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# ------------------------------------------------------------------ torch's files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {1: torch.zeros(2)}}, "has a parameter named 1; names must be strings"),
        ({"state_dict": {(): torch.zeros(2)}}, r"has a parameter named \(\); names must be strings"),
        (
            {"state_dict": {"a": torch.zeros(2).to_sparse()}},
            "parameter a as torch.sparse_coo, .* plain dense",
        ),
        ({"state_dict": {"a": torch.zeros(2, device="meta")}}, "parameter a as .* on meta; save plain dense"),
        (
            {"state_dict": {"a": torch.zeros(1).expand(10**6, 10**6)}},
            r"declares the parameter a as \(1000000, 1000000\) but stores only 4 bytes; save tensors with all",
        ),
        ({"state_dict": {"a": "string"}}, "contains no 'state_dict' of tensors"),
        ({"state_dict": {"a": [torch.zeros(2)]}}, "contains no 'state_dict' of tensors"),
        ({"state_dict": None}, "contains no 'state_dict' of tensors"),
        ({}, "has no parameter 'backbone.pos_embed' of 3 axes"),
        ({"state_dict": {LONG: torch.zeros(2)}}, "has no parameter 'backbone.pos_embed' of 3 axes"),
    ],
)
def test_torch_file_of_anything_but_plain_parameters_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "vitpose.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "vitpose.pth")
    assert len(str(caught.value)) < 1000


def test_compressed_torch_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """The file has a thousandth of its unpacked size, which could exhaust the memory."""
    torch.save({"state_dict": {"a": torch.zeros(10_000_000)}}, tmp_path / "plain.pth")
    plain = zipfile.ZipFile(tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "vitpose.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(
        CheckpointError, match=r"is a compressed archive of 400\d+ bytes, which torch does not"
    ):
        load(tmp_path / "vitpose.pth")


def original_state(**changes: Tensor) -> dict[str, Tensor]:
    state = {
        "backbone.pos_embed": torch.zeros(1, 193, 384),
        "keypoint_head.final_layer.weight": torch.zeros(17, 384, 3, 3),
    }
    return state | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"backbone.blocks.{index}.norm1.bias": torch.zeros(1) for index in range(5000)},
            "num_hidden_layers is 5000; ",
        ),
        (
            {f"backbone.blocks.0.mlp.experts.{index}.bias": torch.zeros(96) for index in range(5000)},
            "num_experts is 5000; ",
        ),
        (
            {
                f"associate_keypoint_heads.{index}.final_layer.weight": torch.zeros(3, 1)
                for index in range(9999)
            },
            r"has heads of \[17, 3, 3, 3, 3, 3, \.\.\.\] keypoints",
        ),
        ({"associate_keypoint_heads.0.final_layer.weight": torch.zeros(())}, "does not fit the model"),
        ({"backbone.blocks.0.mlp.experts.0.bias": torch.zeros(())}, "does not fit the model"),
        (
            {"backbone.blocks.7777777777.norm1.bias": torch.zeros(1)},
            r"only in the file \(1\): backbone.blocks.77777",
        ),
        ({"keypoint_head.final_layer.weight": torch.zeros(10**6, 0, 3, 3)}, "num_labels is 1000000; "),
    ],
)
def test_excessive_counts_in_an_original_file_are_refused(
    tmp_path: Path, changes: dict[str, Tensor], message: str
) -> None:
    torch.save({"state_dict": original_state(**changes)}, tmp_path / "vitpose.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load(tmp_path / "vitpose.pth")
    assert len(str(caught.value)) < 3000


# ------------------------------------------------------------------ safetensors


def header(table: Any, data: bytes = b"\0" * 64) -> bytes:
    content = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(content)) + content + data


def entry(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**9) + b"{}",
        header(b"[" * 200_000),
        header(b'{"a": ' * 100_000),
        header(b"\xff{}"),
        header([]),
        header(b'{"a": ' + b"9" * 5000 + b"}"),
        header(entry(dtype="F31"), b"\0" * 16),
        header(entry(dtype="F4", shape=(3,), offsets=(0, 2)), b"\0" * 2),
        header(entry(shape=(2**62, 2**62)), b"\0" * 16),
        header(entry(shape=(10**12,)), b"\0" * 16),
        header(entry(shape=(-4,)), b"\0" * 16),
        header(entry(offsets=(0, 2**63)), b"\0" * 16),
        header(entry(offsets=(16, 0)), b"\0" * 16),
        header(entry(), b"\0" * 8),
        header(entry() | {"b": entry()["a"]}, b"\0" * 16),
    ],
)
def test_safetensors_with_a_bad_header_is_refused(directory: Path, content: bytes) -> None:
    (directory / "model.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"model.safetensors is not a valid safetensors file: .*download it again"
    ):
        load(directory)


def change(path: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    state = load_file(path)
    edit(state)
    save_file(state, path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (0, 2**40),
            r"head.conv.bias: \(0, 1099511627776\)|final_layer.bias: \(5,\) in the model, \(0, 10995",
        ),
        ((), r"final_layer.bias: \(5,\) in the model, \(\) in the file"),
    ],
)
def test_mismatched_shapes_are_named(directory: Path, shape: tuple[int, ...], message: str) -> None:
    change(
        directory / "model.safetensors", lambda state: state.update({"head.conv.bias": torch.zeros(shape)})
    )
    with pytest.raises(CheckpointError, match=message):
        load(directory)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_of_other_types_than_floats_are_refused(directory: Path, dtype: torch.dtype) -> None:
    if dtype.is_complex:
        pytest.importorskip("safetensors", minversion="0.7")  # older versions cannot write them
    name = str(dtype).removeprefix("torch.")
    change(
        directory / "model.safetensors",
        lambda state: state.update({"head.conv.bias": torch.zeros(5, dtype=dtype)}),
    )
    with pytest.raises(
        CheckpointError, match=rf"head.final_layer.bias: \(5,\) in the model, \(5,\) of {name} in the file"
    ):
        load(directory)


@pytest.mark.parametrize("shape", [(), (1,), (32, 33), (2, 2, 2)])
def test_query_of_another_shape_than_its_key_is_unexpected(directory: Path, shape: tuple[int, ...]) -> None:
    name = "backbone.encoder.layer.0.attention.attention.query.weight"
    change(directory / "model.safetensors", lambda state: state.update({name: torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match=r"only in the file \(3\): backbone.blocks.0.attn.key.weight"):
        load(directory)


@pytest.mark.parametrize("edit", ["missing", "shape", "scalar"])
def test_expert_that_cannot_be_folded_is_named(build: Build, tmp_path: Path, edit: str) -> None:
    build(num_experts=3).save_pretrained(tmp_path)
    name = "backbone.encoder.layer.1.mlp.experts.2.weight"
    tensors = {"shape": torch.zeros(8, 31), "scalar": torch.zeros(())}
    change(
        tmp_path / "model.safetensors",
        lambda state: state.pop(name) if edit == "missing" else state.update({name: tensors[edit]}),
    )
    with pytest.raises(
        CheckpointError,
        match=r"blocks.1.mlp.experts.2.weight (is missing|has the shape \(.*\)); it must extend .*fc2.weight of",
    ):
        load(tmp_path, dataset=2)


# ------------------------------------------------------------------ heads and shards in other files


def test_file_of_heads_cannot_replace_other_parameters(tmp_path: Path) -> None:
    several(tmp_path)
    change(tmp_path / "heads.safetensors", lambda state: state.update({"head.conv.bias": torch.ones(17)}))
    with pytest.raises(
        CheckpointError, match=r"has the parameter 'head.conv.bias', but may contain only associate_heads"
    ):
        load(tmp_path)


def test_declared_head_without_parameters_is_refused(tmp_path: Path) -> None:
    """Otherwise the first head, which has as many keypoints, would be used."""
    several(tmp_path)
    change(
        tmp_path / "heads.safetensors",
        lambda state: [state.pop(name) for name in list(state) if ".0." in name],
    )
    with pytest.raises(CheckpointError, match=r"datasets is 3 in the configuration, .* parameters for 2"):
        load(tmp_path)
    change(
        tmp_path / "heads.safetensors",
        lambda state: state.update({"associate_heads.9.final_layer.bias": torch.zeros(17)}),
    )
    with pytest.raises(CheckpointError, match="declares a head for 'ap10k' but has no parameters for it"):
        load(tmp_path, dataset="ap10k")


def several(directory: Path) -> None:
    from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig

    backbone = VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    config = VitPoseConfig(backbone_config=backbone, datasets=["coco", "ap10k", "apt36k"])
    VitPoseForPoseEstimation(config).save_pretrained(directory)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("/etc/passwd", "'/etc/passwd' is not a plain file name"),
        ("..", "is not a plain file name"),
        ("a/b.safetensors", "is not a plain file name"),
        (LONG, r"'x{80}\.\.\.x{20}' is not a plain file name"),
        ("none.safetensors", "has no none.safetensors"),
    ],
)
def test_shard_must_be_a_file_of_the_directory(directory: Path, shard: str, message: str) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match=message):
        load(directory)


# ------------------------------------------------------------------ names and paths


@pytest.mark.parametrize(
    "name", [LONG, f"owner/{LONG}", f"/tmp/{LONG}", "~unknown-user/x", "nul\0", f"{'d/' * 2500}x"]
)
def test_invalid_model_name_is_refused(name: str) -> None:
    for source in (load, VitPoseBackbone.from_pretrained):
        with pytest.raises(UnknownNameError, match="unknown model") as caught:
            source(name)
        assert len(str(caught.value)) < 1500
        with pytest.raises(CheckpointError, match=r"does not exist; give the path of an original"):
            source(f"{name}.pth")
    with pytest.raises(UnknownNameError, match="unknown model"):
        make_network(ModelRecipe(size="tiny", start=name))


def test_invalid_directory_name_is_refused(build: Build, tmp_path: Path) -> None:
    for source in (build(), build().backbone):
        with pytest.raises(OutputError, match="cannot be written"):
            source.save_pretrained(tmp_path / LONG)


# ------------------------------------------------------------------ where a training run starts


@pytest.mark.parametrize("tensor", [torch.zeros(()), torch.zeros(197), torch.zeros(1, 5, 2, 192)])
def test_start_with_unsupported_position_embeddings_is_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"model": {"pos_embed": tensor}}, tmp_path / "mae.pth")
    with pytest.raises(
        CheckpointError, match=r"the shape of 'pos_embed' in .*mae.pth is .*; choose a plain ViT"
    ):
        make_network(ModelRecipe(size="tiny", start=str(tmp_path / "mae.pth")))


def test_start_whose_configuration_exceeds_its_file_allocates_no_memory(directory: Path) -> None:
    """If they were built, two blocks of that width would take 26 GB."""
    table = json.loads((directory / "config.json").read_text())
    table["backbone_config"] |= {"hidden_size": 16384, "num_hidden_layers": 2, "part_features": 0}
    (directory / "config.json").write_text(json.dumps(table))
    with pytest.raises(
        CheckpointError, match=r"different shape \(\d+\): backbone.blocks.0.attn.proj.bias: \(16384,\)"
    ):
        make_network(ModelRecipe(size="tiny", start=str(directory)))
