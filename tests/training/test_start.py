from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitpose.errors import CheckpointError
from vitpose.keypoints.skeleton import Skeleton
from vitpose.model.config import VitPoseConfig
from vitpose.model.initialisation import whiten_patches
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.training.recipe_tables import ModelRecipe
from vitpose.training.start import make_network

RECIPE = ModelRecipe(size="tiny", decoder="simple", height=64, width=48)


def plain_vit(side: int = 4, patch: int = 16, last_norm: bool = True) -> dict[str, torch.Tensor]:
    """Return parameters of a ViT with the names of MAE and timm."""
    donor = VitPoseForPoseEstimation(VitPoseConfig.preset("tiny", image_size=(16 * side, 16 * side)))
    state = {name.removeprefix("backbone."): value for name, value in donor.backbone.state_dict().items()}
    state["norm.weight"], state["norm.bias"] = state.pop("last_norm.weight"), state.pop("last_norm.bias")
    if not last_norm:
        del state["norm.weight"], state["norm.bias"]
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, :patch, :patch]
    return {**state, "cls_token": torch.zeros(1, 1, 192), "head.weight": torch.zeros(10, 192)}


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_backbone_is_initialised_from_a_plain_vit(tmp_path: Path, wrapped: bool) -> None:
    state = plain_vit()
    torch.save({"model": state} if wrapped else state, tmp_path / "mae.pth")
    network = make_network(replace(RECIPE, start=str(tmp_path / "mae.pth")))
    torch.testing.assert_close(network.backbone.blocks[3].attn.qkv.weight, state["blocks.3.attn.qkv.weight"])
    torch.testing.assert_close(network.backbone.last_norm.bias, state["norm.bias"])
    torch.testing.assert_close(network.backbone.pos_embed[:, :1], state["pos_embed"][:, :1])
    assert network.backbone.pos_embed.shape == (1, 1 + 4 * 3, 192)
    assert network.training


def test_position_embeddings_are_resampled_bicubically(tmp_path: Path) -> None:
    state = plain_vit(side=14)
    torch.save(state, tmp_path / "mae.pt")
    network = make_network(replace(RECIPE, start=str(tmp_path / "mae.pt"), height=256, width=192))
    grid = state["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (16, 12), mode="bicubic", align_corners=False)
    torch.testing.assert_close(network.backbone.pos_embed[0, 1:], expected[0].flatten(1).T)


def test_patches_of_fourteen_are_padded_to_sixteen(tmp_path: Path) -> None:
    state = plain_vit(patch=14)
    torch.save(state, tmp_path / "mae.pth")
    weight = make_network(replace(RECIPE, start=str(tmp_path / "mae.pth"))).backbone.patch_embed.proj.weight
    torch.testing.assert_close(weight[:, :, 1:15, 1:15], state["patch_embed.proj.weight"])
    assert not weight[:, :, 0].any()
    assert not weight[:, :, :, 15].any()


def test_the_last_norm_is_optional_and_the_size_must_match(tmp_path: Path) -> None:
    torch.save(plain_vit(last_norm=False), tmp_path / "mae.pth")
    assert make_network(replace(RECIPE, start=str(tmp_path / "mae.pth")))
    with pytest.raises(
        CheckpointError,
        match=r"mae.pth does not fit the model; .*different shape .*; choose a plain ViT, and .*\(model.size",
    ):
        make_network(replace(RECIPE, start=str(tmp_path / "mae.pth"), size="small"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"blocks.0.ls1.gamma": torch.ones(192)}, "only in the file .*blocks.0.ls1.gamma"),
        ({"reg_token": torch.ones(1, 4, 192)}, "only in the file .*reg_token"),
        (
            {"pos_embed": torch.ones(1, 16, 192)},
            r"'pos_embed' in .* is \(1, 16, 192\), not .*one class token and a square grid",
        ),
        ({"patch_embed.proj.weight": torch.ones(192, 3, 8, 8)}, "different shape .*patch_embed"),
        ({"blocks.12.norm1.weight": torch.ones(192)}, "only in the file .*blocks.12"),
    ],
)
def test_other_kinds_of_networks_raise(tmp_path: Path, changed: dict, message: str) -> None:
    torch.save(plain_vit() | changed, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=message):
        make_network(replace(RECIPE, start=str(tmp_path / "vit.pth")))


def test_the_backbone_is_initialised_from_a_timm_directory(tmp_path: Path) -> None:
    state = plain_vit()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_64"}))
    network = make_network(replace(RECIPE, start=str(tmp_path), layers=2))
    torch.testing.assert_close(network.backbone.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
    assert len(network.backbone.blocks) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [((64, 32), (32, 16)), ((48, 64), (64, 48)), ((64, 48), (128, 96)), ((64, 48), (64, 64))],
)
def test_position_embeddings_are_interpolated_for_other_sizes(
    tmp_path: Path, old: tuple[int, int], new: tuple[int, int]
) -> None:
    donor = make_network(replace(RECIPE, height=old[0], width=old[1], layers=1))
    rows, columns = donor.backbone.config.grid_size
    positions = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    donor.backbone.pos_embed.data[0, 1:, :2] = positions.flatten(1).T.float()
    donor.save_pretrained(tmp_path)
    network = make_network(replace(RECIPE, start=str(tmp_path), height=new[0], width=new[1]))
    found = network.backbone.pos_embed[0, 1:, :2].T.unflatten(1, network.backbone.config.grid_size)
    torch.testing.assert_close(found[0], found[0, :, :1].expand_as(found[0]))
    torch.testing.assert_close(found[1], found[1, :1].expand_as(found[1]))
    assert (found[0].diff(dim=0) > 0).all()
    assert (found[1].diff(dim=1) > 0).all()


