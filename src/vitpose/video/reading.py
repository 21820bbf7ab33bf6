"""Reads frames from files, cameras, network streams and image sequences, upright, with exact times.

Handles rotation flags, variable frame rates, pixel formats, damaged data and stalled streams. FFmpeg decodes, through
PyAV, which is imported when a video is opened. Does not know poses.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from ..errors import InputError, VideoError, VitPoseError, check_count, check_number, counted, require
from ..files.paths import existing_path, user_path
from ..images import find_images, read_image

SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".mts",
        ".m2ts",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".y4m",
        ".mxf",
        ".h264",
        ".hevc",
        ".vob",
    ]
)
"""Suffixes of video files."""
LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt"))
"""Schemes of URLs of live streams, which cannot be paused."""
DEFAULT_RATE = Fraction(25)
"""Default frames per second, of image sequences and of streams that do not declare a rate."""
TIMEOUT_S = 10.0
"""Default time without data after which a stream counts as stalled."""

_WEBCAM = re.compile(r"webcam(?::(\d+))?|(/dev/video\d+)")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_TEXT_DEMUXERS = {"tty"}  # FFmpeg decodes any text file as the image of a terminal
_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a video.

    Attributes:
        index: Index of the frame, from 0; frames that could not be read are skipped.
        time_s: Exact presentation time: the time stamp of the file, or the time since the first frame of a live
            source.
        image: RGB image, upright.
    """

    index: int
    time_s: Fraction
    image: UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Reader(Protocol):
    """Iterable over the frames of a source, once.

    Attributes:
        name: Name of the source in messages and files.
        live: Whether the source cannot be paused, so that old frames should be dropped.
        rate: Average number of frames per second.
        time_base: Unit of the frames' times, except for cameras and corrected times.
        frames: Expected number of frames; None if unknown.
        start_s: Start of the source's clock, which frames and audio share.
        sound: File with the audio of the frames; None for no audio.
        problems: Messages on what could not be read so far.
    """

    name: str
    live: bool
    rate: Fraction
    time_base: Fraction
    frames: int | None
    start_s: Fraction
    sound: str | None
    problems: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


def is_video(source: Any) -> bool:
    """Returns whether a source is a video, by its name: the suffix of a file, a camera, or a streaming URL."""
    if not isinstance(source, str | PathLike):
        return False
    name = str(source)
    scheme = _SCHEME.match(name)
    if _WEBCAM.fullmatch(name) or (scheme and scheme[1].lower() in LIVE_SCHEMES):
        return True
    path = name.split("?")[0] if scheme else name
    return Path(path).suffix.lower() in SUFFIXES | ({".m3u8"} if scheme else set())


def open_video(
    source: Any,
    *,
    rate: float | int | Fraction | None = None,
    live: bool | None = None,
    timeout_s: float | int = TIMEOUT_S,
    reconnect: int = 0,
) -> Reader:
    """Opens a video, camera, stream or image sequence.

    Args:
        source: A file; "webcam" or "webcam:1"; a URL (rtsp://, http://, …); or an image sequence: a list or iterator
            of images, a directory, or a glob.
        rate: Frames per second of an image sequence; default: 25.
        live: Whether old frames should be dropped instead of waiting for the consumer; default: for cameras and for
            rtsp, rtmp, rtp, udp and srt URLs.
        timeout_s: Seconds without data after which a URL counts as stalled.
        reconnect: How many times a live source that stalls or ends is reopened.

    Returns:
        A reader; iterating it raises `VideoError` if no frame can be decoded.

    Raises:
        VideoError: The source cannot be opened, or is not a video.
        InputError: An option or the type of the source is invalid.
        ImageError: An image sequence has no images.
        MissingDependencyError: PyAV is not installed.
    """
    if rate is not None:
        check_number("rate", rate, 0.0001, 100_000)
    check_number("timeout_s", timeout_s, 0.001, 86_400)
    check_count("reconnect", reconnect, 0)
    if isinstance(source, str | PathLike) and not _is_sequence(source):
        if rate is not None:
            raise InputError(
                f"rate {rate} is for image sequences, but {source} is a video with its frame rate; omit rate"
            )
        return VideoReader(source, live=live, timeout_s=timeout_s, reconnect=reconnect)
    images = find_images(source) if isinstance(source, str | PathLike) else source
    if not isinstance(images, Iterable) or isinstance(images, bytes):
        raise InputError(f"{source!r:.100} is not a video; pass a file, a URL, or a list of images")
    exact = Fraction(DEFAULT_RATE if rate is None else rate).limit_denominator(100_000)
    return SequenceReader(images, exact, str(source) if isinstance(source, str | PathLike) else "sequence")


