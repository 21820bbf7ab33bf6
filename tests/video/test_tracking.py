from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from vitpose.errors import InputError, MissingDependencyError
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import UNTRACKED, Poses
from vitpose.video.smoothing import OneEuro, Smoother, choose_smoother
from vitpose.video.tracking import ByteTrack, PoseTracker, choose_tracker

COCO = Skeleton.load("coco")
SHAPES = np.random.default_rng(5).uniform(0.1, 0.9, (3, 17, 2))


def people(*instances: tuple[int, float, float], score: float = 0.9) -> Poses:
    """People of 60x120 px, as (index of the posture, left, top)."""
    boxes = np.array([[x, y, x + 60, y + 120] for _, x, y in instances], np.float32).reshape(-1, 4)
    xy = np.array([SHAPES[index] * [60, 120] + [x, y] for index, x, y in instances], np.float32)
    xy, n = xy.reshape(-1, 17, 2), len(instances)
    return Poses(xy, np.full((n, 17), 0.8, np.float32), boxes, np.full(n, score, np.float32), COCO)


def track(frames: list[Poses], step_s: Fraction = Fraction(1, 10), tracker: Any = None) -> list[list[int]]:
    pose_tracker = PoseTracker(tracker or ByteTrack(float(1 / step_s)))
    return [pose_tracker.update(poses, index * step_s).ids.tolist() for index, poses in enumerate(frames)]


class Idle:
    """A box tracker that assigns no IDs."""

    def update(self, boxes: np.ndarray, scores: np.ndarray, time_s: float) -> np.ndarray:
        return np.full(len(boxes), UNTRACKED)


