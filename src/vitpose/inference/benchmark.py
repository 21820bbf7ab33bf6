"""How fast the whole way is on this machine, stage by stage, and beside `transformers`.

Owns the laps: one way from image to keypoints, timed by stage, and several ways in turn. Knows no table and no
bar to reach; `vitpose benchmark` and the scripts in `benchmarks/` show what is measured here.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ..detectors.protocol import Detections
from ..engines.protocol import ImageEngine
from ..errors import InputError, require
from ..geometry.boxes import Size, xywh_from_xyxy
from ..geometry.heatmaps import TRANSFORMERS_DECODING, decode
from ..geometry.warp import crop_all
from ..images import read_image
from ..processing.image_processor import VitPoseImageProcessor
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ..model.pose import VitPoseForPoseEstimation

STAGES = ("read", "crop", "network", "decode")
_SAMPLING_S = 0.002


@dataclass(frozen=True)
class Scene:
    """An image and the boxes of its people, xyxy.

    Attributes:
        image: RGB image.
        boxes: In pixels of the image.
        source: What it is read from, if that shall be timed too.
    """

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float[np.ndarray, "n 4"]
    source: Any = None

    @classmethod
    def make(cls, size: Size, people: int, source: Any = None, seed: int = 0) -> Scene:
        """Makes an image of soft noise, unless one is given, and boxes of people's shapes across it.

        Raises:
            ImageError: The source is no image.
            InputError: No people are wanted.
        """
        if people < 1:
            raise InputError(f"people {people} must be at least 1, or there is nothing to measure")
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
class Lap:
    """One time from image to keypoints.

    Attributes:
        seconds: What each stage took; stages that a way does in one are under the name of the network.
        points: The keypoints, px of the image.
    """

    seconds: dict[str, float]
    points: Float[np.ndarray, "n k 2"]

    @property
    def total_s(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


class Stopwatch:
    """Cuts a way into stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """Ends a stage, which has begun where the last one ended."""
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def run_vitpose(pipe: Pipeline, scene: Scene) -> Lap:
    """Runs a pipeline's estimator stage by stage."""
    estimator, watch = pipe.estimator, Stopwatch()
    image = scene.image
    if scene.source is not None:
        image = read_image(scene.source)
        watch.stage("read")
    if isinstance(estimator.engine, ImageEngine):
        poses = estimator.estimate([image], [Detections.of_boxes(scene.boxes)])[0]
        watch.stage("network")
        return Lap(watch.seconds, poses.xy)
    warp = estimator.processor.warp_boxes(scene.boxes)
    crops = crop_all([image], [warp], warp.size)
    watch.stage("crop")
    batches = range(0, len(crops), estimator.batch_size)
    maps = np.concatenate([estimator.heatmaps(crops[at : at + estimator.batch_size]) for at in batches])
    watch.stage("network")
    points, _ = decode(maps, estimator.processor.decoding())
    points = warp.to_image(points, Size(width=maps.shape[3], height=maps.shape[2]))
    watch.stage("decode")
    return Lap(watch.seconds, points)


class TransformersWay:
    """What the documentation of `transformers` shows, on the weights of one of our networks.

    Args:
        network: A dense network.
        processor: Its processor.
        device: Where to run.
        dtype: The type to run in; None is float32.
        compiled: With `torch.compile`, which the documentation does not show.
    """

    def __init__(
        self,
        network: VitPoseForPoseEstimation,
        processor: VitPoseImageProcessor,
        device: Any = "cpu",
        dtype: Any = None,
        compiled: bool = False,
    ) -> None:
        transformers = require("transformers", "detect", "to be measured against")
        import torch

        with tempfile.TemporaryDirectory() as folder, _quiet(transformers):
            network.save_pretrained(folder)
            processor.save_pretrained(folder)
            self.processor = transformers.VitPoseImageProcessor.from_pretrained(folder)
            model = transformers.VitPoseForPoseEstimation.from_pretrained(
                folder, dtype=dtype or torch.float32
            )
        self.model = model.to(device).eval()
        self.network = torch.compile(self.model) if compiled else self.model

    def preprocess(self, scene: Scene) -> Any:
        """Returns the network's inputs, on the device."""
        boxes = [xywh_from_xyxy(scene.boxes)]
        inputs = self.processor(scene.image, boxes=boxes, return_tensors="pt")
        return inputs.to(self.model.device, self.model.dtype)

    def forward(self, inputs: Any) -> Any:
        """Returns the network's output, once it is there; maps as the post-processing takes them, float32."""
        import torch

        with torch.no_grad():
            outputs = self.network(**inputs)
            outputs.heatmaps = outputs.heatmaps.float()
        wait_for(self.model.device)
        return outputs

    def postprocess(self, outputs: Any, scene: Scene) -> Float[np.ndarray, "n k 2"]:
        """Returns the keypoints."""
        found = self.processor.post_process_pose_estimation(outputs, boxes=[xywh_from_xyxy(scene.boxes)])[0]
        return np.stack([person["keypoints"].cpu().numpy() for person in found])

    def run(self, scene: Scene) -> Lap:
        """Goes from image to keypoints."""
        watch = Stopwatch()
        if scene.source is not None:
            scene = replace(scene, image=read_image(scene.source))
            watch.stage("read")
        inputs = self.preprocess(scene)
        watch.stage("crop")
        outputs = self.forward(inputs)
        watch.stage("network")
        points = self.postprocess(outputs, scene)
        watch.stage("decode")
        return Lap(watch.seconds, points)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Holds back what `transformers` says while loading (bars, advice), and leaves it as it was."""
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
    """Waits until a GPU has done what it was given."""
    if getattr(device, "type", device) == "cuda":
        import torch

        torch.cuda.synchronize(device)


def with_their_decoding(pipe: Pipeline) -> Pipeline:
    """Returns a pipeline that reads maps as `transformers` does, whose keypoints can be compared with its own."""
    theirs = TRANSFORMERS_DECODING
    processor = replace(
        pipe.estimator.processor,
        blur_sigma=theirs.blur_sigma,
        border=theirs.border,
        max_step=theirs.max_step,
    )
    return Pipeline(pipe.detector, replace(pipe.estimator, processor=processor))


def take_turns(ways: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[Any]]:
    """Runs each way once a round, so that whatever else the machine does meets all alike.

    Args:
        ways: What to run, by name.
        rounds: How often each counts.
        warm_up: How often each runs before.

    Returns:
        What each returned, round by round.
    """
    results: dict[str, list[Any]] = {name: [] for name in ways}
    for number in range(-warm_up, rounds):
        for name, way in ways.items():
            result = way()
            if number >= 0:
                results[name].append(result)
    return results


def timed(way: Callable[[], Any]) -> Callable[[], float]:
    """Returns a way that returns the seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    return run


def crop_distance(
    a: Float[np.ndarray, "n k 2"],
    b: Float[np.ndarray, "n k 2"],
    scene: Scene,
    processor: VitPoseImageProcessor,
) -> float:
    """Returns the mean distance of two sets of keypoints of a scene, in pixels of the crops."""
    scales = processor.size.width / processor.warp_boxes(scene.boxes).extents[:, 0]
    return float((np.linalg.norm(a - b, axis=2) * scales[:, None]).mean())


def resident_bytes() -> int:
    """Returns the memory that this process holds at the moment; elsewhere than on Linux the most it ever held."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * 4096
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class MemoryWatch:
    """Notes the most memory this process holds inside the block, looked up all the time by a thread.

    Attributes:
        peak_bytes: The most so far.
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
