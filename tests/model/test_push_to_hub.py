"""Uploads to a hub: everything that `vitpose.load` and `transformers` require of a repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers

import vitpose
from vitpose.errors import InputError
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.processing.image_processor import VitPoseImageProcessor

Build = Callable[..., VitPoseForPoseEstimation]
PROCESSOR = VitPoseImageProcessor(size={"height": 64, "width": 48})


class Hub:
    """Stands in for the hub's API and writes uploads to a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: dict[str, Any] = {}

    def __call__(self, token: Any = None) -> Hub:
        self.calls["token"] = token
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls["created"] = (repo_id, options)
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, *, folder_path: str, **options: Any) -> Any:
        self.calls["uploaded"] = options
        self.directory.mkdir()
        for path in Path(folder_path).iterdir():
            (self.directory / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(commit_url="https://hub.example/me/mine/commit/1")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    return hub


def test_upload_sends_network_and_processor(build: Build, hub: Hub) -> None:
    url = build().push_to_hub(
        "mine", processor=PROCESSOR, private=True, token="hf_secret", revision="new", commit_message="Add"
    )
    assert url == "https://hub.example/me/mine/commit/1"
    assert hub.calls == {
        "token": "hf_secret",
        "created": ("mine", {"private": True, "exist_ok": True}),
        "uploaded": {"repo_id": "me/mine", "revision": "new", "commit_message": "Add"},
    }
    assert {path.name for path in hub.directory.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


@torch.no_grad()
def test_uploaded_repository_works_here_and_in_transformers(build: Build, hub: Hub, tmp_path: Path) -> None:
    """The processor need not be given for a network loaded from a directory that contains one."""
    model = build()
    model.save_pretrained(tmp_path / "saved")
    PROCESSOR.save_pretrained(tmp_path / "saved")
    VitPoseForPoseEstimation.from_pretrained(tmp_path / "saved").push_to_hub("mine")
    pipeline = vitpose.load(hub.directory, detector=None)
    assert pipeline.estimator.spec.input_size == vitpose.Size(width=48, height=64)
    theirs = transformers.AutoImageProcessor.from_pretrained(hub.directory)
    assert dict(theirs.size) == {"height": 64, "width": 48}
    crops = torch.randn(1, 3, 64, 48)
    wanted = model(crops).heatmaps
    found = transformers.VitPoseForPoseEstimation.from_pretrained(hub.directory).eval()(crops).heatmaps
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_network_without_a_processor_is_not_uploaded(build: Build, hub: Hub, tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "saved")
    message = (
        r"no image processor is known for this network, .*push_to_hub\(..., processor=VitPoseImageProcessor"
    )
    for network in (model, VitPoseForPoseEstimation.from_pretrained(tmp_path / "saved")):
        with pytest.raises(InputError, match=message):
            network.push_to_hub("mine")
    assert hub.calls == {}


def test_token_is_not_kept_in_the_network(build: Build, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    model = VitPoseForPoseEstimation.from_pretrained(tmp_path, token="hf_secret")
    torch.save(model, tmp_path / "whole.pt")
    assert b"hf_secret" not in (tmp_path / "whole.pt").read_bytes()
