"""Small random networks for the tests of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

TINY = {
    "image_size": (64, 48),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "part_features": 8,
}


def build_model(**options: Any) -> VitPoseForPoseEstimation:
    """Builds a tiny network in evaluation mode, with no parameter left at 0 or 1.

    Args:
        **options: Attributes of either configuration.
    """
    whole = {name: options.pop(name) for name in ("use_simple_decoder", "num_labels") if name in options}
    backbone = VitPoseBackboneConfig(**(TINY | options))
    model = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, **{"num_labels": 5} | whole))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.1).abs_() if tensor.ndim == 1 else tensor.normal_(
                    0, 0.1
                )
    return model.eval()


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(3)


@pytest.fixture
def build() -> Callable[..., VitPoseForPoseEstimation]:
    """Builds a tiny random network; see `build_model`."""
    return build_model


@pytest.fixture
def folder(build: Callable[..., VitPoseForPoseEstimation], tmp_path: Path) -> Path:
    """The directory of a saved tiny network."""
    build().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def pixels() -> torch.Tensor:
    """Three crops of the tiny networks' size."""
    return torch.randn(3, 3, 64, 48)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Disables the runtime checks of shapes and types, as for users, so that the checks of vitpose are tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
