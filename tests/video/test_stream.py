from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vitpose.detectors.protocol import Detections
from vitpose.errors import InputError, VideoError
from vitpose.inference.pipeline import Pipeline, Prediction
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import Poses
from vitpose.video.reading import SequenceReader, open_video
from vitpose.video.stream import PoseStream

from .conftest import CELLS, SquareDetector, draw_frame


def test_a_clip_is_streamed(pipe: Pipeline, clip) -> None:
    with pipe.stream(clip(frames=20)) as stream:
        frames = list(stream)
    assert [frame.index for frame in frames] == list(range(20))
    assert [frame.time_s for frame in frames] == [Fraction(index, 30) for index in range(20)]
    assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 20
    assert all(frame.detected for frame in frames)
    assert frames[5].image.shape == (64, 96, 3)
    assert stream.problems == []


def test_single_frames_have_the_same_keypoints(pipe: Pipeline, clip) -> None:
    path = clip(frames=20)
    for frame, single in zip(pipe.stream(path), open_video(path), strict=True):
        poses = pipe(single.image)
        np.testing.assert_allclose(frame.poses.xy, poses.xy, atol=1e-3)
        np.testing.assert_allclose(frame.poses.boxes, poses.boxes)


def test_the_detector_runs_on_every_nth_frame(pipe: Pipeline) -> None:
    frames = list(pipe.stream([draw_frame(0)] * 13, detect_every=5))
    assert pipe.detector.calls == 3
    assert [frame.detected for frame in frames] == [index % 5 == 0 for index in range(13)]
    assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 13


def test_lost_poses_in_propagated_boxes_are_dropped(pipe: Pipeline) -> None:
    """A pose is lost if its score falls far below that of the frame that the detector ran on."""
    heatmaps = pipe.estimator.engine.heatmaps

    def dim(crops: np.ndarray) -> np.ndarray:
        return heatmaps(crops) * (crops.reshape(len(crops), -1).max(axis=1) / 255)[:, None, None, None]

    pipe.estimator.engine.heatmaps = dim
    dark = np.zeros((64, 96, 3), np.uint8)
    frames = list(pipe.stream([draw_frame(0), draw_frame(1), dark, dark, draw_frame(2)], detect_every=4))
    assert [len(frame.poses) for frame in frames] == [1, 1, 0, 0, 1]


def test_the_detector_runs_after_a_change_of_resolution(pipe: Pipeline) -> None:
    sources = [draw_frame(0), draw_frame(1), draw_frame(1, 192, 128), draw_frame(2, 192, 128)]
    frames = list(pipe.stream(sources, detect_every=9))
    assert [frame.detected for frame in frames] == [True, False, True, False]


def test_track_ids_and_smoothing_do_not_depend_on_the_resolution(pipe: Pipeline) -> None:
    """At twice the resolution the square stands at the same position relative to the frame."""
    sources = [draw_frame(0)] * 5 + [draw_frame(4, 192, 128)] * 5
    small, large = list(pipe.stream([draw_frame(0)] * 5)), list(pipe.stream([draw_frame(4, 192, 128)] * 5))
    for options in ({"smooth": True}, {"smooth": True, "detect_every": 3}):
        frames = list(pipe.stream(sources, **options))
        assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 10
        for frame, alone in zip(frames, small + large, strict=True):
            np.testing.assert_allclose(frame.poses.boxes, alone.poses.boxes, rtol=0.2, atol=6)
            np.testing.assert_allclose(frame.poses.xy, alone.poses.xy, atol=6)


def test_a_skeleton_without_sigmas_is_tracked(pipe: Pipeline) -> None:
    plain = Skeleton("plain", tuple(f"k{number}" for number in range(17)))
    pipe.estimator = replace(pipe.estimator, spec=pipe.estimator.spec.with_skeleton(plain))
    for every in (1, 3):
        frames = list(pipe.stream([draw_frame(0)] * 12, detect_every=every))
        assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 12


class Twice(SquareDetector):
    """Finds the square twice, half a pixel apart."""

    def _find(self, image: np.ndarray) -> Detections:
        boxes = super()._find(image).boxes
        return Detections(np.concatenate([boxes, boxes + 0.5]), np.float32([0.8, 0.9]), ("person",) * 2)


@pytest.mark.parametrize("detect_every", [1, 3])
def test_duplicate_detections_are_dropped(pipe: Pipeline, detect_every: int) -> None:
    pipe.detector = Twice()
    frames = list(pipe.stream([draw_frame(0)] * 12, detect_every=detect_every))
    assert [frame.poses.ids.tolist() for frame in frames] == [[1]] * 12
    both = list(pipe.stream([draw_frame(0)] * 12, detect_every=detect_every, max_oks=1.0))
    assert [len(frame.poses) for frame in both] == [2] * 12


