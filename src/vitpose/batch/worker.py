"""One shard of images -> its two Parquet files: poses and failures. Does not know the plan or any path."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import VitPoseError, require
from ..geometry.boxes import Size
from ..hardware.threads import limit_threads
from ..inference.pipeline import Pipeline, Prediction
from ..results.poses import Poses
from ..results.tables import PoseRows
from .plan import Shard
from .storage import is_remote, read_remote

_IMAGE_COLUMNS = {"image": "string", "width": "int32", "height": "int32"}


@dataclass(frozen=True)
class ShardResult:
    """The result of a shard.

    Attributes:
        shard: Number of the shard.
        poses: A Parquet file with one row per instance.
        failures: A Parquet file with one row per failed image, its name and the reason; empty if there are none.
        instances: Number of instances found.
        failed: Number of images that failed.
        runs_on: Runtime, device and data type of the network.
    """

    shard: int
    poses: bytes
    failures: bytes
    instances: int
    failed: int
    runs_on: str


class Worker:
    """Computes the results of shards with one pipeline.

    Args:
        pipe: Pipeline for one dataset.
        running: Arguments of `Pipeline.each`.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, pipe: Pipeline, running: Mapping[str, Any]) -> None:
        self._pipe, self._running = pipe, running
        self._arrow = require("pyarrow", "tables", "for results in Parquet")

    @classmethod
    def load(cls, loading: Mapping[str, Any], running: Mapping[str, Any], workers: int = 1) -> Worker:
        """Loads the pipeline of one of several workers, which share the cores of this machine.

        Args:
            loading: Arguments of `vitpose.load`.
            running: Arguments of `Pipeline.each`.
            workers: Number of workers on this machine.

        Raises:
            VitPoseError: See `vitpose.load`.
            MissingDependencyError: pyarrow is not installed.
        """
        from ..inference.loading import load

        if workers > 1:
            share = max(1, (os.cpu_count() or 1) // workers)
            limit_threads(share)
            with suppress(ModuleNotFoundError):  # exported files run without torch
                import torch

                torch.set_num_threads(min(torch.get_num_threads(), share))
        return cls(load(**loading), running)

    def run(self, shard: Shard) -> ShardResult:
        """Estimates the poses in the images of a shard; an image that fails does not stop the others.

        Raises:
            InputError: The pipeline was loaded for several datasets.
        """
        rows, failures = PoseRows(self._pipe.estimator.skeleton, _IMAGE_COLUMNS), []
        sources, broken = self._open(shard)
        predictions = self._pipe.each(sources.values(), **self._running) if sources else iter(())
        for name, prediction in zip(sources, predictions, strict=True):
            image = _unicode(name)
            if not isinstance(prediction.poses, Poses) or prediction.image is None:
                failures.append((image, _reason(name, prediction)))
                continue
            size = Size.of(prediction.image)
            rows.add(prediction.poses, image, size.width, size.height)
        failures += [(_unicode(name), " ".join(str(error).split())) for name, error in broken.items()]
        poses = rows.take()
        return ShardResult(
            shard.number,
            self._parquet(poses),
            self._failures(failures),
            poses.num_rows,
            len(failures),
            self._pipe.estimator.runs_on,
        )

    def _open(self, shard: Shard) -> tuple[dict[str, Any], dict[str, VitPoseError]]:
        """Returns the source to read for each image, and the errors of the images that cannot be fetched."""
        sources: dict[str, Any] = {}
        broken = {}
        for name in shard.images:
            try:
                sources[name] = read_remote(name) if is_remote(name) else name
            except VitPoseError as error:
                broken[name] = error
        return sources, broken

    def _failures(self, failures: list[tuple[str, str]]) -> bytes:
        if not failures:
            return b""
        images, reasons = zip(*failures, strict=True)
        columns = {"image": list(images), "reason": list(reasons)}
        return self._parquet(self._arrow.table(columns))

    def _parquet(self, table: Any) -> bytes:
        content = io.BytesIO()
        require("pyarrow.parquet", "tables", "for results in Parquet").write_table(
            table, content, compression="zstd"
        )
        return content.getvalue()


def _reason(name: str, prediction: Prediction) -> str:
    reason = " ".join(str(prediction.error).split())
    if isinstance(prediction.source, bytes):  # which messages name by their length
        reason = reason.replace(f"the bytes object of {len(prediction.source)} bytes", name)
    return _unicode(reason)


def _unicode(name: str) -> str:
    """Returns a string that Arrow accepts: file names on Linux need not be valid Unicode."""
    return name.encode("utf-8", "backslashreplace").decode()
