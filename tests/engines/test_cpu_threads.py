"""Batches split over threads: the same heatmaps in the same order, and torch's settings unchanged."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vitpose.engines.cpu_threads import CROPS_PER_THREAD, ThreadedNetwork


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_a_later_thread() -> int:
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append((torch.zeros(2) + 1, torch.get_num_threads())[1]))
    later.start()
    later.join()
    return found[0]


def count_workers() -> int:
    return sum(thread.name.startswith("vitpose-crops") for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 11, 22])
def test_heatmaps_are_in_the_order_of_the_crops(count: int) -> None:
    seen: list[tuple[int, int, int]] = []

    def network(pixels: Tensor) -> Tensor:
        seen.append((threading.get_ident(), len(pixels), torch.get_num_threads()))
        return 2 * pixels

    pixels = torch.arange(count * 12.0).view(count, 3, 2, 2)
    torch.testing.assert_close(ThreadedNetwork(network)(pixels), 2 * pixels)
    here = [part for part in seen if part[0] == threading.get_ident()]
    elsewhere = [part for part in seen if part not in here]
    assert [(length, threads) for _, length, threads in here] == (
        [(count % 3, 3)] if count % 3 or not count else []
    )
    assert sum(length for _, length, _ in elsewhere) == count - count % 3
    assert all(length <= CROPS_PER_THREAD and threads == 1 for _, length, threads in elsewhere)


def test_the_settings_of_other_threads_are_unchanged() -> None:
    ThreadedNetwork(lambda pixels: pixels)(torch.zeros(3, 3, 2, 2))
    assert torch.get_num_threads() == 3
    assert threads_of_a_later_thread() == 3


def test_simultaneous_first_calls_start_one_pool() -> None:
    torch.set_num_threads(5)  # a number that no other test uses, so that no pool exists
    first, together, seen = threading.Barrier(6), threading.Barrier(5), set()

    def network(pixels: Tensor) -> Tensor:
        seen.add(threading.current_thread())
        together.wait()  # so that every thread has a crop
        return pixels

    def call() -> None:
        torch.get_num_threads()
        first.wait()
        ThreadedNetwork(network)(torch.zeros(5, 3, 2, 2))

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(seen) == 5
    assert threads_of_a_later_thread() == 5


def test_a_pool_that_cannot_start_is_cleaned_up(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(6)  # a number that no other test uses, so that no pool exists
    before, starts, start = count_workers(), iter(range(6)), threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        if next(starts) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    network, pixels = ThreadedNetwork(lambda pixels: pixels), torch.zeros(6, 3, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_three)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            network(pixels)
    assert count_workers() == before
    assert threads_of_a_later_thread() == 6
    torch.testing.assert_close(network(pixels), pixels)


FORKED = """
import os, signal, numpy, torch, vitpose
torch.set_num_threads(3)
crops = numpy.random.default_rng(0).integers(0, 256, ({count}, 256, 192, 3), numpy.uint8)
def load():
    return vitpose.load("vitpose-tiny", None, device="cpu", dtype={dtype!r}).estimator.engine
engine = load()
expected = engine.heatmaps(crops)
if child := os.fork():
    print(os.waitpid(child, 0)[1], torch.get_num_threads())
else:
    signal.alarm(60)
    before = torch.get_num_threads()
    found = [loaded.heatmaps(crops) for loaded in (engine, load())]
    same = all(numpy.allclose(heatmaps, expected, atol=0.03) for heatmaps in found)
    os._exit(0 if same and before == torch.get_num_threads() == 3 else 1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(("count", "dtype"), [(1, "float32"), (7, "float32"), (7, "bfloat16")])
def test_inference_in_a_forked_process(count: int, dtype: str) -> None:
    """With its parent's engine and with an engine loaded in the child; the alarm ends the child if it hangs."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED.format(count=count, dtype=dtype)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0 3\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_importing_does_not_change_forked_processes() -> None:
    code = """
import os, torch
import vitpose.engines.accelerator, vitpose.engines.program, vitpose.inference.loading
torch.set_num_threads(3)
if child := os.fork():
    print(os.waitpid(child, 0)[1])
else:
    os._exit(0 if torch.get_num_threads() == 3 else 1)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "0\n", done.stderr


def test_an_error_in_a_thread_is_raised_by_the_call() -> None:
    def network(pixels: Tensor) -> Tensor:
        raise ValueError("odd pixels")

    with pytest.raises(ValueError, match="odd pixels"):
        ThreadedNetwork(network)(torch.zeros(3, 3, 2, 2))
