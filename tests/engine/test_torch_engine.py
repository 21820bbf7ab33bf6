"""The fast ways of running a network against the plain one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import vitpose
from vitpose.boxes import Size
from vitpose.crop import Warp, normalise
from vitpose.detect.protocol import Detections
from vitpose.engine import torch as engine_torch
from vitpose.engine.device import DeviceEngine, GraphedNetwork, sample
from vitpose.engine.protocol import Engine, PictureEngine
from vitpose.engine.torch import TorchEngine, choose_dtype, filled_up
from vitpose.errors import InputError
from vitpose.estimator import Estimator
from vitpose.image import read_image
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.processing import VitPoseImageProcessor

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor() -> VitPoseImageProcessor:
    return VitPoseImageProcessor.from_pretrained("vitpose-tiny")


@pytest.fixture(scope="module")
def model() -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32")


@pytest.fixture
def image() -> np.ndarray:
    return read_image(pytest.importorskip("skimage.data").astronaut())


BOXES = np.array(
    [[60, 0, 400, 510], [150, 20, 330, 300], [-50, -40, 200, 260], [300, 200, 600, 560]], np.float32
)


def test_maps_are_those_of_the_network_on_normalised_crops(
    model: VitPoseForPoseEstimation, processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    crops = processor.warp_boxes(BOXES).crop(image)
    engine = TorchEngine(model, *processor.scale_and_offset)
    assert isinstance(engine, Engine)
    assert not isinstance(engine, PictureEngine)
    with torch.inference_mode():
        plain = model(torch.from_numpy(normalise(crops, *processor.scale_and_offset))).heatmaps.numpy()
    np.testing.assert_allclose(engine.heatmaps(crops), plain, atol=1e-5)
    assert engine.heatmaps(crops[:0]).shape == (0, *plain.shape[1:])
    mirrored = crops[:, :, ::-1]  # as a flip test hands them in, with a negative stride
    np.testing.assert_allclose(engine.heatmaps(mirrored), engine.heatmaps(mirrored.copy()), atol=1e-6)
    assert engine.description == "torch, cpu, float32"


CHOICES = [
    {},
    {"warp": "plain", "decode": "quarter", "shift_heatmap": True},
    {"decode": "argmax"},
    {"blur_sigma": 0.8, "border": "reflect", "max_step": None},
    {"border": "mirror"},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("flip_test", [False, True])
def test_poses_found_on_the_device_are_those_found_around_it(
    model: VitPoseForPoseEstimation,
    processor: VitPoseImageProcessor,
    image: np.ndarray,
    choices: dict,
    flip_test: bool,
) -> None:
    """The same photographs, of two sizes, in batches that cut through them."""
    processor = replace(processor, **choices)
    images = [image, np.ascontiguousarray(image[:300, :411])]
    boxes = [Detections.of_boxes(BOXES), Detections.of_boxes(BOXES[:3])]
    skeleton = model.config.skeleton
    engines = [kind(model, *processor.scale_and_offset) for kind in (TorchEngine, DeviceEngine)]
    assert isinstance(engines[1], PictureEngine)
    around, there = (
        Estimator(engine, processor, skeleton, batch_size=3).estimate(images, boxes, flip_test)
        for engine in engines
    )
    for a, b in zip(around, there, strict=True):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(a.scores, b.scores, atol=0.01)
        # The device does not round its crops to whole levels: two peaks of about the same height may change
        # places, and a quarter of a cell (5 px here) its side.
        sure = a.scores > 0.2
        distance = np.linalg.norm(a.xy - b.xy, axis=2)[sure]
        assert sure.sum() > 5
        assert np.median(distance) < 0.1
        assert np.mean(distance < 2) > 0.9


def test_a_picture_goes_up_once(
    model: VitPoseForPoseEstimation, processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    class Counting(DeviceEngine):
        uploads = 0

        def upload(self, image: np.ndarray) -> torch.Tensor:
            self.uploads += 1
            return super().upload(image)

    engine = Counting(model, *processor.scale_and_offset)
    estimator = Estimator(engine, processor, model.config.skeleton, batch_size=2)
    people = Detections.of_boxes(np.repeat(BOXES, 2, axis=0)[:7])
    found = estimator.estimate([image, image], [people, people])
    assert engine.uploads == 2
    assert [len(poses) for poses in found] == [7, 7]


def test_a_device_that_gives_nan_is_told(
    model: VitPoseForPoseEstimation, processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    engine = DeviceEngine(model, *processor.scale_and_offset)
    engine.network = lambda pixels: torch.full((len(pixels), 17, 64, 48), torch.nan)
    with pytest.raises(InputError, match="hold NaN or infinity; the weights or the precision"):
        Estimator(engine, processor, model.config.skeleton).estimate([image], [Detections.of_boxes(BOXES)])


def test_a_device_engine_and_a_foreign_skeleton(
    model: VitPoseForPoseEstimation, processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    estimator = Estimator(
        DeviceEngine(model, *processor.scale_and_offset), processor, vitpose.Skeleton.load("aic")
    )
    with pytest.raises(InputError, match="the network gives 17 heat maps, the skeleton 'aic' has 14"):
        estimator.estimate([image], [Detections.of_boxes(BOXES)])


@pytest.mark.parametrize("convention", ["udp", "plain"])
def test_crops_on_the_device_are_within_a_level(image: np.ndarray, convention: str) -> None:
    warp = Warp.from_boxes(BOXES, Size(width=48, height=64), convention)
    turned = Warp(warp.centres, warp.extents * [-1, 1], warp.size, convention, np.array([0.0, 30, -70, 180]))
    for own in (warp, turned):
        crops = sample(torch.from_numpy(image), own).permute(0, 2, 3, 1).numpy()
        assert np.abs(crops - own.crop(image)).max() <= 1.05


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_batches_of_compiled_networks_are_filled_up(
    model: VitPoseForPoseEstimation, processor: VitPoseImageProcessor, count: int
) -> None:
    """Whatever comes out for the crops that were added is cut off again."""
    engine = TorchEngine(model, *processor.scale_and_offset)
    crops = np.random.default_rng(0).integers(0, 256, (count, 128, 96, 3), dtype=np.uint8)
    plain, engine.fixed_sizes, sizes, network = engine.heatmaps(crops), True, [], engine.network

    def noting(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return network(pixels)

    engine.network = noting
    np.testing.assert_allclose(engine.heatmaps(crops), plain, atol=1e-5)
    assert sizes == [filled_up(count)]


def test_filling_up() -> None:
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
def test_a_compiled_network_gives_the_same_maps() -> None:
    """In a process of its own: what the tests check in every function is nothing a compiler can read."""
    subprocess.run([sys.executable, "-c", COMPARE_COMPILED], check=True, timeout=600)


def test_fault_loading_imports_no_compiler() -> None:
    """It once did, unasked: more than half of the time to the first result."""
    program = (
        "import sys, numpy, vitpose\n"
        "pipe = vitpose.load('vitpose-tiny', None, device='cpu')\n"
        "pipe(numpy.zeros((99, 99, 3), numpy.uint8), boxes=[[0, 0, 90, 90]])\n"
        "assert not {'torch._dynamo', 'sympy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_the_type_is_float32_without_units_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_torch, "has_bf16_units", lambda: False)
    assert choose_dtype("auto", CPU) == "float32"
    assert choose_dtype("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize(("faster", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_units_must_be_faster_too(monkeypatch: pytest.MonkeyPatch, faster: bool, chosen: str) -> None:
    monkeypatch.setattr(engine_torch, "has_bf16_units", lambda: True)
    monkeypatch.setattr(engine_torch, "_is_faster_in_bf16", lambda: faster)
    assert choose_dtype("auto", CPU) == chosen


def test_trying_bf16_out_gives_an_answer() -> None:
    assert engine_torch._is_faster_in_bf16() in (True, False)
    if not engine_torch.has_bf16_units():
        assert choose_dtype("auto", CPU) == "float32"


def test_what_was_chosen_is_told() -> None:
    pipe = vitpose.load("vitpose-tiny", detector=None, device="cpu", dtype="bfloat16")
    assert pipe.estimator.engine.description == "torch, cpu, bfloat16"
    assert "torch, cpu, bfloat16" in repr(pipe)


@needs_cuda
def test_a_recorded_network_gives_what_it_gives_itself(processor: VitPoseImageProcessor) -> None:
    model = VitPoseForPoseEstimation.from_pretrained("vitpose-tiny", dtype="float32", device="cuda")
    plain, graphed = model.eval(), GraphedNetwork(lambda pixels: model(pixels).heatmaps)
    with torch.inference_mode():
        for count in (1, 4, 1, 2):
            pixels = torch.randn(count, 3, 128, 96, device="cuda")
            torch.testing.assert_close(graphed(pixels), plain(pixels).heatmaps, rtol=1e-3, atol=1e-4)


@needs_cuda
@pytest.mark.parametrize("flip_test", [False, True])
def test_a_gpu_finds_what_the_cpu_finds(image: np.ndarray, flip_test: bool) -> None:
    here, there = (
        vitpose.load("vitpose-tiny", detector=None, device=device, dtype="float32")(
            image, boxes=BOXES, flip_test=flip_test
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there.scores, here.scores, atol=0.01)
    assert np.median(np.linalg.norm(there.xy - here.xy, axis=2)[here.scores > 0.2]) < 0.1
