"""Poses of very many images as a directory of Parquet files, in a run that can be killed and resumed at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, UnknownNameError
from .executors import run_here, run_in_processes, run_on_ray
from .plan import Shard, done_shards, plan_shards, start_or_resume
from .storage import Directory, find_sources
from .worker import ShardResult

SHARD_SIZE = 256
"""Images per shard: the unit of work, and what a killed run computes again."""


@dataclass(frozen=True)
class Counts:
    """What was processed.

    Attributes:
        images: Number of images.
        instances: Number of instances found in them.
        failed: Number of images that failed.
    """

    images: int = 0
    instances: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Returns the sums."""
        return Counts(
            self.images + other.images, self.instances + other.instances, self.failed + other.failed
        )


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        images: Number of images of the whole job.
        earlier: Images in the shards that earlier runs finished.
        run: Images in the shards that this run finished.
        runs_on: Runtime, device and data type of the network; empty before the first shard of this run.
    """

    images: int
    earlier: Counts = Counts()
    run: Counts = Counts()
    runs_on: str = ""

    @property
    def done(self) -> Counts:
        """Images in all finished shards."""
        return self.earlier + self.run

    @property
    def complete(self) -> bool:
        """Whether all images are done."""
        return self.done.images == self.images


def failures_of(out: str) -> str:
    """Returns the directory of the table of failed images, next to the directory of the results."""
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
    """Estimates the poses in very many images and writes them as Parquet, shard by shard.

    A call with the same arguments resumes the run: it computes the shards that are missing, and adds shards for
    new images.

    Args:
        sources: Files, directories, globs and URLs (s3://, gs://, … through fsspec).
        out: Directory of the results, a path or a URL. Its files are one table with one row per instance; an image
            that fails has a row in the directory `failures_of(out)`.
        loading: Arguments of `vitpose.load`, all of them plain values.
        running: Arguments of `Pipeline.each`.
        workers: Number of processes, or of actors on a cluster; 0 runs in this process.
        cluster: None, "ray" (the cluster of `RAY_ADDRESS`, or a local one), or "ray:ADDRESS".
        shard_size: Images per new shard.
        stop: Called after every shard; once it returns True, only the shards in flight are finished.
        report: Called with the progress at the start and after every shard.

    Returns:
        The progress at the end.

    Raises:
        InputError: `shard_size` or `workers` is out of range, or `out` holds other files, a damaged plan, or a run
            with other settings.
        UnknownNameError: The cluster is unknown.
        ImageError: A source has no images.
        OutputError: A result cannot be written.
        WorkerError: Workers died repeatedly, or the cluster fails.
        MissingDependencyError: pyarrow, Ray or the package of a file system is not installed.
        VitPoseError: Loading the model fails. Finished shards are kept in all cases.
    """
    if shard_size < 1 or workers < 0:
        raise InputError(f"shard_size {shard_size} must be at least 1, and workers {workers} at least 0")
    if cluster and cluster.partition(":")[0] != "ray":
        raise UnknownNameError("cluster", cluster, ["ray", "ray:ADDRESS"])
    running = dict(running or {})
    directory, failures = Directory(out), Directory(failures_of(out))
    images = find_sources(sources)
    start_or_resume(directory, _settings(loading, running))
    shards = plan_shards(directory, images, shard_size)
    done = done_shards(directory)
    missing = [shard for shard in shards if shard.number not in done]
    sizes = {shard.number: len(shard.images) for shard in shards}
    earlier = Counts()
    if done:
        finished = sum(sizes[number] for number in done)
        earlier = Counts(finished, directory.count_rows(), failures.count_rows())
    progress = Progress(sum(sizes.values()), earlier)
    report(progress)
    for result in _run(missing, loading, running, stop, workers, cluster):
        _commit(result, directory, failures)
        run = progress.run + Counts(sizes[result.shard], result.instances, result.failed)
        progress = replace(progress, run=run, runs_on=result.runs_on)
        report(progress)
    return progress


def _run(
    shards: Sequence[Shard],
    loading: Mapping[str, Any],
    running: Mapping[str, Any],
    stop: Callable[[], bool],
    workers: int,
    cluster: str | None,
) -> Iterable[ShardResult]:
    """Returns the results of shards from the executor that the arguments select."""
    if not shards:
        return ()
    if cluster:
        return run_on_ray(shards, loading, running, stop, max(workers, 1), cluster.partition(":")[2] or None)
    if workers:
        return run_in_processes(shards, loading, running, stop, workers)
    return run_here(shards, loading, running, stop)


def _settings(loading: Mapping[str, Any], running: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that the results depend on, so neither device nor batch size."""
    same = {name: value for name, value in loading.items() if name not in ("device", "batch_size")}
    return {
        name: value if isinstance(value, list | None) else str(value)
        for name, value in {**same, **running}.items()
    }


def _commit(result: ShardResult, directory: Directory, failures: Directory) -> None:
    """Writes the files of a shard; the shard counts as done once the last one exists."""
    name = Shard(result.shard, ()).name
    if result.failed:
        failures.write(name, result.failures)
    else:
        failures.remove(name)  # left by a run that was killed before the shard was done
    directory.write(name, result.poses)
