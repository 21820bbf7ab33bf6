"""Shards to results: in this process, in several processes, or on a Ray cluster.

All give the results in the order in which they are ready, and all do a lost worker's shards again. Knows nothing
of where results go.
"""

from __future__ import annotations

import os
import signal
import threading
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
"""Tells whether the run shall end as soon as what is in flight is done."""
_MOST_LOSSES = 3
"""So many times in a row may workers die without a shard being finished in between."""

_own: Worker | None = None  # of a worker process


def run_here(
    shards: Sequence[Shard], loading: Mapping[str, Any], running: Mapping[str, Any], stop: Stop
) -> Iterator[ShardResult]:
    """Works on the shards one after the other, in this process."""
    worker = Worker.load(loading, running)
    for shard in shards:
        if stop():
            return
        yield worker.run(shard)


def run_in_processes(
    shards: Sequence[Shard], loading: Mapping[str, Any], running: Mapping[str, Any], stop: Stop, workers: int
) -> Iterator[ShardResult]:
    """Works on the shards in processes of their own, one shard each at a time.

    Raises:
        WorkerError: Workers die again and again.
        VitPoseError: What a worker raises.
    """
    waiting = list(reversed(shards))
    losses = 0
    while waiting and not stop():
        flying: dict[Future[ShardResult], Shard] = {}
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker) as pool:
            try:
                while flying or (waiting and not stop()):
                    while waiting and len(flying) < workers and not stop():
                        shard = waiting.pop()
                        flying[pool.submit(_run_in_worker, loading, running, workers, shard)] = shard
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del flying[future]
                        losses = 0
                        yield result
            except BrokenProcessPool as error:
                lost = list(flying.values())
                waiting += reversed(lost)
                losses += 1
                if losses >= _MOST_LOSSES and not stop():
                    raise WorkerError(
                        f"a worker died {losses} times in a row, at one of the shards {[one.number for one in lost]} "
                        f"(the first begins with {lost[0].images[0]}); there may be too little memory: "
                        "give fewer --workers, and the same command goes on"
                    ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _begin_worker() -> None:
    """Lets Ctrl-C be the parent's business, and ends this process when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _run_in_worker(
    loading: Mapping[str, Any], running: Mapping[str, Any], workers: int, shard: Shard
) -> ShardResult:
    global _own
    _own = _own or Worker.load(loading, running, workers)
    return _own.run(shard)


def run_on_ray(
    shards: Sequence[Shard],
    loading: Mapping[str, Any],
    running: Mapping[str, Any],
    stop: Stop,
    workers: int,
    address: str | None,
) -> Iterator[ShardResult]:
    """Works on the shards with Ray Data: actors hold the model, and shards stream through them.

    Args:
        shards: What to do.
        loading: Arguments of `vitpose.load`.
        running: Arguments of `Pipeline.each`.
        stop: See `Stop`; what has not come back then is left out.
        workers: How many actors.
        address: Of a cluster; None is the one that `RAY_ADDRESS` names, or a local one made for this run.

    Raises:
        MissingDependencyError: Ray is not installed.
        WorkerError: The cluster cannot be reached.
        VitPoseError: What an actor raises.
    """
    ray = require("ray", "ray", "for --engine-cluster ray")
    data = require("ray.data", "ray", "for --engine-cluster ray")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", configure_logging=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise WorkerError(
            f"the Ray cluster {address} cannot be reached: {error}; check its address"
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
            yield ShardResult(
                int(row["shard"]), row["poses"], row["failures"], int(row["people"]), int(row["failed"])
            )
            if stop():
                return
    except ray.exceptions.RayError as error:
        raise _own_error(error) or WorkerError(f"Ray gave up: {error}; the same command goes on") from error
    finally:
        with suppress(Exception):
            ray.shutdown()


class RayWorker:
    """A `Worker` in the form that Ray Data wants: a class whose calls map rows to rows."""

    def __init__(self, loading: Mapping[str, Any], running: Mapping[str, Any]) -> None:
        self._worker = Worker.load(loading, running)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Works on one shard."""
        shard = Shard(int(row["number"]), tuple(str(image) for image in row["images"]))
        return asdict(self._worker.run(shard))


def _own_error(error: BaseException | None) -> VitPoseError | None:
    """Returns the error of ours that Ray wrapped, if any."""
    while error is not None:
        if isinstance(error, VitPoseError):
            return error
        error = error.__cause__ or getattr(error, "cause", None)
    return None
