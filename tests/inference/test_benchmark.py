"""The benchmarks compare equal computations; durations are not tested."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitpose
from vitpose.errors import InputError
from vitpose.geometry.boxes import Size
from vitpose.inference.benchmark import (
    MemoryWatch,
    Scene,
    TransformersBaseline,
    crop_distance,
    resident_bytes,
    run_alternately,
    run_vitpose,
    timed,
    with_transformers_decoding,
)
from vitpose.inference.pipeline import Pipeline

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return vitpose.load("vitpose-tiny", detector=None, device="cpu", dtype="float32", batch_size=3)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(tmp_path / "person.png")
    return Scene.make(Size(1, 1), 5, tmp_path / "person.png")


def test_the_boxes_of_a_scene_are_inside_its_image() -> None:
    scene = Scene.make(Size(width=320, height=180), 7)
    assert scene.image.shape == (180, 320, 3)
    assert scene.boxes.shape == (7, 4)
    assert (scene.boxes[:, :2] >= 0).all()
    assert (scene.boxes[:, 2:] <= [320.01, 180.01]).all()
    np.testing.assert_array_equal(scene.image, Scene.make(Size(width=320, height=180), 7).image)
    with pytest.raises(InputError, match="people 0 must be at least 1"):
        Scene.make(Size(320, 180), 0)


def test_the_stages_equal_the_pipeline(pipe: Pipeline, scene: Scene) -> None:
    lap = run_vitpose(pipe, scene)
    assert list(lap.seconds) == ["read", "crop", "network", "decode"]
    assert lap.total_s == sum(lap.seconds.values())
    np.testing.assert_allclose(lap.points, pipe(scene.image, boxes=scene.boxes).xy, atol=1e-3)


def test_transformers_gives_the_same_keypoints_with_its_decoding(pipe: Pipeline, scene: Scene) -> None:
    pytest.importorskip("transformers")
    network = vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32")
    theirs = TransformersBaseline(network, pipe.estimator.spec).run(scene)
    assert list(theirs.seconds) == ["read", "crop", "network", "decode"]
    ours = run_vitpose(with_transformers_decoding(pipe), scene)
    assert np.median(np.linalg.norm(theirs.points - ours.points, axis=2)) < 0.2
    assert pipe.estimator.spec.border == "zero"  # the original pipeline is unchanged


def test_distances_are_in_pixels_of_the_crops(pipe: Pipeline) -> None:
    """A box of 40x80 px makes a crop of 75x100 px, here sampled at 192x256: 2.56 cells a pixel."""
    scene = Scene(np.zeros((100, 100, 3), np.uint8), np.array([[10, 10, 50, 90]], np.float32))
    keypoints = np.zeros((1, 17, 2), np.float32)
    distance = crop_distance(keypoints, keypoints + np.float32([3, 4]), scene, pipe.estimator.spec)
    assert distance == pytest.approx(5 * 2.56)


def test_every_function_runs_once_per_round() -> None:
    order: list[str] = []
    results = run_alternately(
        {name: lambda name=name: order.append(name) or len(order) for name in "ab"}, rounds=3
    )
    assert order == ["a", "b"] * 5
    assert results == {"a": [5, 7, 9], "b": [6, 8, 10]}
    assert timed(lambda: None)() >= 0


def test_peak_memory_is_measured() -> None:
    with MemoryWatch() as memory:
        held = mmap.mmap(-1, 160_000_000)  # the heap may have as much free, which is resident already
        np.frombuffer(held, np.uint8)[:] = 1
        deadline = time.monotonic() + 60
        while memory.peak_bytes < resident_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)  # on a busy machine the sampling thread may start late
        held.close()
    assert memory.peak_bytes >= resident_bytes() + 100e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        (
            "against_transformers.py",
            ["--rounds", "1", "--people", "2", "--skip", "cold"],
            "post-processing only",
        ),
        (
            "memory.py",
            ["--images", "60", "--people", "2"],
            "peak of all images relative to the peak of the first 50",
        ),
        ("cold_start.py", ["--rounds", "1"], "s less, median of 1 rounds"),
    ],
)
def test_the_scripts_run(script: str, options: list[str], expected: str) -> None:
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
