"""Poses of very many images as a folder of Parquet files, in a run that can be killed at any moment and goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, UnknownNameError
from .executors import run_here, run_in_processes, run_on_ray
from .plan import Shard, begin_or_go_on, done_shards, plan_shards
from .storage import Place, find_sources
from .worker import ShardResult

SHARD_SIZE = 256
"""Images that are done, and lost by a kill, together."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        images: How many there are.
        done: How many are done, by earlier runs too.
        people: How many were found by this run.
        failed: How many images failed in this run.
    """

    images: int
    done: int
    people: int = 0
    failed: int = 0

    @property
    def complete(self) -> bool:
        """Whether all are done."""
        return self.done == self.images


def failures_of(out: str) -> str:
    """Returns the folder of the table of what failed, which lies beside that of the results."""
    return f"{out.rstrip('/').removesuffix('.parquet')}-failures.parquet"


def predict_many(
    sources: Sequence[str],
    out: str,
    *,
    loading: Mapping[str, Any],
    running: Mapping[str, Any] | None = None,
    workers: int = 1,
    cluster: str | None = None,
    shard_size: int = SHARD_SIZE,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Finds the poses in very many images and writes them as Parquet, shard by shard.

    Called again with the same arguments it does what is missing. Images that came since are done too; what is
    done stays.

    Args:
        sources: Files, folders, globs and addresses (s3://, gs://, … through fsspec).
        out: The folder of the results, a path or an address. Its files are one table, with one row a person;
            an image that fails has a row in the folder `failures_of(out)`.
        loading: Arguments of `vitpose.load`, all of them plain values.
        running: Arguments of `Pipeline.each`.
        workers: Processes, or actors on a cluster; 0 is this process.
        cluster: None, "ray" (a local one, or that of RAY_ADDRESS), or "ray:ADDRESS".
        shard_size: Images of a new shard.
        stop: Asked after every shard; once it is true, what is in flight is finished, and no more.
        report: Is told how far the run is: at its start and after every shard.

    Raises:
        VitPoseError: Something is wrong that concerns all images; the shards that are done stay.
    """
    if shard_size < 1 or workers < 0:
        raise InputError(f"shard_size {shard_size} must be at least 1, and workers {workers} at least 0")
    kind, _, address = (cluster or "").partition(":")
    if kind not in ("", "ray"):
        raise UnknownNameError("cluster", cluster, ["ray", "ray:ADDRESS"])
    running = dict(running or {})
    place, failures = Place(out), Place(failures_of(out))
    images = find_sources(sources)
    begin_or_go_on(place, _settings(loading, running))
    shards = plan_shards(place, images, shard_size)
    done = done_shards(place)
    missing = [shard for shard in shards if shard.number not in done]
    sizes = {shard.number: len(shard.images) for shard in shards}
    progress = Progress(sum(sizes.values()), sum(sizes[number] for number in done))
    report(progress)
    if not missing:
        return progress
    if kind == "ray":
        results = run_on_ray(missing, loading, running, stop, max(workers, 1), address or None)
    elif workers:
        results = run_in_processes(missing, loading, running, stop, workers)
    else:
        results = run_here(missing, loading, running, stop)
    for result in results:
        _commit(result, place, failures)
        progress = Progress(
            progress.images,
            progress.done + sizes[result.shard],
            progress.people + result.people,
            progress.failed + result.failed,
        )
        report(progress)
    return progress


def _settings(loading: Mapping[str, Any], running: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the results depend on: not where they are computed, nor in which batches."""
    same = {name: value for name, value in loading.items() if name not in ("device", "batch_size")}
    return {
        name: value if isinstance(value, list | None) else str(value)
        for name, value in {**same, **running}.items()
    }


def _commit(result: ShardResult, place: Place, failures: Place) -> None:
    """Writes a shard's files; the last one makes it done."""
    name = Shard(result.shard, ()).name
    if result.failed:
        failures.write(name, result.failures)
    else:
        failures.remove(name)  # of an attempt that was killed before the shard was done
    place.write(name, result.poses)
