from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from vitpose.data.annotations import read_training_annotations
from vitpose.data.dataset import MixSampler
from vitpose.data.pack import write_pack
from vitpose.data.pack_index import STILL
from vitpose.errors import InputError
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.training.recipe import Recipe
from vitpose.training.recipe_tables import LoopRecipe, ModelRecipe, Source, Stage
from vitpose.training.samples import Samples, SampleStream


def test_the_stream_resumes_at_any_sample() -> None:
    def taken(start: int, count: int) -> list[tuple[int, int]]:
        stream = iter(SampleStream(MixSampler([5, 3], seed=4), start))
        return [next(stream) for _ in range(count)]

    assert taken(0, 30)[13:] == taken(13, 17)
    assert sorted(index for _, index in taken(0, 8)) == list(range(8))


@pytest.mark.parametrize("weighted", [False, True])
def test_samples_have_the_values_of_the_recipe(recipe: Recipe, weighted: bool) -> None:
    target = replace(recipe.target, joint_weights=weighted, convention="msra")
    dataset = Samples(recipe).dataset(replace(recipe, target=target))
    assert (dataset.joint_weights, dataset.spec.dataset.warp) == (weighted, "plain")
    assert (dataset.size.width, dataset.size.height, len(dataset)) == (48, 64, 40)


@pytest.mark.parametrize("dataset", ["coco", "mpii", "crowdpose"])
def test_a_pack_on_a_device_has_the_conventions_of_its_dataset(
    arrows: Path, tmp_path: Path, dataset: str
) -> None:
    table = json.loads((arrows / "arrows.json").read_text())
    table["categories"][0]["keypoints"] = ["left_elbow", "right_elbow", "left_knee", "right_knee", "left_hip"]
    (tmp_path / "edges.json").write_text(json.dumps(table))
    people = read_training_annotations(tmp_path / "edges.json", arrows)
    write_pack([people], tmp_path / "pack", aspect=DatasetSpec.load(dataset).aspect)
    source = Source(pack=str(tmp_path / "pack"), dataset=dataset)
    plain = Recipe(name="one", sources=(source,), model=ModelRecipe(size="tiny", height=64, width=48))
    on_device = replace(plain, loop=LoopRecipe(on_device=True))
    part = Samples(plain).dataset(plain).parts[0]
    loader = Samples(on_device).batches(on_device, 0, 0, 1, torch.device("cpu"))
    assert loader.augmentation == part.augmentation
    assert loader.spec == part.spec
    squared = dataset == "mpii"
    assert part.spec.dataset.aspect == ("stretch" if squared else "keep")
    assert (part.augmentation.shift_probability, part.augmentation.half_body) == (
        (0.0, 0.0) if squared else (0.3, 0.3)
    )


def test_a_margin_that_is_too_small_for_a_later_stage_raises_before_the_first(
    recipe: Recipe, arrows: Path, tmp_path: Path
) -> None:
    write_pack(
        [read_training_annotations(arrows / "arrows.json", arrows)], tmp_path / "pack", augmentation=STILL
    )
    still = {key: 0.0 for key, value in asdict(STILL).items() if value == 0.0}
    stages = (Stage(augmentation=still), Stage())
    packed = replace(recipe, sources=(Source(pack=str(tmp_path / "pack")),))
    Samples(replace(packed, stages=stages[:1]))
    with pytest.raises(
        InputError, match=r"pack is too small for \d+ of 40 instances .*scale_sigma 0.0 in the pack, 0.5"
    ):
        Samples(replace(packed, stages=stages))


def test_limited_sources(recipe: Recipe) -> None:
    first = recipe.sources[0]
    samples = Samples(replace(recipe, sources=(replace(first, limit=7), first)))
    assert [len(people) for people in samples.sources] == [7, 40]
    assert samples.sources[0].ids.tolist() == samples.sources[1].ids[:7].tolist()


def test_a_source_without_usable_instances_raises_with_its_report(recipe: Recipe) -> None:
    lost = replace(recipe.sources[0], images="/nowhere")
    message = (
        r"(?s)no usable instances: .*arrows.json: 0 instances .*/nowhere/0.png.*or give images, the directory"
    )
    with pytest.raises(InputError, match=message):
        Samples(replace(recipe, sources=(recipe.sources[0], lost)))
