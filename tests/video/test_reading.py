from __future__ import annotations

import socket
import threading
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vitpose
from vitpose.errors import ImageError, InputError, VideoError
from vitpose.geometry.boxes import Size
from vitpose.video.reading import is_video, open_video

from .conftest import draw_frame, make_clip, square, times


def test_frames_are_in_order_with_exact_times(clip) -> None:
    reader = open_video(clip(frames=12))
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == [Fraction(index, 30) for index in range(12)]
    assert [abs(square(frame.image) - 16 - 4 * frame.index) <= 1 for frame in frames] == [True] * 12
    assert frames[0].image.shape == (64, 96, 3)
    assert (reader.problems, reader.frames, reader.rate, reader.live) == ([], 12, 30, False)


def test_a_variable_rate_keeps_its_exact_times(clip) -> None:
    ticks = [0, 1001, 1501, 9009, 9010, 20011]
    frames = list(open_video(clip(ticks=ticks, time_base=Fraction(1, 30000))))
    assert [frame.time_s for frame in frames] == [Fraction(tick, 30000) for tick in ticks]


@pytest.mark.parametrize("rotation", [90, 180, 270, -90])
def test_rotated_videos_are_upright(clip, rotation: int) -> None:
    """The flag is the rotation by players, counter-clockwise in PyAV."""
    (frame, *_) = open_video(clip(frames=2, rotation=rotation))
    expected = np.rot90(draw_frame(0), rotation // 90 % 4)
    assert frame.image.shape == expected.shape
    red = (frame.image[:, :, 0] > 180) & (frame.image[:, :, 1] < 90)
    assert (
        np.array_equal(red, (expected[:, :, 0] > 180) & (expected[:, :, 1] < 90))
        or (red ^ ((expected[:, :, 0] > 180) & (expected[:, :, 1] < 90))).mean() < 0.02
    )


def test_the_rotation_flag_of_phones(clip) -> None:
    """A phone held upright stores a clockwise rotation by 90: the stored top left corner is at the top right."""
    (frame, *_) = open_video(clip(frames=2, rotation=-90))
    assert frame.image.shape == (96, 64, 3)
    assert frame.image[5, -5, 0] > 180 > frame.image[5, 5, 0]


@pytest.mark.parametrize(
    ("codec", "pixels", "name"),
    [
        ("ffv1", "yuv420p10le", "ten.mkv"),
        ("ffv1", "gray", "grey.mkv"),
        ("ffv1", "gray10le", "grey10.mkv"),
        ("ffv1", "yuva420p", "alpha.mkv"),
        ("libx264", "yuv422p10le", "ten.mp4"),
        ("mjpeg", "yuvj420p", "motion.avi"),
    ],
)
def test_pixel_formats(clip, codec: str, pixels: str, name: str) -> None:
    frames = list(open_video(clip(name, codec=codec, pixels=pixels)))
    assert len(frames) == 12
    assert frames[3].image.dtype == np.uint8
    assert abs(square(frames[3].image) - 28) <= 1
    expected = draw_frame(3)[40, 60]
    np.testing.assert_allclose(frames[3].image[40, 60], expected, atol=8)


@pytest.mark.parametrize("name", ["odd size.mkv", "größe ☃.mkv", "-dash.mkv", "a:b.mkv", "100%d.mkv"])
def test_odd_sizes_and_special_characters_in_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_clip(tmp_path / "made.mkv", 3, codec="ffv1", pixels="yuv444p", size=Size(97, 63)).rename(
        tmp_path / name
    )
    monkeypatch.chdir(tmp_path)
    assert {frame.image.shape for frame in open_video(name)} == {(63, 97, 3)}
    assert is_video(name)


def test_a_changing_resolution(tmp_path: Path) -> None:
    parts = [
        make_clip(tmp_path / f"{index}.h264", 4, size=size, kind="h264").read_bytes()
        for index, size in enumerate((Size(96, 64), Size(128, 96)))
    ]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    shapes = [frame.image.shape for frame in open_video(tmp_path / "both.h264")]
    assert shapes == [(64, 96, 3)] * 4 + [(96, 128, 3)] * 4


def test_the_readable_part_of_a_truncated_file_is_read(clip) -> None:
    path = clip(frames=60, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    reader = open_video(path)
    frames = list(reader)
    assert 10 < len(frames) < 60
    assert any("of 60 frames; the rest is missing" in problem for problem in reader.problems), reader.problems


def test_the_readable_part_of_a_corrupt_file_is_read(clip) -> None:
    path = clip(frames=60, movflags="faststart")
    with av.open(str(path)) as container:
        ranges = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in ranges[20:30]:
        data[start : start + size] = bytes(size)
    path.write_bytes(data)
    reader = open_video(path)
    frames = list(reader)
    assert 40 <= len(frames) < 60
    assert abs(square(frames[0].image) - 16) <= 1
    assert "10 packets could not be decoded; their frames are missing" in reader.problems
    assert [frame.time_s for frame in frames] == sorted({frame.time_s for frame in frames})


def test_sources_that_are_not_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VideoError, match=r"nothing.mp4 cannot be opened: No such file or directory; check the name"
    ):
        open_video(tmp_path / "nothing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 50)
    with pytest.raises(
        VideoError, match=r"text.mp4 cannot be opened: Invalid data.*; check that it is a video"
    ):
        open_video(text)
    (tmp_path / "notes.txt").write_text("some notes\n" * 50)
    with pytest.raises(VideoError, match=r"notes.txt has no video stream, only video"):
        open_video(tmp_path / "notes.txt")
    with wave.open(str(tmp_path / "song.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(8000))
    with pytest.raises(VideoError, match=r"song.wav has no video stream, only audio; pass a video"):
        open_video(tmp_path / "song.wav")
    with pytest.raises(InputError, match=r"3 is not a video; pass a file"):
        open_video(3)
    with pytest.raises(InputError, match=r"rate 0 must be a number from 0.0001 to 100000"):
        open_video([], rate=0)
    with pytest.raises(InputError, match=r"rate 5 is for image sequences, but .*text.mp4 is a video"):
        open_video(text, rate=5)
    with pytest.raises(InputError, match=r"timeout_s 0 must be a number from 0.001 to 86400"):
        open_video(text, timeout_s=0)
    for bad in (float("nan"), float("inf"), -1.0, 1e-9):
        with pytest.raises(InputError, match=rf"rate {bad} must be a number from 0.0001 to 100000"):
            open_video([], rate=bad)
    with pytest.raises(InputError, match=r"timeout_s nan must be a number"):
        open_video(text, timeout_s=float("nan"))
    with pytest.raises(InputError, match=r"reconnect -1 must be a whole number from 0"):
        open_video(text, reconnect=-1)


def test_a_video_without_frames(clip) -> None:
    path = clip(frames=12, movflags="frag_keyframe+empty_moov")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])
    with pytest.raises(VideoError, match=r"clip.mp4 has no frame that can be decoded.*; check the file"):
        list(open_video(path))


def test_a_missing_camera_is_reported() -> None:
    with pytest.raises(
        VideoError, match=r"webcam:77 cannot be opened: .*; check that the camera is connected"
    ):
        open_video("webcam:77")


def test_a_refused_connection_is_reported() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        VideoError, match=r"cannot be opened: Connection refused; check the URL and the network"
    ):
        open_video(f"rtsp://127.0.0.1:{port}/camera")


@pytest.fixture
def server(clip) -> Iterator[tuple[str, list[int]]]:
    """Serves the first part of a stream and then stalls; yields its URL and one entry per connection."""
    data = clip("live.ts", frames=90, kind="mpegts").read_bytes()
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_sockets = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(1)
                open_sockets.append(connection)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/live.ts", connections
        listener.shutdown(socket.SHUT_RDWR)
        for connection in open_sockets:
            connection.close()


def test_a_stream_that_stalls_ends_after_the_timeout(server: tuple[str, list[int]]) -> None:
    url, connections = server
    reader = open_video(url, timeout_s=1, live=True)
    frames = list(reader)
    assert len(frames) > 60
    assert len(connections) == 1
    (problem,) = reader.problems
    assert problem.startswith("reading stopped after ")
    assert problem.endswith(": no data for 1 s")


def test_a_stalled_stream_is_reopened(server: tuple[str, list[int]]) -> None:
    url, connections = server
    reader = open_video(url, timeout_s=1, live=True, reconnect=1)
    frames = list(reader)
    assert len(connections) == 2
    assert len(frames) > 120
    assert len(reader.problems) == 2
    moments = [frame.time_s for frame in frames]
    assert moments == sorted(set(moments))
    assert moments[0] == 0


def test_image_sequences(tmp_path: Path) -> None:
    for index in range(4):
        vitpose.save_image(tmp_path / f"{index}.png", draw_frame(index))
    (tmp_path / "2.png").write_bytes(b"broken")
    for source in (tmp_path, str(tmp_path / "*.png"), [tmp_path / f"{index}.png" for index in range(4)]):
        reader = open_video(source, rate=10)
        frames = list(reader)
        assert [frame.index for frame in frames] == [0, 1, 3]
        assert [frame.time_s for frame in frames] == [0, Fraction(1, 10), Fraction(3, 10)]
        assert "frame 2" in reader.problems[0]
        assert "2.png is not an image" in reader.problems[0]
    arrays = list(open_video(draw_frame(index) for index in range(3)))
    assert np.array_equal(arrays[2].image, draw_frame(2))
    with pytest.raises(VideoError, match=r"sequence has no readable image: frame 0: .*check its files"):
        list(open_video([b"no"]))
    with pytest.raises(ImageError):
        open_video(str(tmp_path / "*.jpg"))


def test_videos_are_recognised_by_name() -> None:
    yes = [
        "a.mp4",
        "A.MOV",
        "dir/b.webm",
        "webcam",
        "webcam:2",
        "/dev/video0",
        "rtsp://host/a",
        "udp://1.2.3.4:5",
        "http://host/a.m3u8?x=1",
    ]
    no = ["a.jpg", "photos", "http://host/a.jpg", "webcam2", "a.mp4/b.png"]
    assert [name for name in yes if not is_video(name)] == []
    assert [name for name in no if is_video(name)] == []
    assert is_video(Path("x.mkv"))
    assert not is_video(b"x.mkv")


def test_times_equal_those_of_the_file(clip, shared_data: Path) -> None:
    path = shared_data / "videos" / "two-people.mp4"
    assert [frame.time_s for frame in open_video(path)] == times(path)
