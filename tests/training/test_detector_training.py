from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitpose.detectors import OnnxDetector
from vitpose.detectors.onnx import letterbox
from vitpose.errors import CheckpointError, InputError
from vitpose.geometry.boxes import Size, iou
from vitpose.images import read_image
from vitpose.training.detector.loop import DetectorTraining, feature_loss, tensors_of
from vitpose.training.detector.recipe import DetectorRecipe, DetectorSource
from vitpose.training.detector.samples import ImageSource, SampleComposer, warp
from vitpose.training.detector.targets import (
    Cells,
    Targets,
    assign_targets,
    generalised_iou,
    losses,
    overlaps,
)
from vitpose.training.detector.teacher import Teacher, TeacherOutput

SIDE = 128
CELLS = Cells.of(SIDE, SIDE)
COUNT = len(CELLS.strides)
PERSON = torch.tensor([[40.0, 20.0, 88.0, 100.0]])


def teacher_output(scores: torch.Tensor | None = None, boxes: torch.Tensor | None = None) -> TeacherOutput:
    """Return what the teacher predicts for one image: nothing, unless scores and boxes are given."""
    nothing = torch.cat([CELLS.centres - 1, CELLS.centres + 1], dim=1)
    return TeacherOutput(
        (torch.zeros(COUNT) if scores is None else scores)[None],
        (nothing if boxes is None else boxes)[None],
        [],
    )


def test_without_annotations_the_teacher_is_the_target() -> None:
    given = teacher_output(torch.rand(COUNT))
    targets = assign_targets(given, [torch.zeros(0, 4)], CELLS)
    torch.testing.assert_close(targets.scores, given.scores)
    torch.testing.assert_close(targets.boxes, given.boxes)


def test_a_person_whom_the_teacher_misses_is_at_the_cells_around_the_centre() -> None:
    targets = assign_targets(teacher_output(), [PERSON], CELLS)
    chosen = targets.scores[0] > 0
    assert chosen.sum() == 9
    assert targets.scores.max() == pytest.approx(0.8)
    assert (targets.boxes[0, chosen] == PERSON).all()
    best = targets.scores[0].argmax()
    assert CELLS.strides[best] == 8  # of about six strides
    assert (CELLS.centres[best] - torch.tensor([64.0, 60.0])).abs().max() <= 4


def test_the_teacher_chooses_the_cells_of_a_person_whom_it_sees() -> None:
    scores, boxes = torch.zeros(COUNT), teacher_output().boxes[0].clone()
    seen = int(((CELLS.centres - torch.tensor([52.0, 84.0])).abs().sum(dim=1) + CELLS.strides).argmin())
    scores[seen], boxes[seen] = 0.9, PERSON[0] + 2
    targets = assign_targets(teacher_output(scores, boxes), [PERSON], CELLS)
    assert targets.scores[0].argmax() == seen
    assert targets.scores[0, seen] == pytest.approx(0.9)
    assert (targets.boxes[0, seen] == PERSON[0]).all()


def test_two_people_have_cells_of_their_own() -> None:
    people = torch.cat([PERSON - torch.tensor([30.0, 0, 30, 0]), PERSON + torch.tensor([30.0, 0, 30, 0])])
    targets = assign_targets(teacher_output(), [people], CELLS)
    chosen = targets.scores[0] > 0.3
    assert (overlaps(targets.boxes[0, chosen], people).max(dim=1).values == 1).all()
    assert {tuple(box) for box in targets.boxes[0, chosen].tolist()} == {
        tuple(box) for box in people.tolist()
    }


def test_generalised_iou_of_known_boxes() -> None:
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).repeat(3, 1)
    other = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2]])
    torch.testing.assert_close(generalised_iou(box, other), torch.tensor([1.0, 1 / 3, -1 / 3]))


def test_overlaps_equal_those_of_numpy() -> None:
    corner = torch.rand(7, 2) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(7, 2) * 50], dim=1)
    expected = iou(boxes[:4].numpy(), boxes[4:].numpy())
    np.testing.assert_allclose(overlaps(boxes[:4], boxes[4:]).numpy(), expected, atol=1e-6)


