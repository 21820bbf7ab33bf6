"""The capture of CUDA graphs with CUDA replaced. Runs without a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitpose.engines import accelerator
from vitpose.engines.accelerator import GraphedNetwork


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

    accelerator._shared.cache_clear()
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
        accelerator._shared.cache_clear()
    assert results == [(number % 3, 1 + number % 2) for number in range(24)]
    assert recorder.most == 1
    assert len(recorder.options) == 6
    assert {(options["pool"], options["capture_error_mode"]) for options in recorder.options} == {
        (1, "thread_local")
    }
