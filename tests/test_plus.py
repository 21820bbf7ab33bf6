"""ViTPose++ from a file to poses: small random checkpoints, every way to choose a dataset."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app
from vitpose.engines.torch import TorchEngine
from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.files.hub import resolve
from vitpose.inference.estimator import Estimator, MixedEstimator
from vitpose.keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec
from vitpose.model.checkpoint import read_checkpoint
from vitpose.model.pose import VitPoseForPoseEstimation

BOXES = [[20.0, 10.0, 90.0, 110.0], [60.0, 40.0, 150.0, 100.0]]


def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def network_of(datasets: list, experts: int = 6) -> vitpose.VitPoseForPoseEstimation:
    torch.manual_seed(3)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(128, 96),
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_experts=experts,
        part_features=48,
        layer_norm_eps=1e-6,
    )
    network = vitpose.VitPoseForPoseEstimation(
        vitpose.VitPoseConfig(backbone_config=backbone, datasets=datasets, use_simple_decoder=False)
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file in the layout of the original code."""
    path = tmp_path_factory.mktemp("plus") / "vitpose+.pth"
    state = {
        name.replace("associate_heads.", "associate_keypoint_heads.").replace("head.", "keypoint_head.", 1)
        if name.startswith(("head.", "associate_heads."))
        else name: value
        for name, value in network_of(list(PLUS_DATASETS)).state_dict().items()
    }
    assert "associate_keypoint_heads.4.final_layer.bias" in state
    torch.save({"meta": {}, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("name", PLUS_DATASETS)
def test_a_dataset_by_name(name: str, original: Path) -> None:
    spec, network = DatasetSpec.load(name), network_of(list(PLUS_DATASETS))
    pipe = vitpose.load(original, detector=None, dataset=name, device="cpu", dtype="float32")
    estimator = pipe.estimator
    assert (estimator.skeleton, estimator.spec.dataset) == (spec.skeleton, spec)
    crops = estimator.spec.warp_boxes(np.array(BOXES, np.float32)).crop(image())
    expected = TorchEngine(network.fold_expert(name), estimator.spec).heatmaps(crops)
    np.testing.assert_allclose(estimator.heatmaps(crops), expected, atol=1e-5)
    poses = pipe(image(), boxes=BOXES, flip_test=True)
    assert poses.xy.shape == (2, len(spec.skeleton), 2)
    again = vitpose.load(
        original, detector=None, dataset=PLUS_DATASETS.index(name), device="cpu", dtype="float32"
    )
    np.testing.assert_array_equal(again(image(), boxes=BOXES, flip_test=True).xy, poses.xy)


def independent_decode(heatmaps: np.ndarray, box: list[float], plain: bool, square: bool) -> np.ndarray:
    """The published decoding of the heatmaps of one crop, written out for both kinds of warp."""
    _k, hm, wm = heatmaps.shape
    x1, y1, x2, y2 = box
    width = max(x2 - x1, (y2 - y1) * 96 / 128) * 1.25
    extent, centre = np.array([width, width * 128 / 96]), np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    if square:
        extent = np.full(2, max(x2 - x1, y2 - y1) * 1.25)
    keypoints = []
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 2.0) ** 2)
    taps /= taps.sum()
    for heatmap in heatmaps.astype(np.float64):
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        peak = np.array([x, y], float)
        if plain:
            if 1 < x < wm - 1 and 1 < y < hm - 1:
                peak[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
                peak[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
        else:
            padded = np.pad(heatmap, 7)
            blurred = sum(taps[i] * np.roll(padded, i - 5, axis=1) for i in range(11))
            blurred = sum(taps[i] * np.roll(blurred, i - 5, axis=0) for i in range(11))
            log = np.log(np.clip(blurred, 0.001, 50))[y + 6 : y + 9, x + 6 : x + 9]
            gradient = np.array([log[1, 2] - log[1, 0], log[2, 1] - log[0, 1]]) / 2
            xx = log[1, 2] - 2 * log[1, 1] + log[1, 0]
            yy = log[2, 1] - 2 * log[1, 1] + log[0, 1]
            # The mixed term of the published code: forward and backward differences together.
            xy = 0.5 * (log[2, 2] - log[1, 2] - log[2, 1] + 2 * log[1, 1] - log[1, 0] - log[0, 1] + log[0, 0])
            hessian = np.array([[xx, xy], [xy, yy]])
            if xx < 0 and np.linalg.det(hessian) > 0:
                peak -= np.clip(np.linalg.solve(hessian, gradient), -1, 1)
        cells = np.array([wm, hm]) - (0 if plain else 1)
        keypoints.append(peak * extent / cells + centre - extent / 2)
    return np.array(keypoints)


class Peaks:
    """An engine whose heatmaps have one noisy peak each; mirrored crops have their peaks slightly shifted."""

    description = "peaks"

    def __init__(self, skeleton: vitpose.Skeleton, n: int) -> None:
        rng, mirror = np.random.default_rng(2), skeleton.mirror
        y, x = np.mgrid[:32, :24]
        self.results = []
        centres = rng.uniform([0, 0], [23, 31], (n, len(skeleton), 2))
        for shift in (0.0, 0.4):
            peaks = (centres + shift)[..., None, None]
            heatmaps = np.exp(-((x - peaks[:, :, 0]) ** 2 + (y - peaks[:, :, 1]) ** 2) / 8)
            self.results.append((heatmaps + rng.uniform(0, 0.02, heatmaps.shape)).astype(np.float32))
        self.results[1] = np.ascontiguousarray(self.results[1][:, mirror, :, ::-1])
        self.calls = 0

    def heatmaps(self, crops: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.results[(self.calls - 1) % 2]


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("name", PLUS_DATASETS)
def test_decoding_against_an_independent_computation(name: str, flip_test: bool, original: Path) -> None:
    spec = DatasetSpec.load(name)
    estimator = vitpose.load(original, detector=None, dataset=name, device="cpu", dtype="float32").estimator
    peaks = Peaks(spec.skeleton, len(BOXES))
    heatmaps = peaks.results[0]
    if flip_test:
        back = peaks.results[1][:, :, :, ::-1].copy()
        for a, b in spec.skeleton.flip_pairs:
            back[:, [a, b]] = back[:, [b, a]]
        if spec.warp == "plain":
            back[:, :, :, 1:] = back[:, :, :, :-1].copy()
        heatmaps = (heatmaps + back) / 2
    pipe = vitpose.Pipeline(None, replace(estimator, engine=peaks))
    found = pipe(image(), boxes=BOXES, flip_test=flip_test)
    for row, box in enumerate(BOXES):
        expected = independent_decode(heatmaps[row], box, plain=spec.warp == "plain", square=name == "mpii")
        np.testing.assert_allclose(found.xy[row], expected, atol=1e-2)


def test_people_and_animals_in_one_call(original: Path) -> None:
    pipe = vitpose.load(original, detector=None, dataset=["coco", "ap10k"], device="cpu", dtype="float32")
    assert isinstance(pipe.estimator, MixedEstimator)
    found = vitpose.Detections(np.array(BOXES, np.float32), np.ones(2, np.float32), ("cat", "person"))
    mixed = pipe(image(), boxes=found)
    assert mixed.datasets == ("ap10k", "coco")
    for name, row in (("ap10k", 0), ("coco", 1)):
        alone = vitpose.load(original, detector=None, dataset=name, device="cpu", dtype="float32")
        np.testing.assert_allclose(mixed[name].xy, alone(image(), boxes=[BOXES[row]]).xy, atol=1e-4)
    whole, shared = read_checkpoint(resolve(original)), "backbone.blocks.0.attn.qkv.weight"
    parts = [VitPoseForPoseEstimation.from_checkpoint(whole.for_dataset(name)) for name in mixed.groups]
    assert len({part.state_dict()[shared].data_ptr() for part in parts}) == 1
    with pytest.raises(InputError, match="the skeleton 'coco' was passed for several datasets"):
        vitpose.load(
            original, detector=None, dataset=["coco", "ap10k"], skeleton="coco", device="cpu", dtype="float32"
        )


def test_a_saved_directory_has_all_heads(original: Path, tmp_path: Path) -> None:
    network = vitpose.VitPoseForPoseEstimation.from_pretrained(original)
    network.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "heads.safetensors",
    }  # fmt: skip
    for name in PLUS_DATASETS:
        here = vitpose.load(tmp_path, detector=None, dataset=name, device="cpu", dtype="float32")
        there = vitpose.load(original, detector=None, dataset=name, device="cpu", dtype="float32")
        np.testing.assert_array_equal(here(image(), boxes=BOXES).xy, there(image(), boxes=BOXES).xy)
    (tmp_path / "heads.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no heads.safetensors"):
        vitpose.load(tmp_path, detector=None, dataset="ap10k", device="cpu", dtype="float32")


def test_a_missing_head_is_reported(tmp_path: Path) -> None:
    """Like the files on the hub: six experts, but only the head of COCO."""
    backbone = network_of(["coco"]).config.backbone_config
    network = vitpose.VitPoseForPoseEstimation(vitpose.VitPoseConfig(backbone_config=backbone))
    network.save_pretrained(tmp_path)
    assert (
        vitpose.load(tmp_path, detector=None, device="cpu", dtype="float32").estimator.skeleton.name == "coco"
    )
    assert vitpose.load(tmp_path, detector=None, dataset="coco", device="cpu", dtype="float32")
    for dataset in ("ap10k", 3):
        with pytest.raises(CheckpointError) as caught:
            vitpose.load(tmp_path, detector=None, dataset=dataset, device="cpu", dtype="float32")
        assert str(caught.value) == (
            "this checkpoint has no head for 'ap10k', only for coco: the ViTPose++ files on the hub contain "
            "only COCO's. All six heads are in the original .pth files, which github.com/ViTAE-Transformer/ViTPose "
            "links to: vitpose.load('vitpose+_base.pth', dataset='ap10k')"
        )
    with pytest.raises(UnknownNameError, match="unknown dataset of this network 'ap10'; did you mean ap10k"):
        vitpose.load(tmp_path, detector=None, dataset="ap10", device="cpu", dtype="float32")
    with pytest.raises(InputError, match="expert 6 does not exist; the network has 6, 0 to 5"):
        vitpose.load(tmp_path, detector=None, dataset=6, device="cpu", dtype="float32")


def test_the_dataset_of_a_file_with_one_head_is_an_argument(tmp_path: Path) -> None:
    network = network_of(["ap10k"], experts=1)
    state = {
        name.replace("head.", "keypoint_head.", 1): value for name, value in network.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "animals.pth")
    assert (
        vitpose.load(tmp_path / "animals.pth", None, device="cpu", dtype="float32").estimator.skeleton.name
        == "coco"
    )
    estimator = vitpose.load(
        tmp_path / "animals.pth", None, dataset="apt36k", device="cpu", dtype="float32"
    ).estimator
    assert isinstance(estimator, Estimator)
    assert (estimator.skeleton.name, estimator.spec.dataset.warp) == ("apt36k", "plain")
    with pytest.raises(
        InputError, match=r"the network's 17 keypoints .* are not the 14 of the dataset 'aic'"
    ):
        vitpose.load(tmp_path / "animals.pth", None, dataset="aic", device="cpu", dtype="float32")


def test_heads_in_another_order_than_the_released_files_are_refused(tmp_path: Path) -> None:
    network = network_of(["coco", "mpii"])
    state = {
        name.replace("associate_heads.", "associate_keypoint_heads.").replace("head.", "keypoint_head.", 1)
        if name.startswith(("head.", "associate_heads."))
        else name: value
        for name, value in network.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError, match=r"odd.pth has heads of \[17, 16\] keypoints; the released files have"
    ):
        vitpose.load(tmp_path / "odd.pth", None, device="cpu", dtype="float32")
    named = vitpose.VitPoseForPoseEstimation.from_pretrained(
        tmp_path / "odd.pth", config=network.config, dataset="mpii"
    )
    assert named.config.skeleton.name == "mpii"


def test_the_conventions_are_those_of_the_declared_dataset(tmp_path: Path) -> None:
    """In a directory without a spec, `preprocessor_config.json` gives the rest of the settings only."""
    network_of(["ap10k"], experts=1).save_pretrained(tmp_path)
    processor = vitpose.VitPoseImageProcessor(size=vitpose.Size(width=96, height=128))
    processor.with_dataset(DatasetSpec.load("ap10k")).save_pretrained(tmp_path)
    table = json.loads((tmp_path / "preprocessor_config.json").read_text())
    changes = {"warp": "udp", "image_std": [0.2, 0.3, 0.4]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(table | changes))
    spec = vitpose.load(tmp_path, None, device="cpu", dtype="float32").estimator.spec
    assert spec.dataset == DatasetSpec.load("ap10k")
    assert (spec.input_size, spec.std) == (vitpose.Size(width=96, height=128), (0.2, 0.3, 0.4))


def test_invalid_configurations_are_refused() -> None:
    with pytest.raises(InputError, match=r"datasets \['coco', 'coco'\] contain a name twice"):
        vitpose.VitPoseConfig(datasets=["coco", "coco"])
    with pytest.raises(
        InputError, match=r"there are 3 datasets .* for 2 experts; each dataset requires an expert"
    ):
        network_of(["coco", "aic", "mpii"], experts=2)
    with pytest.raises(
        InputError, match=r"the network's 14 keypoints .* are not the 17 of the dataset 'coco'"
    ):
        vitpose.VitPoseConfig(id2label={index: f"LABEL_{index}" for index in range(14)}, datasets=["coco"])
    config = vitpose.VitPoseConfig(num_labels=17, datasets=["coco"])
    assert config.skeleton == DatasetSpec.load("coco").skeleton


def test_several_heads_without_experts(tmp_path: Path) -> None:
    network = network_of(["coco", "aic", "coco-wholebody"], experts=1)
    pixels = torch.randn(3, 3, 128, 96, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        mixed = network(pixels, [2, 0, 1]).heatmaps
        assert mixed.shape == (3, 133, 32, 24)
        for row, index in enumerate([2, 0, 1]):
            k = len(network.config.heads[index].skeleton)
            alone = network(pixels[row : row + 1], index).heatmaps
            torch.testing.assert_close(mixed[row : row + 1, :k], alone, rtol=1e-4, atol=1e-5)
            assert not mixed[row, k:].any()
        torch.testing.assert_close(network.fold_expert("aic")(pixels).heatmaps, network(pixels, 1).heatmaps)
    network.save_pretrained(tmp_path)
    assert (
        vitpose.load(tmp_path, None, dataset="aic", device="cpu", dtype="float32").estimator.skeleton.name
        == "aic"
    )
    with pytest.raises(InputError, match="this network has 3 heads, so dataset_index is required: 0 to 2"):
        network(pixels)
    with pytest.raises(
        InputError, match="dataset_index 3 is not a valid head index; this network has 3 heads, 0 to 2"
    ):
        network(pixels, 3)
    with pytest.raises(
        InputError, match="flip_pairs belong to one skeleton, but the samples of this batch have"
    ):
        network(pixels, [0, 1, 1], flip_pairs=[[1, 2]])


def test_only_chosen_heads_run() -> None:
    network = network_of(["coco", "aic", "mpii"], experts=3)
    seen: dict[int, int] = {}
    for index, head in enumerate(network.heads):
        head.register_forward_hook(lambda _, inputs, __, index=index: seen.__setitem__(index, len(inputs[0])))
    with torch.no_grad():
        network(torch.randn(5, 3, 128, 96), [0, 2, 2, 0, 2])
    assert seen == {0: 2, 2: 3}


def test_the_loss_is_the_sum_of_the_heads_over_their_own_samples() -> None:
    network = network_of(["coco", "aic", "mpii"], experts=3)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(4, 3, 128, 96, generator=generator)
    labels = torch.rand(4, 17, 32, 24, generator=generator)
    weights = torch.rand(4, 17, generator=generator)
    index = [1, 0, 1, 0]
    output = network(pixels, index, labels=labels, label_weights=weights)
    expected = 0.0
    for head, k in ((0, 17), (1, 14)):
        rows = [row for row, value in enumerate(index) if value == head]
        heatmaps = network(pixels[rows], head).heatmaps.double()
        error = (weights[rows, :k, None, None].double() * (heatmaps - labels[rows, :k])).square()
        expected += (
            error.mean() * len(rows) / len(index)
        )  # a share of the whole batch, as in the released code
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-6)
    output.loss.backward()
    moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert "backbone.blocks.0.mlp.experts.1.weight" in moved
    assert "backbone.blocks.0.mlp.experts.2.weight" not in moved
    assert "associate_heads.0.final_layer.weight" in moved
    assert not any(name.startswith("associate_heads.1.") for name in moved)


def convert(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)], env={"COLUMNS": "250"})
    return result.stdout if result.exit_code == 0 else result.stderr


