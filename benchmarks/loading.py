"""Compare the throughput of data loading, by method and number of workers, with that of the training step.

    python benchmarks/loading.py ../shared/data/coco/train.json [--people 1000] [--workers 0 1 2 4] [--device auto]

Packs a part of the dataset into a temporary directory, then loads from the images and from the pack with each number of
workers, and from the pack in device memory, with the published augmentation. Also measures training
steps of vitpose-tiny on batches in memory, and prints the size of the pack.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

import vitpose
from vitpose.data.annotations import TrainingAnnotations, read_training_annotations
from vitpose.data.augment import Augmentation
from vitpose.data.dataset import MixSampler, PoseDataset
from vitpose.data.device_samples import DeviceLoader
from vitpose.data.pack import QUALITY, Packed, read_pack, write_pack
from vitpose.hardware.devices import choose_device


def endless(sampler: MixSampler, loader: Iterable) -> Iterable:
    while True:
        yield from loader
        sampler.set_epoch(sampler.epoch + 1)


def samples_per_s(batches: Iterable, batch_size: int, seconds: float, device: torch.device) -> float:
    batches = iter(batches)
    for _ in islice(batches, 2):  # workers start, caches fill
        pass
    wait(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch_size
    wait(device)
    return count / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def loading(
    people: TrainingAnnotations, workers: int, options: argparse.Namespace, device: torch.device
) -> float:
    sampler = MixSampler([len(people)])
    dataset = PoseDataset(people, options.spec, Augmentation())
    loader = DataLoader(
        dataset,
        options.batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    return samples_per_s(endless(sampler, loader), options.batch_size, options.seconds, device)


def on_device(packed: Packed, options: argparse.Namespace, device: torch.device) -> float:
    sampler = MixSampler([len(packed)])
    loader = DeviceLoader(packed, sampler, options.batch_size, options.spec, Augmentation(), device=device)
    return samples_per_s(endless(sampler, loader), options.batch_size, options.seconds, device)


def steps(options: argparse.Namespace, device: torch.device) -> Iterable:
    network = (
        vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32").to(device).train()
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    size, count = options.spec.input_size, network.config.num_labels
    pixels = torch.randn(options.batch_size, 3, size.height, size.width, device=device)
    targets = torch.rand(options.batch_size, count, size.height // 4, size.width // 4, device=device)
    while True:
        # CPUs without bfloat16 units are ten times slower in bfloat16.
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = network(pixels, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss


def pack_rate(people: TrainingAnnotations, directory: Path) -> Packed:
    start = time.perf_counter()
    write_pack([people], directory)
    rate = len(people) / (time.perf_counter() - start)
    packed = read_pack(directory)
    size, raw = sum(part.stat().st_size for part in packed.images), 3 * int(packed.sizes.prod(axis=1).sum())
    print(f"pack: {rate:.0f} people/s, {(packed.factors > 1).mean():.0%} of them downscaled", flush=True)
    print(
        f"per person: {size / len(packed) / 1e3:.1f} kB as JPEG {QUALITY}, {raw / len(packed) / 1e3:.1f} kB raw"
    )
    return packed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", default="192x256", help="width x height of the crops")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    options.spec = vitpose.ModelSpec(
        dataset=vitpose.DatasetSpec.load("coco"), input_size=vitpose.Size(width, height)
    )
    device = choose_device(options.device)
    people = read_training_annotations(options.annotations)
    people = people.select(np.random.default_rng(0).permutation(len(people))[: options.people])
    rows: list[tuple[str, Callable[[], float]]] = []
    with tempfile.TemporaryDirectory() as directory:
        packed = pack_rate(people, Path(directory) / "pack")
        for name, source in (("images", people), ("pack", packed)):
            rows += [
                (f"{name}, {workers} workers", lambda s=source, w=workers: loading(s, w, options, device))
                for workers in options.workers
            ]
        rows.append((f"pack in the memory of {device}", lambda: on_device(packed, options, device)))
        step = samples_per_s(steps(options, device), options.batch_size, options.seconds, device)
        what = f"vitpose-tiny, {options.size}, batch {options.batch_size}, on {device}"
        print(f"training step of {what}: {step:.0f} samples/s", flush=True)
        rates = {}
        for name, measure in rows:
            rates[name] = measure()
            print(
                f"{name:24} {rates[name]:8.0f} samples/s, {rates[name] / step:6.1f} x the training step",
                flush=True,
            )
        best = max(rates, key=lambda name: rates[name])
        verdict = "is not" if rates[best] > step else "IS"
        print(
            f"loading {verdict} the bottleneck: at best {rates[best] / step:.1f} x the training step ({best})"
        )


if __name__ == "__main__":
    main()
