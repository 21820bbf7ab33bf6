"""What can be tested of the ways on a GPU where there is none: what they ask of TensorRT and CUDA, and its refusals."""

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
    """TensorRT's execution context, whose methods return what they are told to."""

    def __init__(self, shape: tuple[int, ...] = (2, 17, 16, 12), **answers: bool) -> None:
        self.shape, self.answers, self.calls = shape, answers, []

    def _answer(self, name: str, *arguments: Any) -> bool:
        self.calls.append((name, *arguments))
        return self.answers.get(name, True)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._answer("set_input_shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._answer(f"set_{name}", address)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def execute_async_v3(self, stream: int) -> bool:
        return self._answer("execute", stream)


def run(context: Context) -> None:
    enqueue(context, torch.zeros(2, 3, 64, 48), torch.zeros(2, 17, 16, 12), 7, "a.engine")


def test_what_tensorrt_is_asked() -> None:
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
        (Context(set_pixel_values=False), "the address of the crops", False),
        (Context(set_heatmaps=False), "the address of the heatmaps", False),
        (Context(shape=(2, 17, 32, 24)), r"heatmaps of \(2, 17, 16, 12\)", False),
        (Context(execute=False), "the run", True),
    ],
)
def test_every_refusal_of_tensorrt_is_told(context: Context, refused: str, runs: bool) -> None:
    with pytest.raises(
        CheckpointError, match=rf"TensorRT refused {refused} for a\.engine; .* Export the model again"
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


def test_plans_that_cannot_be_run() -> None:
    with pytest.raises(CheckpointError, match=r"a\.engine cannot be loaded by TensorRT 10\.0: it is damaged"):
        open_plan(b"plan", library(None), "a.engine")
    with pytest.raises(CheckpointError, match=r"takes and gives pixel_values float16, .*, not float32"):
        open_plan(b"plan", library(plan_of("float16", Context())), "a.engine")
    with pytest.raises(CheckpointError, match=r"there is no execution context for it, .* GPU memory"):
        open_plan(b"plan", library(plan_of("float32", None)), "a.engine")
    plan, context = plan_of("float32", Context()), Context()
    plan.create_execution_context = lambda: context
    assert open_plan(b"plan", library(plan), "a.engine") == (plan, context)


class Recorder:
    """Stands for CUDA's graphs: replaying computes with whatever lies in the input then."""

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
        time.sleep(0.01)  # so that another thread would come in between, were it let in
        yield
        self.recording -= 1


def test_graphs_are_recorded_one_at_a_time_in_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    streams = SimpleNamespace(wait_stream=lambda other: None)

    class Graph:
        def replay(self) -> None:
            """What the network writes is constant here."""

    engine_device._shared.cache_clear()
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", recorder.pool)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recorder.graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    networks = [GraphedNetwork(lambda pixels, own=own: pixels[:, :1] * 0 + own) for own in range(3)]

    def call(number: int) -> tuple[float, int]:
        found = networks[number % 3](torch.ones(1 + number % 2, 3, 4, 4))
        return found.unique().item(), len(found)

    try:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(call, range(24)))
    finally:
        engine_device._shared.cache_clear()
    assert answers == [(number % 3, 1 + number % 2) for number in range(24)]
    assert recorder.most == 1
    assert len(recorder.options) == 6
    assert {(own["pool"], own["capture_error_mode"]) for own in recorder.options} == {(1, "thread_local")}
