"""Crops side by side on a CPU: a thread a core, each with crops of its own.

Threads that share one product wait for each other after every layer; threads with crops of their own do not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

CROPS_PER_THREAD = 2
"""Crops that go through the network together in each thread: as fast as more of them, in less memory."""
_beginning = threading.Lock()
"""Held while threads begin, since they change what torch tells every thread that begins meanwhile."""

_BORN = os.getpid()
"""The process that imported this first; any other one that has it was forked from that."""


@contextmanager
def one_thread_if_forked() -> Iterator[None]:
    """Lets torch compute with one thread in here, where this process was forked from another; does nothing elsewhere.

    A forked process has none of its parent's threads, and torch would wait for them for ever. What it was told of
    threads stands again afterwards.
    """
    if os.getpid() == _BORN:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class SideBySide:
    """A network for a CPU that deals its crops out to as many threads as torch may use.

    What is left of a batch that cannot be dealt out evenly is run by all threads together. In a forked process it is
    called within `one_thread_if_forked`.

    Args:
        network: Crops in, maps out; safe to run in several threads at a time.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network

    def __call__(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Returns what the network returns."""
        threads = torch.get_num_threads()
        dealt = len(pixels) - len(pixels) % threads
        if threads == 1 or not dealt:
            return self.network(pixels)
        with _beginning:
            workers = _workers(threads)
        maps = list(workers.map(self._run, pixels[:dealt].chunk(threads)))
        if dealt < len(pixels):
            maps.append(self.network(pixels[dealt:]))
        return torch.cat(maps)

    @torch.inference_mode()
    def _run(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        return torch.cat([self.network(part) for part in pixels.split(CROPS_PER_THREAD)])


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Returns threads in which torch computes with one thread each."""
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's number is set when it is first needed, over what was set before
        torch.set_num_threads(1)  # of this thread, and of threads that begin later
        with suppress(threading.BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(count, "vitpose-crops", initializer=begin)
    try:
        for _ in range(count):
            pool.submit(int)  # begins one thread each, since none of them is free before all are there
        ready.wait()
    except BaseException:  # a thread cannot be begun, or Ctrl-C
        ready.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(count)  # what threads that begin later had before
    return pool