def is_missing(source: str) -> bool:
    """Returns whether a source is the path of a file that does not exist."""
    return _to_ffmpeg(source)[1] and not _is_sequence(source) and existing_path(source) is None


def _is_sequence(source: str | PathLike[str]) -> bool:
    name = fspath(source)
    path = existing_path(name)
    if path is not None:
        return path.is_dir()
    return not is_video(name) and any(sign in name for sign in "*?[")


class SequenceReader:
    """Images as frames at a constant rate; see `Reader`. Unreadable images are skipped and listed in `problems`."""

    live: bool = False
    sound: str | None = None
    start_s: Fraction = Fraction(0)

    def __init__(self, images: Iterable[Any], rate: Fraction, name: str) -> None:
        self.images, self.name = images, name
        self.rate, self.time_base = rate, 1 / rate
        self.frames: int | None = len(images) if isinstance(images, Sequence) else None
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        readable = 0
        for index, source in enumerate(self.images):
            try:
                image = read_image(source)
            except (VitPoseError, OSError, MemoryError) as error:
                self.problems.append(f"frame {index}: {str(error) or 'there is not enough memory'}")
                continue
            readable += 1
            yield Frame(index, index * self.time_base, image)
        if not readable:
            reason = f": {self.problems[0]}" if self.problems else ""
            raise VideoError(f"{self.name} has no readable image{reason}; check its files")


