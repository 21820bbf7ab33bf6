"""The assertions of the image processor tests of `transformers` for ViTPose, on the processors of both libraries.

For `transformers` the processor that does not require torchvision is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitpose.errors import ImageError, InputError
from vitpose.model.outputs import VitPoseEstimatorOutput
from vitpose.processing.image_processor import VitPoseImageProcessor
from vitpose.processing.pixel_values import BatchFeature

OPTIONS: dict[str, Any] = {
    "do_affine_transform": True,
    "size": {"height": 20, "width": 20},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
BOXES = [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]]
COUNT = 3


@pytest.fixture(params=["ours", "theirs"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The class of the processor, of vitpose or of `transformers`."""
    if request.param == "ours":
        return VitPoseImageProcessor
    module = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    return module.VitPoseImageProcessorPil


@pytest.fixture
def images() -> list[np.ndarray]:
    """Images of different sizes, from 30 to 400 px."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*rng.integers(30, 401, 2), 3), dtype=np.uint8) for _ in range(COUNT)]


# ------------------------------------------------------------------ settings


def test_attributes_are_those_given(kind: Any) -> None:
    processor = kind(**OPTIONS)
    for name, value in OPTIONS.items():
        found = getattr(processor, name)
        assert (list(found) if name.startswith("image_") else found) == value, name
    assert processor.normalize_factor == 200.0


def test_made_without_arguments(kind: Any) -> None:
    processor = kind()
    assert processor.size == {"height": 256, "width": 192}
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]


def test_dictionary_is_read_with_other_values(kind: Any) -> None:
    assert kind.from_dict(dict(OPTIONS)).size == {"height": 20, "width": 20}
    assert kind.from_dict(dict(OPTIONS), size=42).size == {"height": 42, "width": 42}
    changed = kind.from_dict(dict(OPTIONS), size={"height": 42, "width": 30}, do_normalize=False)
    assert (changed.size["height"], changed.size["width"], changed.do_normalize) == (42, 30, False)


def test_json_string_contains_the_values(kind: Any) -> None:
    table = json.loads(kind(**OPTIONS).to_json_string())
    assert {name: table[name] for name in OPTIONS} == OPTIONS


def test_json_file_gives_the_same_back(kind: Any, tmp_path: Path) -> None:
    first = kind(**OPTIONS)
    first.to_json_file(tmp_path / "processor.json")
    assert kind.from_json_file(tmp_path / "processor.json").to_dict() == first.to_dict()


def test_saved_and_loaded(kind: Any, tmp_path: Path) -> None:
    first = kind(**OPTIONS)
    assert first.save_pretrained(tmp_path) == [str(tmp_path / "preprocessor_config.json")]
    assert kind.from_pretrained(tmp_path).to_dict() == first.to_dict()
    assert kind.from_pretrained(tmp_path, do_rescale=False).do_rescale is False


def test_one_processor_does_not_change_another(kind: Any) -> None:
    first, second = kind(**OPTIONS), kind(**OPTIONS)
    first(np.zeros((40, 40, 3), np.uint8), boxes=[BOXES], size={"height": 30, "width": 30})
    assert first.to_dict() == second.to_dict()


def test_files_are_read_by_the_other_library(tmp_path: Path, kind: Any) -> None:
    module = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    kind(**OPTIONS).save_pretrained(tmp_path)
    for reader in (VitPoseImageProcessor, module.VitPoseImageProcessorPil):
        read = reader.from_pretrained(tmp_path)
        assert {name: read.to_dict()[name] for name in ("size", "do_rescale", "normalize_factor")} == {
            "size": {"height": 20, "width": 20},
            "do_rescale": True,
            "normalize_factor": 200.0,
        }
    changed = VitPoseImageProcessor.from_dict(
        {**OPTIONS, "image_processor_type": "VitPoseImageProcessorFast"}
    )
    assert changed == VitPoseImageProcessor(**OPTIONS)


# ------------------------------------------------------------------ calls


def as_pil(image: np.ndarray) -> Any:
    return Image.fromarray(image)


def as_array(image: np.ndarray) -> Any:
    return image.transpose(2, 0, 1)


def as_tensor(image: np.ndarray) -> Any:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("form", [as_pil, as_array, as_tensor])
def test_every_box_of_every_image_becomes_a_crop(kind: Any, images: list[np.ndarray], form: Any) -> None:
    if form is as_tensor and kind is not VitPoseImageProcessor:
        pytest.skip("the processor without torchvision takes no tensors")
    processor, given = kind(**OPTIONS), [form(image) for image in images]
    one = processor(given[0], boxes=[BOXES], return_tensors="pt").pixel_values
    assert one.shape == (2, 3, 20, 20)
    several = processor(given, boxes=[BOXES] * COUNT, return_tensors="pt").pixel_values
    assert several.shape == (2 * COUNT, 3, 20, 20)
    assert torch.equal(several[:2], one)


def test_batches_are_cast_but_integers_are_not(kind: Any, images: list[np.ndarray]) -> None:
    batch = kind(**OPTIONS)(images, boxes=[BOXES] * COUNT, return_tensors="pt")
    assert (batch.pixel_values.dtype, batch.pixel_values.device.type) == (torch.float32, "cpu")
    assert batch.to(torch.float16).pixel_values.dtype is torch.float16
    assert batch.to("cpu", torch.bfloat16).pixel_values.dtype is torch.bfloat16
    with pytest.raises(TypeError):
        batch.to(torch.bfloat16, "cpu")
    mixed = BatchFeature({**batch, "dataset_index": torch.tensor([1, 2])}).to(torch.float16)
    assert (mixed.pixel_values.dtype, mixed.dataset_index.dtype) == (torch.float16, torch.int64)


def test_results_without_return_tensors_are_a_list(kind: Any, images: list[np.ndarray]) -> None:
    pixels = kind(**OPTIONS)(images[0], boxes=[BOXES])["pixel_values"]
    assert [np.asarray(crop).shape for crop in pixels] == [(3, 20, 20)] * 2


def test_unknown_arguments_are_refused(kind: Any, images: list[np.ndarray]) -> None:
    with pytest.raises((TypeError, ValueError)):
        kind(**OPTIONS)(images[0], boxes=[BOXES], no_such_argument=True)


def test_four_channels_become_three_here() -> None:
    """`transformers` returns four channels, which no network accepts."""
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    processor = VitPoseImageProcessor(**OPTIONS)
    assert processor(image, boxes=[BOXES], return_tensors="pt").pixel_values.shape == (2, 3, 20, 20)
    with pytest.raises(InputError, match="image_mean: 4 values; give three"):
        processor(image, boxes=[BOXES], image_mean=(0.0, 0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0, 1.0))


# ------------------------------------------------------------------ the same values in both libraries


def inside(image: np.ndarray) -> list[list[list[float]]]:
    """Returns a box whose crop is inside the image, where both libraries sample alike."""
    height, width = image.shape[:2]
    return [[[0.3 * width, 0.3 * height, 0.3 * width, 0.3 * height]]]


def theirs() -> Any:
    module = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    return module.VitPoseImageProcessorPil()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_rescale": False, "do_normalize": False},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": 127.5, "image_std": 60.0},
        {"image_mean": 0.5, "image_std": [0.2, 0.3, 0.4]},
        {"rescale_factor": 1 / 127.5},
        {"size": {"height": 64, "width": 48}},
        {"normalize_factor": 200.0, "do_convert_rgb": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_pixels_are_those_of_transformers(options: dict[str, Any], dtype: type) -> None:
    smooth = np.linspace(3, 250, 300 * 200 * 3).reshape(300, 200, 3).astype(dtype)
    found = VitPoseImageProcessor()(smooth, boxes=inside(smooth), return_tensors="np", **options).pixel_values
    expected = theirs()(smooth, boxes=inside(smooth), return_tensors="np", **options)["pixel_values"]
    used = VitPoseImageProcessor().changed(options)
    level = used.scale_and_offset[0].max()
    np.testing.assert_allclose(found, expected, atol=1.01 * level)


def test_floats_from_0_to_1_are_those_of_transformers_where_they_are_not_rescaled() -> None:
    smooth = np.linspace(0, 1, 300 * 200 * 3).reshape(300, 200, 3).astype(np.float32)
    options = {"boxes": inside(smooth), "do_rescale": False, "return_tensors": "np"}
    found = VitPoseImageProcessor()(smooth, **options).pixel_values
    np.testing.assert_allclose(found, theirs()(smooth, **options)["pixel_values"], atol=0.01)
    assert (
        theirs()(smooth, boxes=inside(smooth), return_tensors="np")["pixel_values"].max() < -1.7
    )  # nearly black crops, without a warning
    with pytest.raises(ImageError, match="give do_rescale=False for values from 0 to 1"):
        VitPoseImageProcessor()(smooth, boxes=inside(smooth))


def test_results_have_the_keys_and_shapes_of_transformers() -> None:
    heatmaps = torch.zeros(2, 17, 64, 48)
    heatmaps[:, :, 20, 10] = 1
    boxes = [[[10.0, 20.0, 60.0, 80.0]], [[30.0, 5.0, 40.0, 90.0]]]
    output = VitPoseEstimatorOutput(heatmaps=heatmaps)
    like_theirs = VitPoseImageProcessor(blur_sigma=0.8, border="reflect", max_step=None)
    expected = theirs().post_process_pose_estimation(output, boxes, 11, 0.3)
    found = like_theirs.post_process_pose_estimation(output, boxes, 11, 0.3)
    for a, b in zip(expected, found, strict=True):
        assert a[0].keys() <= b[0].keys()
        torch.testing.assert_close(
            a[0]["keypoints"], b[0]["keypoints"].to(a[0]["keypoints"]), atol=1e-3, rtol=0
        )
        for name in ("scores", "labels"):
            torch.testing.assert_close(a[0][name], b[0][name])
