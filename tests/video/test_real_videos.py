"""Real videos with a real detector: track IDs, memory, and single frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import vitpose
from vitpose.inference.pipeline import Pipeline
from vitpose.video.reading import open_video

# Annotated by eye: six people, one after the other; first and last frame in which any part of each is visible.
WALKERS = [(60, 198), (227, 450), (502, 700), (744, 869), (921, 1201), (1234, 1360)]


@pytest.fixture
def pipe(shared_data: Path) -> Iterator[Pipeline]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    detector = f"onnx:{shared_data}/detectors/rtmdet_nano_person_end2end.onnx"
    yield vitpose.load("vitpose-tiny", detector=detector, device="cpu", dtype="float32")
    torch.set_num_threads(before)


def test_single_frames_have_the_same_keypoints(pipe: Pipeline, shared_data: Path) -> None:
    clip = shared_data / "videos" / "two-people.mp4"
    with pipe.stream(clip) as frames:
        for frame, single in zip(islice(frames, 20), open_video(clip), strict=False):
            poses = pipe(single.image)
            assert frame.poses.ids.tolist() in ([1, 2], [2, 1])
            np.testing.assert_allclose(frame.poses.boxes, poses.boxes, atol=1e-2)
            np.testing.assert_allclose(frame.poses.xy, poses.xy, atol=0.05)
            np.testing.assert_allclose(frame.poses.scores, poses.scores, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("detect_every", [1, 5])
def test_walkers_keep_one_track_id_and_memory_does_not_grow(
    pipe: Pipeline, shared_data: Path, detect_every: int
) -> None:
    process, resident, seen = psutil.Process(), [], []
    with pipe.stream(shared_data / "videos" / "one-person-walking.mp4", detect_every=detect_every) as frames:
        for frame in frames:
            seen.append({track_id for track_id in frame.poses.ids.tolist() if track_id >= 0})
            resident.append(process.memory_info().rss)
    assert len(seen) == 1394
    walkers = [set().union(*seen[first : last + 1]) for first, last in WALKERS]
    assert [len(ids) for ids in walkers] == [1] * 6
    assert len(set().union(*walkers)) == 6
    found = [sum(map(bool, seen[first : last + 1])) / (last + 1 - first) for first, last in WALKERS]
    assert min(found) > 0.9
    assert max(resident) <= 1.1 * max(resident[:100])