class Switching:
    """A box tracker that exchanges the two IDs after four frames."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, boxes: np.ndarray, scores: np.ndarray, time_s: float) -> np.ndarray:
        self.count += 1
        return np.arange(len(boxes))[:: 1 if self.count < 5 else -1]


def test_walkers_keep_their_track_ids() -> None:
    frames = [people((0, 10 + 4 * t, 50), (1, 400 - 4 * t, 60)) for t in range(40)]
    assert track(frames) == [[1, 2]] * 40


def test_the_order_of_the_poses_does_not_matter() -> None:
    frames = [people(*[(0, 10.0, 50.0), (1, 300.0, 60.0)][:: 1 if t % 2 else -1]) for t in range(10)]
    assert track(frames) == [[1, 2], [2, 1]] * 5


def test_crossing_people_keep_their_track_ids() -> None:
    frames = [people((0, 10 + 8 * t, 50), (1, 330 - 8 * t, 52)) for t in range(40)]
    assert track(frames) == [[1, 2]] * 40


def test_poses_correct_the_box_tracker() -> None:
    """A pose that is similar to that of a track in position and posture gets its ID."""
    frames = [people((0, 100 + t, 50), (1, 130 + t, 52)) for t in range(12)]
    assert track(frames, tracker=Switching()) == [[1, 2]] * 12


def test_slow_people_are_tracked_by_their_poses() -> None:
    frames = [people((0, 10 + t, 50), (1, 300 - t, 60)) for t in range(12)]
    assert track(frames, tracker=Idle()) == [[1, 2]] * 12


def test_a_track_survives_short_gaps_only() -> None:
    present, absent = people((0, 100, 50)), Poses.empty(COCO)
    assert track([present] * 5 + [absent] * 15 + [present] * 2)[-1] == [1]
    assert track([present] * 5 + [absent] * 25 + [present] * 2)[-1] == [2]


def test_low_scoring_boxes_continue_tracks_but_start_none() -> None:
    weak, strong = people((0, 100, 50), score=0.35), people((0, 101, 50))
    assert track([weak, weak, strong, weak]) == [[UNTRACKED], [UNTRACKED], [1], [1]]


def test_frames_without_instances() -> None:
    assert track([Poses.empty(COCO)] * 3) == [[]] * 3


def test_propagated_poses_update_the_tracks() -> None:
    tracker = PoseTracker(ByteTrack(5.0))
    first = tracker.update(people((0, 10, 50), (1, 300, 60)), Fraction(0))
    for step in range(1, 5):
        moved = replace(people((0, 10 + 20 * step, 50), (1, 300 - 20 * step, 60)), ids=first.ids)
        tracker.update_propagated(moved, Fraction(step, 20))
    assert tracker.update(people((0, 110, 50), (1, 200, 60)), Fraction(5, 20)).ids.tolist() == [1, 2]


def test_variable_frame_rates_are_tracked() -> None:
    tracker = PoseTracker(ByteTrack(10.0))
    moments = [0, 1, 2, 3, 5, 6, 12, 13]
    found = [tracker.update(people((0, 20 * t, 50)), Fraction(t, 10)).ids.tolist() for t in moments]
    assert found == [[1]] * len(moments)


def test_poses_of_a_skeleton_without_sigmas_are_tracked() -> None:
    plain = Skeleton("plain", COCO.keypoints)
    frames = [replace(people((0, 10 + 8 * t, 50), (1, 330 - 8 * t, 52)), skeleton=plain) for t in range(40)]
    assert track(frames) == [[1, 2]] * 40
    assert track(frames[:12], tracker=Idle()) == [[1, 2]] * 12


def test_invalid_and_missing_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_tracker(False, 10.0) is None
    with pytest.raises(
        InputError, match=r"'bytetrack' is not a tracker; pass an object with a method `update\(boxes"
    ):
        choose_tracker("bytetrack", 10.0)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingDependencyError, match=r"'trackers' is \w+ to assign track IDs"):
        choose_tracker(True, 10.0)


def jittering(count: int, speed: float = 0.0) -> list[Poses]:
    noise = np.random.default_rng(1).normal(0, 2, (count, 17, 2))
    frames = [replace(people((0, 100 + speed * t, 50)), ids=np.array([7])) for t in range(count)]
    return [replace(poses, xy=(poses.xy + noise[t]).astype(np.float32)) for t, poses in enumerate(frames)]


def test_smoothing_reduces_jitter_at_rest() -> None:
    frames = jittering(60)
    smoother = Smoother(OneEuro())
    smoothed = np.stack([smoother.smooth(poses, Fraction(t, 30)).xy[0] for t, poses in enumerate(frames)])
    raw = np.stack([poses.xy[0] for poses in frames])
    assert smoothed[20:].std(axis=0).mean() < 0.5 * raw[20:].std(axis=0).mean()


def test_smoothing_has_low_latency_in_motion() -> None:
    frames = [replace(people((0, 100 + 12 * t, 50)), ids=np.array([7])) for t in range(60)]
    smoother = Smoother(OneEuro())
    smoothed = [smoother.smooth(poses, Fraction(t, 30)) for t, poses in enumerate(frames)]
    lag = (frames[-1].xy - smoothed[-1].xy)[0, :, 0].mean()
    assert 0 <= lag < 12  # less than one frame at 360 px/s


def test_smoothing_starts_again_after_a_gap() -> None:
    before = replace(people((0, 100, 50)), ids=np.array([7]))
    after = replace(people((0, 400, 50)), ids=np.array([7]))
    smoother = Smoother(OneEuro())
    for t in range(5):
        smoother.smooth(before, Fraction(t, 30))
    smoother.smooth(Poses.empty(COCO), Fraction(5, 30))
    np.testing.assert_array_equal(smoother.smooth(after, Fraction(6, 30)).xy, after.xy)


def test_smoothing_is_per_track_and_skips_untracked_poses() -> None:
    poses = replace(people((0, 100, 50), (1, 300, 60)), ids=np.array([3, UNTRACKED]))
    moved = replace(people((0, 104, 50), (1, 304, 60)), ids=np.array([3, UNTRACKED]))
    smoother = Smoother(OneEuro())
    smoother.smooth(poses, Fraction(0))
    found = smoother.smooth(moved, Fraction(1, 30))
    assert (found.xy[0, :, 0] < moved.xy[0, :, 0]).all()
    np.testing.assert_array_equal(found.xy[1], moved.xy[1])
    assert smoother.smooth(people((0, 1, 1)), Fraction(2, 30)).ids is None


def test_invalid_smoothing_is_refused() -> None:
    assert choose_smoother(False) is None
    with pytest.raises(InputError, match=r"smooth must be True, False or a OneEuro, not 3"):
        choose_smoother(3)
    with pytest.raises(InputError, match=r"min_cutoff_hz=0.*the cut-offs must be above 0"):
        OneEuro(min_cutoff_hz=0.0)
    for name in ("min_cutoff_hz", "beta", "speed_cutoff_hz"):
        for bad in (float("nan"), float("inf"), -1.0):
            with pytest.raises(InputError, match=rf"{name} {bad} must be a finite number from 0"):
                OneEuro(**{name: bad})
