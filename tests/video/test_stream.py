from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vitpose.detect.protocol import Detections
from vitpose.errors import InputError, VideoError
from vitpose.pipeline import Pipeline
from vitpose.video.reading import SequenceReader, open_video
from vitpose.video.stream import Stream

from .conftest import picture


def test_a_clip_is_streamed(pipe: Pipeline, clip) -> None:
    with pipe.stream(clip(frames=20)) as stream:
        frames = list(stream)
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == [Fraction(index, 30) for index in range(20)]
    assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 20
    assert all(frame.detected for frame in frames)
    assert frames[5].image.shape == (64, 96, 3)
    assert stream.problems == []


def test_frames_singly_give_the_same_keypoints(pipe: Pipeline, clip) -> None:
    path = clip(frames=20)
    for frame, single in zip(pipe.stream(path), open_video(path), strict=True):
        poses = pipe(single.image)
        np.testing.assert_allclose(frame.poses.xy, poses.xy, atol=1e-3)
        np.testing.assert_allclose(frame.poses.boxes, poses.boxes)


def test_the_detector_looks_at_every_nth_frame(pipe: Pipeline) -> None:
    frames = list(pipe.stream([picture(0)] * 13, detect_every=5))
    assert pipe.detector.calls == 3
    assert [frame.detected for frame in frames] == [index % 5 == 0 for index in range(13)]
    assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 13


def test_carried_people_who_are_lost_are_dropped(pipe: Pipeline) -> None:
    """Points that score far less than when the detector saw the person are no person."""
    heatmaps = pipe.estimator.engine.heatmaps

    def dim(crops: np.ndarray) -> np.ndarray:
        return heatmaps(crops) * (crops.reshape(len(crops), -1).max(axis=1) / 255)[:, None, None, None]

    pipe.estimator.engine.heatmaps = dim
    dark = np.zeros((64, 96, 3), np.uint8)
    frames = list(pipe.stream([picture(0), picture(1), dark, dark, picture(2)], detect_every=4))
    assert [len(frame.poses) for frame in frames] == [1, 1, 0, 0, 1]


def test_another_resolution_is_looked_at_at_once(pipe: Pipeline) -> None:
    sources = [picture(0), picture(1), picture(1, 192, 128), picture(2, 192, 128)]
    frames = list(pipe.stream(sources, detect_every=9))
    assert [frame.detected for frame in frames] == [True, False, True, False]


def test_untracked_and_smoothed(pipe: Pipeline, clip) -> None:
    path = clip()
    assert next(pipe.stream(path, track=False)).poses.ids is None
    smoothed = [frame.poses.xy for frame in pipe.stream(path, smooth=True)]
    raw = [frame.poses.xy for frame in pipe.stream(path)]
    np.testing.assert_array_equal(smoothed[0], raw[0])
    assert (smoothed[6] < raw[6]).any()


def test_a_stream_holds_a_few_frames_only(pipe: Pipeline) -> None:
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield picture(0)

    with pipe.stream(endless()) as stream:
        for _ in range(100):
            next(stream)
        assert read < 100 + 8 + 2 * 8 + 2  # decoded ahead; in two groups of the pipeline


def test_a_live_source_drops_old_frames(pipe: Pipeline) -> None:
    """While the first frame is looked at the source gives all others: the second one seen is the newest."""
    first_is_taken, all_are_given = threading.Event(), threading.Event()

    class Camera(SequenceReader):
        live = True

        def __iter__(self) -> Iterator:
            for frame in super().__iter__():
                yield frame
                assert first_is_taken.wait(60)
            all_are_given.set()

    reader = Camera([picture(0)] * 100, Fraction(100), "camera")
    stream = Stream(pipe, reader, detect_every=1, identities=None, smoother=None, flip_test=False)
    seen = []
    for frame in stream:
        seen.append(frame.index)
        first_is_taken.set()
        assert all_are_given.wait(60)
    assert seen == [0, 99]
    assert stream.problems == ["98 frames were dropped to keep up"]


def test_a_stream_that_is_left_ends_its_thread(pipe: Pipeline, clip) -> None:
    def ours() -> int:
        return sum(thread.name == "vitpose-ahead" for thread in threading.enumerate())

    before = ours()
    path = clip(frames=40)
    pipe.stream(path)
    for _ in pipe.stream(path):
        break
    with pipe.stream(path) as stream:
        next(stream)
    gc.collect()
    assert ours() == before


def test_what_cannot_be_streamed(pipe: Pipeline, clip, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detect_every 0 must be a whole number from 1"):
        pipe.stream(clip(), detect_every=0)
    with pytest.raises(InputError, match=r"smooth needs to know who is who; leave out track=False"):
        pipe.stream(clip(), smooth=True, track=False)
    with pytest.raises(InputError, match=r"no detector; load one with detector='rtdetr' to stream"):
        Pipeline(None, pipe.estimator).stream(clip())
    with pytest.raises(VideoError, match=r"nothing.mp4 cannot be opened"):
        pipe.stream(tmp_path / "nothing.mp4")
    with pytest.raises(VideoError, match=r"holds no picture that can be read"):
        list(pipe.stream([b"no picture"]))


def test_an_error_of_the_detector_is_raised(pipe: Pipeline, clip) -> None:
    class Broken:
        settles = False

        def detect(self, images: list, names: list) -> list[Detections]:
            raise InputError("cannot look")

    pipe.detector = Broken()
    with pytest.raises(InputError, match="cannot look"):
        list(pipe.stream(clip()))
