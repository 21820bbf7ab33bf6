"""Measure size, speed and average precision of other runtimes and of quantised weights.

    python benchmarks/quantisation.py ../shared/data/coco [--model vitpose-tiny] [--flip-test]
        [--write docs/background/measurements.md]

The directory contains train.json, for int8 calibration, and val.json, which is evaluated in ground-truth boxes. Speed
is that of the network on a batch of crops, normalisation included. All variants run alternately in one process. The
speedup is relative to torch in float32 in the same round: the median over the rounds, with minimum and maximum. The
size is that of the file, or of the weights of torch in memory. With --write the table is inserted between the two
markers in that file.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchao.quantization import (
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
)

import vitpose
from vitpose.exporters.calibration import read_crops

WARM_UP, ROUNDS = 2, 7
MARKERS = "<!-- measured by benchmarks/quantisation.py -->", "<!-- end of measurements -->"


def in_torch(config: Any = None) -> Callable[[argparse.Namespace, Path], tuple[vitpose.Pipeline, int]]:
    def make(options: argparse.Namespace, directory: Path) -> tuple[vitpose.Pipeline, int]:
        pipe = vitpose.load(
            options.model, None, device=options.device, dtype="float32", quantization_config=config
        )
        network = pipe.estimator.engine.network
        network = getattr(network, "network", network)  # on a CPU it is wrapped by `ThreadedNetwork`
        return pipe, sum(weight_bytes(weight) for weight in network.parameters())

    return make


def in_file(to: str, int8: bool) -> Callable[[argparse.Namespace, Path], tuple[vitpose.Pipeline, int]]:
    def make(options: argparse.Namespace, directory: Path) -> tuple[vitpose.Pipeline, int]:
        path = directory / f"{to}-{int8}{'.onnx' if to == 'onnx' else '.xml'}"
        written = vitpose.export(
            options.model, to, path, calibrate=options.directory / "train.json" if int8 else None
        )
        device = options.device if to == "onnx" else "cpu"
        pipe = vitpose.load(path, None, device=device, dtype="auto" if to == "onnx" else "float32")
        return pipe, written.size_bytes

    return make


def weight_bytes(weight: torch.Tensor) -> int:
    """Return the bytes of a tensor; for a quantised tensor, the sum over its parts."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.numel() * weight.element_size()
    return sum(weight_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])


VARIANTS = {
    "torch, float32": in_torch(),
    "torch, int8 weights (`Int8WeightOnlyConfig`)": in_torch(Int8WeightOnlyConfig()),
    "torch, int8 (`Int8DynamicActivationInt8WeightConfig`)": in_torch(
        Int8DynamicActivationInt8WeightConfig()
    ),
    "torch, int4 weights (`Int4WeightOnlyConfig`, groups of 64)": in_torch(
        Int4WeightOnlyConfig(group_size=64)
    ),
    "torch, 4-bit weights stored as int8 (`IntxWeightOnlyConfig`, groups of 64)": in_torch(
        IntxWeightOnlyConfig(torch.int4, PerGroup(64))
    ),
    "ONNX Runtime, float32": in_file("onnx", int8=False),
    "ONNX Runtime, int8": in_file("onnx", int8=True),
    "OpenVINO, float32": in_file("openvino", int8=False),
    "OpenVINO, int8": in_file("openvino", int8=True),
}


def seconds_in_turns(engines: dict[str, Any], crops: np.ndarray) -> dict[str, np.ndarray]:
    """Return the seconds of each engine in each round."""
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(WARM_UP + ROUNDS):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.heatmaps(crops)
            spent[name].append(time.perf_counter() - start)
    return {name: np.array(values[WARM_UP:]) for name, values in spent.items()}


def average_precision(pipe: vitpose.Pipeline, options: argparse.Namespace) -> float:
    annotations, images = options.directory / "val.json", options.directory / "images"
    report = vitpose.evaluate_model(pipe, annotations, images, metrics=["coco"], flip_test=options.flip_test)
    return report.numbers["coco"]["AP"]


def table(options: argparse.Namespace) -> str:
    loaded, unsupported = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        for name, make in VARIANTS.items():
            say(f"loading: {name}")
            try:
                loaded[name] = make(options, Path(directory))
            except vitpose.InputError as error:
                unsupported[name] = str(error)
        first = next(iter(loaded))
        crops = read_crops(options.directory / "val.json", loaded[first][0].estimator.spec)[: options.batch]
        engines = {name: pipe.estimator.engine for name, (pipe, _) in loaded.items()}
        say(f"timing: {WARM_UP + ROUNDS} rounds")
        spent, precision = seconds_in_turns(engines, crops), {}
        for name, (pipe, _) in loaded.items():
            say(f"evaluating: {name}")
            precision[name] = average_precision(pipe, options)
    rows = ["| | size | speedup over torch float32 | AP | change of AP |", "|---|---:|---:|---:|---:|"]
    for name, (_, size) in loaded.items():
        ratios = spent[first] / spent[name]
        speed = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        change = 100 * (precision[name] - precision[first])
        rows.append(
            f"| {name} | {size / 1e6:.1f} MB | {speed} | {100 * precision[name]:.2f} | {change:+.2f} |"
        )
    rows += [f"| {name} | | no kernel | | |" for name in unsupported]
    return f"{basis(options, spent[first])}\n\n" + "\n".join(rows)


def basis(options: argparse.Namespace, spent: np.ndarray) -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    flags = set(text.split("\n\n")[0].split())
    extensions = [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
        if flag in flags
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    listed = ", ".join(extensions) or "unknown extensions"
    where = f"{cores} {'core' if cores == 1 else 'cores'} of {platform.machine()} ({listed})"
    if options.device != "cpu":
        where = f"{torch.cuda.get_device_name()}, OpenVINO on {where}"
    return (
        f"`{options.model}`, batch size {options.batch}, on {where}; torch in float32 takes "
        f"{1e3 * np.median(spent):.0f} ms per batch. AP is measured on the {people(options)} people of the validation "
        f"subset in ground-truth boxes, {'with' if options.flip_test else 'without'} flip test, in percent."
    )  # fmt: skip


def people(options: argparse.Namespace) -> int:
    from vitpose.data.annotations import read_training_annotations

    return len(read_training_annotations(options.directory / "val.json"))


def say(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", default="vitpose-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--write", type=Path, help="a file with the two markers")
    options = parser.parse_args()
    text = table(options)
    print(text)
    if options.write is not None:
        start, end = MARKERS
        page = options.write.read_text(encoding="utf-8")
        if len(re.findall(f"{start}.*{end}", page, re.DOTALL)) != 1:
            parser.error(f"{options.write} must contain the markers {start} and {end} exactly once")
        before, after = page.split(start)[0], page.split(end)[1]
        options.write.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
