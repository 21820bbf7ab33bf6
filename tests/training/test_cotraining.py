"""Several datasets in one training run: each head and expert is trained only by samples of its dataset."""

from __future__ import annotations

import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vitpose
from vitpose.data.annotations import read_training_annotations
from vitpose.data.dataset import JointDataset, PoseDataset
from vitpose.errors import InputError
from vitpose.evaluation import evaluate_model, evaluate_predictions
from vitpose.files.schemas import check
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.model.experts import fold_state, unfold_state
from vitpose.training.loop import train
from vitpose.training.module import PoseModule
from vitpose.training.recipe import Recipe, read_recipe
from vitpose.training.recipe_tables import ModelRecipe
from vitpose.training.samples import Samples, make_spec
from vitpose.training.start import make_network
from vitpose.training.targets import encode

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's hints; our warnings are tested elsewhere

ROOT = Path(__file__).parents[2]


def recipe_of(table: dict[str, Any]) -> Recipe:
    return check(Recipe, table, "the recipe")


def test_training_on_two_datasets(two_datasets: dict, tmp_path: Path, arrows: Path) -> None:
    folder = train(recipe_of(two_datasets), tmp_path / "out")
    config = vitpose.VitPoseConfig.from_pretrained(folder)
    assert [dataset.name for dataset in config.datasets] == ["five", "three"]
    assert (config.num_experts, config.backbone_config.part_features) == (2, 48)
    transformers = pytest.importorskip("transformers")
    theirs, report = transformers.VitPoseForPoseEstimation.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert theirs.config.id2label[0] == "tip"
    for name, warp in (("five", "udp"), ("three", "plain")):
        pipe = vitpose.load(folder, None, dataset=name, device="cpu")
        assert pipe.estimator.spec.dataset.warp == warp
        poses = pipe(arrows / "0.png", boxes=[[5, 5, 60, 90]], flip_test=True)
        assert poses.xy.shape == (1, len(pipe.estimator.skeleton), 2)


def test_several_heads_with_a_dense_backbone(two_datasets: dict, tmp_path: Path) -> None:
    two_datasets["model"]["experts"] = False
    folder = train(recipe_of(two_datasets), tmp_path / "out")
    config = vitpose.VitPoseConfig.from_pretrained(folder)
    assert (config.num_experts, len(config.datasets)) == (1, 2)
    assert vitpose.load(folder, None, dataset="three", device="cpu").estimator.skeleton.name == "three"


def test_samples_have_the_conventions_of_their_dataset(two_datasets: dict) -> None:
    recipe = recipe_of(two_datasets)
    samples = Samples(recipe)
    assert [len(people.skeleton) for people in samples.sources] == [5, 5, 3]
    batches = iter(samples.batches(recipe, 0, 0, 1, torch.device("cpu")))
    seen = set()
    for _ in range(8):
        batch = next(batches)
        assert batch["keypoints"].shape[1] == batch["weights"].shape[1] == 5
        short = batch["dataset"] == 1
        assert not batch["weights"][short, 3:].any()
        assert not batch["keypoints"][short, 3:].any()
        seen |= set(batch["dataset"].tolist())
    assert seen == {0, 1}
    five, three = samples.dataset(recipe).parts
    assert (five.spec.dataset.warp, three.spec.dataset.warp) == ("udp", "plain")
    assert three.augmentation.half_body == 0.0


def test_indices_of_a_joint_dataset_run_through_its_parts(arrows: Path) -> None:
    people = read_training_annotations(arrows / "arrows.json", arrows)
    spec = vitpose.ModelSpec(dataset=DatasetSpec.load("coco"), input_size=vitpose.Size(48, 64))
    parts = [
        PoseDataset(people.select(slice(0, 3)), spec),
        PoseDataset(people.select(slice(3, 5)), spec),
    ]
    joint = JointDataset(parts)
    assert len(joint) == 5
    assert [joint[index]["dataset"] for index in range(5)] == [0, 0, 0, 1, 1]
    torch.testing.assert_close(joint[3]["keypoints"], parts[1][0]["keypoints"])
    with pytest.raises(IndexError, match="index 5 is out of range for a dataset of 5 instances"):
        joint[5]
    with pytest.raises(InputError, match=r"require the same crop size, not 48x64, 192x256"):
        JointDataset([parts[0], PoseDataset(people)])


