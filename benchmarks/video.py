"""How quick a video is streamed with and without carried boxes, whose identities switch, and how much memory it takes.

    python benchmarks/video.py one-person-walking.mp4 --detector onnx:yolox_nano.onnx --frames 200

The rates are of runs in turns, so that other work on the machine burdens all of them alike.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import islice

import vitpose
from vitpose.inference.pipeline import Pipeline

# By eye, one-person-walking.mp4 of the shared data: six people, one after the other; first and last frame in
# which any part of each is in view.
WALKERS = [(60, 198), (227, 450), (502, 700), (744, 869), (921, 1201), (1234, 1360)]


def stream(pipe: Pipeline, clip: str, detect_every: int, frames: int | None) -> tuple[float, float, list]:
    """Returns seconds on the clock and on the processor, and the identities of each frame."""
    wall, cpu, seen = time.perf_counter(), time.process_time(), []
    with pipe.stream(clip, detect_every=detect_every) as frames_:
        for frame in islice(frames_, frames):
            seen.append((frame.index, frame.poses.ids.tolist()))
            if frame.index == 99:
                print(f"  peak memory at frame 100: {peak_mb():.0f} MB")
    return time.perf_counter() - wall, time.process_time() - cpu, seen


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def count_switches(seen: list[tuple[int, list[int]]]) -> str:
    """Compares identities with the list of walkers."""
    lines, used = [], set()
    for number, (first, last) in enumerate(WALKERS, start=1):
        ids = [i for index, found in seen if first <= index <= last for i in found if i >= 0]
        kinds = list(dict.fromkeys(ids))
        missed = sum(first <= index <= last and not any(i >= 0 for i in found) for index, found in seen)
        switches = max(len(kinds) - 1, 0)
        shared = f", shared with another: {sorted(used & set(kinds))}" if used & set(kinds) else ""
        lines.append(
            f"  walker {number}: ids {kinds}, {switches} switches, {missed} frames without an id{shared}"
        )
        used |= set(kinds)
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip")
    parser.add_argument("--detector", default="rtdetr")
    parser.add_argument("--model", default="vitpose-tiny")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--walkers", action="store_true", help="Compare with the list of walkers.")
    options = parser.parse_args()
    pipe = vitpose.load(options.model, detector=options.detector)
    for turn in range(options.turns):
        for every in (1, 5):
            wall, cpu, seen = stream(pipe, options.clip, every, options.frames)
            rates = f"{len(seen) / wall:.1f} frames/s, {cpu / len(seen):.3f} s of processor a frame"
            print(f"turn {turn}, detect every {every}: {rates}")
            if options.walkers:
                print(count_switches(seen))
    print(f"peak memory at the end: {peak_mb():.0f} MB")
