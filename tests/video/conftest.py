"""Generated clips of a moving bright square, so that all frames differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vitpose.detectors.protocol import Detections
from vitpose.engines.fake import FakeEngine
from vitpose.geometry.boxes import Size
from vitpose.inference.estimator import Estimator
from vitpose.inference.pipeline import Pipeline
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec

# The extent of these keypoints is nearly the box of their crop, as for people.
CELLS = np.array([23.5, 31.5]) + np.random.default_rng(0).uniform(-1, 1, (17, 2)) * [14.7, 21]
CELLS[:2] = np.array([23.5, 31.5]) + np.array([[-14.7, -21], [14.7, 21]])

SIZE = Size(96, 64)


def draw_frame(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A dark image with a red top left corner and a white square at x = 16 + 4 index."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[: height // 4, : width // 4] = (250, 30, 30)
    left = 16 + 4 * index
    image[height // 2 : height // 2 + 20, left : left + 12] = 250
    return image


def square(image: np.ndarray) -> int:
    """Left edge of the square, px."""
    return int(np.flatnonzero(image[image.shape[0] // 2 + 8].mean(axis=1) > 150)[0])


def make_clip(
    path: Path,
    frames: int = 12,
    *,
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: Size = SIZE,
    rotation: int = 0,
    audio_codec: str | None = None,
    kind: str | None = None,
    start: int = 0,
    movflags: str = "",
) -> Path:
    options = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", format=kind, options=options) as output:
        video = output.add_stream(codec, rate=30)
        video.width, video.height, video.pix_fmt = size.width, size.height, pixels
        video.codec_context.time_base = video.time_base = time_base
        if codec == "libx264":
            video.options = {"crf": "10", "g": "6"}
        if rotation:
            if not hasattr(video, "set_display_rotation"):
                pytest.skip("this version of PyAV cannot write a rotation")
            video.set_display_rotation(rotation)
        audio = output.add_stream(audio_codec, rate=48000, layout="mono") if audio_codec else None
        for index, tick in enumerate(range(frames) if ticks is None else ticks):
            frame = av.VideoFrame.from_ndarray(
                draw_frame(index + start, size.width, size.height), format="rgb24"
            )
            frame.pts, frame.time_base = tick, time_base
            output.mux(video.encode(frame))
        output.mux(video.encode())
        if audio is not None:
            samples = (8000 * np.sin(np.arange(48000 * frames // 30) / 20)).astype(np.int16)
            for first in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(
                    samples[None, first : first + 1024], format="s16", layout="mono"
                )
                frame.pts, frame.rate, frame.time_base = first, 48000, Fraction(1, 48000)
                output.mux(audio.encode(frame))
            output.mux(audio.encode())
    return path


class SquareDetector:
    """Finds the bright square of the clips."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
        self.calls += len(images)
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> Detections:
        rows, columns = np.nonzero(image.min(axis=2) > 150)
        if not len(rows):
            return Detections.of_boxes([])
        return Detections.of_boxes([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])


@pytest.fixture
def pipe() -> Pipeline:
    engine = FakeEngine(CELLS, Size(48, 64))
    return Pipeline(SquareDetector(), Estimator(engine, ModelSpec(dataset=DatasetSpec.load("coco"))))


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a clip to the directory of the test: `clip("name.mp4", frames=5)`."""
    return lambda name="clip.mp4", *args, **options: make_clip(tmp_path / name, *args, **options)


def times(path: Path) -> list[Fraction]:
    """The times of the frames of a file, read with PyAV only."""
    with av.open(str(path)) as container:
        return [Fraction(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def audio_packets(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
