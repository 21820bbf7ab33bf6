"""The torch engines compared with the plain network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import vitpose
from vitpose.detectors.protocol import Detections
from vitpose.engines import torch as engine_torch
from vitpose.engines.accelerator import DeviceEngine, GraphedNetwork, sample
from vitpose.engines.protocol import Engine, ImageEngine
from vitpose.engines.torch import TorchEngine, choose_dtype, filled_up, has_bf16_units
from vitpose.errors import InputError
from vitpose.geometry.boxes import Size
from vitpose.geometry.warp import Warp, normalise
from vitpose.images import read_image
from vitpose.inference.estimator import Estimator
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.model.fold import InferenceNetwork
from vitpose.model.pose import VitPoseForPoseEstimation

from .conftest import Precision

# OpenCV 4 rounds the weights of interpolation to 1/32.
EXACT_WARPS = int(cv2.__version__.split(".")[0]) >= 5
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(model: VitPoseForPoseEstimation) -> ModelSpec:
    return ModelSpec(dataset=model.config.heads[0])


@pytest.fixture(scope="module")
def model(precision: Precision) -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype=precision.dtype)


def small_network(simple: bool) -> VitPoseForPoseEstimation:
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    config = vitpose.VitPoseConfig.for_skeleton(vitpose.Skeleton.load("coco"), backbone_config=backbone)
    network = VitPoseForPoseEstimation(replace(config, use_simple_decoder=simple)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


@pytest.fixture
def image() -> np.ndarray:
    return read_image(pytest.importorskip("skimage.data").astronaut())


BOXES = np.array(
    [[60, 0, 400, 510], [150, 20, 330, 300], [-50, -40, 200, 260], [300, 200, 600, 560]], np.float32
)


def test_heatmaps_equal_those_of_the_network_on_normalised_crops(
    model: VitPoseForPoseEstimation,
    spec: ModelSpec,
    image: np.ndarray,
    precision: Precision,
) -> None:
    crops = spec.warp_boxes(BOXES).crop(image)
    engine = TorchEngine(model, spec)
    assert isinstance(engine, Engine)
    assert not isinstance(engine, ImageEngine)
    pixels = torch.from_numpy(normalise(crops, *spec.scale_and_offset))
    exact = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32")
    with torch.inference_mode():
        plain = model(pixels.to(model.dtype)).heatmaps.numpy()
        expected = exact(pixels).heatmaps.numpy()
    found = engine.heatmaps(crops)
    assert found.dtype == plain.dtype == np.float32
    np.testing.assert_allclose(found, plain, atol=precision.same)
    np.testing.assert_allclose(found, expected, atol=precision.exact)
    assert engine.heatmaps(crops[:0]).shape == (0, *plain.shape[1:])
    mirrored = crops[:, :, ::-1]  # as passed by a flip test, with a negative stride
    np.testing.assert_allclose(engine.heatmaps(mirrored), engine.heatmaps(mirrored.copy()), atol=1e-6)
    assert engine.description == f"torch, cpu, {precision.dtype}"


CHOICES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"warp": "plain", "decode": "quarter", "shift_heatmap": True}, {}),
    ({"decode": "argmax"}, {}),
    ({}, {"blur_sigma": 0.8, "border": "reflect", "max_step": None}),
    ({}, {"border": "mirror"}),
]


@pytest.mark.parametrize(("conventions", "choices"), CHOICES, ids=str)
@pytest.mark.parametrize("flip_test", [False, True])
def test_poses_decoded_on_the_device_equal_those_decoded_in_numpy(
    model: VitPoseForPoseEstimation,
    spec: ModelSpec,
    image: np.ndarray,
    conventions: dict[str, Any],
    choices: dict[str, Any],
    flip_test: bool,
    precision: Precision,
) -> None:
    """Two images of different size, with batches that span both."""
    spec = replace(spec, dataset=replace(spec.dataset, **conventions), **choices)
    images = [image, np.ascontiguousarray(image[:300, :411])]
    boxes = [Detections.of_boxes(BOXES), Detections.of_boxes(BOXES[:3])]
    engines = [kind(model, spec) for kind in (TorchEngine, DeviceEngine)]
    assert isinstance(engines[1], ImageEngine)
    in_numpy, on_device = (
        Estimator(engine, spec, batch_size=3).estimate(images, boxes, flip_test) for engine in engines
    )
    for a, b in zip(in_numpy, on_device, strict=True):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(a.scores, b.scores, atol=max(0.01, precision.same))
        # The device does not round its crops to integers: of two peaks of about the same height another one may be the
        # highest, and a quarter of a cell (5 px here) may have the other sign.
        confident = a.scores > 0.2
        distance = np.linalg.norm(a.xy - b.xy, axis=2)[confident]
        assert confident.sum() > 5
        assert np.median(distance) < precision.keypoints_px
        assert np.mean(distance < 2) > 0.9


def test_an_image_is_uploaded_once(
    model: VitPoseForPoseEstimation, spec: ModelSpec, image: np.ndarray
) -> None:
    class Counting(DeviceEngine):
        uploads = 0

        def upload(self, image: np.ndarray) -> torch.Tensor:
            self.uploads += 1
            return super().upload(image)

    engine = Counting(model, spec)
    estimator = Estimator(engine, spec, batch_size=2)
    detections = Detections.of_boxes(np.repeat(BOXES, 2, axis=0)[:7])
    found = estimator.estimate([image, image], [detections, detections])
    assert engine.uploads == 2
    assert [len(poses) for poses in found] == [7, 7]


def test_nan_on_the_device_is_an_error(
    model: VitPoseForPoseEstimation, spec: ModelSpec, image: np.ndarray
) -> None:
    engine = DeviceEngine(model, spec)
    engine.network = lambda pixels: torch.full((len(pixels), 17, 64, 48), torch.nan)
    with pytest.raises(InputError, match="contain NaN or infinity, which the weights or the precision"):
        Estimator(engine, spec).estimate([image], [Detections.of_boxes(BOXES)])


def test_a_skeleton_with_another_number_of_keypoints(
    model: VitPoseForPoseEstimation, spec: ModelSpec, image: np.ndarray
) -> None:
    estimator = Estimator(DeviceEngine(model, spec), ModelSpec(dataset=vitpose.DatasetSpec.load("aic")))
    with pytest.raises(InputError, match="the network outputs 17 heatmaps, but the skeleton 'aic' has 14"):
        estimator.estimate([image], [Detections.of_boxes(BOXES)])


@pytest.mark.parametrize("convention", ["udp", "plain"])
def test_crops_on_the_device_differ_by_at_most_one_level(image: np.ndarray, convention: str) -> None:
    warp = Warp.from_boxes(BOXES, Size(width=48, height=64), convention)
    turned = Warp(warp.centres, warp.extents * [-1, 1], warp.size, convention, np.array([0.0, 30, -70, 180]))
    for tested in (warp, turned):
        crops = sample(torch.from_numpy(image), tested).permute(0, 2, 3, 1).numpy()
        assert np.abs(crops - tested.crop(image)).max() <= (1.05 if EXACT_WARPS else 5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_batches_of_compiled_networks_are_padded(
    model: VitPoseForPoseEstimation, spec: ModelSpec, count: int, precision: Precision
) -> None:
    """The heatmaps of the padding are removed."""
    engine = TorchEngine(model, spec)
    crops = np.random.default_rng(0).integers(0, 256, (count, 128, 96, 3), dtype=np.uint8)
    plain, engine.fixed_sizes, sizes, network = engine.heatmaps(crops), True, [], engine.network

    def record(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return network(pixels)

    engine.network = record
    np.testing.assert_allclose(engine.heatmaps(crops), plain, atol=precision.same)
    assert sizes == [filled_up(count)]


def test_padded_batch_sizes() -> None:
    assert [filled_up(count) for count in (0, 1, 2, 3, 4, 5, 31, 32, 33)] == [1, 1, 2, 4, 4, 8, 32, 32, 64]


COMPARE_COMPILED = """
import numpy as np
import vitpose
crops = np.random.default_rng(0).integers(0, 256, (3, 128, 96, 3), dtype=np.uint8)
plain, compiled = (
    vitpose.load("vitpose-tiny", None, device="cpu", dtype="float32", compile=choice).estimator.engine
    for choice in (False, True)
)
np.testing.assert_allclose(compiled.heatmaps(crops), plain.heatmaps(crops), atol=1e-4)
assert compiled.description == "torch, cpu, float32, compiled"
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_returns_the_same_heatmaps() -> None:
    """In a separate process: the compiler cannot trace the type checks that the tests add to every function."""
    subprocess.run([sys.executable, "-c", COMPARE_COMPILED], check=True, timeout=600)


