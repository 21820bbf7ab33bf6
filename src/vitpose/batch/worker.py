"""One shard of images to its two Parquet files: poses, and what failed. Knows no plan and no place to write to."""

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

_ABOUT = {"image": "string", "width": "int32", "height": "int32"}


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        shard: Its number.
        poses: A Parquet file with one row a person.
        failures: A Parquet file with one row an image that failed: its name and the reason; empty if none did.
        people: How many were found.
        failed: How many images failed.
    """

    shard: int
    poses: bytes
    failures: bytes
    people: int
    failed: int


class Worker:
    """Turns shards into results, with one pipeline.

    Args:
        pipe: The pipeline.
        running: Arguments of `Pipeline.each`.
    """

    def __init__(self, pipe: Pipeline, running: Mapping[str, Any]) -> None:
        self._pipe, self._running = pipe, running
        self._arrow = require("pyarrow", "tables", "for results in Parquet")

    @classmethod
    def load(cls, loading: Mapping[str, Any], running: Mapping[str, Any], workers: int = 1) -> Worker:
        """Loads a pipeline for one of several workers on this machine, which share its cores.

        Args:
            loading: Arguments of `vitpose.load`.
            running: Arguments of `Pipeline.each`.
            workers: How many there are.
        """
        from ..inference.loading import load

        if workers > 1:
            share = max(1, (os.cpu_count() or 1) // workers)
            limit_threads(share)
            with suppress(ModuleNotFoundError):  # not all files need torch
                import torch

                torch.set_num_threads(min(torch.get_num_threads(), share))
        return cls(load(**loading), running)

    def run(self, shard: Shard) -> ShardResult:
        """Finds the poses in the images of a shard; one that fails does not stop the others."""
        rows, failures = PoseRows(self._pipe.estimator.skeleton, _ABOUT), []
        sources, broken = self._open(shard)
        predictions = self._pipe.each(sources.values(), **self._running) if sources else iter(())
        for name, prediction in zip(sources, predictions, strict=True):
            image = _shown(name)
            if not isinstance(prediction.poses, Poses) or prediction.image is None:
                failures.append((image, _reason(name, prediction)))
                continue
            size = Size.of(prediction.image)
            rows.add(prediction.poses, image, size.width, size.height)
        failures += [(_shown(name), " ".join(str(error).split())) for name, error in broken.items()]
        poses = rows.take()
        return ShardResult(
            shard.number, self._parquet(poses), self._failures(failures), poses.num_rows, len(failures)
        )

    def _open(self, shard: Shard) -> tuple[dict[str, Any], dict[str, VitPoseError]]:
        """Returns what the pipeline reads for each image, and what is wrong with those it cannot get."""
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
    if isinstance(prediction.source, bytes):  # which messages call by their length
        reason = reason.replace(f"the bytes object of {len(prediction.source)} bytes", name)
    return _shown(reason)


def _shown(text: str) -> str:
    """Returns a text that Arrow takes: file names on Linux may be no Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()
