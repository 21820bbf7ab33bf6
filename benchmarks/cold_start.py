"""Measure the time from process start to the first result: imports, vitpose-tiny, one image.

    python benchmarks/cold_start.py [--rounds 7]

Both sides read the same files in alternating runs; the first round, which fills the file cache, is discarded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

import vitpose
from vitpose.inference.benchmark import run_alternately

IMAGE = vitpose.samples.person()

OURS = f"""
import vitpose
pipe = vitpose.load("vitpose-tiny", detector=None, device="cpu", dtype="float32")
poses = pipe({str(IMAGE)!r}, boxes=[[72, 42, 256, 396]])
assert poses.xy.shape == (1, 17, 2)
"""

THEIRS = f"""
from importlib import resources
import torch
from PIL import Image
from transformers import AutoProcessor, VitPoseForPoseEstimation
directory = str(resources.files("vitpose") / "weights")
processor = AutoProcessor.from_pretrained(directory)
model = VitPoseForPoseEstimation.from_pretrained(directory, dtype=torch.float32)
boxes = [[[72.0, 42.0, 184.0, 354.0]]]
inputs = processor(Image.open({str(IMAGE)!r}).convert("RGB"), boxes=boxes, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
results = processor.post_process_pose_estimation(outputs, boxes=boxes)
assert results[0][0]["keypoints"].shape == (17, 2)
"""


def cold(program: str) -> float:
    """Return the seconds that a program takes in a new process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times = run_alternately(
        {"transformers": lambda: cold(THEIRS), "vitpose": lambda: cold(OURS)}, options.rounds, warm_up=1
    )
    for name, seconds in times.items():
        low, middle, high = np.percentile(seconds, [25, 50, 75])
        print(f"{name:14} {middle:6.2f} s (quartiles {low:.2f}-{high:.2f})")
    less = np.median(np.subtract(times["transformers"], times["vitpose"]))
    print(f"{less:.2f} s less, median of {options.rounds} rounds")


if __name__ == "__main__":
    main()
