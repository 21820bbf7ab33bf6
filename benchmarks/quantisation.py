"""What do other runtimes and quantised weights give and cost? Size, speed and average precision of each.

    python benchmarks/quantisation.py ../shared/data/coco [--model vitpose-tiny] [--flip-test] [--write docs/export.md]

The folder has train.json, which int8 is calibrated on, and val.json, whose people's own boxes are looked at. Speed is
that of the network on a batch of crops (normalising included): all variants run in turns in one process, and the ratio
is that of torch in float32 to the variant in the same round, as the median over the rounds with the smallest and
largest. The size is that of the file, or of torch's weights in memory. With --write the table goes between the two
marks in that file.
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
MARKS = "<!-- measured by benchmarks/quantisation.py -->", "<!-- end of what was measured -->"


def in_torch(config: Any = None) -> Callable[[argparse.Namespace, Path], tuple[vitpose.Pipeline, int]]:
    def make(options: argparse.Namespace, folder: Path) -> tuple[vitpose.Pipeline, int]:
        pipe = vitpose.load(
            options.model, None, device=options.device, dtype="float32", quantization_config=config
        )
        network = pipe.estimator.engine.network
        network = getattr(network, "network", network)  # on a CPU inside what deals the crops out
        return pipe, sum(weight_bytes(own) for own in network.parameters())

    return make


def in_file(to: str, int8: bool) -> Callable[[argparse.Namespace, Path], tuple[vitpose.Pipeline, int]]:
    def make(options: argparse.Namespace, folder: Path) -> tuple[vitpose.Pipeline, int]:
        path = folder / f"{to}-{int8}{'.onnx' if to == 'onnx' else '.xml'}"
        written = vitpose.export(
            options.model, to, path, calibrate=options.folder / "train.json" if int8 else None
        )
        place = options.device if to == "onnx" else "cpu"
        pipe = vitpose.load(path, None, device=place, dtype="auto" if to == "onnx" else "float32")
        return pipe, written.size_bytes

    return make


def weight_bytes(weight: torch.Tensor) -> int:
    """Returns the bytes of a tensor, of a quantised one those of its parts."""
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
    "torch, weights of 4 bits kept in 8 (`IntxWeightOnlyConfig`, groups of 64)": in_torch(
        IntxWeightOnlyConfig(torch.int4, PerGroup(64))
    ),
    "ONNX Runtime, float32": in_file("onnx", int8=False),
    "ONNX Runtime, int8": in_file("onnx", int8=True),
    "OpenVINO, float32": in_file("openvino", int8=False),
    "OpenVINO, int8": in_file("openvino", int8=True),
}


def seconds_in_turns(engines: dict[str, Any], crops: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the seconds of each engine in each round."""
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(WARM_UP + ROUNDS):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.heatmaps(crops)
            spent[name].append(time.perf_counter() - start)
    return {name: np.array(values[WARM_UP:]) for name, values in spent.items()}


def average_precision(pipe: vitpose.Pipeline, options: argparse.Namespace) -> float:
    report = vitpose.evaluate_model(
        pipe, options.folder / "val.json", options.folder / "images", metrics=["coco"], flip_test=options.flip_test
    )  # fmt: skip
    return report.numbers["coco"]["AP"]


def table(options: argparse.Namespace) -> str:
    made, refused = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in VARIANTS.items():
            say(f"making: {name}")
            try:
                made[name] = make(options, Path(folder))
            except vitpose.InputError as error:
                refused[name] = str(error)
        first = next(iter(made))
        crops = read_crops(options.folder / "val.json", made[first][0].estimator.processor)[: options.batch]
        engines = {name: pipe.estimator.engine for name, (pipe, _) in made.items()}
        say(f"timing: {WARM_UP + ROUNDS} rounds")
        spent, precision = seconds_in_turns(engines, crops), {}
        for name, (pipe, _) in made.items():
            say(f"evaluating: {name}")
            precision[name] = average_precision(pipe, options)
    rows = ["| | size | speed (torch, float32 = 1) | AP | change of AP |", "|---|---:|---:|---:|---:|"]
    for name, (_, size) in made.items():
        ratios = spent[first] / spent[name]
        speed = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        change = 100 * (precision[name] - precision[first])
        rows.append(
            f"| {name} | {size / 1e6:.1f} MB | {speed} | {100 * precision[name]:.2f} | {change:+.2f} |"
        )
    rows += [f"| {name} | | no kernel | | |" for name in refused]
    return f"{basis(options, spent[first])}\n\n" + "\n".join(rows)


def basis(options: argparse.Namespace, spent: np.ndarray) -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    flags = set(text.split("\n\n")[0].split())
    able = [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
        if flag in flags
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = ", ".join(able) or "extensions not known"
    where = f"{cores} {'core' if cores == 1 else 'cores'} of {platform.machine()} ({known})"
    if options.device != "cpu":
        where = f"{torch.cuda.get_device_name()}, OpenVINO on {where}"
    return (
        f"`{options.model}`, {options.batch} people at a time, on {where}; torch in float32 takes "
        f"{1e3 * np.median(spent):.0f} ms for them. AP is that of the {people(options)} people of the validation "
        f"subset in their own boxes, {'with' if options.flip_test else 'without'} flip test, in points of 100."
    )  # fmt: skip


def people(options: argparse.Namespace) -> int:
    from vitpose.data.annotations import read_training_annotations

    return len(read_training_annotations(options.folder / "val.json"))


def say(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="vitpose-tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--write", type=Path, help="a file with the two marks")
    options = parser.parse_args()
    text = table(options)
    print(text)
    if options.write is not None:
        start, end = MARKS
        page = options.write.read_text(encoding="utf-8")
        if len(re.findall(f"{start}.*{end}", page, re.DOTALL)) != 1:
            parser.error(f"{options.write} does not have the marks {start} and {end} once each")
        before, after = page.split(start)[0], page.split(end)[1]
        options.write.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