def test_losses_vanish_at_the_targets_only() -> None:
    targets = assign_targets(teacher_output(), [PERSON], CELLS)
    targets = Targets((targets.scores > 0.5).float(), targets.boxes)
    right = losses(40 * targets.scores - 20, targets.boxes, targets)
    assert max(right) < 1e-4
    score, box = losses(20 - 40 * targets.scores, targets.boxes + 30, targets)
    assert score > 1
    assert box > 0.1


def test_feature_loss_is_measured_in_standard_deviations() -> None:
    level = 5 + 3 * torch.randn(2, 4, 8, 8)
    flat = feature_loss(
        [torch.zeros(2, 4, 8, 8)], TeacherOutput(torch.zeros(1, 1), torch.zeros(1, 1, 4), [level])
    )
    assert flat == pytest.approx(1.0, abs=0.02)


def test_boxes_follow_the_image() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 40:80] = 255
    sample = warp(
        image, np.float32([[40, 20, 80, 60]]), np.array([-0.5, 0.5]), np.array([150.0, 10.0]), 160, 128
    )
    left, top, right, bottom = sample.boxes[0].round().astype(int)
    assert (left, top, right, bottom) == (110, 20, 130, 40)
    rows, columns = np.nonzero(sample.image[:, :, 0] > 200)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_windows_of_background_show_no_annotated_people(tmp_path: Path) -> None:
    source = ImageSource(read_drawn_recipe(tmp_path, 1.0).sources[0])
    counts = {
        share: np.mean(
            [
                len(SampleComposer([source], 0.0, share, 1.0).draw(np.random.default_rng(seed), 128).boxes)
                for seed in range(30)
            ]
        )
        for share in (0.0, 1.0)
    }
    assert counts[1.0] < 0.2 < 0.3 < counts[0.0]


def test_people_mostly_outside_the_window_are_not_annotated() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.float32([[0, 0, 50, 50], [70, 70, 100, 100], [10, 10, 12, 40]])
    sample = warp(image, boxes, np.ones(2), np.array([-40.0, 0.0]), 100, 100)
    assert sample.boxes.tolist() == [[30, 70, 60, 100]]


def draw_data(folder: Path) -> Path:
    """Write four images with one bright figure each and return the COCO file."""
    (folder / "images").mkdir()
    images, rows, random = [], [], np.random.default_rng(0)
    for number in range(4):
        image = random.integers(0, 60, (96, 128, 3), np.uint8)
        x, y = (random.uniform(0, 1, 2) * [88, 36]).astype(int).tolist()
        cv2.rectangle(image, (x, y), (x + 39, y + 59), (250, 200, 150), -1)
        cv2.imwrite(str(folder / f"images/{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 96})
        rows.append({"image_id": number, "category_id": 1, "bbox": [x, y, 40, 60]})
    path = folder / "people.json"
    path.write_text(
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "person"}]})
    )
    return path


def test_views_are_square_and_repeatable(tmp_path: Path) -> None:
    source = ImageSource(read_drawn_recipe(tmp_path, 1.0).sources[0])
    for mosaic in (0.0, 1.0):
        composer = SampleComposer([source], mosaic=mosaic, fit_px=128)
        first, second = (composer.draw(np.random.default_rng(3), 128) for _ in range(2))
        assert first.image.shape == (128, 128, 3)
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.boxes, second.boxes)
        assert ((first.boxes >= 0) & (first.boxes <= 128)).all()


RECIPE = """
teacher = "{teacher}"
minutes = {minutes}
batch_size = 4
lr = 3e-3
warmup_steps = 5
ema = 0.9
feature_weight = 0.0
checkpoint_minutes = 100.0
[[sources]]
annotations = "{data}"
images = "{images}"
weight = 1.0
[[phases]]
until = 1.0
side_px = 128
mosaic = 0.0
background = 0.0
scale_octaves = 0.0
"""


