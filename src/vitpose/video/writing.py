"""Writes frames to MP4 files with the exact times and the audio of the source.

FFmpeg encodes, through PyAV. Does not know poses.
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
from ..files.paths import user_path
from ..files.writing import replace_file
from ..geometry.boxes import Size
from .reading import Reader

_CODECS = ("libx264", "libopenh264", "mpeg4")
"""Encoders in order of preference; the first one in this build of FFmpeg is used. All players support H.264."""
_COPIED_CODECS = frozenset(("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"))
"""Audio codecs that MP4 supports; any other audio is converted to AAC."""
_QUALITY = "20"  # constant rate factor of x264; chosen by eye, thin lines stay sharp


class VideoWriter:
    """Context manager that writes frames to an MP4 file, which exists after the `with` block ends without an error.

    The first frame determines the size. The last row or column of an odd size is repeated, since H.264 with 4:2:0
    chroma has even sizes only; frames of another size are letterboxed.

    Args:
        path: Path of the file.
        reader: Source of the frames, which determines time base and audio.

    Attributes:
        path: Path of the file.
        problems: Messages on audio that could not be written.

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
                    raise error  # so that `replace_file` discards the partial file
                if self._size is not None:
                    self._mux(self._video.encode())
                    self._audio.write_until(None)
        except self._av.error.FFmpegError as failure:
            raise self._refused(failure) from failure

    def add(self, image: UInt8[np.ndarray, "h w 3"], time_s: Fraction) -> None:
        """Writes a frame.

        Args:
            image: RGB image.
            time_s: Presentation time; later than that of the previous frame.

        Raises:
            OutputError: The frame cannot be written.
        """
        try:
            if self._size is None:
                self._start(Size.of(image))
            frame = self._av.VideoFrame.from_ndarray(self._fit(image), format="rgb24")
            frame.time_base = self._reader.time_base
            frame.pts = round((time_s - self._reader.start_s) / self._reader.time_base)
            self._mux(self._video.encode(frame))
            self._audio.write_until(time_s)
        except self._av.error.FFmpegError as error:
            raise self._refused(error) from error

    def _start(self, size: Size) -> None:
        self._size = size
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        self._video = self._output.add_stream(codec, rate=self._reader.rate.limit_denominator(60_000))
        self._video.width, self._video.height = size.width + size.width % 2, size.height + size.height % 2
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = self._reader.time_base
        self._video.time_base = self._reader.time_base
        if codec == "libx264":
            self._video.options = {"crf": _QUALITY, "preset": "veryfast"}
        self._audio = _Audio(self._av, self._reader, self._output, self.problems)
        self._stack.callback(self._audio.close)

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
        return OutputError(
            f"{self.path} cannot be written: {reason}; choose another directory or free disk space"
        )


class _Audio:
    """The first audio stream of the source, read separately and muxed up to the time of the latest frame."""

    def __init__(self, av: Any, reader: Reader, output: Any, problems: list[str]) -> None:
        self._av, self._output, self._problems = av, output, problems
        self._input: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        if reader.sound is None:
            return
        try:
            self._input = av.open(f"file:{user_path(reader.sound)}")
            self._source = self._input.streams.audio[0]
            self._start = reader.start_s
            self._copied = self._source.codec_context.codec.canonical_name in _COPIED_CODECS
            if self._copied:
                self._target = output.add_stream_from_template(self._source)
            else:
                self._target = output.add_stream(
                    "aac", rate=self._source.rate, layout=self._source.layout.name
                )
            self._packets = self._read()
            self._next = next(self._packets, None)
        except (av.error.FFmpegError, ValueError) as error:
            problems.append(f"the audio is omitted: {getattr(error, 'strerror', None) or error}")
            self._next = None

    def _read(self) -> Iterator[tuple[Fraction, Any]]:
        """Yields the packets to mux, with their times."""
        try:
            for packet in self._input.demux(self._source):
                if packet.dts is None:  # flushes the decoder; holds no data
                    continue
                if not self._copied:
                    yield from self._encoded(packet)
                    continue
                shift = round(self._start / packet.time_base)
                time_s = packet.pts * packet.time_base
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._target
                yield time_s, packet
            if not self._copied:
                for out in self._target.encode(None):
                    yield Fraction(0), out
        except self._av.error.FFmpegError as error:
            self._problems.append(f"the audio ends early: {error.strerror}")

    def _encoded(self, packet: Any) -> Iterator[tuple[Fraction, Any]]:
        for frame in packet.decode():
            time_s = frame.pts * frame.time_base
            frame.pts -= round(self._start / frame.time_base)
            for out in self._target.encode(frame):
                yield time_s, out

    def write_until(self, time_s: Fraction | None) -> None:
        """Muxes the audio up to a time; None is the end of the file."""
        while self._next is not None and (time_s is None or self._next[0] <= time_s):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
