"""Compare vitpose with the documented usage of `transformers`: same images and weights, alternating runs.

    python benchmarks/against_transformers.py [--model NAME] [--rounds 7] [--int8 FILE] [--skip cold]

Prints one line per comparison: the medians of both sides, the median and interquartile range of the ratios over the
rounds, the targets, and the distance between the keypoints. Default model: ViTPose-B with the simple decoder and the
weights of vitpose-tiny, widened (see `widened_base`). It costs as much as ViTPose-B, and its heatmaps have real peaks,
so that keypoints can be compared.

Comparisons that the machine does not support (bfloat16 units, GPU) are printed as not measured.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from cold_start import OURS, THEIRS, cold

import vitpose
from vitpose.engines.accelerator import DeviceEngine
from vitpose.engines.cpu_threads import ThreadedNetwork
from vitpose.engines.torch import TorchEngine, choose_dtype, has_bf16_units
from vitpose.inference.benchmark import (
    Scene,
    TransformersBaseline,
    crop_distance,
    run_alternately,
    run_vitpose,
    timed,
    wait_for,
    with_transformers_decoding,
)
from vitpose.inference.estimator import Estimator
from vitpose.inference.pipeline import Pipeline
from vitpose.model.config import VitPoseBackboneConfig, VitPoseConfig
from vitpose.model.fold import InferenceNetwork

HD, FULL_HD = vitpose.Size(1280, 720), vitpose.Size(1920, 1080)
GPU_BATCHES = (64, 128, 256)


@dataclass(frozen=True)
class Target:
    """Targets for the ratio of a comparison."""

    required: float
    desired: float

    def __str__(self) -> str:
        return f"{self.required:g} / {self.desired:g}"


def widened_base() -> vitpose.VitPoseForPoseEstimation:
    """Return a ViTPose-B (simple decoder, 256x192) that computes the same function as vitpose-tiny.

    Every feature is repeated, and the weights that read it are divided by the number of copies (Chen et al., Net2Net,
    2016), so norms, attention and heatmaps are unchanged. Only the position embeddings are interpolated.
    """
    small = vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32")
    tiny = small.config.backbone_config
    base = VitPoseBackboneConfig()
    if (tiny.num_hidden_layers, tiny.hidden_size // tiny.num_attention_heads) != (12, 64):
        raise SystemExit("vitpose-tiny cannot be widened to ViTPose-B; pass --model")
    wide = VitPoseConfig(
        backbone_config=replace(base, layer_norm_eps=tiny.layer_norm_eps), use_simple_decoder=True
    )
    network = vitpose.VitPoseForPoseEstimation(wide)
    state = small.state_dict()
    rows, columns = base.grid_size
    grid = small.backbone.positions(rows, columns)
    state["backbone.pos_embed"] = torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1)
    network.load_state_dict(
        {name: widen(name, state[name], tensor.shape) for name, tensor in network.state_dict().items()}
    )
    return network.eval()


def widen(name: str, tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    reads_features = tensor.ndim >= 2 and "pos_embed" not in name and "patch_embed" not in name
    if reads_features:
        tensor = tensor * (tensor.shape[1] / shape[1])
    if ".qkv." in name:  # three parts, each widened separately
        parts = [
            part.repeat(shape[0] // tensor.shape[0], *[1] * (tensor.ndim - 1)) for part in tensor.chunk(3)
        ]
        tensor = torch.cat(parts)
    return tensor.repeat([new // old for new, old in zip(shape, tensor.shape, strict=True)])


class Comparison:
    """Run both sides on one device and prints the lines of the table."""

    def __init__(self, options: argparse.Namespace, device: str) -> None:
        self.options, self.device = options, torch.device(device)
        self.network, self.processor = options.network, vitpose.VitPoseImageProcessor()
        self.spec = vitpose.ModelSpec(dataset=self.network.config.heads[0])
        self.theirs = TransformersBaseline(self.network, self.spec, self.device)
        self.scene = Scene.make(HD, options.people)
        self._warm_up(torch.bfloat16 if self.has_bf16 else torch.float32)

    @property
    def has_bf16(self) -> bool:
        return self.device.type == "cuda" or has_bf16_units()

    def pipe(self, dtype: str = "float32", compiled: bool = False, network: Any = None) -> Pipeline:
        model = copy.deepcopy(network or self.network).to(self.device, getattr(torch, dtype))
        kind = TorchEngine if self.device.type == "cpu" else DeviceEngine
        engine = kind(model, self.spec, compiled)
        return Pipeline(None, Estimator(engine, self.spec, 256))

    def compare(
        self,
        what: str,
        theirs: Callable[[], Any],
        ours: Callable[[], Any],
        target: Target | None,
        distance: str = "",
    ) -> None:
        times = run_alternately({"theirs": timed(theirs), "ours": timed(ours)}, self.options.rounds)
        print_line(what, np.array(times["theirs"]), np.array(times["ours"]), target, distance)

    def image_to_keypoints(self, what: str, pipe: Pipeline, scene: Scene, target: Target | None) -> None:
        """Compare the time from image to keypoints, with the decoding of `transformers` on both sides."""
        pipe = with_transformers_decoding(pipe)
        distance = crop_distance(
            run_vitpose(pipe, scene).points, self.theirs.run(scene).points, scene, self.spec
        )
        self.compare(
            what,
            lambda: self.theirs.run(scene),
            lambda: pipe(scene.image, boxes=scene.boxes),
            target,
            f"{distance:.3f} px",
        )

    def run(self) -> None:
        single = replace(self.scene, boxes=self.scene.boxes[:1])
        people = f"{self.options.people} people"
        plain = self.pipe()
        self.image_to_keypoints(f"image to keypoints, {people}, float32", plain, self.scene, Target(1.5, 1.7))
        self.image_to_keypoints("image to keypoints, 1 person, float32", plain, single, Target(4, 6))
        auto = choose_dtype("auto", self.device)
        if auto == "float32":
            print_missing("image to keypoints, automatic precision", "it is float32: no bfloat16 units")
        else:
            self.image_to_keypoints(
                f"image to keypoints, {people}, {auto}", self.pipe(auto), self.scene, Target(6.5, 8)
            )
            self.image_to_keypoints(
                f"image to keypoints, 1 person, {auto}", self.pipe(auto), single, Target(4, 6)
            )
        if self.device.type == "cpu":
            self.other_engines(single)
        self.parts(plain)
        self.forward()
        self.int8()
        self.experts()

    def other_engines(self, single: Scene) -> None:
        """Compare the other engines, with the same weights in float32."""
        with tempfile.TemporaryDirectory() as directory:
            self.network.save_pretrained(directory)
            for engine in ("openvino", "onnxruntime"):
                if importlib.util.find_spec(engine) is None:
                    print_missing(f"image to keypoints, {engine}", "not installed")
                    continue
                pipe = vitpose.load(directory, detector=None, engine=engine, device="cpu", dtype="float32")
                people = f"{self.options.people} people"
                self.image_to_keypoints(
                    f"image to keypoints, {people}, {engine}", pipe, self.scene, Target(1.5, 1.7)
                )
                self.image_to_keypoints(f"image to keypoints, 1 person, {engine}", pipe, single, Target(4, 6))

    def parts(self, pipe: Pipeline) -> None:
        """Compare preprocessing and post-processing through the interface of `transformers`."""
        boxes = [vitpose.xywh_from_xyxy(self.scene.boxes)]
        outputs = self.theirs.forward(self.theirs.preprocess(self.scene))
        self.compare(
            "preprocessing only",
            lambda: self.theirs.preprocess(self.scene),
            lambda: self.processor(self.scene.image, boxes=boxes, return_tensors="pt"),
            Target(10, 20),
        )
        self.compare(
            "post-processing only",
            lambda: self.theirs.postprocess(outputs, self.scene),
            lambda: self.processor.post_process_pose_estimation(outputs, boxes=boxes),
            Target(10, 20),
        )

    def forward(self) -> None:
        """Compare the forward pass on normalised crops."""
        dtype = torch.bfloat16 if self.has_bf16 else torch.float32
        inputs = self.theirs.preprocess(self.scene)
        engine = self.pipe().estimator.engine
        self.compare(
            "forward pass only, float32",
            lambda: self.theirs.forward(inputs),
            lambda: self._forward(engine, inputs["pixel_values"]),
            None,
        )
        if not self.has_bf16:
            print_missing("forward pass only, both in bfloat16 and compiled", "no bfloat16 units")
        else:
            baseline = TransformersBaseline(self.network, self.spec, self.device, dtype, compiled=True)
            fast = self.pipe("bfloat16", compiled=True).estimator.engine
            halves = baseline.preprocess(self.scene)
            self.compare(
                "forward pass only, both in bfloat16 and compiled",
                lambda: baseline.forward(halves),
                lambda: self._forward(fast, halves["pixel_values"]),
                Target(1.1, 1.3),
            )
        self._share("ViTPose-B", self.network, self.options.people, dtype, Target(0.7, 0.85))
        if self.device.type == "cuda":
            for name in ("base", "large", "huge"):
                config = VitPoseConfig.preset(name, decoder="simple")
                network = vitpose.VitPoseForPoseEstimation(config).eval()
                for batch in GPU_BATCHES:
                    self._share(f"ViTPose-{name}, batch {batch}", network, batch, dtype, Target(0.5, 0.65))

    def _forward(self, engine: TorchEngine, pixels: torch.Tensor) -> None:
        with torch.inference_mode():
            engine.run(pixels)
        wait_for(self.device)

    def _share(self, what: str, network: Any, batch: int, dtype: torch.dtype, target: Target) -> None:
        """Compare the throughput of the forward pass with that of large matrix products.

        The product is computed by all threads together or by each thread on a part of the rows, whichever is faster.
        """
        kind = str(dtype).removeprefix("torch.")
        engine = self.pipe(kind, compiled=self.has_bf16, network=network).estimator.engine
        height, width = network.config.backbone_config.image_size
        pixels = torch.randn(batch, 3, height, width, device=self.device, dtype=dtype)
        side = torch.randn(2048, 2048, device=self.device, dtype=dtype)
        parts = side.view(2 ** int(math.log2(torch.get_num_threads())), -1, 2048)
        by_thread = ThreadedNetwork(lambda rows: rows @ side)

        def multiply(rows: torch.Tensor, product: Callable[[torch.Tensor], torch.Tensor]) -> None:
            with torch.inference_mode():
                product(rows)
            wait_for(self.device)

        runs = {
            "forward": timed(lambda: self._forward(engine, pixels)),
            "together": timed(lambda: multiply(side, lambda rows: rows @ side)),
        }
        if self.device.type == "cpu":
            runs["by thread"] = timed(lambda: multiply(parts, by_thread))
        times = {
            name: np.array(seconds) for name, seconds in run_alternately(runs, self.options.rounds).items()
        }
        rates = {
            "forward": batch * multiplications(network) / times.pop("forward"),
            "product": 2048**3 / np.minimum.reduce(list(times.values())),
        }
        share = rates["forward"] / rates["product"]
        low, middle, high = np.percentile(share, [25, 50, 75])
        flops = {name: 2 * np.median(rate) / 1e9 for name, rate in rates.items()}
        print(
            f"{f'forward pass relative to {kind} products, {what}':54} {flops['product']:7.0f} GF/s "
            f"{flops['forward']:6.0f} GF/s {middle:7.2f} ({low:.2f}-{high:.2f})  {target}",
            flush=True,
        )

    def _warm_up(self, dtype: torch.dtype) -> None:
        """Warm up the device before the first comparison."""
        side = torch.randn(1024, 1024, device=self.device, dtype=dtype)
        for _ in range(5):
            side @ side
        wait_for(self.device)

    def int8(self) -> None:
        what = "image to keypoints, int8"
        if self.options.int8 is None:
            print_missing(what, "pass --int8 FILE, written by 'vitpose export --int8'")
        else:
            pipe = vitpose.load(self.options.int8, detector=None)
            self.image_to_keypoints(f"{what}, {pipe.estimator.runs_on}", pipe, self.scene, Target(8, 12))

    def experts(self) -> None:
        """Compare a folded expert of ViTPose++-B with the dense network of this package; random weights."""
        torch.manual_seed(0)
        config = VitPoseConfig(backbone_config=VitPoseBackboneConfig(num_experts=6, part_features=192))
        mixed = vitpose.VitPoseForPoseEstimation(config).eval()
        dense = vitpose.VitPoseForPoseEstimation(VitPoseConfig()).eval()
        pixels = torch.randn(self.options.people, 3, 256, 192, device=self.device)
        networks = [InferenceNetwork(one.to(self.device)) for one in (dense, mixed.fold_expert(0))]

        def forward(network: InferenceNetwork) -> None:
            with torch.inference_mode():
                network(pixels)
            wait_for(self.device)

        self.compare(
            "dense ViTPose-B, against ViTPose++-B with one expert",
            lambda: forward(networks[0]),
            lambda: forward(networks[1]),
            Target(1 / 1.03, 1),
        )


def multiplications(network: Any) -> int:
    """Return the multiplications of the network for one crop, with the decoder as published."""
    from torch.utils.flop_counter import FlopCounterMode

    height, width = network.config.backbone_config.image_size
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.device("meta"):
        type(network)(network.config)(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() // 2


def print_line(
    what: str, theirs: np.ndarray, ours: np.ndarray, target: Target | None, distance: str, unit: float = 1e3
) -> None:
    low, middle, high = np.percentile(theirs / ours, [25, 50, 75])
    print(
        f"{what:54} {unit * np.median(theirs):9.1f} ms {unit * np.median(ours):9.1f} ms {middle:7.2f} "
        f"({low:.2f}-{high:.2f})  {target or ''!s:11} {distance}",
        flush=True,
    )


def print_missing(what: str, why: str) -> None:
    print(f"{what:54} not measured: {why}", flush=True)


def devices() -> Iterator[str]:
    yield "cpu"
    if torch.cuda.is_available():
        yield "cuda"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a dense ViTPose-B; default: a widened vitpose-tiny")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--int8", type=Path, help="an exported int8 file of the same model")
    parser.add_argument("--skip", nargs="*", default=[], choices=["cold"])
    options = parser.parse_args()
    options.network = (
        widened_base()
        if options.model is None
        else vitpose.VitPoseForPoseEstimation.from_pretrained(options.model, dtype="float32")
    )
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} threads, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {options.rounds} alternating rounds\n"
    )
    print(f"{'':54} {'transformers':>12} {'vitpose':>12}   ratio (quartiles)    targets     distance")
    for device in devices():
        print(f"-- {device}")
        Comparison(options, device).run()
    if not torch.cuda.is_available():
        print_missing("-- cuda, all of the above and B, L, H at batch 64-256", "no GPU")
    if "cold" not in options.skip:
        times = run_alternately(
            {"theirs": lambda: cold(THEIRS), "ours": lambda: cold(OURS)}, options.rounds, warm_up=1
        )
        print_line("import, load, first result, in a new process", *map(np.array, times.values()), None, "")
        saved = np.median(np.array(times["theirs"]) - np.array(times["ours"]))
        print(f"{'':54} {saved:.1f} s less; target: 3 s less")


if __name__ == "__main__":
    main()
