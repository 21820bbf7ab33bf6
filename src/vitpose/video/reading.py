"""Frames from files, cameras, network streams and image sequences, upright, with exact times.

Owns everything that can be odd about a video: rotation flags, variable rates, pixel formats, damage, sources
that stall. Knows no poses. FFmpeg does the work, through PyAV, which is imported when a video is opened.
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

from ..errors import InputError, VideoError, VitPoseError, check_count, check_number, require
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
"""What tells a video from an image by its name."""
LIVE_SCHEMES = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt"))
"""Addresses of what cannot wait for its viewer."""
DEFAULT_RATE = Fraction(25)
"""Frames per second where nothing tells: image sequences, and streams that do not say."""
TIMEOUT_S = 10.0
"""A stream that says nothing for this long has stalled."""

_WEBCAM = re.compile(r"webcam(?::(\d+))?|(/dev/video\d+)")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_TEXT_DEMUXERS = {"tty"}  # FFmpeg takes any text for the image of a terminal
_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a video.

    Attributes:
        index: Its number, counted from 0. Frames that were dropped or could not be read leave gaps.
        time_s: When it is shown, exactly: the file's own time stamp; since the first frame where the source
            is live.
        image: RGB, upright.
    """

    index: int
    time_s: Fraction
    image: UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Reader(Protocol):
    """Gives the frames of a source, once.

    Attributes:
        name: How messages and files call the source.
        live: Whether it goes on without us, so that old frames are better dropped.
        rate: Frames per second, on average.
        time_base: Every frame's time is a multiple of it, but for cameras and mended times.
        frames: How many frames there should be, where that is known.
        start_s: Where the source's clock starts; its sound has the same clock.
        sound: The file whose sound belongs to the frames.
        problems: What could not be read so far.
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
    """Tells whether a source names a video: by the suffix of a file, a camera, or a streaming address."""
    if not isinstance(source, str | PathLike):
        return False
    text = str(source)
    scheme = _SCHEME.match(text)
    if _WEBCAM.fullmatch(text) or (scheme and scheme[1].lower() in LIVE_SCHEMES):
        return True
    path = text.split("?")[0] if scheme else text
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
        source: A file; "webcam" or "webcam:1"; an address (rtsp://, http://, …); or an image sequence: a list or
            iterator of images, a folder, or a glob.
        rate: Frames per second of an image sequence; 25 without it.
        live: Whether old frames are dropped rather than kept waiting; None means for cameras and rtsp,
            rtmp, rtp, udp and srt addresses.
        timeout_s: An address that says nothing for this long has stalled.
        reconnect: How often a live source that stalls or breaks off is opened again.

    Raises:
        VideoError: There is no such source, or it is no video.
        InputError: An option cannot be used.
        ImageError: There are no such images.
        MissingDependencyError: PyAV is not installed.
    """
    if rate is not None:
        check_number("rate", rate, 0.0001, 100_000)
    check_number("timeout_s", timeout_s, 0.001, 86_400)
    check_count("reconnect", reconnect, 0)
    if isinstance(source, str | PathLike) and not _is_sequence(source):
        if rate is not None:
            raise InputError(f"rate {rate} is for image sequences; {source} has its own")
        return VideoReader(source, live=live, timeout_s=timeout_s, reconnect=reconnect)
    images = find_images(source) if isinstance(source, str | PathLike) else source
    if not isinstance(images, Iterable) or isinstance(images, bytes):
        raise InputError(f"{source!r:.100} is no video; pass a file, an address, or a list of images")
    exact = Fraction(DEFAULT_RATE if rate is None else rate).limit_denominator(100_000)
    return SequenceReader(images, exact, str(source) if isinstance(source, str | PathLike) else "sequence")


def is_missing(source: str) -> bool:
    """Tells whether a source names a file and there is none."""
    return _place(source)[1] and not _is_sequence(source) and not Path(source).expanduser().exists()


def _is_sequence(source: str | PathLike[str]) -> bool:
    text = fspath(source)
    path = Path(text).expanduser()
    return path.is_dir() or (not path.exists() and not is_video(text) and any(sign in text for sign in "*?["))


class SequenceReader:
    """Images as frames at an even rate; see `Reader`. One that cannot be read is a gap and a problem."""

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
            why = f": {self.problems[0]}" if self.problems else ""
            raise VideoError(f"{self.name} holds no image that can be read{why}; check its files")


