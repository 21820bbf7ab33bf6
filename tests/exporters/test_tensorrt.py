"""Building plans with TensorRT replaced: its failures are errors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vitpose
from vitpose.engines.metadata import Metadata
from vitpose.engines.tensorrt import unpack
from vitpose.errors import CheckpointError
from vitpose.exporters.tensorrt import write_tensorrt


def library(parses: bool = True, profile: int = 0, plan: bytes | None = b"plan") -> ModuleType:
    made: Any = ModuleType("tensorrt")
    config = SimpleNamespace(clear_flag=lambda flag: None, add_optimization_profile=lambda added: profile)
    made.__version__ = "10.0"
    made.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    made.BuilderFlag = SimpleNamespace(TF32=1)
    made.Builder = lambda logger: SimpleNamespace(
        create_network=lambda flags: None,
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: SimpleNamespace(set_shape=lambda *_: None),
        build_serialized_network=lambda definition, config: plan,
    )
    made.OnnxParser = lambda definition, logger: SimpleNamespace(
        parse_from_file=lambda path: parses,
        num_errors=1,
        get_error=lambda index: SimpleNamespace(desc=lambda: "no such operator"),
    )
    return made


@pytest.mark.parametrize(
    ("tensorrt", "message"),
    [
        (
            library(parses=False),
            r"TensorRT 10\.0 cannot parse the network: no such operator; use another version",
        ),
        (library(profile=-1), r"TensorRT 10\.0 rejects batches of 1 to 64 crops of 48x64; see its log above"),
        (
            library(plan=None),
            r"TensorRT 10\.0 cannot build a plan for this GPU; see its log above, or export",
        ),
        (library(), None),
    ],
)
def test_failures_of_tensorrt_are_errors(
    tensorrt: ModuleType,
    message: str | None,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr("vitpose.exporters.tensorrt.write_onnx", lambda *_: None)
    network = vitpose.VitPoseForPoseEstimation.from_pretrained(checkpoint)
    spec = vitpose.ModelSpec(dataset=network.config.heads[0], input_size=vitpose.Size(width=48, height=64))
    metadata = Metadata("small", "float32", spec)
    if message is None:
        write_tensorrt(network, metadata, tmp_path / "a.engine")
        assert unpack(tmp_path / "a.engine") == (metadata, b"plan")
    else:
        with pytest.raises(CheckpointError, match=message):
            write_tensorrt(network, metadata, tmp_path / "a.engine")
        assert not (tmp_path / "a.engine").exists()
