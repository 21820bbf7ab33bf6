"""Frames to mp4: the times of the source to the last tick, and its sound.

Knows no poses. FFmpeg encodes, through PyAV.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from ..errors import OutputError, require
from ..files.writing import replace_file
from ..geometry.boxes import Size
from .reading import Reader

_CODECS = ("libx264", "libopenh264", "mpeg4")
"""The first that this build of FFmpeg has. H.264 plays everywhere."""
_KEPT_SOUND = frozenset(("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"))
"""What mp4 holds as it is; any other sound becomes AAC."""
_QUALITY = "20"  # x264's constant rate factor: by eye, thin drawn lines stay sharp


class VideoWriter:
    """Writes frames to an mp4 file, which is there once the `with` block has ended well.

    The first frame sets the size. Odd sizes get a repeated last row or column, since H.264's usual form has
    even ones only; a frame of another size is fitted in, with black at its sides.

    Args:
        path: The file.
        reader: The source that the frames come from: the measure of time, and the sound.

    Attributes:
        problems: What of the sound could not be kept.

    Raises:
        OutputError: The file cannot be written.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self._av = require("av", "video", "to write videos")
        self.path, self._reader = path, reader
        self.problems: list[str] = []
        self._stack = ExitStack()
        self._size: Size | None = None

    def __enter__(self) -> VideoWriter:
        partial = self._stack.enter_context(replace_file(self.path))
        self._output = self._stack.enter_context(self._av.open(str(partial), "w", format="mp4"))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            with self._stack:
                if error is not None:
                    raise error  # through the contexts that throw the file away
                if self._size is not None:
                    self._mux(self._video.encode())
                    self._sound.write_until(None)
        except self._av.error.FFmpegError as failure:
            raise self._refused(failure) from failure

    def add(self, image: UInt8[np.ndarray, "h w 3"], time_s: Fraction) -> None:
        """Writes a frame, RGB, that is shown from that time on.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            if self._size is None:
                self._begin(Size.of(image))
            frame = self._av.VideoFrame.from_ndarray(self._fit(image), format="rgb24")
            frame.time_base = self._reader.time_base
            frame.pts = round((time_s - self._reader.start_s) / self._reader.time_base)
            self._mux(self._video.encode(frame))
            self._sound.write_until(time_s)
        except self._av.error.FFmpegError as error:
            raise self._refused(error) from error

    def _begin(self, size: Size) -> None:
        self._size = size
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        self._video = self._output.add_stream(codec, rate=self._reader.rate.limit_denominator(60_000))
        self._video.width, self._video.height = size.width + size.width % 2, size.height + size.height % 2
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = self._reader.time_base
        self._video.time_base = self._reader.time_base
        if codec == "libx264":
            self._video.options = {"crf": _QUALITY, "preset": "veryfast"}
        self._sound = _Sound(self._av, self._reader, self._output, self.problems)
        self._stack.callback(self._sound.close)

    def _fit(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        size = self._size or Size.of(image)
        if Size.of(image) != size:
            scale = min(size.width / image.shape[1], size.height / image.shape[0])
            width, height = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
            left, top = (size.width - width) // 2, (size.height - height) // 2
            canvas = np.zeros((size.height, size.width, 3), np.uint8)
            canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height))
            image = canvas
        return np.ascontiguousarray(
            np.pad(image, ((0, size.height % 2), (0, size.width % 2), (0, 0)), "edge")
        )

    def _mux(self, packets: Any) -> None:
        self._output.mux(packets)

    def _refused(self, error: BaseException) -> OutputError:
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"{self.path} cannot be written: {reason}; choose another folder or make room")


class _Sound:
    """The source's first sound, read a second time beside the frames and muxed as far as they have come."""

    def __init__(self, av: Any, reader: Reader, output: Any, problems: list[str]) -> None:
        self._av, self._output, self._problems = av, output, problems
        self._input: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        if reader.sound is None:
            return
        try:
            self._input = av.open(f"file:{Path(reader.sound).expanduser()}")
            self._source = self._input.streams.audio[0]
            self._start = reader.start_s
            self._kept = self._source.codec_context.codec.canonical_name in _KEPT_SOUND
            if self._kept:
                self._target = output.add_stream_from_template(self._source)
            else:
                self._target = output.add_stream(
                    "aac", rate=self._source.rate, layout=self._source.layout.name
                )
            self._packets = self._read()
            self._next = next(self._packets, None)
        except (av.error.FFmpegError, ValueError) as error:
            problems.append(f"the sound is left out: {getattr(error, 'strerror', None) or error}")
            self._next = None

    def _read(self) -> Iterator[tuple[Fraction, Any]]:
        """Yields packets to mux and their times."""
        try:
            for packet in self._input.demux(self._source):
                if packet.dts is None:  # what flushes a decoder
                    continue
                if not self._kept:
                    yield from self._encoded(packet)
                    continue
                shift = round(self._start / packet.time_base)
                time_s = packet.pts * packet.time_base
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._target
                yield time_s, packet
            if not self._kept:
                for out in self._target.encode(None):
                    yield Fraction(0), out
        except self._av.error.FFmpegError as error:
            self._problems.append(f"the sound breaks off: {error.strerror}")

    def _encoded(self, packet: Any) -> Iterator[tuple[Fraction, Any]]:
        for frame in packet.decode():
            time_s = frame.pts * frame.time_base
            frame.pts -= round(self._start / frame.time_base)
            for out in self._target.encode(frame):
                yield time_s, out

    def write_until(self, time_s: Fraction | None) -> None:
        """Muxes what sounds until then; None is the end."""
        while self._next is not None and (time_s is None or self._next[0] <= time_s):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
