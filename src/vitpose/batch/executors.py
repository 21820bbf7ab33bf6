"""Runs shards in this process, in several processes, or on a Ray cluster.

Every executor yields results as they are ready and retries the shards of a worker that died. Does not know where
results are written.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import connection, get_context, parent_process
from typing import Any

from ..errors import VitPoseError, WorkerError, require
from .plan import Shard
from .worker import ShardResult, Worker

Stop = Callable[[], bool]
"""Returns whether the run should end once the shards in flight are done."""
_MAX_CRASHES = 3
"""Crashes of workers in a row, without a shard finished in between, after which the run is given up."""

_worker: Worker | None = None  # set in worker processes only


def run_here(
    shards: Sequence[Shard], loading: Mapping[str, Any], running: Mapping[str, Any], stop: Stop
) -> Iterator[ShardResult]:
    """Yields the results of the shards, computed one after the other in this process.

    Raises:
        VitPoseError: Loading fails, or a shard fails as a whole.
    """
    worker = Worker.load(loading, running)
    for shard in shards:
        if stop():
            return
        yield worker.run(shard)


def run_in_processes(
    shards: Sequence[Shard], loading: Mapping[str, Any], running: Mapping[str, Any], stop: Stop, workers: int
) -> Iterator[ShardResult]:
    """Yields the results of the shards, computed in `workers` spawned processes with one shard each at a time.

    Raises:
        WorkerError: Workers died `_MAX_CRASHES` times in a row.
        VitPoseError: Raised in a worker.
    """
    waiting = list(reversed(shards))
    crashes = 0
    while waiting and not stop():
        in_flight: dict[Future[ShardResult], Shard] = {}
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker) as pool:
            try:
                while in_flight or (waiting and not stop()):
                    while waiting and len(in_flight) < workers and not stop():
                        shard = waiting.pop()
                        in_flight[pool.submit(_run_in_worker, loading, running, workers, shard)] = shard
                    for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del in_flight[future]
                        crashes = 0
                        yield result
            except BrokenProcessPool as error:
                lost = list(in_flight.values())
                waiting += reversed(lost)
                crashes += 1
                if crashes >= _MAX_CRASHES and not stop():
                    raise WorkerError(
                        f"a worker died {crashes} times in a row in one of the shards "
                        f"{[shard.number for shard in lost]} (the first starts with {lost[0].images[0]}); it may have "
                        "run out of memory: run the same command with fewer --workers to resume"
                    ) from error
            except BaseException:  # also when the caller stops early: a pool waits for its work otherwise
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _start_worker() -> None:
    """Leaves Ctrl-C and messages of libraries to the parent process, and exits when the parent has exited."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # otherwise warnings of any logger go to stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run_in_worker(
    loading: Mapping[str, Any], running: Mapping[str, Any], workers: int, shard: Shard
) -> ShardResult:
    global _worker
    _worker = _worker or Worker.load(loading, running, workers)
    return _worker.run(shard)


def run_on_ray(
    shards: Sequence[Shard],
    loading: Mapping[str, Any],
    running: Mapping[str, Any],
    stop: Stop,
    workers: int,
    address: str | None,
) -> Iterator[ShardResult]:
    """Yields the results of the shards, computed by actors of Ray Data that each hold a pipeline.

    Args:
        shards: Shards to run.
        loading: Arguments of `vitpose.load`.
        running: Arguments of `Pipeline.each`.
        stop: See `Stop`; shards without a result at that moment are skipped.
        workers: Number of actors.
        address: Address of a cluster; default: `RAY_ADDRESS`, or a local cluster for this run.

    Raises:
        MissingDependencyError: Ray is not installed.
        WorkerError: The cluster cannot be reached, or Ray fails.
        VitPoseError: Raised in an actor.
    """
    ray = require("ray", "ray", "for --cluster ray")
    data = require("ray.data", "ray", "for --cluster ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"connecting to the Ray cluster {address} failed: {error}; check its address"
        ) from error
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    try:
        items = [{"number": shard.number, "images": list(shard.images)} for shard in shards]
        rows = data.from_items(items, override_num_blocks=len(items)).map(
            RayWorker,
            fn_constructor_args=(dict(loading), dict(running)),
            compute=data.ActorPoolStrategy(size=min(workers, len(items))),
        )
        for row in rows.iter_rows():
            yield ShardResult(**row)
            if stop():
                return
    except ray.exceptions.RayError as error:
        raise _unwrap(error) or WorkerError(f"Ray failed: {error}; run the same command to resume") from error
    finally:
        with suppress(Exception):  # whatever shutting down raises must not hide the run's error
            ray.shutdown()


class RayWorker:
    """A `Worker` as a callable class that maps rows to rows, as Ray Data expects."""

    def __init__(self, loading: Mapping[str, Any], running: Mapping[str, Any]) -> None:
        self._worker = Worker.load(loading, running)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields of the `ShardResult` of one shard."""
        shard = Shard(int(row["number"]), tuple(str(image) for image in row["images"]))
        return asdict(self._worker.run(shard))


def _unwrap(error: BaseException | None) -> VitPoseError | None:
    """Returns the `VitPoseError` that Ray wrapped, if there is one."""
    while error is not None:
        if isinstance(error, VitPoseError):
            return error
        error = error.__cause__ or getattr(error, "cause", None)
    return None
