from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vitpose.errors import OutputError
from vitpose.geometry.boxes import Size
from vitpose.video.reading import open_video
from vitpose.video.writing import VideoWriter

from .conftest import audio_packets, draw_frame, make_clip, square, times


def copy(source: Path, target: Path) -> VideoWriter:
    reader = open_video(source)
    with VideoWriter(target, reader) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time_s)
    return writer


def test_times_are_exact(clip, tmp_path: Path) -> None:
    ticks = [0, 1001, 1501, 9009, 9010, 20011, 40000]
    source = clip(ticks=ticks, time_base=Fraction(1, 30000))
    copy(source, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == times(source) == [Fraction(tick, 30000) for tick in ticks]
    frames = list(open_video(tmp_path / "out.mp4"))
    assert [abs(square(frame.image) - 16 - 4 * index) <= 1 for index, frame in enumerate(frames)] == [
        True
    ] * 7


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libmp3lame"), ("a.mov", "pcm_s16le")]
)
def test_audio_is_kept(clip, tmp_path: Path, name: str, codec: str) -> None:
    source = clip(name, frames=60, audio_codec=codec)
    assert copy(source, tmp_path / "out.mp4").problems == []
    before, after = audio_packets(source), audio_packets(tmp_path / "out.mp4")
    if codec == "pcm_s16le":  # not supported by MP4
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
            arrays = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        decoded = np.concatenate(arrays)
        assert abs(len(decoded) / 48000 - 2) < 0.1
        assert 0.1 < np.abs(decoded).max() < 0.5
    else:
        assert before == after
        assert len(after) > 50
    assert times(tmp_path / "out.mp4") == times(source)


def test_audio_and_frames_of_a_stream_that_starts_late_stay_synchronous(clip, tmp_path: Path) -> None:
    source = clip("late.ts", frames=30, audio_codec="aac", kind="mpegts")
    assert times(source)[0] > 0
    copy(source, tmp_path / "out.mp4")
    with av.open(str(source)) as old, av.open(str(tmp_path / "out.mp4")) as new:
        starts = [
            [
                Fraction(stream.start_time * stream.time_base)
                for stream in (container.streams.video[0], container.streams.audio[0])
            ]
            for container in (old, new)
        ]
    assert abs((starts[0][0] - starts[0][1]) - (starts[1][0] - starts[1][1])) < Fraction(1, 40)
    assert starts[1][0] < Fraction(1, 5)


def test_odd_sizes_are_padded(clip, tmp_path: Path) -> None:
    source = clip("odd.mkv", 3, codec="ffv1", pixels="yuv444p", size=Size(97, 63))
    copy(source, tmp_path / "out.mp4")
    frames = list(open_video(tmp_path / "out.mp4"))
    assert frames[0].image.shape == (64, 98, 3)
    assert abs(int(frames[0].image[63, 97].mean()) - 40) < 12


def test_a_changing_resolution_is_letterboxed(tmp_path: Path) -> None:
    reader = open_video([draw_frame(0), draw_frame(0, 96, 192)], rate=10)
    with VideoWriter(tmp_path / "out.mp4", reader) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time_s)
    frames = list(open_video(tmp_path / "out.mp4"))
    assert [frame.image.shape for frame in frames] == [(64, 96, 3)] * 2
    assert frames[1].image[:, :25].max() < 25  # black at the sides
    assert [frame.time_s for frame in frames] == [0, Fraction(1, 10)]


def test_a_failure_leaves_no_file(clip, tmp_path: Path) -> None:
    reader = open_video(clip())
    with (
        pytest.raises(RuntimeError, match="stop"),
        VideoWriter(tmp_path / "new" / "out.mp4", reader) as writer,
    ):
        for frame in reader:
            writer.add(frame.image, frame.time_s)
            if frame.index == 5:
                raise RuntimeError("stop")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_unwritable_path_is_reported(clip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"out.mp4 cannot be written: "):
        copy(clip(), tmp_path / "file" / "out.mp4")


def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    resource = pytest.importorskip("resource")
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    reader = open_video(source)
    noise = np.random.default_rng(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with (
            pytest.raises(OutputError, match=r"out.mp4 cannot be written: .*File too large"),
            VideoWriter(tmp_path / "new" / "out.mp4", reader) as writer,
        ):
            for index in range(60):
                writer.add(noise.integers(0, 256, (128, 128, 3), np.uint8), Fraction(index, 30))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "new").iterdir()) == []
