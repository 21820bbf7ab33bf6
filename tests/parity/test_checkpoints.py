"""Checkpoints against independent code: `transformers` in both directions, and the original's files.

All weights are random, including norms and BatchNorm statistics, so that a lost or swapped parameter changes the
heatmaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from vitpose.images import read_image
from vitpose.keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.model.pose import VitPoseForPoseEstimation
from vitpose.processing.image_processor import VitPoseImageProcessor

TOLERANCE = 1e-4
"""Largest difference over the largest value, both in float32."""


@dataclass(frozen=True)
class Case:
    """The sizes of a network, as in the released configurations."""

    name: str
    width: int
    layers: int
    heads: int
    part: int
    experts: int
    simple: bool
    image_size: tuple[int, int] = (256, 192)

    def __str__(self) -> str:
        kind = "simple" if self.simple else "classic"
        return f"{self.name}-{self.layers}-{kind}-{self.experts}"


SIZES = {"S": (384, 12, 12, 96), "B": (768, 12, 12, 192), "L": (1024, 24, 16, 256), "H": (1280, 32, 16, 320)}


def cases(sizes: str, layers: int | None = None) -> list[Case]:
    """Returns all kinds of networks of the sizes; with `layers` given, that many blocks and smaller crops."""
    image_size = (128, 96) if layers else (256, 192)
    return [
        Case(name, width, layers or depth, heads, part, experts, simple, image_size)
        for name in sizes
        for width, depth, heads, part in [SIZES[name]]
        for experts in (1, 6)
        for simple in (True, False)
    ]


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.manual_seed(7)
    with torch.no_grad():
        yield


def randomise(model: nn.Module) -> None:
    """Draws every parameter and statistic so that activations keep their scale and no value is 0 or 1."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.ndim == 1:
            tensor.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
        else:
            tensor.normal_(0.0, 1 / math.sqrt(tensor[0].numel() if tensor.ndim < 3 else tensor.shape[1] * 16))


def their_config(case: Case, keypoints: int = 17, eps: float = 1e-6) -> transformers.VitPoseConfig:
    backbone = transformers.VitPoseBackboneConfig(
        image_size=list(case.image_size),
        hidden_size=case.width,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_experts=case.experts,
        part_features=case.part,
        layer_norm_eps=eps,
        out_indices=[case.layers],
    )
    return transformers.VitPoseConfig(
        backbone_config=backbone,
        use_simple_decoder=case.simple,
        id2label={index: f"point {index}" for index in range(keypoints)},
        label2id={f"point {index}": index for index in range(keypoints)},
        edges=[[0, 1], [1, 2]],
    )


def theirs_of(config: transformers.VitPoseConfig) -> transformers.VitPoseForPoseEstimation:
    with no_init_weights():  # initialising the weights takes longer than the rest
        model = transformers.VitPoseForPoseEstimation(config)
    return model.eval()


def random_theirs(config: transformers.VitPoseConfig) -> transformers.VitPoseForPoseEstimation:
    model = theirs_of(config)
    randomise(model)
    return model


def inputs_of(case: Case) -> tuple[Tensor, Tensor | None]:
    """Returns two crops, and an expert for each if there are experts."""
    return torch.randn(2, 3, *case.image_size), torch.tensor([4, 1]) if case.experts > 1 else None


