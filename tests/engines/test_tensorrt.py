"""The engine of TensorRT with TensorRT replaced: its files, the calls, and the errors. Runs without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitpose.engines import open_engine
from vitpose.engines.metadata import Metadata
from vitpose.engines.tensorrt import enqueue, open_plan, pack, unpack
from vitpose.errors import CheckpointError, InputError, MissingDependencyError


class Context:
    """TensorRT's execution context, with methods that return the given results."""

    def __init__(self, shape: tuple[int, ...] = (2, 17, 16, 12), **results: bool) -> None:
        self.shape, self.results, self.calls = shape, results, []

    def _record(self, name: str, *arguments: Any) -> bool:
        self.calls.append((name, *arguments))
        return self.results.get(name, True)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._record("set_input_shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._record(f"set_{name}", address)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        return self._record("execute", stream)


def run(context: Context) -> None:
    enqueue(context, torch.zeros(2, 3, 64, 48), torch.zeros(2, 17, 16, 12), 7, "a.engine")


def test_the_calls_of_tensorrt() -> None:
    context = Context()
    run(context)
    assert [call[0] for call in context.calls] == [
        "set_input_shape", "set_pixel_values", "set_heatmaps", "execute",
    ]  # fmt: skip
    assert context.calls[0] == ("set_input_shape", "pixel_values", (2, 3, 64, 48))
    assert context.calls[-1] == ("execute", 7)


@pytest.mark.parametrize(
    ("context", "refused", "runs"),
    [
        (Context(set_input_shape=False), r"a batch of \(2, 3, 64, 48\)", False),
        (Context(set_pixel_values=False), "the pointer to the crops", False),
        (Context(set_heatmaps=False), "the pointer to the heatmaps", False),
        (Context(shape=(2, 17, 32, 24)), r"heatmaps of \(2, 17, 16, 12\)", False),
        (Context(execute=False), "the run", True),
    ],
)
def test_every_failed_call_of_tensorrt_is_an_error(context: Context, refused: str, runs: bool) -> None:
    with pytest.raises(
        CheckpointError,
        match=rf"TensorRT refused {refused} for a\.engine; see its log .* Export the model again",
    ):
        run(context)
    assert ("execute" in [call[0] for call in context.calls]) == runs


def library(engine: object) -> SimpleNamespace:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    return SimpleNamespace(__version__="10.0", Runtime=lambda _: runtime, Logger=logger, float32="float32")


def plan_of(kind: str, context: object) -> SimpleNamespace:
    return SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda index: ("pixel_values", "heatmaps")[index],
        get_tensor_dtype=lambda name: kind,
        create_execution_context=lambda: context,
    )


def test_invalid_plans() -> None:
    with pytest.raises(CheckpointError, match=r"a\.engine cannot be loaded by TensorRT 10\.0: it is damaged"):
        open_plan(b"plan", library(None), "a.engine")
    message = r"inputs and outputs pixel_values float16, .*, but all must be float32; export the model again"
    with pytest.raises(CheckpointError, match=message):
        open_plan(b"plan", library(plan_of("float16", Context())), "a.engine")
    with pytest.raises(CheckpointError, match=r"no execution context could be created, .* GPU memory"):
        open_plan(b"plan", library(plan_of("float32", None)), "a.engine")
    plan, context = plan_of("float32", Context()), Context()
    plan.create_execution_context = lambda: context
    assert open_plan(b"plan", library(plan), "a.engine") == (plan, context)


def test_tensorrt_files(metadata: Metadata, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    path.write_bytes(pack(metadata, b"plan"))
    assert unpack(path) == (metadata, b"plan")
    with pytest.raises(InputError, match=r"x.engine runs in float32, not in int8"):
        open_engine(path, dtype="int8")
    path.write_bytes(b"plan")
    with pytest.raises(CheckpointError, match=r"x.engine has no metadata"):
        open_engine(path)
    with pytest.raises(CheckpointError, match=r"there is no file .*y.engine"):
        open_engine(tmp_path / "y.engine")


@pytest.mark.parametrize(
    ("package", "install"), [("tensorrt", r"'vitpose\[tensorrt\]'"), ("torch", "vitpose$")]
)
def test_a_missing_package_of_tensorrt_is_named(
    package: str, install: str, metadata: Metadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "x.engine"
    path.write_bytes(pack(metadata, b"plan"))
    with pytest.raises(
        MissingDependencyError, match=rf"'{package}' is required to run .*pip install {install}"
    ):
        open_engine(path)