class SeesNothing:
    """A teacher without an opinion."""

    def __call__(self, images: np.ndarray) -> TeacherOutput:
        one = teacher_output()
        count = len(images)
        features = [torch.randn(count, 64, SIDE // stride, SIDE // stride) for stride in (8, 16, 32)]
        return TeacherOutput(one.scores.repeat(count, 1), one.boxes.repeat(count, 1, 1), features)


def read_drawn_recipe(folder: Path, minutes: float) -> DetectorRecipe:
    path = folder / "recipe.toml"
    data = folder / "people.json" if (folder / "people.json").exists() else draw_data(folder)
    path.write_text(RECIPE.format(teacher="none", minutes=minutes, data=data, images=folder / "images"))
    return DetectorRecipe.read(path)


def test_training_learns_to_find_drawn_figures(tmp_path: Path) -> None:
    run = DetectorTraining(read_drawn_recipe(tmp_path, 1.0), tmp_path / "run", SeesNothing())
    first = run.train_step(0.0)
    last = torch.stack([run.train_step(0.0) for _ in range(40)])[-10:].mean(dim=0)
    assert last[0] < 0.5 * first[0]
    assert last[1] < 0.7 * first[1]


def test_a_run_ends_by_the_clock_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = DetectorTraining(read_drawn_recipe(tmp_path, 1e-4), out, SeesNothing())
    run.train()
    assert run.step >= 1
    weights = load_file(out / "person.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    again = DetectorTraining(run.recipe, out, SeesNothing())
    assert again.step == run.step
    for name, value in tensors_of(again.network).items():
        torch.testing.assert_close(value, tensors_of(run.network)[name])
    again.train()  # its time is over
    assert again.step == run.step


def test_the_average_follows_the_network(tmp_path: Path) -> None:
    run = DetectorTraining(read_drawn_recipe(tmp_path, 1.0), tmp_path / "run", SeesNothing())
    before = tensors_of(run.average)["stem.0.0.weight"].clone()
    run.train_step(0.0)
    mine, other = (tensors_of(network)["stem.0.0.weight"] for network in (run.average, run.network))
    torch.testing.assert_close(mine, torch.lerp(before, other, 1 - 2 / 11))


def test_recipes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(teacher="t", minutes=1, data="d", images="i") + "unknown = 1")
    with pytest.raises(InputError, match="unknown"):
        DetectorRecipe.read(path)


def test_phases_follow_each_other() -> None:
    recipe = DetectorRecipe.read(Path(__file__).parents[2] / "recipes/detectors/person.toml")
    assert [recipe.phase(progress).until for progress in (0.0, 0.8, 1.0)] == [0.75, 0.92, 1.0]


def test_the_teacher_finds_what_the_detector_in_onnx_finds(shared_data: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = shared_data / "detectors/rtmdet_nano_person_end2end.onnx"
    image = letterbox(read_image(shared_data / "samples/coco/000000000785.jpg"), Size(320, 320))
    given = Teacher(file)(image[None])
    found = OnnxDetector(file, device="cpu").detect([image], [""])[0]
    best = given.boxes[0][given.scores[0].argmax()]
    np.testing.assert_allclose(given.scores.max(), found.scores[0], atol=1e-4)
    np.testing.assert_allclose(best.clamp(0, 320), found.boxes[0], atol=0.1)
    assert [level.shape[1:] for level in given.features] == [(64, 40, 40), (64, 20, 20), (64, 10, 10)]


def test_files_that_are_no_teacher_are_refused(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    with pytest.raises(CheckpointError, match=r"yolox_nano.onnx is not an RTMDet detector; give the file"):
        Teacher(shared_data / "detectors/yolox_nano.onnx")
    with pytest.raises(
        CheckpointError, match=r"missing\.onnx cannot be loaded as ONNX: .*; give an RTMDet file"
    ):
        Teacher(tmp_path / "missing.onnx")


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(InputError, match=r"empty\.json lists no image with a file name; give a COCO file"):
        ImageSource(DetectorSource(annotations=str(path), images="", weight=1.0))
