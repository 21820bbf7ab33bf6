"""The engines for GPUs with TensorRT and CUDA replaced: the calls, and the errors. Runs without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitpose.engines import accelerator as engine_device
from vitpose.engines.accelerator import GraphedNetwork
from vitpose.engines.tensorrt import enqueue, open_plan
from vitpose.errors import CheckpointError


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


class Recorder:
    """Replaces torch's capture of CUDA graphs, and counts simultaneous captures."""

    def __init__(self) -> None:
        self.recording, self.most, self.options, self.pools = 0, 0, [], 0

    def pool(self) -> int:
        self.pools += 1
        return self.pools

    @contextmanager
    def graph(self, graph: Any, **options: Any) -> Iterator[None]:
        self.options.append(options)
        self.recording += 1
        self.most = max(self.most, self.recording)
        time.sleep(0.01)  # long enough for another thread to start a capture if nothing prevents it
        yield
        self.recording -= 1


def test_graphs_are_captured_one_at_a_time_in_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    streams = SimpleNamespace(wait_stream=lambda other: None)

    class Graph:
        def replay(self) -> None:
            """The output of the network is constant."""

    engine_device._shared.cache_clear()
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", recorder.pool)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recorder.graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    networks = [GraphedNetwork(lambda pixels, value=value: pixels[:, :1] * 0 + value) for value in range(3)]

    def call(number: int) -> tuple[float, int]:
        found = networks[number % 3](torch.ones(1 + number % 2, 3, 4, 4))
        return found.unique().item(), len(found)

    try:
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(call, range(24)))
    finally:
        engine_device._shared.cache_clear()
    assert results == [(number % 3, 1 + number % 2) for number in range(24)]
    assert recorder.most == 1
    assert len(recorder.options) == 6
    assert {(options["pool"], options["capture_error_mode"]) for options in recorder.options} == {
        (1, "thread_local")
    }
