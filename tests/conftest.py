"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# No deadlines: the machines are shared. In CI the same examples each time; elsewhere new ones are looked for.
settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")

# Several workers share the cores: one thread each is fastest. It must be said before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs beside the checkout; a test that asks for it is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real photographs are not at {SHARED_DATA}")
    return SHARED_DATA


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random network of COCO's keypoints, whose maps and crops are read in no default way."""
    import torch

    import vitpose

    torch.manual_seed(3)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    config = vitpose.VitPoseConfig.for_skeleton(vitpose.Skeleton.load("coco"), backbone_config=backbone)
    network = vitpose.VitPoseForPoseEstimation(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("networks") / "small"
    network.save_pretrained(folder)
    processor = vitpose.VitPoseImageProcessor(
        size=vitpose.Size(width=48, height=64), warp="plain", decode="quarter", shift_heatmap=True,
        image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.25),
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the tiny network as a file of a format; each is made once. Tests that change a file copy it."""
    import vitpose

    folder, done = tmp_path_factory.mktemp("exported"), {}
    endings = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}

    def export(to: str) -> Path:
        if to not in done:
            done[to] = vitpose.export(checkpoint, to, folder / f"small{endings[to]}").path
        return done[to]

    return export