class VideoReader:
    """A file, camera or stream, decoded by FFmpeg; see `Reader` and `open_video`."""

    def __init__(
        self, source: str | PathLike[str], *, live: bool | None, timeout_s: float | int, reconnect: int
    ) -> None:
        self._av = require("av", "video", "to read videos")
        self.name, self._timeout_s, self._reconnect = fspath(source), timeout_s, reconnect
        self._place, self._local = _place(self.name)
        scheme = _SCHEME.match(self.name)
        streaming = not self._local or bool(scheme and scheme[1].lower() in LIVE_SCHEMES)
        self.live = (
            (streaming and not (scheme and scheme[1].lower().startswith("http"))) if live is None else live
        )
        self.problems: list[str] = []
        self._container = self._open()
        self._stream = self._choose_stream()
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE)
        self.time_base = Fraction(self._stream.time_base)
        self.frames = self._stream.frames or None
        self.start_s = Fraction(0) if self.live else Fraction(self._container.start_time or 0, 1_000_000)
        self.sound = self.name if self._local and self._container.streams.audio else None
        self._damaged = self._mended = self._concealed = 0

    def __iter__(self) -> Iterator[Frame]:
        index, last = 0, None
        try:
            for time_s, image in self._connected():
                if last is not None and time_s <= last:
                    self._mended += 1
                    time_s = last + self.time_base
                yield Frame(index, time_s, image)
                index, last = index + 1, time_s
        finally:
            self._container.close()
            self._report(index)
        if not index:
            why = f" ({'; '.join(self.problems)})" if self.problems else ""
            raise VideoError(f"{self.name} holds no frame that can be decoded{why}; check the file")

    def _report(self, index: int) -> None:
        if self._damaged:
            self.problems.append(
                f"{_counted(self._damaged, 'packet')} could not be decoded; their frames are missing"
            )
        if self._concealed:
            self.problems.append(
                f"{_counted(self._concealed, 'frame')} came from damaged data and may look broken"
            )
        if self._mended:
            self.problems.append(
                f"{_counted(self._mended, 'frame')} had no later time than the one before; mended"
            )

    def _connected(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Yields times and images, over as many connections as allowed."""
        begin, offset, shown = time.monotonic(), Fraction(0), Fraction(0)
        for attempt in range(self._reconnect + 1 if self.live else 1):
            first, count = None, 0
            try:
                if attempt:
                    self._container = self._open()
                    self._stream = self._choose_stream()
                    waited = Fraction(time.monotonic() - begin).limit_denominator(1000)
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
                            f"it ends after {count} of {self.frames} frames; the rest is missing"
                        )
                    return
                self.problems.append(f"the stream ended after {_counted(count, 'frame')}")
            except (self._av.error.FFmpegError, VideoError) as error:
                self.problems.append(
                    f"reading stopped after {_counted(count, 'frame')}: {self._reason(error)}"
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
        if raw.pts is None:  # raw streams have no times
            return (count - 1) / self.rate
        return Fraction(raw.pts * raw.time_base)

    def _upright(self, raw: Any) -> UInt8[np.ndarray, "h w 3"]:
        self._concealed += bool(raw.is_corrupt)
        image = raw.to_ndarray(format="rgb24")
        turns = round(raw.rotation / 90) % 4  # counter-clockwise
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _open(self) -> Any:
        place, options = self._place, {}
        kind = None
        if (camera := _WEBCAM.fullmatch(self.name)) is not None:
            kind, place = _camera(camera)
        elif self.name.lower().startswith("rtsp"):
            options = {"rtsp_transport": "tcp"}  # lost packets would smear the image
        timeout = None if self._local else self._timeout_s
        try:
            return self._av.open(place, format=kind, options=options, timeout=timeout)
        except (self._av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{self.name} cannot be opened: {self._reason(error)}; {self._advice()}"
            ) from error

    def _choose_stream(self) -> Any:
        container = self._container
        moving = [
            stream
            for stream in container.streams.video
            if not stream.disposition & self._av.stream.Disposition.attached_pic  # the cover of a song
        ]
        if not moving or container.format.name in _TEXT_DEMUXERS:
            kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
            container.close()
            raise VideoError(f"{self.name} has no video stream, only {kinds}; give a file with moving images")
        moving[0].thread_type = "SLICE" if self.live else "AUTO"  # threads by frame would add delay
        return moving[0]

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, self._av.error.ExitError | self._av.error.TimeoutError):
            return f"it said nothing for {self._timeout_s:g} s"
        return getattr(error, "strerror", None) or str(error)

    def _advice(self) -> str:
        if _WEBCAM.fullmatch(self.name):
            return "check that the camera is there and that no other program uses it"
        if not self._local:
            return "check the address and the network"
        return "check the name" if not Path(self.name).expanduser().exists() else "check that it is a video"


def _place(name: str) -> tuple[str, bool]:
    """Returns what FFmpeg shall open, and whether that is a file here."""
    if _WEBCAM.fullmatch(name) or _SCHEME.match(name):
        return name, False
    return f"file:{Path(name).expanduser()}", True  # a name with a colon is no address


def _camera(match: re.Match[str]) -> tuple[str, str]:
    import sys

    number, device = match[1] or "0", match[2]
    kind = _CAMERA_FORMATS.get(sys.platform, "v4l2")
    return kind, device or {"v4l2": f"/dev/video{number}", "dshow": f"video={number}"}.get(kind, number)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