def test_experts_are_initialised_with_the_dense_rows(caplog: pytest.LogCaptureFixture) -> None:
    recipe = ModelRecipe(start="vitpose-tiny")
    datasets = [DatasetSpec.load("coco"), DatasetSpec.load("lsp"), DatasetSpec.load("ap10k")]
    with caplog.at_level(logging.WARNING):
        network = make_network(recipe, datasets)
    assert "has no dataset 'lsp': its head and expert are initialised with those of 'coco'" in caplog.text
    donor = vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny").state_dict()
    state = network.state_dict()
    assert network.config.num_experts == 3
    for number in range(3):
        folded = fold_state(state, number)
        for name in (name for name in donor if name.startswith("backbone.")):
            torch.testing.assert_close(folded[name], donor[name])
    last = state["associate_heads.0.final_layer.weight"]
    names = {name: row for row, name in enumerate(datasets[0].skeleton.keypoints)}
    for row, name in enumerate(datasets[1].skeleton.keypoints):
        same = name in names and torch.equal(last[row], donor["head.final_layer.weight"][names[name]])
        assert same == (name in names)
    pixels = torch.randn(2, 3, 256, 192)
    whole = vitpose.VitPoseForPoseEstimation.from_pretrained("vitpose-tiny")
    torch.testing.assert_close(
        network.eval()(pixels, 0).heatmaps, whole(pixels).heatmaps, rtol=1e-4, atol=1e-5
    )


def test_folding_inverts_unfolding() -> None:
    state = {
        "backbone.blocks.0.mlp.fc2.weight": torch.randn(8, 4),
        "backbone.blocks.0.mlp.fc2.bias": torch.randn(8),
    }
    unfolded = unfold_state(state, experts=3, part=2)
    assert unfolded["backbone.blocks.0.mlp.fc2.weight"].shape == (6, 4)
    assert sum(".experts." in name for name in unfolded) == 6
    for expert in range(3):
        again = fold_state(unfolded, expert)
        assert again.keys() == state.keys()
        assert all(torch.equal(again[name], state[name]) for name in state)


def test_datasets_of_the_checkpoint_keep_expert_and_head(tmp_path: Path) -> None:
    recipe = ModelRecipe(start="vitpose-tiny", height=128, width=96)
    first = make_network(recipe, [DatasetSpec.load("coco"), DatasetSpec.load("lsp")])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    first.save_pretrained(tmp_path)
    recipe = ModelRecipe(start=str(tmp_path), height=128, width=96)
    second = make_network(
        recipe, [DatasetSpec.load("lsp"), DatasetSpec.load("aic"), DatasetSpec.load("coco")]
    )
    pixels = torch.randn(1, 3, 128, 96)
    for old, new in ((1, 0), (0, 2)):
        torch.testing.assert_close(
            second.eval()(pixels, new).heatmaps, first.eval()(pixels, old).heatmaps, rtol=1e-4, atol=1e-5
        )
    dense = make_network(recipe)
    assert dense.config.num_experts == 1


