from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitpose import samples
from vitpose.detectors import CocoBoxes
from vitpose.detectors.person import WEIGHTS, PersonDetector, fit_to, frame_of, inner_of
from vitpose.detectors.person_network import STRIDES, PersonNetwork, cell_centres, fold
from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.geometry.boxes import Size, iou
from vitpose.images import read_image


def write_weights(path: Path, network: PersonNetwork) -> Path:
    save_file({name: value.contiguous() for name, value in network.state_dict().items() if value.ndim}, path)
    return path


@pytest.fixture
def one_cell(tmp_path: Path) -> Path:
    """Weights of a network that sees a person at every cell of the coarsest grid, a stride around its centre."""
    torch.manual_seed(0)
    network = PersonNetwork()
    for head, bias in zip(network.heads, (-20.0, -20.0, 5.0), strict=True):
        for layer, value in ((head.person[1], bias), (head.box[1], 0.0)):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.constant_(layer.bias, value)
    return write_weights(tmp_path / "weights.safetensors", network)


def test_the_network_predicts_every_cell_of_three_grids() -> None:
    logits, boxes = PersonNetwork().eval()(torch.zeros(2, 3, 64, 96))
    count = sum((64 // stride) * (96 // stride) for stride in STRIDES)
    assert logits.shape == (2, count)
    assert boxes.shape == (2, count, 4)
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_cells_are_listed_row_by_row() -> None:
    assert cell_centres(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_distances_are_in_strides_from_the_centre_of_the_cell() -> None:
    network = PersonNetwork().eval()
    for head in network.heads:
        torch.nn.init.zeros_(head.box[1].weight)
        head.box[1].bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()
    boxes = network(torch.zeros(1, 3, 64, 64))[1][0]
    torch.testing.assert_close(boxes[0], torch.tensor([4.0 - 8, 4 - 16, 4 + 24, 4 + 32]))
    torch.testing.assert_close(boxes[-1], torch.tensor([48.0 - 32, 48 - 64, 48 + 96, 48 + 128]))


def test_folded_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    network = PersonNetwork()
    images = torch.rand(2, 3, 64, 64) * 255
    network(images)  # moves the statistics away from their start
    network.eval()
    before = network(images)
    after = fold(network)(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "inner", "frame"),
    [
        (Size(640, 480), Size(320, 240), Size(320, 256)),
        (Size(100, 200), Size(160, 320), Size(160, 320)),
        (Size(320, 1), Size(320, 1), Size(320, 32)),
    ],
)
def test_frames_are_whole_cells_around_the_resized_image(size: Size, inner: Size, frame: Size) -> None:
    assert inner_of(size) == inner
    assert frame_of(size) == frame


def test_images_are_in_the_top_left_corner_of_their_frame() -> None:
    image = np.full((480, 640, 3), 200, np.uint8)
    fitted = fit_to(image, frame_of(Size.of(image)))
    assert fitted.shape == (256, 320, 3)
    assert (fitted[:240] == 200).all()
    assert (fitted[240:] == 114).all()


def test_boxes_are_in_pixels_of_each_image(one_cell: Path) -> None:
    detector = PersonDetector(one_cell, max_iou=0.99, device="cpu")
    large, small, other = (
        np.zeros(shape, np.uint8) for shape in ((480, 640, 3), (240, 320, 3), (240, 320, 3))
    )
    found = detector.detect([small, large, other], ["", "", ""])
    np.testing.assert_allclose(found[0].boxes, found[2].boxes)
    np.testing.assert_allclose(found[0].boxes[0], [0, 0, 48, 48])  # the first cell's, clipped to the image
    np.testing.assert_allclose(np.sort(found[1].boxes, axis=0), 2 * np.sort(found[0].boxes, axis=0))
    assert set(found[0].labels) == {"person"}
    np.testing.assert_allclose(found[0].scores, 1 / (1 + np.exp(-5)), rtol=1e-5)


def test_overlaps_are_suppressed(one_cell: Path) -> None:
    image = np.zeros((320, 320, 3), np.uint8)
    every, few = (PersonDetector(one_cell, max_iou=limit, device="cpu") for limit in (0.99, 0.1))
    assert len(every.detect([image], [""])[0]) == 100
    assert len(few.detect([image], [""])[0]) < 50


def test_no_images_and_no_people(one_cell: Path) -> None:
    detector = PersonDetector(one_cell, min_score=0.999, device="cpu")
    assert detector.detect([], []) == []
    assert len(detector.detect([np.zeros((50, 40, 3), np.uint8)], [""])[0]) == 0


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.safetensors is not a file of the person detector"):
        PersonDetector(tmp_path / "missing.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        CheckpointError, match=r"(?s)other\.safetensors is not a file of the person detector: .*Missing"
    ):
        PersonDetector(tmp_path / "other.safetensors")


def test_options_are_checked(one_cell: Path) -> None:
    with pytest.raises(InputError, match="min_score"):
        PersonDetector(one_cell, min_score=2.0)
    with pytest.raises(InputError, match="max_iou"):
        PersonDetector(one_cell, max_iou=-1.0)
    with pytest.raises(
        UnknownNameError, match=r"unknown label 'dog'; .* finds people only; detector='rtdetr' finds"
    ):
        PersonDetector(one_cell, labels=["dog"])


def test_the_packaged_weights_are_small_and_find_people() -> None:
    assert (resources.files("vitpose") / WEIGHTS).stat().st_size < 4_000_000
    detector = PersonDetector(device="cpu")
    paths = [samples.person(), samples.group()]
    found = detector.detect([read_image(path) for path in paths], ["", ""])
    annotated = CocoBoxes(samples.annotations())
    for path, one in zip(paths, found, strict=True):
        people = annotated.detect([read_image(path)], [path.name])[0].boxes
        assert iou(people, one.boxes).max(axis=1).min() > 0.6
