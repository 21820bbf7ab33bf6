"""Exports: the comparison with torch, the files that are written, and the errors before any work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import vitpose
from vitpose.engines import open_engine
from vitpose.engines.metadata import Metadata
from vitpose.errors import CheckpointError, InputError, MissingDependencyError, OutputError, UnknownNameError
from vitpose.exporters.calibration import FEWEST, read_crops
from vitpose.exporters.conversion import write_onnx
from vitpose.exporters.formats import Plan
from vitpose.exporters.int8 import DECODER
from vitpose.files.writing import write_json

Export = Callable[[str], Path]


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 48, 3), np.uint8)


def save_changed(
    checkpoint: Path, folder: Path, change: Callable[[torch.nn.Module], None], **config: object
) -> Path:
    """Save a changed network of the checkpoint's size, and its processor."""
    settings = vitpose.VitPoseConfig.from_pretrained(checkpoint)
    options = {name: config.pop(name) for name in ("use_simple_decoder",) if name in config}
    settings = replace(settings, **options)
    settings.backbone_config = replace(settings.backbone_config, out_features=None, **config)
    torch.manual_seed(4)
    network = vitpose.VitPoseForPoseEstimation(settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
        change(network)
    network.save_pretrained(folder)
    vitpose.VitPoseImageProcessor.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


@torch.inference_mode()
def heatmaps_of(folder: Path, count: int, **options: object) -> np.ndarray:
    network = vitpose.VitPoseForPoseEstimation.from_pretrained(folder)
    processor = vitpose.VitPoseImageProcessor.from_pretrained(folder)
    return network(processor.preprocess(
        list(crops(count)), do_affine_transform=False, return_tensors="pt"
    )["pixel_values"], **options).heatmaps.numpy()  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the minimum number of images, without people."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(2)
    for index in range(FEWEST):
        tones = random.integers(0, 256, (4, 3, 3))
        vitpose.save_image(folder / f"{index}.jpg", np.kron(tones, np.ones((16, 16, 1))).astype(np.uint8))
    return folder


def test_a_network_with_experts_is_exported_for_one_dataset(checkpoint: Path, tmp_path: Path) -> None:
    folder = save_changed(checkpoint, tmp_path / "plus", lambda network: None, num_experts=3, part_features=8)
    written = vitpose.export(folder, "onnx", tmp_path / "plus.onnx", dataset=2)
    found = open_engine(written.path, device="cpu").heatmaps(crops(2))
    expected = heatmaps_of(folder, 2, dataset_index=2)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
    assert written.size_bytes == written.path.stat().st_size
    assert 0 < written.difference < 1e-4
    with pytest.raises(InputError, match="expert 3 does not exist; the network has 3, 0 to 2"):
        vitpose.export(folder, "onnx", tmp_path / "other.onnx", dataset=3)
    with pytest.raises(InputError, match="expert 1 does not exist; the network has 1, 0 to 0"):
        vitpose.export(checkpoint, "onnx", tmp_path / "other.onnx", dataset=1)


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="its exporter to ONNX fails at BatchNorm")
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_classic_decoder(to: str, checkpoint: Path, tmp_path: Path) -> None:
    def set_variances(network: torch.nn.Module) -> None:
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)

    folder = save_changed(checkpoint, tmp_path / "classic", set_variances, use_simple_decoder=False)
    path = tmp_path / ("a.onnx" if to == "onnx" else "a.xml")
    vitpose.export(folder, to, path)
    found, expected = (
        open_engine(path, device="cpu", dtype="float32").heatmaps(crops(3)),
        heatmaps_of(folder, 3),
    )
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(
    ("to", "names"),
    [("onnx", {"small.onnx"}), ("openvino", {"small.xml", "small.bin"}), ("torch-export", {"small.pt2"})],
)
def test_the_files_that_are_written(
    to: str, names: set[str], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the file has the name of the model, and is in the working directory."""
    monkeypatch.chdir(tmp_path)
    written = vitpose.export(checkpoint, to)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert written.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=rf"{written.path} already exists; .* replace it with --force"):
        vitpose.export(checkpoint, to)


@pytest.mark.parametrize(
    ("model", "dataset", "int8", "name"),
    [
        ("classic-v1.5", None, False, "classic-v1.5.onnx"),
        ("original.v2.pth", None, False, "original.v2.onnx"),
        ("classic-v1.5", "ap10k", True, "classic-v1.5-ap10k-int8.onnx"),
        ("classic-v1.5", 0, False, "classic-v1.5-0.onnx"),
        ("some/hub-v1.5", None, False, "hub-v1.5.onnx"),
    ],
)
def test_default_file_names(
    model: str,
    dataset: str | int | None,
    int8: bool,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classic-v1.5").mkdir()
    (tmp_path / "original.v2.pth").touch()
    assert Plan.make("onnx", None, model, int8, False, dataset).path == Path(name)


def test_the_working_directory_as_the_model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint)
    try:
        written = vitpose.export(".", "torch-export", dataset=0)
        assert written.path == Path("small-0.pt2")
        assert open_engine(written.path, device="cpu", trust=True).metadata.model == "small"
    finally:
        (checkpoint / "small-0.pt2").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("to", "out", "beside"), [("openvino", "a.xml", "a.bin"), ("onnx", "a.onnx", "a.onnx.data")]
)
def test_additional_files_are_not_replaced_either(to: str, out: str, beside: str, tmp_path: Path) -> None:
    (tmp_path / beside).write_text("mine")
    with pytest.raises(InputError, match=rf"{beside} already exists; .* replace it with --force"):
        vitpose.export("no-such-model", to, tmp_path / out)
    assert Plan.make(to, tmp_path / out, "no-such-model", False, True).path == tmp_path / out


def test_a_file_that_differs_from_torch_is_not_written(checkpoint: Path, tmp_path: Path) -> None:
    """With NaN among the weights; the existing file is kept."""
    folder = save_changed(
        checkpoint, tmp_path / "broken", lambda network: network.head.final_layer.bias.fill_(torch.nan)
    )
    path = tmp_path / "out" / "a.onnx"
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(
        CheckpointError, match=r"differ from torch's by nan%, more than 0.10%; nothing was written"
    ):
        vitpose.export(folder, "onnx", path, force=True)
    assert [file.name for file in path.parent.iterdir()] == ["a.onnx"]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
def test_files_contain_no_paths_of_this_machine(to: str, exported: Export) -> None:
    for file in exported(to).parent.glob("small.*"):
        for path in (Path(vitpose.__file__).parent, file.parent):
            assert str(path).encode() not in file.read_bytes()


def test_replacing_needs_force(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_text("old")
    vitpose.export(checkpoint, "torch-export", path, force=True)
    assert open_engine(path, device="cpu", trust=True).metadata.model == "small"


def test_errors_before_any_work(checkpoint: Path, exported: Export, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown format to export to 'onx'; did you mean onnx"):
        vitpose.export("no-such-model", "onx")
    with pytest.raises(
        InputError, match=r"the name of a file for openvino must end in .xml, not a.onnx; rename it"
    ):
        vitpose.export("no-such-model", "openvino", "a.onnx")
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(OutputError, match=r"a.onnx is a directory; give the path of a file"):
        vitpose.export("no-such-model", "onnx", tmp_path / "a.onnx")
    with pytest.raises(
        InputError, match="int8 is not supported for torch-export; export to onnx and openvino"
    ):
        vitpose.export("no-such-model", "torch-export", calibrate="images")
    with pytest.raises(InputError, match=r"small.onnx is already exported; pass the checkpoint"):
        vitpose.export(exported("onnx"), "openvino")
    with pytest.raises(
        CheckpointError, match=r"the skeleton 'mpii' has 16 keypoints, the model's, 'coco', has 17"
    ):
        vitpose.export(checkpoint, "onnx", tmp_path / "b.onnx", skeleton="mpii")


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnxscript", "export"),
        ("openvino", "openvino", "export"),
        ("tensorrt", "tensorrt", "tensorrt"),
    ],
)
def test_a_missing_package_is_named(
    to: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"'{package}' is required to export to {to}; install it with: pip install 'vitpose\[{extra}\]'"
    with pytest.raises(MissingDependencyError, match=message):
        vitpose.export("no-such-model", to)


def test_another_skeleton_is_written_to_the_file(checkpoint: Path, tmp_path: Path) -> None:
    skeleton = replace(vitpose.Skeleton.load("coco"), name="mine", edges=((0, 1),), edge_colours=())
    vitpose.export(checkpoint, "torch-export", tmp_path / "a.pt2", skeleton=skeleton)
    assert vitpose.load(tmp_path / "a.pt2", None, device="cpu", trust=True).estimator.skeleton == skeleton


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8(to: str, checkpoint: Path, images: Path, exported: Export, tmp_path: Path) -> None:
    path = tmp_path / ("a.onnx" if to == "onnx" else "a.xml")
    written = vitpose.export(checkpoint, to, path, calibrate=images)
    engine = open_engine(path, device="cpu")
    assert engine.metadata.precision == "int8"
    assert "int8" in engine.description
    unquantised = open_engine(exported(to), device="cpu")
    assert engine.metadata == replace(unquantised.metadata, precision="int8")
    calibrated = read_crops(images, engine.metadata.spec)
    for count in (1, 5):
        found, expected = engine.heatmaps(calibrated[:count]), unquantised.heatmaps(calibrated[:count])
        assert 1e-4 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.25
    assert 1e-4 < written.difference < 0.25


def test_weights_that_are_too_large_for_the_file_are_stored_beside_it(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In int8 they have a quarter of the size, and are in the file again."""
    monkeypatch.setattr("vitpose.exporters.conversion._LARGEST", 0)
    vitpose.export(checkpoint, "onnx", tmp_path / "whole" / "a.onnx")
    assert {file.name for file in (tmp_path / "whole").iterdir()} == {"a.onnx", "a.onnx.data"}
    written = vitpose.export(checkpoint, "onnx", tmp_path / "int8" / "a.onnx", calibrate=images)
    assert [file.name for file in (tmp_path / "int8").iterdir()] == ["a.onnx"]
    assert written.size_bytes == written.path.stat().st_size
    assert 1e-4 < written.difference < 0.25


@pytest.mark.slow
def test_a_network_of_more_than_2_gb(checkpoint: Path, tmp_path: Path) -> None:
    """A few wide layers of zeros, which exceed the limit of protobuf."""
    folder = tmp_path / "wide"
    settings = vitpose.VitPoseConfig.from_pretrained(checkpoint)
    settings.backbone_config = replace(settings.backbone_config, out_features=None, hidden_size=4864)
    with torch.device("meta"):
        network = vitpose.VitPoseForPoseEstimation(settings)
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    spec = vitpose.ModelSpec(dataset=network.config.heads[0], input_size=vitpose.Size(width=48, height=64))
    metadata = Metadata("wide", "float32", spec)
    folder.mkdir()
    write_onnx(network, metadata, folder / "a.onnx")
    assert (folder / "a.onnx.data").stat().st_size > 2**31
    del network
    assert open_engine(folder / "a.onnx", device="cpu").heatmaps(crops(1)).shape == (1, 17, 16, 12)


def test_the_decoder_is_not_quantised(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """In int8 files, no input of the decoder's operations is a quantised tensor."""
    vitpose.export(checkpoint, "onnx", tmp_path / "a.onnx", calibrate=images)
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    quantised = {out for node in nodes if node.op_type == "DequantizeLinear" for out in node.output}
    decoder = [node for node in nodes if DECODER in node.name]
    assert len([node for node in decoder if node.op_type == "MatMul"]) == 3
    assert not quantised & {name for node in decoder for name in node.input}
    assert quantised


class TestCalibration:
    SPEC = vitpose.ModelSpec(
        dataset=vitpose.DatasetSpec.load("coco"), input_size=vitpose.Size(width=48, height=64)
    )

    def write_annotations(self, path: Path, count: int) -> Path:
        rows = [
            {"id": index, "file_name": f"{index}.jpg", "width": 48, "height": 64} for index in range(count)
        ]
        people = [
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "bbox": [4, 4, 20, 40],
                "keypoints": [9, 9, 2],
                "num_keypoints": 1,
                "area": 800,
                "iscrowd": 0,
            }
            for index in range(count)
        ]
        category = {"id": 1, "name": "thing", "keypoints": ["middle"], "skeleton": []}
        write_json(path, {"images": rows, "annotations": people, "categories": [category]})
        return path

    def test_images_of_one_person_each(self, images: Path) -> None:
        assert read_crops(images, self.SPEC).shape == (FEWEST, 64, 48, 3)

    def test_annotations(self, images: Path, tmp_path: Path) -> None:
        source = self.write_annotations(tmp_path / "a.json", FEWEST)
        found = read_crops(f"{source}={images}", self.SPEC)
        box = np.array([[4, 4, 24, 44]], np.float32)
        expected = self.SPEC.warp_boxes(box).crop(vitpose.read_image(images / "3.jpg"))
        np.testing.assert_array_equal(found[3:4], expected)

    def test_too_few(self, images: Path, tmp_path: Path) -> None:
        source = self.write_annotations(tmp_path / "a.json", FEWEST - 1)
        with pytest.raises(
            InputError,
            match=rf"requires at least {FEWEST} instances, and {FEWEST - 1} in .* can be read; add",
        ):
            read_crops(f"{source}={images}", self.SPEC)

    def test_an_unreadable_image_is_skipped(self, images: Path, tmp_path: Path) -> None:
        for image in images.iterdir():
            (tmp_path / image.name).write_bytes(image.read_bytes())
        (tmp_path / "bad.jpg").write_text("no image")
        assert len(read_crops(tmp_path, self.SPEC)) == FEWEST
