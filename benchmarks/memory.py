"""Measure the peak memory over many images of 1920x1080 with ten people each, to verify that it is constant.

    python benchmarks/memory.py [--model vitpose-tiny] [--images 1000] [--people 10]

Writes a few JPEG files into a temporary directory, runs the pipeline over them repeatedly, and prints the peak of every
fifty images.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import vitpose
from vitpose.inference.benchmark import MemoryWatch, Scene, resident_bytes

SIZE = vitpose.Size(1920, 1080)
DIFFERENT = 8
EVERY = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vitpose-tiny")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    scenes = [Scene.make(SIZE, options.people, seed=seed) for seed in range(DIFFERENT)]
    boxes = [scene.boxes for scene in scenes]
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / f"{index}.jpg" for index in range(DIFFERENT)]
        for file, scene in zip(files, scenes, strict=True):
            vitpose.save_image(file, scene.image)
        del scenes, scene
        pipe = vitpose.load(
            options.model, detector=None, device=options.device, batch_size=options.batch_size
        )
        print(f"{pipe}\nloaded: {resident_bytes() / 1e6:.0f} MB")
        count = options.images
        sources = itertools.islice(itertools.cycle(files), count)
        stream = pipe.each(sources, list(itertools.islice(itertools.cycle(boxes), count)))
        peaks, people = [], 0
        for done in range(0, count, EVERY):
            with MemoryWatch() as memory:
                for prediction in itertools.islice(stream, EVERY):
                    assert prediction.poses is not None, prediction.error
                    people += len(prediction.poses)
            peaks.append(memory.peak_bytes)
            print(f"after {min(done + EVERY, count):5} images: peak {peaks[-1] / 1e6:7.1f} MB", flush=True)
    assert people == count * options.people
    print(f"peak of all images relative to the peak of the first {EVERY}: {max(peaks) / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
