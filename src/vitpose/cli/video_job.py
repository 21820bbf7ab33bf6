"""`vitpose predict` on videos: stream, draw, record, print a summary.

The formats of the files are in `video.recording` and `video.writing`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitpose

from ..errors import InputError, UnknownNameError, VideoError, VitPoseError, counted
from ..inference.pipeline import Pipeline
from ..video.reading import is_missing
from ..video.recording import KINDS, Recording
from ..video.run_ahead import RunAhead
from ..video.stream import PoseFrame
from ..video.writing import VideoWriter
from .interruption import stop_on_signal
from .output import refuse_unwritable
from .terminal import DONE, FAILED, print_failures, print_line, show_progress, show_status

DRAWN = "video"
"""The kind of output that is drawn; all others are recorded data."""
_PROCESSED_AHEAD = 4  # frames queued for drawing and encoding


@dataclass
class VideoJob:
    """One run of `vitpose predict` on videos.

    Attributes:
        out: Output directory.
        save: Kinds of output, separated by commas.
        threshold: Keypoints with a lower score are not drawn.
        loading: Arguments of `vitpose.load`.
        streaming: Arguments of `Pipeline.stream`.
        failures: Names and reasons of the failures so far.
    """

    out: Path
    save: str
    threshold: float
    loading: dict[str, Any]
    streaming: dict[str, Any]
    failures: list[tuple[str, str]] = field(default_factory=list)

    def run(self, sources: Sequence[str]) -> int:
        """Run, and return the exit code.

        Args:
            sources: Videos, cameras and URLs; or one image sequence.

        Raises:
            VitPoseError: An option is invalid, no source exists, or the model cannot be loaded.
        """
        kinds = choose_video_kinds(self.save)
        refuse_unwritable(self.out)
        if all(is_missing(source) for source in sources):  # before a model is loaded for nothing
            missing = ", ".join(sources)
            raise VideoError(f"{missing} cannot be opened: No such file or directory; check the name")
        with show_status("loading the model"):
            pipe = vitpose.load(**self.loading)
        with stop_on_signal("completing the files with the frames so far") as stop:
            for source, stem in zip(sources, name_videos(sources), strict=True):
                if stop.is_set():
                    self.failures.append((source, "not started, since the run was stopped"))
                    continue
                try:
                    self._process(source, stem, kinds, pipe, stop)
                except VitPoseError as error:
                    self.failures.append((source, " ".join(str(error).split()).removeprefix(source).lstrip()))
        print_failures(self.failures)
        return FAILED if self.failures else DONE

    def _process(self, source: str, stem: str, kinds: list[str], pipe: Pipeline, stop: Any) -> None:
        drawn = self.out / f"{stem}.mp4"
        if DRAWN in kinds and Path(source).exists() and drawn.resolve() == Path(source).resolve():
            raise InputError(f"{source} would be replaced by its drawn video; choose another --out")
        start, frames, tracks = time.perf_counter(), 0, set[int]()
        with ExitStack() as stack:
            stream = stack.enter_context(pipe.stream(source, **self.streaming))
            recorded = [kind for kind in kinds if kind != DRAWN]
            record = stack.enter_context(Recording(self.out, stem, recorded, pipe.estimator.skeleton, source))
            video = stack.enter_context(VideoWriter(drawn, stream.reader)) if DRAWN in kinds else None
            ahead: RunAhead[PoseFrame] = stack.enter_context(RunAhead(stream, _PROCESSED_AHEAD))
            advance = stack.enter_context(show_progress("frames"))
            for frame in ahead:
                record.add(frame)
                if video is not None:
                    canvas = vitpose.draw(
                        frame.image, frame.poses, threshold=self.threshold, boxes=True, scores=True
                    )
                    video.add(canvas, frame.time_s)
                frames += 1
                tracks.update(
                    [] if frame.poses.ids is None else frame.poses.ids[frame.poses.ids > 0].tolist()
                )
                advance(frames, stream.reader.frames)
                if stop.is_set():
                    break
            if not frames:
                raise VideoError(f"{source}: stopped before its first frame; nothing was written")
        problems = stream.problems + ([] if video is None else video.problems)
        if stop.is_set() and not stream.reader.live:
            problems.append(f"stopped after {counted(frames, 'frame')}")
        self.failures += [(source, problem) for problem in problems]
        self._print_summary(source, frames, len(tracks), time.perf_counter() - start)

    def _print_summary(self, source: str, frames: int, tracks: int, seconds: float) -> None:
        tracked = f", {counted(tracks, 'track')}" if self.streaming.get("track", True) else ""
        line = f"{source}: {counted(frames, 'frame')}{tracked} in {seconds:.1f} s; results in {self.out}"
        print_line(line, "green")


def choose_video_kinds(value: str) -> list[str]:
    """Read a list of kinds such as "video,jsonl".

    Raises:
        UnknownNameError: A name in it is unknown.
    """
    kinds = list(dict.fromkeys(kind.strip() for kind in value.split(",") if kind.strip()))
    for kind in kinds or [value]:
        if kind != DRAWN and kind not in KINDS:
            raise UnknownNameError(
                "kind of output for videos", kind, [DRAWN, *KINDS], "Separate several with commas."
            )
    return kinds


def name_videos(sources: Sequence[str]) -> list[str]:
    """Choose the stem of the files of each source; of two with the same name, the second gets a number."""
    names: dict[str, str] = {}
    for source in sources:
        stem = re.sub(r"^[a-z]+://", "", source) if "://" in source else Path(source).stem
        stem = re.sub(r"[^\w .()+-]+", "_", stem).strip(" _.") or "video"
        number = 1
        while (name := stem if number == 1 else f"{stem}-{number}").casefold() in names:
            number += 1
        names[name.casefold()] = name
    return list(names.values())