def difference(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def check_both_directions(case: Case, folder: Path) -> None:
    pixels, experts = inputs_of(case)
    theirs = random_theirs(their_config(case))
    wanted = theirs(pixels, dataset_index=experts).heatmaps
    theirs.save_pretrained(folder)
    del theirs

    ours = VitPoseForPoseEstimation.from_pretrained(folder)
    assert difference(ours(pixels, experts).heatmaps, wanted) <= TOLERANCE
    for file in folder.iterdir():
        file.unlink()
    ours.save_pretrained(folder)
    del ours

    back, report = transformers.VitPoseForPoseEstimation.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert difference(back.eval()(pixels, dataset_index=experts).heatmaps, wanted) <= TOLERANCE


@pytest.mark.parametrize("case", cases("S") + cases("BLH", layers=1), ids=str)
def test_directories_of_both_libraries_give_the_same_heatmaps(case: Case, tmp_path: Path) -> None:
    check_both_directions(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("BLH"), ids=str)
def test_directories_of_both_libraries_give_the_same_heatmaps_in_full_size(
    case: Case, tmp_path: Path
) -> None:
    check_both_directions(case, tmp_path)


@pytest.mark.parametrize("experts", [1, 6])
def test_every_layer_agrees(experts: int, tmp_path: Path) -> None:
    case = Case("S", 384, 4, 12, 96, experts, simple=True)
    theirs = random_theirs(their_config(case))
    theirs.save_pretrained(tmp_path)
    theirs.set_attn_implementation("eager")
    ours = VitPoseForPoseEstimation.from_pretrained(tmp_path)
    pixels, index = inputs_of(case)
    options = {"output_attentions": True, "output_hidden_states": True}
    wanted, found = theirs(pixels, dataset_index=index, **options), ours(pixels, index, **options)
    assert len(found.hidden_states) == len(wanted.hidden_states) == case.layers + 1
    assert len(found.attentions) == len(wanted.attentions) == case.layers
    for name in ("hidden_states", "attentions"):
        for ours_layer, their_layer in zip(found[name], wanted[name], strict=True):
            assert difference(ours_layer, their_layer) <= TOLERANCE


def test_maps_are_flipped_back_alike(tmp_path: Path) -> None:
    case = Case("S", 384, 1, 12, 96, 1, simple=False)
    theirs = random_theirs(their_config(case))
    theirs.save_pretrained(tmp_path)
    ours = VitPoseForPoseEstimation.from_pretrained(tmp_path)
    pixels, pairs = inputs_of(case)[0], torch.tensor([[1, 2], [3, 4], [15, 16]])
    wanted = theirs(pixels, flip_pairs=pairs).heatmaps
    assert difference(ours(pixels, flip_pairs=pairs).heatmaps, wanted) <= TOLERANCE


# ------------------------------------------------------------------ the original's files


def original_shapes(case: Case, heads: tuple[int, ...], class_token: bool) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of an original file, as in the released ones."""
    d, p, hidden = case.width, case.part, 4 * case.width
    shapes: dict[str, tuple[int, ...]] = {"backbone.pos_embed": (1, 193, d)}
    if class_token:
        shapes["backbone.cls_token"] = (1, 1, d)
    shapes["backbone.patch_embed.proj.weight"] = (d, 3, 16, 16)
    shapes["backbone.patch_embed.proj.bias"] = (d,)
    for i in range(case.layers):
        block = f"backbone.blocks.{i}."
        shapes |= {
            f"{block}norm1.weight": (d,),
            f"{block}norm1.bias": (d,),
            f"{block}attn.qkv.weight": (3 * d, d),
            f"{block}attn.qkv.bias": (3 * d,),
            f"{block}attn.proj.weight": (d, d),
            f"{block}attn.proj.bias": (d,),
            f"{block}norm2.weight": (d,),
            f"{block}norm2.bias": (d,),
            f"{block}mlp.fc1.weight": (hidden, d),
            f"{block}mlp.fc1.bias": (hidden,),
            f"{block}mlp.fc2.weight": (d - p if case.experts > 1 else d, hidden),
            f"{block}mlp.fc2.bias": (d - p if case.experts > 1 else d,),
        }
        for e in range(case.experts if case.experts > 1 else 0):
            shapes[f"{block}mlp.experts.{e}.weight"] = (p, hidden)
            shapes[f"{block}mlp.experts.{e}.bias"] = (p,)
    shapes["backbone.last_norm.weight"] = shapes["backbone.last_norm.bias"] = (d,)
    for number, keypoints in enumerate(heads):
        head = f"associate_keypoint_heads.{number - 1}." if number else "keypoint_head."
        if case.simple:
            shapes |= {
                f"{head}final_layer.weight": (keypoints, d, 3, 3),
                f"{head}final_layer.bias": (keypoints,),
            }
            continue
        for layer, norm, width in ((0, 1, d), (3, 4, 256)):
            shapes[f"{head}deconv_layers.{layer}.weight"] = (width, 256, 4, 4)
            for row in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{head}deconv_layers.{norm}.{row}"] = (256,)
            shapes[f"{head}deconv_layers.{norm}.num_batches_tracked"] = ()
        shapes |= {
            f"{head}final_layer.weight": (keypoints, 256, 1, 1),
            f"{head}final_layer.bias": (keypoints,),
        }
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(123)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape) + 0.5
        elif len(shape) == 1:
            state[name] = 0.2 * torch.randn(shape) + (".norm" in name or "last_norm" in name)
        else:
            state[name] = torch.randn(shape) / math.sqrt(max(1, math.prod(shape[1:])))
    return state


def converted_by_the_table(state: dict[str, Tensor], case: Case) -> dict[str, Tensor]:
    """Returns the same weights under the names of `transformers`, written out by hand."""
    d = case.width
    result = {
        "backbone.embeddings.position_embeddings": state["backbone.pos_embed"],
        "backbone.embeddings.patch_embeddings.projection.weight": state["backbone.patch_embed.proj.weight"],
        "backbone.embeddings.patch_embeddings.projection.bias": state["backbone.patch_embed.proj.bias"],
        "backbone.layernorm.weight": state["backbone.last_norm.weight"],
        "backbone.layernorm.bias": state["backbone.last_norm.bias"],
        "head.conv.weight": state["keypoint_head.final_layer.weight"],
        "head.conv.bias": state["keypoint_head.final_layer.bias"],
    }
    for i in range(case.layers):
        old, new = f"backbone.blocks.{i}.", f"backbone.encoder.layer.{i}."
        for row in ("weight", "bias"):
            qkv = state[f"{old}attn.qkv.{row}"]
            result[f"{new}attention.attention.query.{row}"] = qkv[:d]
            result[f"{new}attention.attention.key.{row}"] = qkv[d : 2 * d]
            result[f"{new}attention.attention.value.{row}"] = qkv[2 * d :]
            result[f"{new}attention.output.dense.{row}"] = state[f"{old}attn.proj.{row}"]
            result[f"{new}layernorm_before.{row}"] = state[f"{old}norm1.{row}"]
            result[f"{new}layernorm_after.{row}"] = state[f"{old}norm2.{row}"]
            result[f"{new}mlp.fc1.{row}"] = state[f"{old}mlp.fc1.{row}"]
            result[f"{new}mlp.fc2.{row}"] = state[f"{old}mlp.fc2.{row}"]
            for e in range(case.experts if case.experts > 1 else 0):
                result[f"{new}mlp.experts.{e}.{row}"] = state[f"{old}mlp.experts.{e}.{row}"]
    if not case.simple:
        for layer, norm, number in ((0, 1, 1), (3, 4, 2)):
            head = "keypoint_head.deconv_layers"
            result[f"head.deconv{number}.weight"] = state[f"{head}.{layer}.weight"]
            for row in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                result[f"head.batchnorm{number}.{row}"] = state[f"{head}.{norm}.{row}"]
    return result


ALL_SIX = (17, 14, 16, 17, 17, 133)
ORIGINALS = [
    pytest.param(Case("S", 384, 12, 12, 0, 1, simple=True), (17,), False, id="S simple"),
    pytest.param(Case("S", 384, 12, 12, 0, 1, simple=False), (17,), False, id="S classic"),
    pytest.param(Case("B", 768, 12, 12, 0, 1, simple=False), (17, 14, 16), True, id="B of three datasets"),
    pytest.param(Case("S", 384, 12, 12, 96, 6, simple=False), ALL_SIX, False, id="S++"),
    pytest.param(Case("L", 1024, 1, 16, 256, 6, simple=False), ALL_SIX, True, id="L++ of one block"),
    pytest.param(Case("H", 1280, 1, 16, 0, 1, simple=True), (17,), False, id="H of one block"),
    pytest.param(Case("S", 384, 2, 12, 0, 1, simple=False), (133,), False, id="whole body"),
]


@pytest.mark.parametrize(("case", "heads", "class_token"), ORIGINALS)
def test_original_file_gives_the_heatmaps_of_the_reference(
    case: Case, heads: tuple[int, ...], class_token: bool, tmp_path: Path
) -> None:
    state = random_state(original_shapes(case, heads, class_token))
    meta = {"epoch": 210, "mmpose_version": "0.24.0", "hook_msgs": {}}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "vitpose.pth")
    theirs = theirs_of(their_config(case, heads[0]))
    theirs.load_state_dict(converted_by_the_table(state, case), strict=True)
    ours = VitPoseForPoseEstimation.from_pretrained(tmp_path / "vitpose.pth")
    pixels, first = torch.randn(2, 3, *case.image_size), torch.zeros(2, dtype=torch.long)
    wanted = theirs(pixels, dataset_index=first if case.experts > 1 else None).heatmaps
    assert wanted.shape[1] == heads[0]
    assert difference(ours(pixels, first if len(heads) > 1 else None).heatmaps, wanted) <= TOLERANCE


def test_original_file_can_be_a_plain_state_dict(tmp_path: Path) -> None:
    case = Case("S", 384, 1, 12, 0, 1, simple=True)
    torch.save(random_state(original_shapes(case, (17,), False)), tmp_path / "bare.pt")
    config = VitPoseForPoseEstimation.from_pretrained(tmp_path / "bare.pt").config
    assert (config.id2label[0], config.id2label[16]) == ("nose", "right_ankle")
    assert config.backbone_config.layer_norm_eps == 1e-6


def test_converted_original_is_read_by_transformers(tmp_path: Path) -> None:
    case = Case("S", 384, 2, 12, 96, 6, simple=False)
    state = random_state(original_shapes(case, ALL_SIX, class_token=True))
    torch.save({"state_dict": state}, tmp_path / "vitpose+.pth")
    VitPoseForPoseEstimation.from_pretrained(tmp_path / "vitpose+.pth").save_pretrained(tmp_path / "out")
    saved, wanted = load_file(tmp_path / "out" / "model.safetensors"), converted_by_the_table(state, case)
    assert saved.keys() == wanted.keys()
    assert all(np.array_equal(saved[name], wanted[name]) for name in wanted)
    _, report = transformers.VitPoseForPoseEstimation.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report


# ------------------------------------------------------------------ ViTPose++: six datasets

PLUS = [
    pytest.param(Case("S", 384, 12, 12, 96, 6, simple=False), id="S++", marks=pytest.mark.slow),
    pytest.param(Case("S", 384, 2, 12, 96, 6, simple=False), id="S++ of two blocks"),
    pytest.param(Case("L", 1024, 1, 16, 256, 6, simple=False), id="L++ of one block"),
    pytest.param(Case("H", 1280, 1, 16, 320, 6, simple=False), id="H++ of one block"),
]


@pytest.fixture(params=PLUS)
def plus(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, dict[str, Tensor], Path]:
    """A random file in the original's layout with six experts and heads, and its parameters."""
    case, path = request.param, tmp_path / "vitpose+.pth"
    state = random_state(original_shapes(case, ALL_SIX, class_token=False))
    torch.save({"meta": {"epoch": 210}, "state_dict": state}, path)
    return case, state, path


def theirs_for(state: dict[str, Tensor], case: Case, index: int) -> transformers.VitPoseForPoseEstimation:
    """Returns the network of `transformers` with the head of a dataset instead of COCO's."""
    head = "keypoint_head." if index == 0 else f"associate_keypoint_heads.{index - 1}."
    chosen = {name: value for name, value in state.items() if "keypoint_head" not in name}
    chosen |= {
        name.replace(head, "keypoint_head."): value for name, value in state.items() if name.startswith(head)
    }
    theirs = theirs_of(their_config(case, ALL_SIX[index]))
    theirs.load_state_dict(converted_by_the_table(chosen, case), strict=True)
    return theirs


def test_every_expert_and_head_of_an_original_file(
    plus: tuple[Case, dict[str, Tensor], Path], tmp_path: Path
) -> None:
    """Whole, split, saved, and saved after splitting, the network gives the heatmaps of the reference."""
    case, state, path = plus
    whole = VitPoseForPoseEstimation.from_pretrained(path)
    assert [spec.name for spec in whole.config.datasets] == list(PLUS_DATASETS)
    pixels = torch.randn(1, 3, *case.image_size)
    wanted = [
        theirs_for(state, case, index)(pixels, dataset_index=torch.tensor([index])).heatmaps
        for index in range(6)
    ]
    whole.save_pretrained(tmp_path / "saved")
    again = VitPoseForPoseEstimation.from_pretrained(tmp_path / "saved")
    assert again.config == whole.config
    for index, (name, heatmaps) in enumerate(zip(PLUS_DATASETS, wanted, strict=True)):
        assert heatmaps.shape[1] == ALL_SIX[index]
        assert difference(whole(pixels, index).heatmaps, heatmaps) <= TOLERANCE
        assert difference(again(pixels, index).heatmaps, heatmaps) <= TOLERANCE
        for source in (path, tmp_path / "saved"):
            split = VitPoseForPoseEstimation.from_pretrained(source, dataset=name)
            assert split.config.num_experts == 1
            assert split.config.heads == [DatasetSpec.load(name)]
            assert difference(split(pixels).heatmaps, heatmaps) <= TOLERANCE
    mixed = whole(torch.cat([pixels] * 6), [5, 0, 3, 1, 2, 4]).heatmaps
    assert mixed.shape[1] == 133
    for row, index in enumerate([5, 0, 3, 1, 2, 4]):
        assert difference(mixed[row : row + 1, : ALL_SIX[index]], wanted[index]) <= TOLERANCE
        assert not mixed[row, ALL_SIX[index] :].any()


def test_split_original_is_read_by_transformers(
    plus: tuple[Case, dict[str, Tensor], Path], tmp_path: Path
) -> None:
    case, state, path = plus
    pixels = torch.randn(2, 3, *case.image_size)
    wanted = theirs_for(state, case, 0)(pixels, dataset_index=torch.zeros(2, dtype=torch.long)).heatmaps
    VitPoseForPoseEstimation.from_pretrained(path).save_pretrained(tmp_path / "whole")
    VitPoseForPoseEstimation.from_pretrained(tmp_path / "whole", dataset="coco").save_pretrained(
        tmp_path / "split"
    )
    VitPoseForPoseEstimation.from_pretrained(path, dataset="aic").save_pretrained(tmp_path / "aic")
    for folder, index in (("whole", torch.zeros(2, dtype=torch.long)), ("split", None)):
        theirs, report = transformers.VitPoseForPoseEstimation.from_pretrained(
            tmp_path / folder, output_loading_info=True
        )
        assert not any(report.values()), report
        assert theirs.config.id2label[0] == "nose"
        assert difference(theirs.eval()(pixels, dataset_index=index).heatmaps, wanted) <= TOLERANCE
    theirs = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path / "aic").eval()
    aic = theirs_for(state, case, 1)(pixels, dataset_index=torch.ones(2, dtype=torch.long)).heatmaps
    assert theirs.config.id2label[13] == "neck"
    assert difference(theirs(pixels).heatmaps, aic) <= TOLERANCE
    assert not (tmp_path / "split" / "heads.safetensors").exists()


