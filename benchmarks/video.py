"""Measure speed, track ID switches and memory of video streaming, with detection on every and on every 5th frame.

    python benchmarks/video.py one-person-walking.mp4 --detector onnx:yolox_nano.onnx --frames 200

The runs alternate, so that other load on the machine affects all of them equally.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import islice

import vitpose
from vitpose.inference.pipeline import Pipeline

# Annotated manually for one-person-walking.mp4 of the shared data: six people, one after the other; first and last
# frame in which a part of each is visible.
WALKERS = [(60, 198), (227, 450), (502, 700), (744, 869), (921, 1201), (1234, 1360)]


def stream(pipe: Pipeline, clip: str, detect_every: int, frames: int | None) -> tuple[float, float, list]:
    """Return wall-clock seconds, CPU seconds, and the track IDs of each frame."""
    wall, cpu, seen = time.perf_counter(), time.process_time(), []
    with pipe.stream(clip, detect_every=detect_every) as pose_frames:
        for frame in islice(pose_frames, frames):
            seen.append((frame.index, frame.poses.ids.tolist()))
            if frame.index == 99:
                print(f"  peak memory at frame 100: {peak_mb():.0f} MB")
    return time.perf_counter() - wall, time.process_time() - cpu, seen


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def count_switches(seen: list[tuple[int, list[int]]]) -> str:
    """Compare the track IDs with the list of walkers."""
    lines, used = [], set()
    for number, (first, last) in enumerate(WALKERS, start=1):
        ids = [i for index, found in seen if first <= index <= last for i in found if i >= 0]
        unique = list(dict.fromkeys(ids))
        missed = sum(first <= index <= last and not any(i >= 0 for i in found) for index, found in seen)
        switches = max(len(unique) - 1, 0)
        shared = f", shared with another: {sorted(used & set(unique))}" if used & set(unique) else ""
        lines.append(
            f"  walker {number}: ids {unique}, {switches} switches, {missed} frames without an id{shared}"
        )
        used |= set(unique)
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip")
    parser.add_argument("--detector", default="rtdetr")
    parser.add_argument("--model", default="vitpose-tiny")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--walkers", action="store_true", help="Compare with the list of walkers.")
    options = parser.parse_args()
    pipe = vitpose.load(options.model, detector=options.detector)
    for round_number in range(options.rounds):
        for every in (1, 5):
            wall, cpu, seen = stream(pipe, options.clip, every, options.frames)
            rates = f"{len(seen) / wall:.1f} frames/s, {cpu / len(seen):.3f} CPU seconds per frame"
            print(f"round {round_number}, detect every {every}: {rates}")
            if options.walkers:
                print(count_switches(seen))
    print(f"peak memory at the end: {peak_mb():.0f} MB")
