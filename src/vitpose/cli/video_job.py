"""`vitpose predict` on one video: stream, draw, record.

The formats of the files are in `video.recording` and `video.writing`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitpose

from ..errors import InputError, VideoError, counted
from ..inference.pipeline import Pipeline
from ..video.recording import Recording
from ..video.run_ahead import RunAhead
from ..video.stream import PoseFrame
from ..video.writing import VideoWriter
from .target import DRAWN
from .terminal import print_line, show_progress

_PROCESSED_AHEAD = 4  # frames queued for drawing and encoding


@dataclass
class VideoResult:
    """What was found in a video.

    Attributes:
        frames: Number of frames.
        instances: Number of instances in all frames.
        tracks: Track IDs.
        problems: Messages on what could not be read or written.
        interrupted: Whether the run was stopped before the end of the video; a live source has none.
    """

    frames: int = 0
    instances: int = 0
    tracks: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, frame: PoseFrame) -> None:
        """Count a frame."""
        self.frames += 1
        self.instances += len(frame.poses)
        if frame.poses.ids is not None:
            self.tracks.update(frame.poses.ids[frame.poses.ids > 0].tolist())


@dataclass(frozen=True)
class VideoJob:
    """Predicts videos one after the other.

    Attributes:
        pipe: Detector and network.
        directory: Output directory.
        kinds: Kinds of output.
        drawing: Keyword arguments of `vitpose.draw`.
        streaming: Arguments of `Pipeline.stream`.
        stop: Set when the run should end after the current frame.
    """

    pipe: Pipeline
    directory: Path
    kinds: Sequence[str]
    drawing: dict[str, Any]
    streaming: dict[str, Any]
    stop: threading.Event

    def run(self, source: str, stem: str) -> VideoResult:
        """Predict a video, write its files and print a line.

        Args:
            source: A video, camera, URL or image sequence.
            stem: Name of its files, without suffix.

        Raises:
            InputError: The drawn video would replace the source.
            VideoError: The source cannot be read, or was stopped before its first frame.
            OutputError: A file cannot be written.
            VitPoseError: The detector or the network fails.
        """
        drawn = self.directory / f"{stem}.mp4"
        if DRAWN in self.kinds and Path(source).exists() and drawn.resolve() == Path(source).resolve():
            raise InputError(f"{source} would be replaced by its drawn video; choose another --out")
        start, result = time.perf_counter(), VideoResult()
        recorded = [kind for kind in self.kinds if kind != DRAWN]
        with ExitStack() as stack:
            stream = stack.enter_context(self.pipe.stream(source, **self.streaming))
            skeleton = self.pipe.estimator.skeleton
            record = stack.enter_context(Recording(self.directory, stem, recorded, skeleton, source))
            video = stack.enter_context(VideoWriter(drawn, stream.reader)) if DRAWN in self.kinds else None
            ahead: RunAhead[PoseFrame] = stack.enter_context(RunAhead(stream, _PROCESSED_AHEAD))
            advance = stack.enter_context(show_progress("frames"))
            for frame in ahead:
                record.add(frame)
                if video is not None:
                    video.add(vitpose.draw(frame.image, frame.poses, **self.drawing), frame.time_s)
                result.add(frame)
                advance(result.frames, stream.reader.frames)
                if self.stop.is_set():
                    break
            if not result.frames:
                raise VideoError(f"{source}: stopped before its first frame; nothing was written")
        result.problems += stream.problems + ([] if video is None else video.problems)
        result.interrupted = self.stop.is_set() and not stream.reader.live
        if result.interrupted:
            result.problems.append(f"stopped after {counted(result.frames, 'frame')}")
        tracks = f", {counted(len(result.tracks), 'track')}" if self.streaming.get("track", True) else ""
        print_line(
            f"{source}: {counted(result.frames, 'frame')}{tracks} in {time.perf_counter() - start:.1f} s"
        )
        return result


def name_videos(sources: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Choose the stem of the files of each source; of two with the same name, the second gets a number.

    Args:
        sources: Paths, cameras and URLs.
        taken: Stems in lower case that are not used.
    """
    names: dict[str, str] = dict.fromkeys(taken, "")
    for source in sources:
        stem = re.sub(r"^[a-z]+://", "", source) if "://" in source else Path(source).stem
        stem = re.sub(r"[^\w .()+-]+", "_", stem).strip(" _.") or "video"
        number = 1
        while (name := stem if number == 1 else f"{stem}-{number}").casefold() in names:
            number += 1
        names[name.casefold()] = name
    return [name for name in names.values() if name]