def test_loading_imports_no_compiler() -> None:
    """Importing one would take more than half of the time to the first result."""
    program = (
        "import sys, numpy, vitpose, torch.utils.checkpoint\n"
        "before = set(sys.modules)\n"  # torch 2.6 imports sympy with torch.utils.checkpoint
        "pipe = vitpose.load('vitpose-tiny', None, device='cpu')\n"
        "pipe(numpy.zeros((99, 99, 3), numpy.uint8), boxes=[[0, 0, 90, 90]])\n"
        "assert not {'torch._dynamo', 'sympy', 'transformers'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize(("units", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_depends_on_the_bfloat16_units(
    monkeypatch: pytest.MonkeyPatch, units: bool, chosen: str
) -> None:
    monkeypatch.setattr(engine_torch, "has_bf16_units", lambda: units)
    assert choose_dtype("auto", CPU) == chosen
    assert choose_dtype("float32", CPU) == "float32"
    assert choose_dtype("bfloat16", CPU) == "bfloat16"
    pipe = vitpose.load("vitpose-tiny", detector=None, device="cpu")
    assert pipe.estimator.engine.description == f"torch, cpu, {chosen}"
    assert f"torch, cpu, {chosen}" in repr(pipe)


@pytest.mark.parametrize(
    ("reported", "units"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_units_as_reported_by_torch(
    monkeypatch: pytest.MonkeyPatch, reported: dict[str, bool], units: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert has_bf16_units() is units
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16_units()


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("fpu avx512f avx512_bf16 clzero", True),
        ("fp asimd bf16 i8mm", True),
        ("fpu avx512f", False),
        (None, False),
    ],
)
def test_bfloat16_units_as_reported_by_linux(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str | None, units: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(engine_torch, "Path", lambda _: tmp_path / "cpuinfo")
    assert has_bf16_units() is units


@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heatmaps_are_not_rounded_to_half_precision(simple: bool, dtype: torch.dtype) -> None:
    """In half precision the cells beside a peak would be equal, and the offset within the cell would be lost."""
    torch.manual_seed(1)
    network = small_network(simple).to(dtype)
    pixels = torch.randn(2, 3, 64, 48, dtype=dtype)
    with torch.inference_mode():
        plain, folded = network(pixels).heatmaps, InferenceNetwork(network)(pixels)
    for heatmaps in (plain, folded):
        assert heatmaps.dtype is torch.float32
        assert (heatmaps != heatmaps.to(dtype)).float().mean() > 0.9
    torch.testing.assert_close(plain, folded, rtol=0, atol=0.05 * plain.abs().max().item())
    assert network.double()(pixels.double()).heatmaps.dtype is torch.float64


@needs_cuda
def test_a_graphed_network_returns_the_same_heatmaps(spec: ModelSpec) -> None:
    model = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32", device="cuda")
    plain, graphed = model.eval(), GraphedNetwork(lambda pixels: model(pixels).heatmaps)
    with torch.inference_mode():
        for count in (1, 4, 1, 2):
            pixels = torch.randn(count, 3, 128, 96, device="cuda")
            torch.testing.assert_close(graphed(pixels), plain(pixels).heatmaps, rtol=1e-3, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("flip_test", [False, True])
def test_poses_on_a_gpu_equal_those_on_the_cpu(image: np.ndarray, flip_test: bool) -> None:
    on_cpu, on_gpu = (
        vitpose.load("vitpose-tiny", detector=None, device=device, dtype="float32")(
            image, boxes=BOXES, flip_test=flip_test
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_gpu.scores, on_cpu.scores, atol=0.01)
    assert np.median(np.linalg.norm(on_gpu.xy - on_cpu.xy, axis=2)[on_cpu.scores > 0.2]) < 0.1
