from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitpose.boxes import Size
from vitpose.errors import BoxError, CheckpointError, InputError, UnknownNameError
from vitpose.model.pose import VitPoseEstimatorOutput
from vitpose.processing import BatchFeature, VitPoseImageProcessor

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


def test_pictures_in_many_forms_give_the_same_pixels(
    processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    expected = processor(image, [BOXES], return_tensors="np").pixel_values
    for form in (Image.fromarray(image), [image], torch.from_numpy(image)):
        np.testing.assert_array_equal(processor(form, [BOXES], return_tensors="np").pixel_values, expected)
    channels_first = processor(
        image.transpose(2, 0, 1), [BOXES], return_tensors="np", input_data_format="channels_first"
    )
    np.testing.assert_array_equal(channels_first.pixel_values, expected)


def test_ready_made_crops(processor: VitPoseImageProcessor) -> None:
    crops = [np.zeros((256, 192, 3), np.uint8), np.full((256, 192, 3), 9, np.uint8)]
    pixels = processor(crops, do_affine_transform=False, do_normalize=False, return_tensors="np").pixel_values
    np.testing.assert_allclose(pixels[1], 9 / 255, rtol=1e-6)
    with pytest.raises(InputError, match="every picture must be a crop of 192x256 px, not 50x40"):
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
    with pytest.raises(InputError, match="image_mean has 1 values and needs three"):
        VitPoseImageProcessor(image_mean=(0.5,))
    with pytest.raises(InputError, match="has a zero"):
        VitPoseImageProcessor(image_std=(0.2, 0.0, 0.2))
    with pytest.raises(InputError, match="size must have 'height' and 'width'"):
        VitPoseImageProcessor(size={"shortest_edge": 3})
    with pytest.raises(InputError, match="size must be Size"):
        VitPoseImageProcessor(size=(256, 192))
    with pytest.raises(UnknownNameError, match="warp 'upd'"):
        VitPoseImageProcessor(warp="upd")
    with pytest.raises(UnknownNameError, match="decoding 'drak'"):
        VitPoseImageProcessor(decode="drak")


def test_floats_are_pictures_too(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    floats = image.astype(np.float32) / 255
    expected = processor(image, [BOXES], return_tensors="np").pixel_values
    np.testing.assert_allclose(
        processor(floats, [BOXES], return_tensors="np").pixel_values, expected, atol=1e-5
    )
    unrescaled = processor(floats, [BOXES], do_rescale=False, return_tensors="np").pixel_values
    np.testing.assert_allclose(unrescaled, expected, atol=1e-5)
    with pytest.raises(InputError, match="all of floats or all of bytes"):
        processor([image, floats], [BOXES, BOXES], do_rescale=False)


def test_layouts_that_cannot_be_are_refused(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"shape \(120, 160, 3\) is not channels_first: it would have 120"):
        processor(image, [BOXES], input_data_format="channels_first")
    with pytest.raises(InputError, match=r"shape \(3, 120, 160\) is not channels_last: it would have 160"):
        processor(image.transpose(2, 0, 1), [BOXES], input_data_format="channels_last")


def test_choices_reach_the_decoding() -> None:
    maps = outputs(1)
    found = {}
    for options in ({}, {"max_step": None}, {"blur_sigma": 0.8}, {"border": "mirror"}, {"warp": "plain"}):
        result = VitPoseImageProcessor(**options).post_process_pose_estimation(maps, [BOXES[:1]])
        found[str(options)] = result[0][0]["keypoints"].numpy().tobytes()
    wide = VitPoseImageProcessor().post_process_pose_estimation(maps, [BOXES[:1]], kernel_size=17)
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
    with pytest.raises(BoxError, match="wholly outside its picture of 160x120"):
        processor(image, [[[300, 1, 5, 5]]])


# What trips users of `transformers` 5.23, one test a fault: absent here.


def test_fault_bbox_is_the_persons_box(processor: VitPoseImageProcessor) -> None:
    result = processor.post_process_pose_estimation(outputs(1), boxes=[[[100, 120, 80, 160]]])
    assert result[0][0]["bbox"].tolist() == [100, 120, 180, 280]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_fault_pictures_of_other_modes(
    processor: VitPoseImageProcessor, image: np.ndarray, mode: str
) -> None:
    picture = Image.fromarray(image).convert(mode)
    assert processor(picture, [BOXES], return_tensors="np").pixel_values.shape == (2, 3, 256, 192)


def test_fault_zero_boxes(processor: VitPoseImageProcessor, image: np.ndarray) -> None:
    assert processor(image, [[]], return_tensors="pt").pixel_values.shape == (0, 3, 256, 192)
    assert processor.post_process_pose_estimation(outputs(0), boxes=[[]]) == [[]]
    some = processor.post_process_pose_estimation(outputs(2), boxes=[[], BOXES, []])
    assert [len(people) for people in some] == [0, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fault_half_precision_maps(processor: VitPoseImageProcessor, dtype: torch.dtype) -> None:
    exact = VitPoseEstimatorOutput(heatmaps=torch.zeros(1, 2, 64, 48))
    exact.heatmaps[0, :, 20, 30] = 1
    half = VitPoseEstimatorOutput(heatmaps=exact.heatmaps.to(dtype))
    found = [processor.post_process_pose_estimation(o, [BOXES[:1]])[0][0]["keypoints"] for o in (exact, half)]
    torch.testing.assert_close(found[0], found[1])


def test_fault_one_keypoint(processor: VitPoseImageProcessor) -> None:
    result = processor.post_process_pose_estimation(outputs(1, keypoints=1), [BOXES[:1]])[0][0]
    assert (result["keypoints"].shape, result["scores"].shape) == ((1, 2), (1,))


def test_fault_two_pictures_with_one_list_of_boxes(
    processor: VitPoseImageProcessor, image: np.ndarray
) -> None:
    with pytest.raises(BoxError, match="there are 2 pictures and 1 lists of boxes"):
        processor([image, image], [BOXES])
    with pytest.raises(BoxError, match="there are 1 boxes and heat maps for 2"):
        processor.post_process_pose_estimation(outputs(2), [BOXES[:1]])


def test_fault_target_sizes_are_height_and_width(processor: VitPoseImageProcessor) -> None:
    maps = outputs(2)
    relative = [[[0.1, 0.2, 0.5, 0.5]], [[0.2, 0.1, 0.4, 0.6]]]
    absolute = [[[16, 24, 80, 60]], [[64, 20, 128, 120]]]
    sizes = [(120, 160), (200, 320)]
    for given in (sizes, torch.tensor(sizes)):
        found = processor.post_process_pose_estimation(maps, relative, target_sizes=given)
        expected = processor.post_process_pose_estimation(maps, absolute)
        torch.testing.assert_close(found[1][0]["keypoints"], expected[1][0]["keypoints"])
        torch.testing.assert_close(found[0][0]["bbox"], torch.tensor([16.0, 24, 96, 84]))
    with pytest.raises(InputError, match="there are 1 target_sizes for 2 pictures with 2 boxes"):
        processor.post_process_pose_estimation(maps, relative, target_sizes=sizes[:1])


def test_fault_threshold_keeps_every_point(processor: VitPoseImageProcessor) -> None:
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
    own = VitPoseImageProcessor(size=Size(width=96, height=128))
    own.save_pretrained(tmp_path)
    table = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert set(table) == {
        "do_affine_transform", "do_normalize", "do_rescale", "image_mean", "image_std", "image_processor_type",
        "normalize_factor", "rescale_factor", "size",
    }  # fmt: skip
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == own
    theirs = pytest.importorskip("transformers.models.vitpose.image_processing_pil_vitpose")
    loaded = theirs.VitPoseImageProcessorPil.from_pretrained(tmp_path)
    assert (loaded.size["height"], loaded.size["width"]) == (128, 96)
    loaded.save_pretrained(tmp_path)
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == own


def test_own_choices_survive_the_file(tmp_path: Path) -> None:
    own = VitPoseImageProcessor(
        warp="plain", decode="quarter", shift_heatmap=True, max_step=None, border="mirror"
    )
    own.save_pretrained(tmp_path)
    assert VitPoseImageProcessor.from_pretrained(tmp_path) == own


def test_a_slip_of_the_pen_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"blur_sgma": 1.0, "do_resize": true}')
    with pytest.raises(UnknownNameError, match="'blur_sgma'; did you mean blur_sigma"):
        VitPoseImageProcessor.from_pretrained(tmp_path)


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(CheckpointError, match="describes a 'ViTImageProcessor', not a VitPoseImageProcessor"):
        VitPoseImageProcessor.from_pretrained(tmp_path)
