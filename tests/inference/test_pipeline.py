from __future__ import annotations

import inspect
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitpose
from vitpose.detectors import load_detector
from vitpose.detectors.given import WholeImage
from vitpose.detectors.protocol import Detections
from vitpose.engines.fake import FakeEngine
from vitpose.engines.protocol import Engine
from vitpose.engines.torch import TorchEngine, choose_dtype, has_bf16_units
from vitpose.errors import BoxError, CheckpointError, ImageError, InputError, UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.geometry.heatmaps import decode
from vitpose.hardware.devices import choose_device
from vitpose.inference.estimator import Estimator
from vitpose.inference.pipeline import IMAGES_AT_ONCE, Pipeline
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import Poses

SKELETON = Skeleton("three", ("top", "left_end", "right_end"), ((0, 1), (0, 2)), ((1, 2),))
CELLS = np.array([[24.0, 10.0], [12.5, 40.25], [36.0, 40.0]])
GRID = Size(width=48, height=64)


def spec_of(skeleton: Skeleton, **conventions: Any) -> ModelSpec:
    return ModelSpec(dataset=DatasetSpec.of_skeleton(skeleton, **conventions))


SPEC = spec_of(SKELETON)


def estimator(batch_size: int = 32, engine: Engine | None = None) -> Estimator:
    return Estimator(engine or FakeEngine(CELLS, GRID), SPEC, batch_size)


def blank(width: int = 200, height: int = 100) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def expected_keypoints(box: Sequence[float]) -> np.ndarray:
    """The fake engine's cells in pixels of the image, by the formula of UDP."""
    x1, y1, x2, y2 = box
    width = max(x2 - x1, (y2 - y1) * 0.75) * 1.25
    extent = np.array([width, width / 0.75])
    return CELLS * extent / [47, 63] + [(x1 + x2) / 2, (y1 + y2) / 2] - extent / 2


class FixedDetector:
    """Finds the same boxes in every image."""

    def __init__(self, boxes: list[list[float]]) -> None:
        self.boxes = boxes
        self.seen: list[str] = []

    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
        self.seen += names
        return [Detections.of_boxes(self.boxes) for _ in images]