def test_keypoints_that_the_checkpoint_has_keep_their_heatmaps(caplog: pytest.LogCaptureFixture) -> None:
    """By their names in any spelling: LSP's neck is MPII's upper neck, and the start has neither."""
    donor = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny").eval()
    with caplog.at_level(logging.WARNING):
        network = make_network(
            replace(RECIPE, start="vitpose-tiny", skeleton="lsp", height=256, width=192)
        ).eval()
    assert "the last layer keeps the weights of 12 of 14 keypoints (right_ankle, " in caplog.text
    assert "model.safetensors; new: neck, head_top" in caplog.text
    names = Skeleton.load("lsp").keypoints
    kept = [row for row, name in enumerate(names) if name in donor.config.skeleton.keypoints]
    rows = [donor.config.skeleton.keypoints.index(names[row]) for row in kept]
    assert len(kept) == 12
    assert kept != rows, "the order of the keypoints is the same"
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 256, 192)
    found, expected = network(pixels).heatmaps, donor(pixels).heatmaps
    assert torch.equal(found[:, kept], expected[:, rows])
    new = [row for row in range(14) if row not in kept]
    weight = network.state_dict()["head.final_layer.weight"][new]
    assert 0.0005 < weight.std() < 0.002
    assert not network.state_dict()["head.final_layer.bias"][new].any()


def test_synonyms_keep_their_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    donor = make_network(replace(RECIPE, skeleton="mpii")).eval()
    donor.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        network = make_network(replace(RECIPE, start=str(tmp_path), skeleton="lsp")).eval()
    assert "the last layer" not in caplog.text, "all keypoints of LSP are among those of MPII"
    pixels = torch.randn(1, 3, 64, 48)
    old, new = Skeleton.load("mpii"), Skeleton.load("lsp")
    for ours, theirs in (("neck", "upper_neck"), ("head_top", "head_top"), ("left_wrist", "left_wrist")):
        found = network(pixels).heatmaps[:, new.index(ours)]
        assert torch.equal(found, donor(pixels).heatmaps[:, old.index(theirs)])
        assert found.any()


def test_without_common_keypoints_the_last_layer_is_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "arrow.toml").write_text('name = "arrow"\nkeypoints = ["tip", "tail"]\n')
    donor = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny")
    with caplog.at_level(logging.WARNING):
        network = make_network(replace(RECIPE, start="vitpose-tiny", skeleton=str(tmp_path / "arrow.toml")))
    assert "of 0 of 2 keypoints (none) from " in caplog.text
    assert "; new: tip, tail" in caplog.text
    assert network.config.num_labels == 2
    torch.testing.assert_close(
        network.backbone.blocks[0].mlp.fc1.weight, donor.backbone.blocks[0].mlp.fc1.weight
    )
    assert network.backbone.config.grid_size == (4, 3)


def test_a_checkpoint_with_the_same_keypoints_keeps_all_weights() -> None:
    donor = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny")
    network = make_network(replace(RECIPE, start="vitpose-tiny", height=256, width=192))
    for name, tensor in donor.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor)


def test_a_deeper_network_is_initialised_from_a_shallow_one(tmp_path: Path) -> None:
    shallow = make_network(replace(RECIPE, layers=2)).eval()
    shallow.save_pretrained(tmp_path / "shallow")
    deep = make_network(replace(RECIPE, start=str(tmp_path / "shallow"), layers=5)).eval()
    pixels = torch.randn(2, 3, 64, 48)
    assert len(deep.backbone.blocks) == 5
    torch.testing.assert_close(deep(pixels).heatmaps, shallow(pixels).heatmaps, atol=1e-5, rtol=1e-4)
    added = [i for i, block in enumerate(deep.backbone.blocks) if not block.mlp.fc2.weight.any()]
    assert len(added) == 3  # and they have gradients: the layers before the zeros are copies
    assert all(deep.backbone.blocks[i].mlp.fc1.weight.any() for i in added)


def test_whitened_patches_have_equal_variance() -> None:
    network = make_network(RECIPE)
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(64, 3, 32, 24), (64, 48), mode="bilinear")
    pixels = smooth + 0.1 * torch.randn(64, 3, 64, 48)
    whiten_patches(network, pixels)
    filters = network.backbone.patch_embed.proj.weight
    tokens = torch.nn.functional.conv2d(pixels, filters, stride=16).transpose(0, 1).flatten(1)
    spread = tokens.std(dim=1)
    assert spread.max() / spread.min() < 1.6
    torch.testing.assert_close(filters[:96], -filters[96:])
