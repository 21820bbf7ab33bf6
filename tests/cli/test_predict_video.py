"""`vitpose predict` on videos and with `--out NAME.parquet`, in this process with the shipped model."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import vitpose
from vitpose.cli import app
from vitpose.cli.video_job import name_videos
from vitpose.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_video(path: str, frames: int = 6, width: int = 48, height: int = 64, still: bool = False) -> Path:
    """Write frames of noise; with `still` all are the same, so that detections do not move."""
    with av.open(path, "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            pixels = np.random.default_rng(0 if still else index).integers(
                0, 256, (height, width, 3), np.uint8
            )
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(video.encode())
    return Path(path)


def predict(*arguments: str | Path) -> Result:
    command = ["predict", "--device", "cpu", "--detector", "whole-image", *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "250"}, catch_exceptions=False)


def test_a_video_gives_a_drawn_video_and_json_lines() -> None:
    make_video("my clip.mp4", still=True)
    result = predict("my clip.mp4")
    assert result.exit_code == 0, result.output
    first, last, hint = result.stdout.splitlines()
    assert hint.startswith("vitpose-tiny is for a first look")
    assert re.fullmatch(r"my clip\.mp4: 6 frames, 1 track in \d+\.\d s", first)
    assert re.fullmatch(
        r"1 video, 6 frames, 6 instances in \d+\.\d s with vitpose-tiny \(torch, cpu, \w+\) and detector whole-image; "
        r"results in predictions",
        last,
    )
    assert result.stderr == ""
    assert {path.name for path in Path("predictions").iterdir()} == {"my clip.mp4", "my clip.jsonl"}
    lines = [json.loads(line) for line in Path("predictions/my clip.jsonl").read_text().splitlines()]
    assert [line["time_s"] for line in lines] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [line["poses"][0]["id"] for line in lines] == [1] * 6
    with av.open("predictions/my clip.mp4") as container:
        drawn = list(container.decode(video=0))
    assert [Fraction(frame.pts * frame.time_base) for frame in drawn] == [
        Fraction(index, 10) for index in range(6)
    ]


def test_all_options_of_videos() -> None:
    make_video("-dash.mp4")
    options = [
        "--save",
        "csv,parquet,coco,posetrack,dlc,dlc-h5",
        "--detect-every",
        "3",
        "--smooth",
        "--out",
        "new",
    ]
    result = predict(*options, "--", "-dash.mp4")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("new").iterdir()} == {
        "-dash.csv", "-dash.parquet", "-dash.coco.json", "-dash.posetrack.json", "-dash.dlc.csv", "-dash.dlc.h5",
    }  # fmt: skip


def test_an_image_sequence_as_a_video() -> None:
    for index in range(3):
        vitpose.save_image(f"frames/{index}.png", np.full((64, 48, 3), 40 * index, np.uint8))
    result = predict("frames", "--rate", "5", "--no-track")
    assert result.stdout.startswith("frames: 3 frames in ")
    with av.open("predictions/frames.mp4") as container:
        assert [float(frame.time) for frame in container.decode(video=0)] == [0, 0.2, 0.4]


def test_a_directory_of_images_and_videos() -> None:
    vitpose.save_image("in/a.png", np.zeros((64, 48, 3), np.uint8))
    vitpose.save_image("in/sub/poses.png", np.zeros((64, 48, 3), np.uint8))
    make_video("in/poses.mp4", frames=2)
    make_video("in/sub/clip.mkv", frames=3)
    for source in ("in", "in/**/*", "."):
        result = predict(source, "--save", "images,video,csv")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-2].startswith("2 images, 2 videos, 5 frames, 7 instances in ")
        files = {path.relative_to("predictions").as_posix() for path in Path("predictions").rglob("*.*")}
        assert files == {
            "a.jpg", "sub/poses.jpg", "poses.csv", "poses-2.mp4", "poses-2.csv", "clip.mp4", "clip.csv",
        }  # fmt: skip


def test_a_file_as_output_of_one_video() -> None:
    make_video("clip.mkv")
    result = predict("clip.mkv", "--out", "out/drawn.mp4")
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("out").iterdir()] == ["drawn.mp4"]


def test_a_bad_video_does_not_stop_the_others() -> None:
    make_video("good.mp4")
    Path("bad.mp4").write_bytes(b"no video" * 99)
    result = predict("bad.mp4", "gone.mp4", "good.mp4", "--save", "jsonl")
    assert result.exit_code == 1
    assert "bad.mp4" in result.stderr
    assert "Invalid data found" in result.stderr
    assert "does not exist; did you mean" in result.stderr
    assert "good.mp4: 6 frames" in result.stdout
    assert {path.name for path in Path("predictions").iterdir()} == {"good.jsonl"}


def test_a_missing_video_is_reported_before_a_model_is_loaded() -> None:
    result = predict("gone.mp4", "--model", "no-such-model")
    assert result.exit_code == 1
    assert re.search(r"gone\.mp4 +does not exist; check the path", result.stderr)


def test_frames_before_the_end_of_a_truncated_video_are_kept() -> None:
    data = make_video("clip.mkv", frames=30).read_bytes()
    Path("clip.mkv").write_bytes(data[: len(data) // 2])
    result = predict("clip.mkv", "--save", "video,jsonl")
    assert result.exit_code in (0, 1)
    frames = len(Path("predictions/clip.jsonl").read_text().splitlines())
    assert 5 < frames < 30
    with av.open("predictions/clip.mp4") as container:
        assert len(list(container.decode(video=0))) == frames


def test_refuses_options_without_effect(here: Path) -> None:
    make_video("clip.mp4")
    vitpose.save_image("a.png", np.zeros((20, 20, 3), np.uint8))

    def fails(*arguments: str) -> str:
        result = predict(*arguments)
        assert result.exit_code == 1
        return " ".join(result.stderr.split())

    for option in (["--workers", "2"], ["--shard-size", "9"], ["--cluster", "ray"]):
        message = f"{option[0]} has no effect with --out predictions; give --out NAME.parquet, or omit it"
        assert message in fails("a.png", *option)
    assert "--max-pixels has no effect for videos; omit it" in fails("clip.mp4", "--max-pixels", "9")
    for option in ("--detect-every 5", "--no-track", "--smooth", "--timeout 5", "--reconnect 1"):
        name, *value = option.split()
        assert f"{name} has no effect for images; omit it" in fails("a.png", name, *value)
        assert f"{name} has no effect with --out NAME.parquet; omit it" in fails(
            "a.png", "--out", "all.parquet", name, *value
        )
    for option in (["--save", "json"], ["--threshold", "0.5"], ["--draw", "none"]):
        message = f"{option[0]} has no effect with --out all.parquet, which is a table only; to draw as well, run again"
        assert message in fails("a.png", "--out", "all.parquet", *option)
    message = "clip.mp4 is a video, but --out all.parquet is a table of images; give --out DIRECTORY with"
    assert message in fails("clip.mp4", "--out", "all.parquet")
    assert "--save json has no kind of output for the videos" in fails("a.png", "clip.mp4", "--save", "json")
    assert "unknown kind of output for videos 'images'" in fails("clip.mp4", "--save", "images")
    assert "would be replaced by its drawn video; choose another --out" in fails("clip.mp4", "--out", ".")
    assert "webcam:55" in fails("webcam:55")
    assert Path("clip.mp4").stat().st_size > 1000


def test_file_names_of_videos() -> None:
    sources = [
        "a/clip.mp4",
        "b/Clip.mov",
        "webcam:1",
        "rtsp://user@host:554/cam 1",
        "größe.mp4",
        "/dev/video0",
    ]
    assert name_videos(sources) == ["clip", "Clip-2", "webcam_1", "user_host_554_cam 1", "größe", "video0"]
    assert name_videos(["x/Poses.mp4", "poses.avi"], taken=["poses"]) == ["Poses-2", "poses-3"]


def test_many_images_in_one_table() -> None:
    for index in range(5):
        vitpose.save_image(f"in/{index}.png", np.full((64, 48, 3), 40 * index, np.uint8))
    Path("in/bad.png").write_bytes(b"")
    arguments = ["in", "--out", "all.parquet", "--workers", "0", "--shard-size", "2"]
    result = predict(*arguments)
    assert result.exit_code == 1
    assert result.stdout.startswith("6 images, 5 instances, 1 failure listed in all-failures.parquet in ")
    assert result.stdout.endswith(") and detector whole-image; results in all.parquet\n")
    assert result.stderr == ""
    vitpose.save_image("in/new.png", np.zeros((64, 48, 3), np.uint8))
    this_run, whole_job = predict(*arguments).stdout.splitlines()
    assert this_run.startswith("this run: 1 image, 1 instance in ")
    assert whole_job == "whole job: 7 of 7 images, 6 instances, 1 failure listed in all-failures.parquet"
    assert len(list(Path("all.parquet").glob("part-*"))) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_run_leaves_valid_files(tmp_path: Path, start_vitpose: Callable) -> None:
    make_video("clip.mp4", frames=400)
    program = start_vitpose(["predict", "clip.mp4", "--device", "cpu", "--detector", "whole-image"])
    while not any(path.stat().st_size for path in Path().glob("predictions/.clip.jsonl*")):
        assert program.poll() is None, program.errors
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    assert program.wait() == 130
    assert "stopping: completing the files with the frames so far; press Ctrl-C again" in program.errors
    frames = len(Path("predictions/clip.jsonl").read_text().splitlines())
    assert 0 < frames < 400
    assert f"stopped after {frames} frame" in " ".join(program.errors.split())
    assert program.output.startswith(f"clip.mp4: {frames} frame")
    with av.open("predictions/clip.mp4") as container:
        assert len(list(container.decode(video=0))) == frames


def test_refuses_a_rate_for_videos() -> None:
    make_video("clip.mp4")
    result = predict("clip.mp4", "--rate", "5")
    assert "is for image sequences, but clip.mp4 is a video" in " ".join(result.stderr.split())
    with pytest.raises(InputError):
        vitpose.load(detector="whole-image", device="cpu").stream("clip.mp4", rate=5)