BOXES = [[10.0, 10.0, 60.0, 90.0], [100.0, 20.0, 190.0, 80.0], [-20.0, -10.0, 30.0, 50.0]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_keypoints_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    pipe = Pipeline(None, estimator(batch_size))
    several = pipe([blank(), blank(300, 200), blank()], boxes=[BOXES, [], BOXES[:2]])
    assert [len(poses) for poses in several] == [3, 0, 2]
    for poses in several:
        for box, keypoints in zip(poses.boxes, poses.xy, strict=True):
            np.testing.assert_allclose(keypoints, expected_keypoints(box), atol=0.1)
    assert max(pipe.estimator.engine.batches) <= batch_size
    assert sum(pipe.estimator.engine.batches) == 5


def test_batches_are_filled_across_images() -> None:
    pipe = Pipeline(None, estimator(batch_size=4))
    pipe([blank()] * 5, boxes=[BOXES, BOXES, [], BOXES[:1], BOXES])
    assert pipe.estimator.engine.batches == [4, 4, 2]


def test_one_image_gives_poses_and_a_list_gives_a_list(tmp_path: Path) -> None:
    Image.fromarray(blank()).save(tmp_path / "a.png")
    detector = FixedDetector(BOXES[:1])
    pipe = Pipeline(detector, estimator())
    assert isinstance(pipe(tmp_path / "a.png"), Poses)
    assert isinstance(pipe([blank()])[0], Poses)
    assert pipe([]) == []
    assert detector.seen == [str(tmp_path / "a.png"), ""]


def test_given_boxes_replace_the_detector() -> None:
    detector = FixedDetector(BOXES)
    pipe = Pipeline(detector, estimator())
    assert len(pipe(blank(), boxes=[])) == 0
    assert len(pipe(blank(), boxes=BOXES[:2])) == 2
    assert not detector.seen


def test_supervision_detections_are_boxes() -> None:
    supervision = pytest.importorskip("supervision")
    found = supervision.Detections(xyxy=np.array(BOXES[:2]), confidence=np.array([0.9, 0.4]))
    poses = Pipeline(None, estimator())(blank(), boxes=found)
    np.testing.assert_allclose(poses.box_scores, [0.9, 0.4], rtol=1e-6)


class Marks:
    """An engine that finds keypoint i where the crop has the brightness `levels[i]`."""

    description = "marks"
    levels = (90, 150, 210)

    def __init__(self, swapped: bool = False) -> None:
        self.swapped, self.crops = swapped, []

    def heatmaps(self, crops: np.ndarray) -> np.ndarray:
        self.crops.append(crops.copy())
        levels = np.array(self.levels)
        if self.swapped and len(self.crops) % 2 == 0:
            levels = levels[[0, 2, 1]]  # left and right are exchanged in a mirrored crop
        small = crops[:, ::4, ::4, 0].astype(np.float32)
        return np.exp(-(((small[:, None] - levels[None, :, None, None]) / 8) ** 2)).astype(np.float32)


def marked() -> tuple[np.ndarray, np.ndarray]:
    """Returns an image with a round mark for each keypoint, and the keypoints."""
    image, keypoints = blank(), np.array([[40.0, 25.0], [22.0, 60.0], [50.0, 70.0]])
    y, x = np.mgrid[:100, :200]
    for level, (mark_x, mark_y) in zip(Marks.levels, keypoints, strict=True):
        image[(x - mark_x) ** 2 + (y - mark_y) ** 2 < 6] = level
    return image, keypoints


def test_flip_test_mirrors_the_crops_and_swaps_left_and_right() -> None:
    image, keypoints = marked()
    engine = Marks(swapped=True)
    pipe = Pipeline(None, estimator(engine=engine))
    poses = pipe(image, boxes=BOXES[:1], flip_test=True)
    np.testing.assert_array_equal(engine.crops[1], engine.crops[0][:, :, ::-1])
    np.testing.assert_allclose(poses.xy[0], keypoints, atol=1.5)
    assert (poses.scores > 0.45).all()
    unswapped = Pipeline(None, estimator(engine=Marks()))(image, boxes=BOXES[:1], flip_test=True)
    assert np.abs(unswapped.xy[0, 1:] - keypoints[1:]).max() > 10 or unswapped.scores[0, 1:].max() < 0.55


def test_flip_test_requires_flip_pairs() -> None:
    sideless = Skeleton("sideless", ("a", "b", "c"))
    pipe = Pipeline(None, Estimator(Marks(), spec_of(sideless)))
    with pytest.raises(
        InputError, match="'sideless' has no flip_pairs, so a flip test would average left with right"
    ):
        pipe(blank(), boxes=BOXES[:1], flip_test=True)


def test_the_estimator_uses_its_spec() -> None:
    """Warp, decoding and the shift of a mirrored heatmap."""
    grid, cells = GRID, np.array([[24.0, 10.0], [12.5, 40.25], [36.0, 40.0]])
    for spec in (
        spec_of(SKELETON, warp="plain"),
        spec_of(SKELETON, decode="argmax"),
        replace(SPEC, blur_sigma=0.8),
    ):
        fake = FakeEngine(cells, grid)
        found = Pipeline(None, Estimator(fake, spec))(blank(), boxes=BOXES[:1])
        heatmaps = fake.heatmaps(np.zeros((1, 256, 192, 3), np.uint8))
        keypoints, _ = decode(heatmaps, spec.decoding)
        expected = spec.warp_boxes(np.array(BOXES[:1], np.float32)).to_image(keypoints, grid)
        np.testing.assert_allclose(found.xy, expected, atol=1e-4)
    estimators = [
        Estimator(FakeEngine(cells, grid), spec_of(SKELETON, shift_heatmap=shift)) for shift in (False, True)
    ]
    crops = np.zeros((1, 256, 192, 3), np.uint8)
    plain, shifted = (estimator.heatmaps(crops, flip_test=True) for estimator in estimators)
    unflipped = estimators[0].heatmaps(crops)
    back = 2 * plain - unflipped
    np.testing.assert_allclose((2 * shifted - unflipped)[..., 1:], back[..., :-1], atol=1e-6)


def test_nan_in_the_heatmaps_of_one_image_fails_that_image_only() -> None:
    class Overflowing(Marks):
        def heatmaps(self, crops: np.ndarray) -> np.ndarray:
            heatmaps = super().heatmaps(crops)
            heatmaps[crops.max(axis=(1, 2, 3)) < 10] = np.nan
            return heatmaps

    image, _ = marked()
    results = list(
        Pipeline(FixedDetector(BOXES[:1]), estimator(engine=Overflowing())).each([image, blank(), image])
    )
    assert [result.poses is not None for result in results] == [True, False, True]
    assert "contain NaN or infinity" in str(results[1].error)


def test_a_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    sources = [blank(), tmp_path / "bad.jpg", blank(), tmp_path / "missing.jpg", blank()]
    results = list(Pipeline(FixedDetector(BOXES), estimator()).each(sources))
    assert [result.poses is not None for result in results] == [True, False, True, False, True]
    assert isinstance(results[1].error, ImageError)
    assert [result.source is source for result, source in zip(results, sources, strict=True)] == [True] * 5
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        Pipeline(FixedDetector(BOXES), estimator())(sources)


def test_invalid_boxes_fail_their_image_only() -> None:
    pipe = Pipeline(None, estimator())
    results = list(pipe.each([blank(), blank(), blank()], [BOXES, [[500, 500, 600, 600]], [[5, 5, 1, 1]]]))
    assert len(results[0].poses) == 3
    assert "wholly outside its image of 200x100" in str(results[1].error)
    assert "has no area" in str(results[2].error)


def test_many_images_are_read_a_few_at_a_time() -> None:
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield blank()

    stream = Pipeline(FixedDetector(BOXES), estimator()).each(endless())
    for _ in range(20):
        next(stream)
    assert read <= 24 + IMAGES_AT_ONCE  # the group that is read while this one runs


def test_the_next_images_are_read_during_inference() -> None:
    """The engine waits, on its first batch, for an image of the second group to have been opened."""
    opened = threading.Event()

    class Late:
        shape, dtype = (100, 200, 3), np.dtype(np.uint8)

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            opened.set()
            return blank()

    class Waiting(FakeEngine):
        def heatmaps(self, crops: np.ndarray) -> np.ndarray:
            assert opened.wait(timeout=60)
            return super().heatmaps(crops)

    pipe = Pipeline(FixedDetector(BOXES[:1]), estimator(engine=Waiting(CELLS, GRID)))
    results = list(pipe.each([*[blank()] * IMAGES_AT_ONCE, Late()]))
    assert all(result.poses is not None for result in results)
    assert len(results) == IMAGES_AT_ONCE + 1


@pytest.mark.parametrize("count", [0, 3, IMAGES_AT_ONCE, IMAGES_AT_ONCE + 3])
def test_an_error_of_the_iterator_is_raised_after_earlier_results(count: int) -> None:
    def breaking():
        yield from [blank()] * count
        raise OSError("the camera is gone")

    stream = Pipeline(FixedDetector(BOXES), estimator()).each(breaking())
    assert [len(next(stream).poses) for _ in range(count)] == [3] * count
    with pytest.raises(OSError, match="the camera is gone"):
        next(stream)


def test_closing_the_iterator_ends_the_reading_threads() -> None:
    before = set(threading.enumerate())
    stream = Pipeline(FixedDetector(BOXES), estimator()).each(blank() for _ in range(1000))
    next(stream)
    stream.close()
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_missing_boxes_are_refused() -> None:
    pipe = Pipeline(None, estimator())
    with pytest.raises(BoxError, match="no detector; pass boxes="):
        pipe(blank())
    with pytest.raises(BoxError, match="there are 2 images and 1 entries of boxes"):
        pipe([blank(), blank()], boxes=[BOXES])


def test_a_single_source_is_refused_where_a_list_is_expected() -> None:
    with pytest.raises(
        InputError, match=r"sources must be a list, not 'a.jpg'; for a single image call the pipeline"
    ):
        next(Pipeline(FixedDetector(BOXES), estimator()).each("a.jpg"))


def test_a_detector_must_return_boxes() -> None:
    class Careless(FixedDetector):
        def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list:
            return [[[1, 2, 3]] for _ in images]

    with pytest.raises(
        BoxError, match=r"the detector Careless returned \[\[1, 2, 3\]\] for an image: boxes must"
    ):
        Pipeline(Careless(BOXES), estimator())(blank())


def test_invalid_estimators_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size 0 must be a whole number from 1"):
        estimator(batch_size=0)
    wrong = Estimator(FakeEngine(CELLS[:2], GRID), SPEC)
    with pytest.raises(InputError, match="outputs 2 heatmaps, but the skeleton 'three' has 3"):
        Pipeline(None, wrong)(blank(), boxes=BOXES)


def test_whole_image_converges_to_the_person() -> None:
    """The keypoints are fixed in the image, so the box must converge to their extent."""

    class Person:
        """Finds keypoint i where the crop has the brightness 100 + 8 i."""

        description = "marks"

        def heatmaps(self, crops: np.ndarray) -> np.ndarray:
            heatmaps = np.zeros((len(crops), 17, 64, 48), np.float32)
            for row, crop in enumerate(crops):
                small = crop[::4, ::4, 0].astype(int)
                for keypoint in range(17):
                    heatmaps[row, keypoint] = 1 / (1 + abs(small - (100 + 8 * keypoint)))
            return heatmaps

    image = blank(400, 400)
    for keypoint in range(17):
        x, y = 200 + 30 * (keypoint % 3), 150 + 9 * keypoint
        image[y - 4 : y + 5, x - 10 : x + 11] = 100 + 8 * keypoint
    pipe = Pipeline(WholeImage(), Estimator(Person(), spec_of(Skeleton.load("coco"))))
    poses = pipe(image)
    assert len(poses) == 1
    left, top, right, bottom = poses.boxes[0]
    assert 150 < left < 200
    assert 100 < top < 160
    assert 255 < right < 310
    assert 280 < bottom < 330


class Scored(FixedDetector):
    """Finds the same boxes, with scores and labels."""

    def __init__(self, boxes: list[list[float]], scores: list[float], refine: bool = False) -> None:
        super().__init__(boxes)
        self.scores, self.refine_boxes = scores, refine

    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
        boxes, labels = np.float32(self.boxes), ("person",) * len(self.boxes)
        return [Detections(boxes, np.float32(self.scores), labels) for _ in images]


def test_a_refined_box_keeps_the_detectors_score() -> None:
    """The five keypoints are fixed in the crop, so that the box shrinks in every round."""
    cells = np.array([[20.0, 20.0], [30.0, 20.0], [20.0, 40.0], [30.0, 40.0], [25.0, 30.0]])
    five = Estimator(FakeEngine(cells, GRID), spec_of(Skeleton("five", tuple("abcde"))))
    first = Scored(BOXES[:1], [0.25], refine=True)
    poses = Pipeline(first, five)(blank())
    np.testing.assert_array_equal(poses.box_scores, [0.25])
    assert five.engine.batches == [1] * 6  # the first round, and five more


TWICE = [BOXES[0], BOXES[1], [11.0, 10.0, 61.0, 90.0]]
"""The first box is repeated, shifted by a pixel."""


def test_a_person_who_is_detected_twice_is_found_once() -> None:
    pipe = Pipeline(Scored(TWICE, [0.5, 0.4, 0.8]), estimator())
    np.testing.assert_array_equal(pipe(blank()).boxes, TWICE[1:])
    for prediction in pipe.each([blank()] * 3):
        np.testing.assert_array_equal(prediction.poses.boxes, TWICE[1:])
    assert len(pipe(blank(), max_oks=1.0)) == 3
    assert len(pipe(blank(), max_oks=0.9999)) == 3
    assert len(pipe(blank(), max_oks=0.0)) == 1


def test_given_boxes_are_all_kept_by_default(tmp_path: Path) -> None:
    pipe = Pipeline(None, estimator())
    assert len(pipe(blank(), boxes=TWICE)) == 3
    assert len(pipe([blank()], boxes=[TWICE], max_oks=0.9)[0]) == 2
    rows = [{"image_id": 1, "category_id": 1, "bbox": [x, y, r - x, b - y]} for x, y, r, b in TWICE]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    Image.fromarray(blank()).save(tmp_path / "1.png")
    from_file = Pipeline(load_detector(f"boxes:{tmp_path / 'boxes.json'}"), estimator())
    assert len(from_file(tmp_path / "1.png")) == 3
    assert len(from_file(tmp_path / "1.png", max_oks=0.9)) == 2


def test_duplicate_suppression_equals_the_original_evaluation() -> None:
    """OKS by the formula of COCO with the area of the crop; poses ordered by their rescored scores."""
    skeleton = Skeleton("three", SKELETON.keypoints, sigmas=(0.03, 0.06, 0.1))
    three = Estimator(FakeEngine(CELLS, GRID), spec_of(skeleton))
    boxes = np.float32([[10, 10, 60, 90], [13, 10, 63, 90]])
    crop = np.array([1.25 * 80 * 0.75, 1.25 * 80])  # 60x80 has the aspect of the crop
    oks = np.exp(-9 / (2 * crop.prod() * (2 * np.array([0.03, 0.06, 0.1])) ** 2)).mean()
    poses = three.estimate([blank()], [Detections(boxes, np.float32([0.6, 0.7]), ("person",) * 2)])[0]
    assert three.find_distinct(poses, oks - 1e-3).tolist() == [1]
    assert three.find_distinct(poses, oks + 1e-3).tolist() == [0, 1]


@pytest.mark.parametrize("max_oks", [-0.1, 1.1, float("nan")])
def test_a_max_oks_out_of_range_is_refused(max_oks: float) -> None:
    with pytest.raises(InputError, match=rf"max_oks {max_oks} must be a number from 0 to 1"):
        Pipeline(None, estimator())(blank(), boxes=BOXES, max_oks=max_oks)


def test_detected_boxes_outside_their_image_are_refused() -> None:
    class Lost(FixedDetector):
        def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
            lefts = [500 if image.shape[0] == 50 else 10 for image in images]
            return [Detections.of_boxes([[left, 10, left + 20, 40]]) for left in lefts]

    results = list(Pipeline(Lost([]), estimator()).each([blank(), blank(height=50), blank()]))
    assert [result.error is None for result in results] == [True, False, True]
    assert "wholly outside its image of 200x50" in str(results[1].error)


class Unreadable:
    """A tensor that fails while it is copied to the CPU."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @property
    def cpu(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (MemoryError(), "the image cannot be processed: there is not enough memory"),
        (ImageError("is torn"), "is torn"),
    ],
)
def test_an_image_that_cannot_be_decoded_does_not_stop_the_others(error: BaseException, message: str) -> None:
    results = list(Pipeline(FixedDetector(BOXES), estimator()).each([blank(), Unreadable(error), blank()]))
    assert [result.poses is not None for result in results] == [True, False, True]
    assert isinstance(results[1].error, ImageError)
    assert message in str(results[1].error)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), BoxError("no box")])
def test_a_detector_or_network_that_fails_on_one_image_does_not_stop_the_others(error: BaseException) -> None:
    class Failing(FixedDetector):
        def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
            if any(image.shape[0] == 50 for image in images):
                raise error
            return super().detect(images, names)

    class Full(FakeEngine):
        def heatmaps(self, crops: np.ndarray) -> np.ndarray:
            if (crops == 7).any():
                raise error
            return super().heatmaps(crops)

    pipe = Pipeline(Failing(BOXES), estimator(engine=Full(CELLS, GRID)))
    results = list(pipe.each([blank(), blank(height=50), blank(), np.full_like(blank(), 7), blank()]))
    assert [result.poses is not None for result in results] == [True, False, True, False, True]
    for result in (results[1], results[3]):
        assert isinstance(result.error, InputError)
        assert "no box" in str(result.error) or "the image cannot be processed: " in str(result.error)


# The packaged network.


@pytest.fixture(scope="module")
def shipped() -> Pipeline:
    return vitpose.load("vitpose-tiny", detector="whole-image", device="cpu", dtype="float32")


def test_the_shipped_model_runs(shipped: Pipeline) -> None:
    poses = shipped(np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8))
    assert (len(poses), poses.skeleton.name) == (1, "coco")
    assert "coco" in repr(shipped)
    assert "torch, cpu, float32" in repr(shipped)
    assert len(shipped(blank(), boxes=[])) == 0


def test_engine_equals_processor_and_network(shipped: Pipeline) -> None:
    """Crops normalised on the device and in NumPy give the same heatmaps."""
    image = np.random.default_rng(1).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    model = vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny")
    processor = vitpose.VitPoseImageProcessor.from_pretrained("vitpose-tiny")
    inputs = processor(image, boxes=[[[10, 10, 50, 80]]], return_tensors="pt")
    with torch.no_grad():
        expected = processor.post_process_pose_estimation(model(**inputs), [[[10, 10, 50, 80]]])[0][0]
    found = shipped(image, boxes=[[10, 10, 60, 90]])
    np.testing.assert_allclose(found.xy[0], expected["keypoints"], atol=1e-2)
    np.testing.assert_allclose(found.scores[0], expected["scores"], atol=1e-5)


def test_batched_boxes_equal_single_ones(shipped: Pipeline) -> None:
    image = np.random.default_rng(2).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    boxes = [[0, 0, 50, 80], [20, 10, 80, 110], [5, 30, 70, 100]]
    together = shipped(image, boxes=boxes)
    for row, box in enumerate(boxes):
        np.testing.assert_allclose(together.scores[row], shipped(image, boxes=[box]).scores[0], atol=1e-5)


def test_bfloat16_is_close_to_float32(shipped: Pipeline) -> None:
    half = vitpose.load("vitpose-tiny", detector=None, device="cpu", dtype="bfloat16")
    image = np.random.default_rng(3).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    a, b = (pipe(image, boxes=[[0, 0, 90, 120]]).scores for pipe in (shipped, half))
    np.testing.assert_allclose(a, b, atol=0.05)


def test_invalid_arguments_of_load_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'vitpose-tinny'; did you mean vitpose-tiny"):
        vitpose.load("vitpose-tinny", detector=None)
    with pytest.raises(UnknownNameError, match="unknown device 'gpu'"):
        vitpose.load(detector=None, device="gpu")
    with pytest.raises(UnknownNameError, match="unknown dtype 'fp16'"):
        vitpose.load(detector=None, dtype="fp16")
    with pytest.raises(InputError, match="expert 3 does not exist; the network has 1, 0 to 0"):
        vitpose.load(detector=None, dataset=3)
    with pytest.raises(
        InputError, match=r"17 keypoints \(nose, .*\) are not the 17 of the dataset 'ap10k' \(L_Eye"
    ):
        vitpose.load(detector=None, dataset="ap10k")
    with pytest.raises(CheckpointError, match=r"skeleton 'lsp' has 14 keypoints, the model's, '.*', has 17"):
        vitpose.load(detector=None, skeleton="lsp")
    with pytest.raises(UnknownNameError, match="skeleton 'cocoo'; did you mean coco"):
        vitpose.load(detector=None, skeleton="cocoo")


def test_an_expert_and_an_original_file_are_loaded(tmp_path: Path) -> None:
    config = vitpose.VitPoseConfig.preset("tiny", num_experts=3, num_hidden_layers=2)
    network = vitpose.VitPoseForPoseEstimation(config).eval()
    network.save_pretrained(tmp_path)
    vitpose.VitPoseImageProcessor().save_pretrained(tmp_path)
    pipe = vitpose.load(tmp_path, detector=None, dataset=2, device="cpu", dtype="float32")
    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), dtype=np.uint8)
    chosen = TorchEngine(network.fold_expert(2), pipe.estimator.spec)
    np.testing.assert_allclose(pipe.estimator.heatmaps(crops), chosen.heatmaps(crops), atol=1e-6)
    state = {
        name.replace("head.", "keypoint_head.", 1): value
        for name, value in network.fold_expert(2).state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "original.pth")
    original = vitpose.load(tmp_path / "original.pth", detector=None, device="cpu", dtype="float32")
    assert original.estimator.spec.input_size == Size(width=192, height=256)
    np.testing.assert_allclose(original.estimator.heatmaps(crops), chosen.heatmaps(crops), atol=1e-6)


def test_a_directory_without_a_processor_is_loaded(tmp_path: Path) -> None:
    vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny").save_pretrained(tmp_path)
    pipe = vitpose.load(tmp_path, detector=None, device="cpu", batch_size=5)
    assert pipe.estimator.spec.input_size == Size(width=192, height=256)
    assert pipe.estimator.batch_size == 5


def test_hub_arguments_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"download of .* failed: "):
        vitpose.load("vitpose-base", detector=None, cache_dir=tmp_path, local_files_only=True)


def test_automatic_choices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_dtype("auto", torch.device("cpu")) == ("bfloat16" if has_bf16_units() else "float32")
    assert choose_dtype("bfloat16", torch.device("cpu")) == "bfloat16"


def test_the_other_images_keep_their_poses_when_a_detector_fails() -> None:
    class Picky(FixedDetector):
        def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[Detections]:
            if any(image.shape[0] == 50 for image in images):
                raise BoxError("no box for the small one")
            return super().detect(images, names)

    images = [blank(), blank(height=50), b"no image", blank()]
    results = list(Pipeline(Picky(BOXES), estimator()).each(images))
    assert [None if result.poses is None else len(result.poses) for result in results] == [3, None, None, 3]
    assert str(results[1].error) == "no box for the small one"
    assert isinstance(results[2].error, ImageError)
    assert results[1].image is not None


def test_compile_is_for_torch_only() -> None:
    with pytest.raises(InputError, match="compile is for engine 'torch', not for 'onnxruntime'"):
        vitpose.load("vitpose-tiny", detector=None, engine="onnxruntime", compile=True)
    with pytest.raises(InputError, match=r"compile is for checkpoints, but a\.onnx is an exported file"):
        vitpose.load("a.onnx", detector=None, compile=True)


@pytest.mark.parametrize(
    "function", [vitpose.load, vitpose.export, Pipeline.__call__, Pipeline.each, Pipeline.stream]
)
def test_every_keyword_is_in_the_signature(function: Callable[..., Any]) -> None:
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    documented = re.findall(r"^    +(\w+): ", inspect.getdoc(function) or "", re.MULTILINE)
    if function is not Pipeline.each:  # takes those of `__call__`
        assert set(inspect.signature(function).parameters) - {"self"} <= set(documented)


def test_arguments_of_the_hub_are_refused_for_exported_files() -> None:
    with pytest.raises(InputError, match=r"revision is for checkpoints, but m\.onnx is an exported file"):
        vitpose.load("m.onnx", None, revision="v2")
    with pytest.raises(
        InputError, match=r"dataset 0 and token are for checkpoints, .* export the checkpoint again"
    ):
        vitpose.load("m.onnx", None, dataset=0, token="x")


@pytest.mark.parametrize(
    ("runtime", "device", "expected"),
    [
        ("torch", "cuda:1", "cuda:1"),
        ("onnxruntime", "cuda:1", "cuda:1"),
        ("tensorrt", "cuda:1", "cuda:1"),
        ("openvino", "cpu", "cpu"),
        ("openvino", "gpu", "auto"),
    ],
)
def test_the_detector_gets_the_device_of_the_network(
    runtime: str, device: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engine and detector are replaced, since there may be no second GPU."""
    calls = []

    def detector(spec: str, device: str, **_: object) -> FixedDetector:
        calls.append((spec, device))
        return FixedDetector(BOXES)

    part = (FakeEngine(np.zeros((17, 2)), GRID), ModelSpec(dataset=vitpose.DatasetSpec.load("coco")))
    monkeypatch.setattr("vitpose.inference.loading.check_engine", lambda *_: runtime)
    monkeypatch.setattr("vitpose.inference.loading._load_checkpoint", lambda *_, **__: [part])
    monkeypatch.setattr("vitpose.inference.loading.load_detector", detector)
    vitpose.load("vitpose-tiny", "rtdetr", device=device)
    assert calls == [("rtdetr", expected)]


@pytest.mark.parametrize("options", [{"labels": "dog"}, {"labels": "all"}, {"min_score": 0.5}])
@pytest.mark.parametrize(
    ("detector", "why"), [(None, "there is none"), ("whole-image", "each image as one box")]
)
def test_labels_and_scores_require_a_detector(
    detector: str | None, why: str, options: dict[str, object]
) -> None:
    with pytest.raises(
        InputError, match=rf"would filter the boxes of a detector, but .*{why}; leave out what filters"
    ):
        vitpose.load("not resolved", detector, **options)


def test_labels_and_scores_filter_the_boxes_of_a_detector_object() -> None:
    detector = Scored(BOXES[:2], [0.9, 0.2])
    assert vitpose.load("vitpose-tiny", detector, device="cpu").detector is detector
    pipe = vitpose.load("vitpose-tiny", detector, device="cpu", min_score=0.5)
    assert len(pipe(blank())) == 1
    assert len(vitpose.load("vitpose-tiny", detector, device="cpu", labels="dog")(blank())) == 0
