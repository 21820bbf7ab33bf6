"""`vitpose predict` on images and videos: load the model, predict, print a summary.

Owns the messages during and after the run; the files are written by `output` and `video_job`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitpose

from ..errors import VideoError, VitPoseError, counted
from ..files.registry import DEFAULT_MODEL, list_detectors, list_models
from ..inference.pipeline import Pipeline
from .interruption import INTERRUPTED, stop_on_signal
from .output import Writer
from .sources import Sources, reason_of
from .target import Kinds, Target
from .terminal import DONE, FAILED, print_failures, print_line, show_progress, show_status
from .video_job import VideoJob, name_videos


@dataclass
class Job:
    """One run of `vitpose predict` on images, videos or both.

    Attributes:
        sources: Images and videos.
        target: Output directory or file.
        kinds: Kinds of output.
        drawing: Keyword arguments of `vitpose.draw`.
        loading: Arguments of `vitpose.load`.
        running: Arguments of `Pipeline.each`, for images.
        streaming: Arguments of `Pipeline.stream`, for videos.
        failures: Names and reasons of the failures so far.
        interrupted: Whether Ctrl-C or SIGTERM ended a video before its end.
        done: Number of images, videos, frames of videos, and instances so far.
    """

    sources: Sources
    target: Target
    kinds: Kinds
    drawing: dict[str, Any]
    loading: dict[str, Any]
    running: dict[str, Any]
    streaming: dict[str, Any]
    failures: list[tuple[str, str]] = field(default_factory=list)
    interrupted: bool = False
    done: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("image", "video", "frame", "instance"), 0)
    )

    def run(self) -> int:
        """Run, and return the exit code.

        Raises:
            VitPoseError: The model cannot be loaded, or files cannot be written.
        """
        start = time.perf_counter()
        self.failures += self.sources.failures
        if not self.sources.images and not self.sources.videos:
            print_failures(self.failures)
            return FAILED
        writer = Writer(self.target, self.kinds.images, self.sources.images, self.drawing)
        with show_status("loading the model"):
            pipe = vitpose.load(**self.loading)
        try:
            if self.sources.images:
                self._predict_images(pipe, writer)
            if self.sources.videos:
                self._predict_videos(pipe)
        finally:  # also after Ctrl-C
            self._print_summary(time.perf_counter() - start, pipe)
            print_failures(self.failures)
        return INTERRUPTED if self.interrupted else FAILED if self.failures else DONE

    def _predict_images(self, pipe: Pipeline, writer: Writer) -> None:
        images = self.sources.images
        try:
            with writer, show_progress() as advance:
                for index, prediction in enumerate(pipe.each(images, **self.running)):
                    try:
                        writer.add(index, prediction)
                    except VitPoseError as error:
                        self._add_failure(prediction.name, error)
                    advance(index + 1, len(images))
        finally:
            self.done["image"] += writer.images
            self.done["instance"] += writer.instances

    def _predict_videos(self, pipe: Pipeline) -> None:
        taken = ["poses"] if self.sources.images else []  # poses.csv is the table of the images
        stems = (
            name_videos(self.sources.videos, taken)
            if self.target.file is None
            else [Path(self.target.file).stem]
        )
        with stop_on_signal("completing the files with the frames so far") as stop:
            job = VideoJob(pipe, self.target.directory, self.kinds.videos, self.drawing, self.streaming, stop)
            for source, stem in zip(self.sources.videos, stems, strict=True):
                if stop.is_set():
                    self.interrupted = True
                    self._add_failure(source, VideoError("not started, since the run was stopped"))
                    continue
                try:
                    result = job.run(source, stem)
                except VitPoseError as error:
                    self._add_failure(source, error)
                    continue
                self.interrupted |= result.interrupted
                self.failures += [(source, problem) for problem in result.problems]
                self.done["video"] += 1
                self.done["frame"] += result.frames
                self.done["instance"] += result.instances

    def _add_failure(self, name: str, error: VitPoseError) -> None:
        # Most messages start with the name, which the table shows in its first column.
        self.failures.append((name, reason_of(name, error)))

    def _print_summary(self, seconds: float, pipe: Pipeline) -> None:
        totals = {"image": len(self.sources.images), "video": len(self.sources.videos)}
        counts = [
            ("" if self.done[noun] == total else f"{self.done[noun]} of ") + counted(total, noun)
            for noun, total in totals.items()
            if total
        ]
        if self.sources.videos:
            counts.append(counted(self.done["frame"], "frame"))
        counts.append(counted(self.done["instance"], "instance"))
        if self.failures:
            counts.append(counted(len(self.failures), "failure"))
        ran = describe_run(self.loading, pipe.estimator.runs_on)
        where = f"; results in {self.target.name}" if any(self.done.values()) else ""
        line = f"{', '.join(counts)} in {seconds:.1f} s with {ran}{where}"
        complete = not self.failures and all(self.done[noun] == total for noun, total in totals.items())
        print_line(line, "green" if complete else "yellow")
        if self.loading["model"] == DEFAULT_MODEL:
            print_line(describe_accurate())


def describe_accurate() -> str:
    """Return how to get accurate keypoints, with the size of the download."""
    cards = list_models()["vitpose-base-simple"], list_detectors()["rtdetr"]
    size_mb = sum(card.parameters for card in cards) * 4  # in float32
    options = f"--model {cards[0].name} --detector {cards[1].name}"
    return f"{DEFAULT_MODEL} is for a first look; for accurate keypoints: {options} (downloads {size_mb:.0f} MB once)"


def describe_run(loading: Mapping[str, Any], runs_on: str) -> str:
    """Return what ran: "vitpose-tiny (torch, cpu, float32) and detector rtdetr".

    Args:
        loading: Arguments of `vitpose.load`.
        runs_on: Runtime, device and data type of the network.
    """
    detector = loading["detector"]
    boxes = f"the boxes of {detector}" if isinstance(detector, Path) else f"detector {detector}"
    return f"{loading['model']} ({runs_on}) and {boxes}"
