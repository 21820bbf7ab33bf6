from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vitpose.data.annotations import TrainingAnnotations
from vitpose.data.augment import Augmentation
from vitpose.data.dataset import MixSampler, PoseDataset
from vitpose.data.pack import read_pack, write_pack
from vitpose.errors import InputError
from vitpose.geometry.boxes import Size
from vitpose.geometry.warp import Warp
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.keypoints.skeleton import Skeleton

SMALL = ModelSpec(dataset=DatasetSpec.load("coco"), input_size=Size(48, 64))


def test_a_sample(people: TrainingAnnotations) -> None:
    sample = PoseDataset(people)[3]
    warp = Warp.from_boxes(people.boxes[3:4], Size(192, 256))
    np.testing.assert_array_equal(sample["pixels"], warp.crop(people.read_image(3))[0])
    grid = Size(48, 64)
    labelled = people.labelled[3]
    np.testing.assert_allclose(
        sample["keypoints"][labelled], warp.to_grid(people.xy[3:4], grid)[0][labelled], rtol=1e-6
    )
    assert not sample["keypoints"][~labelled].any()
    np.testing.assert_array_equal(sample["weights"], labelled)
    assert sample["meta"] == {"index": 3, "pass": 0, "source": 0, "id": people.ids[3]}
    assert sample["pixels"].dtype == torch.uint8


def test_joint_weights(people: TrainingAnnotations) -> None:
    plain, weighted = PoseDataset(people)[2], PoseDataset(people, joint_weights=True)[2]
    expected = plain["weights"].numpy() * np.array(people.skeleton.weights, np.float32)
    np.testing.assert_array_equal(weighted["weights"], expected)
    assert set(plain["weights"].unique().tolist()) == {0.0, 1.0}
    assert 1.5 in weighted["weights"]


def test_passes_differ_and_are_reproducible(people: TrainingAnnotations) -> None:
    first, again = (PoseDataset(people, SMALL, Augmentation(), seed=1) for _ in range(2))
    other = PoseDataset(people, SMALL, Augmentation(), seed=2)
    assert torch.equal(first[2, 5]["pixels"], again[2, 5]["pixels"])
    assert not torch.equal(first[2, 5]["pixels"], first[3, 5]["pixels"])
    assert not torch.equal(first[2, 5]["pixels"], other[2, 5]["pixels"])


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create"
)  # some machines have fewer cores than workers
@pytest.mark.parametrize("packed", [False, True])
def test_samples_do_not_depend_on_the_number_of_workers(
    people: TrainingAnnotations, tmp_path: Path, packed: bool
) -> None:
    source = people
    if packed:
        write_pack([people], tmp_path / "pack")
        source = read_pack(tmp_path / "pack")
    dataset = PoseDataset(source, SMALL, Augmentation(), seed=7)
    runs = []
    for workers in (0, 1, 3):
        sampler = MixSampler([10], seed=7)
        loader = DataLoader(
            dataset,
            4,
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        batches = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            batches += list(loader)
        runs.append(batches)
    for run in runs[1:]:
        for expected, batch in zip(runs[0], run, strict=True):
            assert all(
                torch.equal(expected[name], batch[name]) for name in ("pixels", "keypoints", "weights")
            )
            assert all(torch.equal(expected["meta"][name], batch["meta"][name]) for name in batch["meta"])


def test_several_sources(people: TrainingAnnotations) -> None:
    dataset = PoseDataset([people, people.select([4, 2])], SMALL)
    assert len(dataset) == 12
    assert (dataset[11]["meta"]["source"], dataset[11]["meta"]["id"]) == (1, people.ids[2])
    with pytest.raises(IndexError, match="index 12 is out of range for a dataset of 12 instances"):
        dataset[12]
    with pytest.raises(InputError, match="different skeletons"):
        PoseDataset([people, people.map_to(Skeleton.load("lsp"))])


def test_an_unreadable_image_has_no_weight(people: TrainingAnnotations) -> None:
    people.images[0].write_bytes(b"broken")
    dataset = PoseDataset(people, SMALL)
    with pytest.warns(UserWarning, match=r"annotation 0 of .*people.json is skipped: .*0.png"):
        sample = dataset[0]
    assert not sample["pixels"].any()
    assert not sample["weights"].any()


def test_an_epoch_has_every_instance_once_in_a_new_order() -> None:
    sampler = MixSampler([5, 7], seed=3)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert sorted(index for _, index in keys) == list(range(12))
        assert {turn for turn, _ in keys} == {epoch}
        epochs.append(keys)
    assert [i for _, i in epochs[0]] != [i for _, i in epochs[1]]


def test_weights_are_shares_and_passes_are_complete() -> None:
    sampler = MixSampler([6, 100], weights=[3, 1], length=40, seed=1)
    drawn = np.concatenate([sampler.keys(epoch) for epoch in range(10)])
    small = drawn[drawn[:, 1] < 6]
    assert len(small) == 300
    for turn in range(50):
        assert sorted(small[small[:, 0] == turn, 1]) == list(range(6))
    assert sorted(drawn[drawn[:, 1] >= 6, 1]) == list(range(6, 106))
    assert len({tuple(key) for key in drawn.tolist()}) == len(drawn)


def test_rounding_of_shares_evens_out_over_epochs() -> None:
    sampler = MixSampler([10, 10, 10], weights=[1, 1, 1], length=10)
    sources = [np.bincount(sampler.keys(epoch)[:, 1] // 10, minlength=3) for epoch in range(30)]
    assert all(counts.sum() == 10 for counts in sources)
    assert np.sum(sources, axis=0).tolist() == [100, 100, 100]


def test_a_source_of_weight_zero_is_skipped() -> None:
    assert {index for _, index in MixSampler([3, 4], weights=[0, 1])} == {3, 4, 5, 6}


def test_resuming_continues_the_order() -> None:
    sampler, straight = (MixSampler([5, 8], weights=[2, 1], seed=9) for _ in range(2))
    expected = []
    for epoch in range(3):
        straight.set_epoch(epoch)
        expected += list(straight)
    seen = list(islice(sampler, 4))
    sampler.advance(4)
    state = sampler.state_dict()
    assert state == {"epoch": 0, "position": 4}
    resumed = MixSampler([5, 8], weights=[2, 1], seed=9)
    resumed.load_state_dict(state)
    assert len(resumed) == 9
    while resumed.epoch < 3:
        part = list(islice(resumed, 6))
        resumed.advance(len(part))
        seen += part
    assert seen == expected


def test_processes_yield_alternate_samples() -> None:
    whole = list(MixSampler([9], seed=2))
    shared = [list(MixSampler([9], seed=2, rank=rank, ranks=2)) for rank in range(2)]
    assert [key for pair in zip(*shared, strict=True) for key in pair] == whole[:8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": []}, r"the sources have \[\] instances; each requires at least one"),
        ({"lengths": [3, 0]}, r"the sources have \[3, 0\] instances"),
        (
            {"lengths": [3], "weights": [1.0, 2.0]},
            r"the weights are \[1.0, 2.0\] for 1 source; give one per source",
        ),
        ({"lengths": [3], "weights": [0.0]}, r"the weights are \[0.0\] .* not all 0"),
        ({"lengths": [3], "rank": 2, "ranks": 2}, "rank 2 is out of range for 2 processes; ranks start at 0"),
        ({"lengths": [3], "ranks": 4}, "an epoch of 3 samples is too short for 4 processes"),
    ],
)
def test_arguments_out_of_range_raise(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MixSampler(**arguments)