class VideoReader:
    """A file, camera or stream, decoded by FFmpeg; see `Reader` and `open_video`."""

    def __init__(
        self, source: str | PathLike[str], *, live: bool | None, timeout_s: float | int, reconnect: int
    ) -> None:
        self._av = require("av", "video", "to read videos")
        self.name, self._timeout_s, self._reconnect = fspath(source), timeout_s, reconnect
        self._url, self._local = _to_ffmpeg(self.name)
        scheme = _SCHEME.match(self.name)
        streaming = not self._local or bool(scheme and scheme[1].lower() in LIVE_SCHEMES)
        over_http = bool(scheme and scheme[1].lower().startswith("http"))
        self.live = streaming and not over_http if live is None else live
        self.problems: list[str] = []
        self._container = self._open()
        self._stream = self._choose_stream()
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE)
        self.time_base = Fraction(self._stream.time_base)
        self.frames = self._stream.frames or None
        self.start_s = Fraction(0) if self.live else self._start()
        self.sound = self.name if self._local and self._container.streams.audio else None
        self._damaged = self._corrected = self._concealed = 0

    def __iter__(self) -> Iterator[Frame]:
        index, last = 0, None
        try:
            for time_s, image in self._connected():
                if last is not None and time_s <= last:
                    self._corrected += 1
                    time_s = last + self.time_base
                yield Frame(index, time_s, image)
                index, last = index + 1, time_s
        finally:
            self._container.close()
            self._report(index)
        if not index:
            reason = f" ({'; '.join(self.problems)})" if self.problems else ""
            raise VideoError(f"{self.name} has no frame that can be decoded{reason}; check the file")

    def _report(self, index: int) -> None:
        if self._damaged:
            self.problems.append(
                f"{counted(self._damaged, 'packet')} could not be decoded; their frames are missing"
            )
        if self._concealed:
            self.problems.append(
                f"{counted(self._concealed, 'frame')} were decoded from damaged data and may show artifacts"
            )
        if self._corrected:
            self.problems.append(
                f"{counted(self._corrected, 'frame')} had no later time than the previous frame; corrected"
            )

    def _connected(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Yields times and images, over up to `reconnect` + 1 connections of a live source."""
        start, offset, shown = time.monotonic(), Fraction(0), Fraction(0)
        for attempt in range(self._reconnect + 1 if self.live else 1):
            first, count = None, 0
            try:
                if attempt:
                    self._container = self._open()
                    self._stream = self._choose_stream()
                    waited = Fraction(time.monotonic() - start).limit_denominator(1000)
                    offset = max(waited, shown + 1 / self.rate)
                for raw in self._decode():
                    count += 1
                    time_s = self._time_of(raw, count)
                    first = time_s if first is None else first
                    shown = time_s - first + offset if self.live else time_s
                    yield shown, self._upright(raw)
                if not self.live:
                    if self.frames and count + self._damaged < self.frames:
                        self.problems.append(
                            f"the file ends after {count} of {self.frames} frames; the rest is missing"
                        )
                    return
                self.problems.append(f"the stream ended after {counted(count, 'frame')}")
            except (self._av.error.FFmpegError, VideoError) as error:
                self.problems.append(
                    f"reading stopped after {counted(count, 'frame')}: {self._reason(error)}"
                )
            finally:
                self._container.close()

    def _decode(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except self._av.error.InvalidDataError:
                self._damaged += 1

    def _time_of(self, raw: Any, count: int) -> Fraction:
        if raw.pts is None:  # raw streams have no time stamps
            return (count - 1) / self.rate
        return Fraction(raw.pts * raw.time_base)

    def _upright(self, raw: Any) -> UInt8[np.ndarray, "h w 3"]:
        self._concealed += bool(raw.is_corrupt)
        image = raw.to_ndarray(format="rgb24")
        turns = round(raw.rotation / 90) % 4  # counter-clockwise
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _start(self) -> Fraction:
        """Returns the time at which the file starts, without the audio before time 0.

        That is the priming of the audio codec, which is not played. FFmpeg before 8.1 starts the file there.
        """
        start = Fraction(self._container.start_time or 0, 1_000_000)
        return start if start >= 0 else min(Fraction(0), (self._stream.start_time or 0) * self.time_base)

    def _open(self) -> Any:
        url, options = self._url, {}
        demuxer = None
        if (camera := _WEBCAM.fullmatch(self.name)) is not None:
            demuxer, url = _camera(camera)
        elif self.name.lower().startswith("rtsp"):
            options = {"rtsp_transport": "tcp"}  # lost UDP packets would damage the image
        timeout = None if self._local else self._timeout_s
        try:
            return self._av.open(url, format=demuxer, options=options, timeout=timeout)
        except (self._av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{self.name} cannot be opened: {self._reason(error)}; {self._advice()}"
            ) from error

    def _choose_stream(self) -> Any:
        container = self._container
        moving = [
            stream
            for stream in container.streams.video
            if not stream.disposition & self._av.stream.Disposition.attached_pic  # cover art of an audio file
        ]
        if not moving or container.format.name in _TEXT_DEMUXERS:
            kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
            container.close()
            raise VideoError(f"{self.name} has no video stream, only {kinds}; pass a video")
        moving[0].thread_type = "SLICE" if self.live else "AUTO"  # frame threads would add latency
        return moving[0]

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, self._av.error.ExitError | self._av.error.TimeoutError):
            return f"no data for {self._timeout_s:g} s"
        return getattr(error, "strerror", None) or str(error)

    def _advice(self) -> str:
        if _WEBCAM.fullmatch(self.name):
            return "check that the camera is connected and not used by another program"
        if not self._local:
            return "check the URL and the network"
        return "check that it is a video" if existing_path(self.name) else "check the name"


def _to_ffmpeg(name: str) -> tuple[str, bool]:
    """Returns the URL for FFmpeg, and whether it is a local file."""
    if _WEBCAM.fullmatch(name) or _SCHEME.match(name):
        return name, False
    return f"file:{user_path(name, VideoError)}", True  # the protocol, since a path may contain a colon


def _camera(match: re.Match[str]) -> tuple[str, str]:
    import sys

    number, device = match[1] or "0", match[2]
    kind = _CAMERA_FORMATS.get(sys.platform, "v4l2")
    return kind, device or {"v4l2": f"/dev/video{number}", "dshow": f"video={number}"}.get(kind, number)
