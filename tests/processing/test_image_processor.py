from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitpose.errors import BoxError, CheckpointError, ImageError, InputError, UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.model.outputs import VitPoseEstimatorOutput
from vitpose.processing.image_processor import BatchFeature, VitPoseImageProcessor

BOXES = [[10.0, 20.0, 60.0, 80.0], [30.0, 5.0, 40.0, 90.0]]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def processor() -> VitPoseImageProcessor:
    return VitPoseImageProcessor()


def outputs(count: int, keypoints: int = 17) -> VitPoseEstimatorOutput:
    return VitPoseEstimatorOutput(heatmaps=torch.rand(count, keypoints, 64, 48))


def test_pixels_are_rescaled_and_normalised(processor: VitPoseImageProcessor) -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    pixels = processor(white, boxes=[[[5, 5, 10, 10]]], return_tensors="np").pixel_values
    assert pixels.shape == (1, 3, 256, 192)
    np.testing.assert_allclose(
        pixels[0, :, 128, 96], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    raw = processor(
        white, boxes=[[[5, 5, 10, 10]]], do_rescale=False, do_normalize=False, return_tensors="np"
    )
    assert raw["pixel_values"].max() == 255


def test_kinds_of_result(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    assert processor.preprocess(image, [BOXES], return_tensors="pt").pixel_values.shape == (2, 3, 256, 192)
    assert isinstance(processor(image, [BOXES])["pixel_values"], list)
    last = processor(image, [BOXES], return_tensors="np", data_format="channels_last").pixel_values
    first = processor(image, [BOXES], return_tensors="np").pixel_values
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_images_in_many_forms_give_the_same_pixels(
    processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    expected = processor(image, [BOXES], return_tensors="np").pixel_values
    for form in (Image.fromarray(image), [image], torch.from_numpy(image)):
        np.testing.assert_array_equal(processor(form, [BOXES], return_tensors="np").pixel_values, expected)
    channels_first = processor(
        image.transpose(2, 0, 1), [BOXES], return_tensors="np", input_data_format="channels_first"
    )
    np.testing.assert_array_equal(channels_first.pixel_values, expected)


def test_images_treated_as_crops(processor: VitPoseImageProcessor) -> None:
    crops = [np.zeros((256, 192, 3), np.uint8), np.full((256, 192, 3), 9, np.uint8)]
    pixels = processor(crops, do_affine_transform=False, do_normalize=False, return_tensors="np").pixel_values
    np.testing.assert_allclose(pixels[1], 9 / 255, rtol=1e-6)
    with pytest.raises(InputError, match="every image must be a crop of 192x256 px, not 50x40"):
        processor(np.zeros((40, 50, 3), np.uint8), do_affine_transform=False)


def test_batches_move_and_read_by_name() -> None:
    batch = BatchFeature(pixel_values=torch.zeros(1), dataset_index=torch.tensor([0]))
    batch = batch.to("cpu", torch.bfloat16)
    assert (batch.pixel_values.dtype, batch.dataset_index.dtype) == (torch.bfloat16, torch.int64)
    with pytest.raises(AttributeError, match=r"no 'pixels'; it has \['pixel_values'"):
        _ = batch.pixels


def test_options_are_checked(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    with pytest.raises(
        UnknownNameError, match="option of the image processor 'do_normalise'; did you mean do_normalize"
    ):
        processor(image, [BOXES], do_normalise=False)
    with pytest.raises(UnknownNameError, match="option of the image processor 'decode'"):
        processor(image, [BOXES], decode="quarter")
    with pytest.raises(UnknownNameError, match="data format 'channel_last'; did you mean channels_last"):
        processor(image, [BOXES], data_format="channel_last")
    with pytest.raises(UnknownNameError, match="kind of tensors 'tf'"):
        processor(image, [BOXES], return_tensors="tf")
    with pytest.raises(UnknownNameError, match="data format 'first'"):
        processor(image, [BOXES], input_data_format="first")
    with pytest.raises(
        InputError, match="image_mean: 1 values; give three, one per colour channel, or one for all"
    ):
        VitPoseImageProcessor(image_mean=(0.5,))
    with pytest.raises(
        InputError, match=r"image_std.1 is 0.0; input should be greater than or equal to 0.000001"
    ):
        VitPoseImageProcessor(image_std=(0.2, 0.0, 0.2))
    with pytest.raises(InputError, match=r"size: .*'shortest_edge': 3.* is not a size; give {'height'"):
        VitPoseImageProcessor(size={"shortest_edge": 3})
    with pytest.raises(InputError, match=r"size: '\(256, 192\)' is not a size; give {'height'"):
        VitPoseImageProcessor(size=(256, 192))
    with pytest.raises(UnknownNameError, match="warp 'upd'"):
        VitPoseImageProcessor(warp="upd")
    with pytest.raises(UnknownNameError, match="decoding 'drak'"):
        VitPoseImageProcessor(decode="drak")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_0_to_255_as_in_transformers(
    processor: VitPoseImageProcessor, image: np.ndarray, dtype: type
) -> None:
    expected = processor(image, [BOXES], return_tensors="np").pixel_values
    level = 1.01 / 255 / 0.224  # crops of bytes are rounded to integers
    for floats in (
        image.astype(dtype),
        torch.from_numpy(image.astype(dtype)),
        image.astype(dtype).transpose(2, 0, 1),
    ):
        found = processor(floats, [BOXES], return_tensors="np").pixel_values
        np.testing.assert_allclose(found, expected, atol=level)
    unit = processor(
        image.astype(np.float32) / 255, [BOXES], do_rescale=False, return_tensors="np"
    ).pixel_values
    np.testing.assert_allclose(unit, expected, atol=level)
    mixed = processor([image, image.astype(dtype)], [BOXES, BOXES], return_tensors="np").pixel_values
    np.testing.assert_allclose(mixed[2:], mixed[:2], atol=1e-5)
    grey = processor(
        image.astype(dtype)[:, :, 0], [BOXES], return_tensors="np", do_normalize=False
    ).pixel_values
    np.testing.assert_array_equal(grey[:, 0], grey[:, 2])


def test_floats_out_of_range_are_refused(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    unit = image.astype(np.float32) / 255
    with pytest.raises(
        ImageError, match=r"values up to 1, but floats are expected from 0 to 255, .* give do_rescale=Fal"
    ):
        processor(unit, [BOXES])
    with pytest.raises(InputError, match="all of floats or all of bytes"):
        processor([image, unit], [BOXES, BOXES], do_rescale=False)
    unit[3, 3] = np.nan
    with pytest.raises(ImageError, match="contains NaN or infinity; correct its source"):
        processor(unit, [BOXES], do_rescale=False)
    for shape in ((5, 5, 2), (5, 5, 4), (0, 5, 3), (5,)):
        with pytest.raises(ImageError, match="is not an image; arrays of floats require the axes"):
            processor([np.full(shape, 9.0)], [BOXES])


def test_positional_arguments_are_in_the_order_of_transformers(image: np.ndarray) -> None:
    given = (True, {"height": 64, "width": 48}, False, 1.0, True, 100.0, [50.0, 60.0, 70.0])
    processor = VitPoseImageProcessor(*given)
    assert processor == VitPoseImageProcessor(
        size=Size(width=48, height=64),
        do_rescale=False,
        rescale_factor=1.0,
        image_mean=100,
        image_std=(50, 60, 70),
    )
    assert processor.image_mean == (100.0, 100.0, 100.0)
    expected = processor(image, [BOXES], return_tensors="np").pixel_values
    found = VitPoseImageProcessor().preprocess(image, [BOXES], *given, "np", "channels_last").pixel_values
    np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), expected)
    np.testing.assert_array_equal(
        VitPoseImageProcessor()(image, [BOXES], *given, "np").pixel_values, expected
    )


def test_none_stands_for_the_default(image: np.ndarray) -> None:
    names = [f.name for f in fields(VitPoseImageProcessor) if f.name not in ("max_step", "blur_sigma")]
    assert VitPoseImageProcessor(**dict.fromkeys(names)) == VitPoseImageProcessor()
    assert VitPoseImageProcessor.from_dict(dict.fromkeys(names)) == VitPoseImageProcessor()
    assert VitPoseImageProcessor(max_step=None).max_step is None
    small = VitPoseImageProcessor(size=32)
    assert small(image, [BOXES], size=None, do_convert_rgb=None, return_tensors="np").pixel_values.shape[
        2:
    ] == (32, 32)


def test_size_is_read_as_attributes_and_as_a_dictionary() -> None:
    size = VitPoseImageProcessor(size={"height": 64, "width": 48}).size
    assert (size.height, size["height"], size.width, size["width"]) == (64, 64, 48, 48)
    assert size == {"height": 64, "width": 48} == dict(size) == {**size}
    assert size == Size(width=48, height=64) == size
    assert size != {"height": 48, "width": 64}
    assert hash(size) == hash(Size(width=48, height=64))
    assert "height" in size
    with pytest.raises(KeyError, match="shortest_edge"):
        size["shortest_edge"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": {"height": 32_000, "width": 32_000}},
            "size: a side is '32000'; sides are integers from 2 to",
        ),
        ({"size": {"height": 1, "width": 8}}, "size: a side is '1'; sides"),
        ({"size": {"height": "256", "width": 192}}, "size: a side is '256'; sides are integers"),
        ({"size": True}, "size: 'True' is not a size"),
        ({"image_mean": "x"}, "image_mean.0 is 'x'; input should be a valid number"),
        ({"image_mean": [0.5, None, 0.5]}, "image_mean.1 is None; input should be a valid number"),
        ({"image_mean": 1e30}, "image_mean.0 is 1e\\+30; input should be less than"),
        ({"image_std": -1}, "image_std.0 is -1; input should be greater than"),
        ({"image_std": 1e-40}, "image_std.0 is 1e-40; input should be greater than"),
        ({"rescale_factor": 0}, "rescale_factor is 0; input should be greater than"),
        ({"rescale_factor": "x"}, "rescale_factor is 'x'; input should be a valid number"),
        ({"do_rescale": 1}, "do_rescale is 1; input should be a valid boolean"),
        ({"max_step": "x"}, "max_step is 'x'; input should be a valid number"),
        ({"max_step": -1}, "max_step is -1; input should be greater than or equal to 0"),
        ({"blur_sigma": 0}, "blur_sigma is 0; input should be greater than 0"),
        ({"warp": 3}, "warp is 3; input should be a valid string"),
        (
            {"normalize_factor": 100},
            "normalize_factor: '100' is unsupported, because crops and keypoints would disagree",
        ),
        ({"warp": "upd"}, "unknown warp 'upd'; did you mean udp"),
    ],
)
def test_wrong_types_and_sizes_are_refused_from_python_and_from_files(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        VitPoseImageProcessor(**options)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
    with pytest.raises(
        CheckpointError, match=f"^preprocessor_config.json of '.*' cannot be used: .*{message}"
    ):
        VitPoseImageProcessor.from_pretrained(tmp_path)


def test_unknown_keywords_are_refused(tmp_path: Path) -> None:
    message = "unknown argument of VitPoseImageProcessor 'do_rescal'; did you mean do_rescale"
    with pytest.raises(UnknownNameError, match=message):
        VitPoseImageProcessor(do_rescal=True)
    with pytest.raises(UnknownNameError, match=message):
        VitPoseImageProcessor.from_dict({}, do_rescal=True)
    VitPoseImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match=message):
        VitPoseImageProcessor.from_pretrained(tmp_path, do_rescal=True)
    assert not VitPoseImageProcessor.from_pretrained(tmp_path, do_rescale=False).do_rescale


def test_impossible_layouts_are_refused(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    with pytest.raises(
        InputError, match=r"shape \(120, 160, 3\) is not channels_first, as it would have 120"
    ):
        processor(image, [BOXES], input_data_format="channels_first")
    with pytest.raises(InputError, match=r"shape \(3, 120, 160\) is not channels_last, as it would have 160"):
        processor(image.transpose(2, 0, 1), [BOXES], input_data_format="channels_last")


def test_settings_reach_the_decoding() -> None:
    heatmaps = outputs(1)
    found = {}
    for options in ({}, {"max_step": None}, {"blur_sigma": 0.8}, {"border": "mirror"}, {"warp": "plain"}):
        result = VitPoseImageProcessor(**options).post_process_pose_estimation(heatmaps, [BOXES[:1]])
        found[str(options)] = result[0][0]["keypoints"].numpy().tobytes()
    wide = VitPoseImageProcessor().post_process_pose_estimation(heatmaps, [BOXES[:1]], kernel_size=17)
    found["kernel"] = wide[0][0]["keypoints"].numpy().tobytes()
    assert len(set(found.values())) == len(found)


def test_boxes_are_checked(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    with pytest.raises(BoxError, match="boxes are missing"):
        processor(image)
    with pytest.raises(BoxError, match=r"n rows of four numbers, not \(4,\); put a single box into a list"):
        processor(image, [[1, 2, 3, 4]])
    with pytest.raises(BoxError, match=r"box 1, \[5.0, 5.0, 0.0, 3.0\], has no area"):
        processor(image, [[[1, 1, 5, 5], [5, 5, 0, 3]]])
    for wrong in ("abcd", [[1, 2], [3]], [["a", 1, 2, 3]]):
        with pytest.raises(BoxError, match=r"must (be|have)"):
            processor(image, [wrong])
    with pytest.raises(BoxError, match=r"must (be|have)"):
        processor(image, [None])
    with pytest.raises(BoxError, match="is not finite"):
        processor(image, [[[1, 1, float("nan"), 5]]])
    with pytest.raises(BoxError, match="wholly outside its image of 160x120"):
        processor(image, [[[300, 1, 5, 5]]])


# Faults of `transformers` 5.23 that vitpose does not have, one test each.


def test_fault_bbox_is_the_given_box(processor: VitPoseImageProcessor) -> None:
    result = processor.post_process_pose_estimation(outputs(1), boxes=[[[100, 120, 80, 160]]])
    assert result[0][0]["bbox"].tolist() == [100, 120, 180, 280]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_fault_images_of_other_modes(processor: VitPoseImageProcessor, image: np.ndarray, mode: str) -> None:
    converted = Image.fromarray(image).convert(mode)
    assert processor(converted, [BOXES], return_tensors="np").pixel_values.shape == (2, 3, 256, 192)


def test_fault_zero_boxes(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    assert processor(image, [[]], return_tensors="pt").pixel_values.shape == (0, 3, 256, 192)
    assert processor.post_process_pose_estimation(outputs(0), boxes=[[]]) == [[]]
    some = processor.post_process_pose_estimation(outputs(2), boxes=[[], BOXES, []])
    assert [len(instances) for instances in some] == [0, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fault_half_precision_heatmaps(processor: VitPoseImageProcessor, dtype: torch.dtype) -> None:
    exact = VitPoseEstimatorOutput(heatmaps=torch.zeros(1, 2, 64, 48))
    exact.heatmaps[0, :, 20, 30] = 1
    half = VitPoseEstimatorOutput(heatmaps=exact.heatmaps.to(dtype))
    found = [processor.post_process_pose_estimation(o, [BOXES[:1]])[0][0]["keypoints"] for o in (exact, half)]
    torch.testing.assert_close(found[0], found[1])


def test_fault_one_keypoint(processor: VitPoseImageProcessor) -> None:
    result = processor.post_process_pose_estimation(outputs(1, keypoints=1), [BOXES[:1]])[0][0]
    assert (result["keypoints"].shape, result["scores"].shape) == ((1, 2), (1,))


def test_fault_two_images_with_one_list_of_boxes(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    with pytest.raises(BoxError, match="there are 2 images and 1 lists of boxes"):
        processor([image, image], [BOXES])
    with pytest.raises(BoxError, match="there are 1 boxes but heatmaps for 2"):
        processor.post_process_pose_estimation(outputs(2), [BOXES[:1]])


def test_fault_target_sizes_are_height_and_width(processor: VitPoseImageProcessor) -> None:
    heatmaps = outputs(2)
    relative = [[[0.1, 0.2, 0.5, 0.5]], [[0.2, 0.1, 0.4, 0.6]]]
    absolute = [[[16, 24, 80, 60]], [[64, 20, 128, 120]]]
    sizes = [(120, 160), (200, 320)]
    for given in (sizes, torch.tensor(sizes)):
        found = processor.post_process_pose_estimation(heatmaps, relative, target_sizes=given)
        expected = processor.post_process_pose_estimation(heatmaps, absolute)
        torch.testing.assert_close(found[1][0]["keypoints"], expected[1][0]["keypoints"])
        torch.testing.assert_close(found[0][0]["bbox"], torch.tensor([16.0, 24, 96, 84]))
    with pytest.raises(InputError, match="there are 1 target_sizes for 2 images with 2 boxes"):
        processor.post_process_pose_estimation(heatmaps, relative, target_sizes=sizes[:1])


def test_fault_threshold_keeps_every_keypoint(processor: VitPoseImageProcessor) -> None:
    supervision = pytest.importorskip("supervision")
    results = processor.post_process_pose_estimation(outputs(2), [BOXES], threshold=0.9995)[0]
    for result in results:
        assert result["keypoints"].shape == (17, 2)
        assert result["labels"].tolist() == list(range(17))
        assert result["visible"].tolist() == (result["scores"] >= 0.9995).tolist()
    assert any(not all(result["visible"]) for result in results)
    assert len(supervision.KeyPoints.from_transformers(results)) == 2


def test_fault_other_input_sizes(image: np.ndarray) -> None:
    large = VitPoseImageProcessor(size={"height": 384, "width": 288})
    assert large(image, [BOXES], return_tensors="np").pixel_values.shape == (2, 3, 384, 288)


def test_file_of_transformers_is_read_and_written(tmp_path: Path) -> None:
    processor = VitPoseImageProcessor(size=Size(width=96, height=128))
    processor.save_pretrained(tmp_path)
    table = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert set(table) == {
        "do_affine_transform", "do_normalize", "do_rescale", "image_mean", "image_std", "image_processor_type",
        "normalize_factor", "rescale_factor", "size",
    }  # fmt: skip
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == processor
    theirs = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    loaded = theirs.VitPoseImageProcessorPil.from_pretrained(tmp_path)
    assert (loaded.size["height"], loaded.size["width"]) == (128, 96)
    loaded.save_pretrained(tmp_path)
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == processor


def test_settings_of_vitpose_are_kept_in_the_file(tmp_path: Path) -> None:
    processor = VitPoseImageProcessor(
        warp="plain", decode="quarter", shift_heatmap=True, max_step=None, border="mirror"
    )
    processor.save_pretrained(tmp_path)
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == processor


def test_misspelt_key_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"blur_sgma": 1.0, "do_resize": true}')
    with pytest.raises(CheckpointError, match="unknown key 'blur_sgma'; did you mean blur_sigma"):
        VitPoseImageProcessor.from_pretrained(tmp_path)


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(CheckpointError, match="is for a 'ViTImageProcessor', not a VitPoseImageProcessor"):
        VitPoseImageProcessor.from_pretrained(tmp_path)
