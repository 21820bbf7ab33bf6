"""Damaged and hostile files of parameters."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vitpose.errors import CheckpointError
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]
load = VitPoseForPoseEstimation.from_pretrained


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_cut_safetensors_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors is not a valid safetensors file: .*download it again"
    ):
        load(folder)


def test_pickle_named_safetensors_is_refused(folder: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not a valid safetensors file"):
        load(folder)


class Hostile:
    """An object whose unpickling runs a command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "vitpose.pth"
    content = {"state_dict": {"a": torch.zeros(2)}, "meta": Hostile(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"contains more than weights \(posix.system\) and is not loaded, because"
    ):
        load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # shows that the command could run
    assert trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"<html>404</html>",
        b"PK\x03\x04 and no archive",
        pickle.dumps({"a": 1})[:-1],
        b"\x80",
    ],
)
def test_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vitpose.pth").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"vitpose.pth is not a valid torch file of weights; download it again"
    ):
        load(tmp_path / "vitpose.pth")


def test_cut_torch_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vitpose.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match="is not a valid torch file of weights"):
        load(path)


def test_missing_original_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"nothing.pth does not exist; give the path of an original checkpoint"
    ):
        load(tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"state_dict": [1]}, {"epoch": 3}, {"state_dict": {"a": 1}}]
)
def test_torch_file_without_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "vitpose.pth")
    with pytest.raises(
        CheckpointError, match="contains no 'state_dict' of tensors; give an original ViTPose"
    ):
        load(tmp_path / "vitpose.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone.pos_embed": None},
            "has no parameter 'backbone.pos_embed' of 3 axes, so it is not an original",
        ),
        ({"backbone.pos_embed": torch.zeros(3)}, "has no parameter 'backbone.pos_embed' of 3 axes"),
        ({"keypoint_head.final_layer.weight": None}, "has no parameter 'head.final_layer.weight' of 4 axes"),
        (
            {"backbone.pos_embed": torch.zeros(1, 193, 100)},
            "has the width 100 and 193 position embeddings, as no rel",
        ),
        (
            {"backbone.pos_embed": torch.zeros(1, 7, 384)},
            r"the width 384 and 7 position .* pass config=VitPoseConfig",
        ),
        (
            {},
            "does not fit the model: num_hidden_layers is 1 in the configuration, but the file has parameters for 0",
        ),
    ],
)
def test_original_of_an_unknown_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    state = {
        "backbone.pos_embed": torch.zeros(1, 193, 384),
        "backbone.patch_embed.proj.weight": torch.zeros(384, 3, 16, 16),
        "backbone.patch_embed.proj.bias": torch.zeros(384),
        "backbone.last_norm.weight": torch.zeros(384),
        "keypoint_head.final_layer.weight": torch.zeros(17, 384, 3, 3),
        "keypoint_head.final_layer.bias": torch.zeros(17),
    }
    state = {name: tensor for name, tensor in (state | changes).items() if tensor is not None}
    torch.save({"state_dict": state}, tmp_path / "vitpose.pth")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "vitpose.pth")
