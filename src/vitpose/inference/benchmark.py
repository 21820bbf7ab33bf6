"""Measures inference from image to keypoints on this machine, by stage, and that of `transformers`.

A `Timing` is one timed run; `run_alternately` times several in the same rounds. `vitpose benchmark` and the scripts in
`benchmarks/` print what is measured here; this module knows no tables or targets.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import psutil
from jaxtyping import Float, UInt8

from ..detectors.protocol import Detections
from ..engines.protocol import ImageEngine
from ..errors import InputError, require
from ..geometry.boxes import Size, xywh_from_xyxy
from ..geometry.heatmaps import TRANSFORMERS_DECODING, decode
from ..geometry.warp import crop_all
from ..images import read_image
from ..keypoints.model_spec import ModelSpec
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ..model.pose import VitPoseForPoseEstimation

STAGES = ("read", "crop", "network", "decode")
_SAMPLING_S = 0.002


@dataclass(frozen=True)
class Scene:
    """An image and its boxes.

    Attributes:
        image: RGB image.
        boxes: Boxes, xyxy in pixels of the image.
        source: Source of the image, read again in every run if it is given; default: none, reading is not timed.
    """

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float[np.ndarray, "n 4"]
    source: Any = None

    @classmethod
    def make(cls, size: Size, people: int, source: Any = None, seed: int = 0) -> Scene:
        """Returns a scene with random boxes of the aspect of people.

        Args:
            size: Size of the image, if it is generated.
            people: Number of boxes.
            source: Image to read; default: a generated image of smooth noise.
            seed: Seed of the boxes and of the generated image.

        Raises:
            ImageError: The source cannot be read.
            InputError: `people` is less than 1.
        """
        if people < 1:
            raise InputError(f"people {people} must be at least 1")
        rng = np.random.default_rng(seed)
        if source is None:
            coarse = rng.integers(0, 256, (size.height // 8, size.width // 8, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
        else:
            image = read_image(source)
        size = Size.of(image)
        heights = rng.uniform(0.3, 0.7, people) * size.height
        widths = np.minimum(heights * rng.uniform(0.35, 0.6, people), size.width)
        left = rng.uniform(0, 1, people) * (size.width - widths)
        top = rng.uniform(0, 1, people) * (size.height - heights)
        boxes = np.stack([left, top, left + widths, top + heights], axis=1).astype(np.float32)
        return cls(image, boxes, source)


@dataclass(frozen=True)
class Timing:
    """One timed run from image to keypoints.

    Attributes:
        seconds: Duration of each stage; fused stages count as "network".
        points: Keypoints in pixels of the image.
    """

    seconds: dict[str, float]
    points: Float[np.ndarray, "n k 2"]

    @property
    def total_s(self) -> float:
        """Duration of all stages, in seconds."""
        return sum(self.seconds.values())


class Stopwatch:
    """Measures the duration of consecutive stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """Records the time since the end of the previous stage under a name."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def run_vitpose(pipe: Pipeline, scene: Scene) -> Timing:
    """Runs a pipeline's estimator on a scene, stage by stage.

    Engines that crop and decode on the device run these stages within "network".

    Raises:
        ImageError: The scene's source cannot be read.
    """
    estimator, watch = pipe.estimator, Stopwatch()
    image = scene.image
    if scene.source is not None:
        image = read_image(scene.source)
        watch.stage("read")
    if isinstance(estimator.engine, ImageEngine):
        poses = estimator.estimate([image], [Detections.of_boxes(scene.boxes)])[0]
        watch.stage("network")
        return Timing(watch.seconds, poses.xy)
    warp = estimator.spec.warp_boxes(scene.boxes)
    crops = crop_all([image], [warp], warp.size)
    watch.stage("crop")
    batches = range(0, len(crops), estimator.batch_size)
    heatmaps = np.concatenate(
        [estimator.heatmaps(crops[start : start + estimator.batch_size]) for start in batches]
    )
    watch.stage("network")
    keypoints, _ = decode(heatmaps, estimator.spec.decoding)
    keypoints = warp.to_image(keypoints, Size(width=heatmaps.shape[3], height=heatmaps.shape[2]))
    watch.stage("decode")
    return Timing(watch.seconds, keypoints)


class TransformersBaseline:
    """Pose estimation as in the documentation of `transformers`, with the weights of a vitpose network.

    Args:
        network: A dense network.
        spec: How the network is used.
        device: Device to run on.
        dtype: Type to run in; default: float32.
        compiled: Use `torch.compile`, which the documentation does not.

    Raises:
        MissingDependencyError: transformers is not installed.
    """

    def __init__(
        self,
        network: VitPoseForPoseEstimation,
        spec: ModelSpec,
        device: Any = "cpu",
        dtype: Any = None,
        compiled: bool = False,
    ) -> None:
        transformers = require("transformers", "detect", "to be measured against")
        import torch

        from ..model.checkpoint import write_checkpoint

        with tempfile.TemporaryDirectory() as folder, _quiet(transformers):
            write_checkpoint(network.config.with_spec(spec), network.state_dict(), folder)
            self.processor = transformers.VitPoseImageProcessor.from_pretrained(folder)
            model = transformers.VitPoseForPoseEstimation.from_pretrained(
                folder, dtype=dtype or torch.float32
            )
        self.model = model.to(device).eval()
        self.network = torch.compile(self.model) if compiled else self.model

    def preprocess(self, scene: Scene) -> Any:
        """Returns the inputs of the network, on the device."""
        boxes = [xywh_from_xyxy(scene.boxes)]
        inputs = self.processor(scene.image, boxes=boxes, return_tensors="pt")
        return inputs.to(self.model.device, self.model.dtype)

    def forward(self, inputs: Any) -> Any:
        """Returns the output of the network after synchronisation, heatmaps in float32 for the post-processing."""
        import torch

        with torch.no_grad():
            outputs = self.network(**inputs)
            outputs.heatmaps = outputs.heatmaps.float()
        wait_for(self.model.device)
        return outputs

    def postprocess(self, outputs: Any, scene: Scene) -> Float[np.ndarray, "n k 2"]:
        """Returns the keypoints in pixels of the image."""
        found = self.processor.post_process_pose_estimation(outputs, boxes=[xywh_from_xyxy(scene.boxes)])[0]
        return np.stack([pose["keypoints"].cpu().numpy() for pose in found])

    def run(self, scene: Scene) -> Timing:
        """Runs all stages on a scene.

        Raises:
            ImageError: The scene's source cannot be read.
        """
        watch = Stopwatch()
        if scene.source is not None:
            scene = replace(scene, image=read_image(scene.source))
            watch.stage("read")
        inputs = self.preprocess(scene)
        watch.stage("crop")
        outputs = self.forward(inputs)
        watch.stage("network")
        keypoints = self.postprocess(outputs, scene)
        watch.stage("decode")
        return Timing(watch.seconds, keypoints)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silences the progress bars and warnings of `transformers`, and restores its settings."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def wait_for(device: Any) -> None:
    """Waits until a device has finished its work; returns at once for a CPU."""
    if getattr(device, "type", device) == "cuda":
        import torch

        torch.cuda.synchronize(device)


def with_transformers_decoding(pipe: Pipeline) -> Pipeline:
    """Returns a pipeline that decodes heatmaps as `transformers` does, so that keypoints can be compared."""
    theirs = TRANSFORMERS_DECODING
    spec = replace(
        pipe.estimator.spec, blur_sigma=theirs.blur_sigma, border=theirs.border, max_step=theirs.max_step
    )
    return Pipeline(pipe.detector, replace(pipe.estimator, spec=spec))


def run_alternately(
    functions: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2
) -> dict[str, list[Any]]:
    """Runs each function once per round, so that other load on the machine affects all of them alike.

    Args:
        functions: Functions by name.
        rounds: Number of rounds that count.
        warm_up: Number of rounds before.

    Returns:
        The results of each function, by name, in the order of the rounds.
    """
    results: dict[str, list[Any]] = {name: [] for name in functions}
    for number in range(-warm_up, rounds):
        for name, function in functions.items():
            result = function()
            if number >= 0:
                results[name].append(result)
    return results


def timed(function: Callable[[], Any]) -> Callable[[], float]:
    """Returns a function that runs another one and returns its duration in seconds."""

    def run() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return run


def crop_distance(
    a: Float[np.ndarray, "n k 2"],
    b: Float[np.ndarray, "n k 2"],
    scene: Scene,
    spec: ModelSpec,
) -> float:
    """Returns the mean distance between two sets of keypoints of a scene, in pixels of the crops.

    Args:
        a: Keypoints in pixels of the image.
        b: Keypoints in pixels of the image.
        scene: The scene with their boxes.
        spec: Determines the scale of the crops.
    """
    scales = spec.input_size.width / spec.warp_boxes(scene.boxes).extents[:, 0]
    return float((np.linalg.norm(a - b, axis=2) * scales[:, None]).mean())


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    return psutil.Process().memory_info().rss


class MemoryWatch:
    """Context manager that measures the peak resident memory of this process, sampled by a thread.

    Attributes:
        peak_bytes: The peak so far.
    """

    def __enter__(self) -> MemoryWatch:
        self.peak_bytes = resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLING_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())