def test_poses_that_converge_in_propagated_boxes_are_merged(pipe: Pipeline) -> None:
    """Both poses converge between two runs of the detector."""
    boxes = np.float32([[10, 10, 30, 50], [50, 10, 70, 50]])
    found = Poses(
        np.zeros((2, 17, 2), np.float32), np.ones((2, 17), np.float32), boxes, np.float32([0.9, 0.8]),
        pipe.estimator.skeleton,
    )  # fmt: skip

    class Converging:
        detector, find_distinct = pipe.detector, pipe.find_distinct

        def each(self, sources, boxes=None, *, flip_test: bool, max_oks: float | None):
            for source in sources:
                apart = 30.0 if boxes is None else 0.5
                xy = CELLS + np.array([[[0, 0]], [[apart, 0]]]).astype(np.float32)
                yield Prediction(source, "", source, replace(found, xy=xy))

    stream = PoseStream(
        Converging(),
        open_video([draw_frame(0)] * 6),
        detect_every=3,
        tracker=None,
        smoother=None,
        flip_test=False,
    )
    assert [len(frame.poses) for frame in stream] == [2, 1, 1, 2, 1, 1]


def test_tracking_and_smoothing_are_optional(pipe: Pipeline, clip) -> None:
    path = clip()
    assert next(pipe.stream(path, track=False)).poses.ids is None
    smoothed = [frame.poses.xy for frame in pipe.stream(path, smooth=True)]
    raw = [frame.poses.xy for frame in pipe.stream(path)]
    np.testing.assert_array_equal(smoothed[0], raw[0])
    assert (smoothed[6] < raw[6]).any()


def test_a_stream_reads_a_bounded_number_of_frames_ahead(pipe: Pipeline) -> None:
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield draw_frame(0)

    with pipe.stream(endless()) as stream:
        for _ in range(100):
            next(stream)
        assert read < 100 + 8 + 2 * 8 + 2  # decoded ahead, and two groups of the pipeline


def test_a_live_source_drops_old_frames(pipe: Pipeline) -> None:
    """The source yields all other frames during inference on the first one, so the second result is the newest."""
    first_taken, all_read = threading.Event(), threading.Event()

    class Camera(SequenceReader):
        live = True

        def __iter__(self) -> Iterator:
            for frame in super().__iter__():
                yield frame
                assert first_taken.wait(60)
            all_read.set()

    reader = Camera([draw_frame(0)] * 100, Fraction(100), "camera")
    stream = PoseStream(pipe, reader, detect_every=1, tracker=None, smoother=None, flip_test=False)
    seen = []
    for frame in stream:
        seen.append(frame.index)
        first_taken.set()
        assert all_read.wait(60)
    assert seen == [0, 99]
    assert stream.problems == ["98 frames were dropped to keep up"]


def test_a_stream_that_is_not_finished_ends_its_thread(pipe: Pipeline, clip) -> None:
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


def test_invalid_arguments_are_refused(pipe: Pipeline, clip, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"detect_every 0 must be a whole number from 1"):
        pipe.stream(clip(), detect_every=0)
    for every in (-1, True, 10**400):
        with pytest.raises(InputError, match=r"detect_every .* must be a whole number from 1 to 1000000"):
            pipe.stream(clip(), detect_every=every)
    with pytest.raises(InputError, match=r"max_oks nan must be a number from 0 to 1"):
        pipe.stream(clip(), max_oks=float("nan"))
    with pytest.raises(InputError, match=r"smooth requires tracking; omit track=False"):
        pipe.stream(clip(), smooth=True, track=False)
    with pytest.raises(InputError, match=r"no detector; load one with detector='person' to stream"):
        Pipeline(None, pipe.estimator).stream(clip())
    with pytest.raises(VideoError, match=r"nothing.mp4 cannot be opened"):
        pipe.stream(tmp_path / "nothing.mp4")
    with pytest.raises(VideoError, match=r"has no readable image"):
        list(pipe.stream([b"no image"]))


def test_an_error_of_the_detector_is_raised(pipe: Pipeline, clip) -> None:
    class Broken:
        def detect(self, images: list, names: list) -> list[Detections]:
            raise InputError("detection failed")

    pipe.detector = Broken()
    with pytest.raises(InputError, match="detection failed"):
        list(pipe.stream(clip()))