# ------------------------------------------------------------------ the released weights

GOLDEN = [
    ("vitpose-base-simple", (398.1805, 181.8084), 0.8666),
    ("vitpose-plus-small", (398.1597, 181.6902), 0.9051),
]


@pytest.mark.network
@pytest.mark.parametrize(("name", "nose", "score"), GOLDEN)
def test_released_weights_give_the_published_keypoint(
    name: str, nose: tuple[float, float], score: float
) -> None:
    """The keypoint that the public converter checks: the second person's nose, after a flip test."""
    image = read_image("http://images.cocodataset.org/val2017/000000000139.jpg")
    boxes = [[[412.8, 157.61, 53.05, 138.01], [384.43, 172.21, 15.12, 35.74]]]
    # The published decoding blurs less than the paper and reflects the heatmap at its border.
    processor = replace(
        VitPoseImageProcessor.from_pretrained(name), blur_sigma=0.8, border="reflect", max_step=None
    )
    model = VitPoseForPoseEstimation.from_pretrained(name)
    pixels = processor(image, boxes=boxes, return_tensors="pt").pixel_values
    index = 0 if model.config.backbone_config.num_experts > 1 else None
    plain = model(pixels, index)
    mirrored = model(pixels.flip(-1), index, flip_pairs=Skeleton.load("coco").flip_pairs)
    plain.heatmaps = (plain.heatmaps + mirrored.heatmaps) / 2
    person = processor.post_process_pose_estimation(plain, boxes=boxes)[0][1]
    assert person["keypoints"][0].tolist() == pytest.approx(nose, abs=5e-2)
    assert person["scores"][0].item() == pytest.approx(score, abs=5e-2)
