"""Parallel inference on a CPU: one thread per core, each with different crops.

Threads that share one matrix product wait for each other after every layer; threads with different crops do not.
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
"""Batch size of each thread: as fast as larger ones, and takes less memory."""
_STARTING = threading.Lock()
"""Held while a pool starts: its threads temporarily change the number of threads that torch gives to new threads."""

_IMPORTING_PROCESS = os.getpid()
"""The process that imported this module; a process with another id was forked from it."""


@contextmanager
def one_thread_if_forked() -> Iterator[None]:
    """Limit torch to one thread within the context if this process was forked; otherwise do nothing.

    A forked process does not have the threads of its parent, and torch would wait for them forever. The number of
    threads is restored afterwards.
    """
    if os.getpid() == _IMPORTING_PROCESS:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ThreadedNetwork:
    """A network on a CPU whose batches are split over as many threads as torch uses.

    If a batch cannot be split evenly, the rest is run by torch with all threads. In a forked process, call it within
    `one_thread_if_forked`.

    Args:
        network: A function from crops to heatmaps, safe to run in several threads at a time.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network

    def __call__(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Return the heatmaps of normalised crops."""
        threads = torch.get_num_threads()
        even = len(pixels) - len(pixels) % threads
        if threads == 1 or not even:
            return self.network(pixels)
        with _STARTING:
            workers = _workers(threads)
        heatmaps = list(workers.map(self._run, pixels[:even].chunk(threads)))
        if even < len(pixels):
            heatmaps.append(self.network(pixels[even:]))
        return torch.cat(heatmaps)

    @torch.inference_mode()
    def _run(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        return torch.cat([self.network(part) for part in pixels.split(CROPS_PER_THREAD)])


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Return a pool of threads, in each of which torch computes with one thread."""
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # initialises this thread's setting, which would otherwise overwrite the next line
        torch.set_num_threads(1)  # of this thread, and of threads that start later
        with suppress(threading.BrokenBarrierError):
            started.wait()

    pool = ThreadPoolExecutor(count, "vitpose-crops", initializer=start)
    try:
        for _ in range(count):
            pool.submit(int)  # each starts one thread, since no thread is idle before all have started
        started.wait()
    except BaseException:  # a thread cannot be started, or Ctrl-C
        started.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(count)  # restores the setting for threads that start later
    return pool
