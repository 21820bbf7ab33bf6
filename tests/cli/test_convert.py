"""`vitpose convert`, with `transformers` as the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

import vitpose
from vitpose.cli import app

WRITTEN = {"config.json", "model.safetensors", "preprocessor_config.json"}


def convert(*arguments: str | Path) -> Result:
    command = ["convert", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "250"}, catch_exceptions=False)


def small_network(experts: int = 1) -> vitpose.VitPoseForPoseEstimation:
    torch.manual_seed(3)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(128, 96),
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_experts=experts,
        part_features=48 if experts > 1 else 0,
        layer_norm_eps=1e-6,
    )
    network = vitpose.VitPoseForPoseEstimation(vitpose.VitPoseConfig(backbone_config=backbone)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


def original_file(network: vitpose.VitPoseForPoseEstimation, path: Path) -> Path:
    """Save a network in the original repository's form, with the class token that some files have."""
    state = {
        name.replace("head.", "keypoint_head.", 1): value for name, value in network.state_dict().items()
    }
    state["backbone.cls_token"] = torch.zeros(1, 1, 192)
    torch.save({"meta": {"epoch": 210}, "state_dict": state}, path)
    return path


@torch.no_grad()
def heatmaps_of(network: torch.nn.Module, **options: object) -> torch.Tensor:
    pixels = torch.randn(2, 3, 128, 96, generator=torch.Generator().manual_seed(5))
    return network(pixels, **options).heatmaps


def test_an_original_file_is_converted_for_transformers(tmp_path: Path) -> None:
    network = small_network()
    source, folder = original_file(network, tmp_path / "original.pth"), tmp_path / "new" / "folder"
    result = convert(source, folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(f"M parameters, 17 keypoints, float32; written to {folder}\n")
    assert {path.name for path in folder.iterdir()} == WRITTEN
    reference, report = transformers.VitPoseForPoseEstimation.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    torch.testing.assert_close(heatmaps_of(reference.eval()), heatmaps_of(network), rtol=1e-4, atol=1e-4)
    assert reference.config.id2label[0] == "nose"
    processor = vitpose.VitPoseImageProcessor.from_pretrained(folder)
    assert processor.size == vitpose.Size(width=96, height=128)


def test_an_expert_becomes_a_dense_model(tmp_path: Path) -> None:
    network = small_network(experts=3)
    source = original_file(network, tmp_path / "plus.pth")
    assert convert(source, tmp_path / "dense", "--dataset", "2").exit_code == 0
    reference = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path / "dense").eval()
    assert reference.config.backbone_config.num_experts == 1
    expected = heatmaps_of(network, dataset_index=2)
    torch.testing.assert_close(heatmaps_of(reference), expected, rtol=1e-4, atol=1e-4)
    assert convert(source, tmp_path / "whole").exit_code == 0
    assert vitpose.VitPoseConfig.from_pretrained(tmp_path / "whole").backbone_config.num_experts == 3


def test_refuses_experts_that_do_not_exist(tmp_path: Path) -> None:
    source = original_file(small_network(experts=3), tmp_path / "plus.pth")
    result = convert(source, tmp_path / "out", "--dataset", "3")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: expert 3 does not exist; the network has 3, 0 to 2")
    result = convert("vitpose-tiny", tmp_path / "out", "--dataset", "1")
    assert "error: expert 1 does not exist; the network has 1, 0 to 0" in result.stderr
    result = convert(source, tmp_path / "out", "--dataset", "aic")
    assert "error: unknown dataset of this network 'aic'; known: coco." in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [([], torch.float16), (["--dtype", "float32"], torch.float32), (["--dtype", "bfloat16"], torch.bfloat16)],
)
def test_the_dtype_is_that_of_the_file_by_default(
    options: list[str], dtype: torch.dtype, tmp_path: Path
) -> None:
    source = tmp_path / "half"
    small_network().half().save_pretrained(source)
    vitpose.VitPoseImageProcessor(size=vitpose.Size(width=96, height=128)).save_pretrained(source)
    result = convert(source, tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}


def test_a_directory_that_is_not_empty_requires_force(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "config.json").write_text("mine")
    result = convert("vitpose-tiny", folder)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: the directory {folder} is not empty; choose another, or replace its files with --force\n"
    )
    assert (folder / "config.json").read_text() == "mine"
    assert convert("vitpose-tiny", folder, "--force").exit_code == 0
    assert {path.name for path in folder.iterdir()} == WRITTEN


def test_refuses_paths_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = convert("vitpose-tiny", tmp_path / "file" / "out")
    assert (result.exit_code, "Not a directory; choose another directory" in result.stderr) == (1, True)
    result = convert(tmp_path / "none.pth", tmp_path / "out")
    assert (result.exit_code, "none.pth does not exist" in result.stderr) == (1, True)
    result = convert("vitpose-tinny", tmp_path / "out")
    assert (result.exit_code, "did you mean vitpose-tiny" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