def test_an_expert_is_changed_only_by_samples_of_its_dataset(two_datasets: dict) -> None:
    """By optimiser steps on the first dataset, with weight decay and momentum."""
    recipe = recipe_of(two_datasets)
    network = make_network(recipe.model, recipe.datasets)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)

    def step(index: list[int]) -> dict[str, torch.Tensor]:
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        labels = torch.rand(4, 5, 16, 12)
        network(torch.randn(4, 3, 64, 48), index, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {name: (weight - before[name]).abs().max() for name, weight in network.named_parameters()}

    step([0, 1, 1, 0])  # so that the second expert has momentum
    for _ in range(2):
        moved = step([0, 0, 0, 0])
        first = [name for name in moved if ".mlp.experts.0." in name or name.startswith("head.")]
        second = [
            name for name in moved if ".mlp.experts.1." in name or name.startswith("associate_heads.0.")
        ]
        assert first
        assert second
        assert all(moved[name] > 0 for name in first)
        assert all(moved[name] == 0 for name in second)
        assert moved["backbone.blocks.0.attn.qkv.weight"] > 0


def test_invalid_recipes_raise(two_datasets: dict) -> None:
    one = {key: value for key, value in two_datasets["sources"][0].items() if key != "dataset"}
    with pytest.raises(InputError, match="only some of the sources have a dataset; give a dataset to all"):
        recipe_of(two_datasets | {"sources": [*two_datasets["sources"], one]})
    with pytest.raises(InputError, match=r"omit model.skeleton 'lsp' and target.convention 'udp'"):
        recipe_of(two_datasets | {"model": {"skeleton": "lsp"}})
    with pytest.raises(InputError, match=r"omit model.skeleton 'coco' and target.convention 'msra'"):
        recipe_of(two_datasets | {"target": {"convention": "msra"}})
    validation = [{"annotations": "a.json", "images": "a", "dataset": "four"}]
    with pytest.raises(
        InputError, match=r"unknown dataset of the validation set .* 'four'; known: five, three"
    ):
        recipe_of(two_datasets | {"validation": validation})
    packs = [{"pack": "p", "dataset": source["dataset"]} for source in two_datasets["sources"]]
    with pytest.raises(
        InputError, match=r"loop.on_device supports one dataset, and the sources have 2; set it to false"
    ):
        recipe_of(two_datasets | {"sources": packs, "loop": {"on_device": True}})


def test_the_shipped_recipes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plus = read_recipe("recipes/vitpose-plus-base.toml")
    assert [dataset.name for dataset in plus.datasets] == [
        "coco",
        "aic",
        "mpii",
        "ap10k",
        "apt36k",
        "coco-wholebody",
    ]
    assert plus.target.loss_average == "batch"
    small = read_recipe("recipes/cotraining.toml")
    assert [dataset.name for dataset in small.datasets] == ["coco", "lsp", "lspet"]
    assert small.target.loss_average == "dataset"


@pytest.mark.parametrize("average", ["batch", "dataset"])
def test_the_loss_has_the_average_of_the_recipe(two_datasets: dict, average: str) -> None:
    two_datasets["target"]["loss_average"] = average
    recipe = recipe_of(two_datasets)
    network = make_network(recipe.model, recipe.datasets).eval()
    module = PoseModule(network, recipe, 1, make_spec(recipe))
    module.log_dict = lambda *numbers, **options: None  # type: ignore[method-assign]
    batch = {
        "pixels": torch.randn(4, 3, 64, 48),
        "dataset": torch.tensor([0, 0, 1, 0]),
        "keypoints": torch.rand(4, 5, 2) * 12,
        "weights": torch.ones(4, 5),
    }
    targets, _ = encode(
        batch["keypoints"], batch["weights"], vitpose.Size(12, 16), 1.5, batch["dataset"] == 0
    )
    heatmaps = network(batch["pixels"] * module.scale + module.offset, batch["dataset"]).heatmaps
    errors = (heatmaps - targets).square().mean(dim=(2, 3))
    sums = errors[[0, 1, 3]].mean(dim=1).sum(), errors[2, :3].mean()
    wanted = (sums[0] + sums[1]) / 4 if average == "batch" else sums[0] / 3 + sums[1]
    torch.testing.assert_close(module.training_step(batch, 0), wanted)


# ------------------------------------------------------------------ real people


def part_of(source: Path, target: Path, rows: slice) -> Path:
    """Write the chosen rows of the annotations with at least ten labelled keypoints to a file."""
    table = json.loads(source.read_text())
    people = [row for row in table["annotations"] if row["num_keypoints"] >= 10 and not row.get("iscrowd")]
    table["annotations"] = people[rows]
    used = {row["image_id"] for row in table["annotations"]}
    table["images"] = [image for image in table["images"] if image["id"] in used]
    target.write_text(json.dumps(table))
    return target


def mean_pose(train_file: Path, images: Path, validation: Path) -> list[dict[str, Any]]:
    """Return predictions with the mean position in the box of each keypoint."""
    people = read_training_annotations(train_file, images)
    low, sides = people.boxes[:, None, :2], people.boxes[:, None, 2:] - people.boxes[:, None, :2]
    share = np.where(people.labelled[:, :, None], (people.xy - low) / sides, np.nan)
    mean = np.nanmean(share, axis=0)
    rows = []
    for row in json.loads(validation.read_text())["annotations"]:
        keypoints = np.array(row["bbox"][:2]) + mean * row["bbox"][2:]
        kept = {key: row[key] for key in ("image_id", "category_id", "bbox")}
        flat = np.column_stack([keypoints, np.ones(len(keypoints))]).ravel().tolist()
        rows.append(kept | {"keypoints": flat, "score": 1.0})
    return rows


@pytest.mark.slow
def test_each_head_beats_the_mean_pose_of_its_dataset(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped recipe on a part of the data, for two epochs: minutes on an idle core."""
    monkeypatch.chdir(ROOT)
    sources, held_out = [], {}
    for name, dataset, number in (
        ("coco", "coco", 480),
        ("lsp", "lsp", 480),
        ("lspet", "recipes/datasets/lspet.toml", 480),
    ):
        folder = shared_data / name
        train_file = part_of(folder / "train.json", tmp_path / f"{name}.json", slice(0, number))
        rest = (
            (folder / "train.json", slice(-100, None))
            if name == "lspet"
            else (folder / "val.json", slice(0, 100))
        )
        held_out[name] = part_of(rest[0], tmp_path / f"{name}-val.json", rest[1])
        sources.append({"annotations": str(train_file), "images": str(folder / "images"), "dataset": dataset})
    table = tomllib.loads((ROOT / "recipes" / "cotraining.toml").read_text())
    loop = table["loop"] | {"epochs": 2, "workers": 0, "ema": 0.9}
    table |= {"name": "part", "sources": sources, "validation": [], "loop": loop}
    table["optimizer"]["warmup_steps"] = 20
    folder = train(recipe_of(table), tmp_path / "out")
    for name, validation in held_out.items():
        images = shared_data / name / "images"
        pipe = vitpose.load(folder, None, dataset=name, device="cpu")
        options: dict[str, Any] = {"metrics": ["pck"], "thresholds": (0.2,)}
        found = evaluate_model(pipe, validation, images, **options).numbers["pck"]["PCK@0.2 (torso)"]
        guess = mean_pose(tmp_path / f"{name}.json", images, validation)
        baseline = evaluate_predictions(guess, validation, **options).numbers["pck"]["PCK@0.2 (torso)"]
        print(f"{name}: PCK@0.2 {found:.3f}, mean pose {baseline:.3f}")
        assert found is not None
        assert baseline is not None
        assert found > baseline + 0.05
