"""recipes/smoke.toml: after two minutes of training from random weights, the network beats the mean pose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vitpose.data.annotations import TrainingAnnotations, read_training_annotations
from vitpose.evaluation import evaluate_model
from vitpose.inference.loading import load

ROOT = Path(__file__).parents[2]
LEARNT = 200


@pytest.mark.slow
def test_two_minutes_beat_the_mean_pose(shared_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vitpose", "train", "recipes/smoke.toml", "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # one core for the data loading process
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{LEARNT} instances, 563 steps" in done.stderr
    pipe = load(str(tmp_path / "run/step-00000563"), detector=None, device="cpu")
    folder = shared_data / "lsp" / "images"
    learnt = first_people(shared_data / "lsp/train.json", LEARNT, tmp_path / "learnt.json")
    held_out = first_people(shared_data / "lsp/val.json", LEARNT, tmp_path / "held_out.json")
    mean = mean_pose(read_training_annotations(learnt, folder))
    for file, share in ((learnt, 2.0), (held_out, 1.15)):
        found = evaluate_model(pipe, file, folder, metrics=["pck"]).numbers["pck"]["PCK@0.2 (torso)"]
        baseline = pck(read_training_annotations(file, folder), mean)
        assert found > share * baseline, (file.name, found, baseline)


def first_people(source: Path, count: int, target: Path) -> Path:
    """Write the first annotations of a file, one per image, and their images to another file."""
    table = json.loads(source.read_text())
    people = table["annotations"][:count]
    used = {one["image_id"] for one in people}
    images = [image for image in table["images"] if image["id"] in used]
    target.write_text(json.dumps({**table, "annotations": people, "images": images}))
    return target


def mean_pose(people: TrainingAnnotations) -> np.ndarray:
    """Return the mean position in the box of each keypoint, as fractions of its width and height."""
    low, sides = people.boxes[:, None, :2], people.boxes[:, None, 2:] - people.boxes[:, None, :2]
    shares = np.where(people.labelled[:, :, None], (people.xy - low) / sides, 0)
    return shares.sum(axis=0) / people.labelled.sum(axis=0)[:, None]


def pck(people: TrainingAnnotations, shares: np.ndarray) -> float:
    """Return PCK@0.2 of the same pose in every box; the torso is from left shoulder to right hip."""
    low, sides = people.boxes[:, None, :2], people.boxes[:, None, 2:] - people.boxes[:, None, :2]
    away = np.linalg.norm(low + shares * sides - people.xy, axis=2)
    shoulder, hip = (people.skeleton.index(name) for name in ("left_shoulder", "right_hip"))
    torsos = np.linalg.norm(people.xy[:, shoulder] - people.xy[:, hip], axis=1)
    rows = people.labelled[:, shoulder] & people.labelled[:, hip] & (torsos > 0)
    return float((away <= 0.2 * torsos[:, None])[rows][people.labelled[rows]].mean())