def test_convert_writes_all_heads_or_one(original: Path, tmp_path: Path) -> None:
    output = convert(original, tmp_path / "all")
    assert "17 + 14 + 16 + 17 + 17 + 133 keypoints" in output
    assert (tmp_path / "all" / "heads.safetensors").is_file()
    assert "14 keypoints" in convert(tmp_path / "all", tmp_path / "aic", "--dataset", "aic")
    assert not (tmp_path / "aic" / "heads.safetensors").exists()
    split = vitpose.load(tmp_path / "aic", None, device="cpu", dtype="float32")
    assert split.estimator.spec.dataset == DatasetSpec.load("aic")
    expected = vitpose.load(original, None, dataset="aic", device="cpu", dtype="float32")(
        image(), boxes=BOXES
    )
    np.testing.assert_array_equal(split(image(), boxes=BOXES).xy, expected.xy)
    assert "unknown dataset of this network 'lsp'" in convert(original, tmp_path / "lsp", "--dataset", "lsp")
    # A dense model replaces one with several heads: the old heads must be removed.
    convert(original, tmp_path / "all", "--dataset", "mpii", "--force")
    assert not (tmp_path / "all" / "heads.safetensors").exists()
    assert (
        vitpose.load(tmp_path / "all", None, device="cpu", dtype="float32").estimator.skeleton.name == "mpii"
    )


def test_the_command_line_estimates_people_and_animals(
    original: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = ["ap10k/000000000004.jpg", "coco/000000197388.jpg"]
    result = CliRunner().invoke(
        app,
        ["predict", *[str(shared_data / "samples" / name) for name in images], "--model", str(original),
         "--dataset", "coco,ap10k", "--detector", f"onnx:{shared_data / 'detectors' / 'yolox_nano.onnx'}",
         "--device", "cpu", "--dtype", "float32", "--save", "images,json,coco,csv"],
        env={"COLUMNS": "250"}, catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0
    assert "instances in" in result.stdout
    assert "(torch, cpu, float32)" in result.stdout
    with Path("predictions/poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"coco", "ap10k"}
    assert {row["label"] for row in rows if row["dataset"] == "coco"} == {"person"}
    assert {row["category_id"] for row in json.loads(Path("predictions/coco.json").read_text())} == {1, 2}
