"""The training data of a recipe: the instances of all its sources, and endless batches of them.

Owns how sources become batches, on the CPU or on the device. Independent of the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ..data.annotations import TrainingAnnotations, read_training_annotations
from ..data.dataset import JointDataset, MixSampler, PoseDataset
from ..data.device_samples import CropFrames, DeviceLoader
from ..data.pack import Packed, join_packs, read_pack
from ..errors import InputError
from ..geometry.boxes import Size
from ..geometry.warp import normalise
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.model_spec import ModelSpec
from .recipe import Recipe
from .recipe_tables import Source

logger = logging.getLogger(__name__)


class Samples:
    """The instances of a recipe's sources, for all its stages.

    Reports of the sources are logged.

    Args:
        recipe: The recipe.

    Raises:
        InputError: A source cannot be read, has no usable instances, or is a pack whose margin is too small.
        SkeletonError: The keypoints of a source do not fit its dataset.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.datasets = recipe.datasets
        # Sources of a dataset are contiguous, as in the concatenated dataset.
        names = list(dict.fromkeys(source.dataset for source in recipe.sources))
        ordered = sorted(recipe.sources, key=lambda source: names.index(source.dataset))
        self.dataset_indices = [names.index(source.dataset) for source in ordered]
        skeletons = [dataset.skeleton for dataset in self.datasets] or [recipe.skeleton_of()]
        self.sources = []
        for source, index in zip(ordered, self.dataset_indices, strict=True):
            instances = read_source(source).map_to(skeletons[index])
            if not len(instances):
                raise InputError(
                    f"a source has no usable instances: {instances.report}\ncorrect the annotations, or give images, "
                    "the directory of its images"
                )
            logger.info("%s", instances.report)
            self.sources.append(instances.select(slice(source.limit)))
        weights = [source.weight for source in ordered if source.weight is not None]
        self.shares = weights or None
        self._device_pack: tuple[Packed, CropFrames] | None = None
        for stage in recipe.split():
            self.dataset(stage)  # raises errors of later stages before the first one runs

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def batches(
        self, recipe: Recipe, done: int, rank: int, world: int, device: torch.device
    ) -> Iterable[dict[str, Any]]:
        """Return the endless batches of one process.

        Args:
            recipe: The recipe of the stage.
            done: Number of completed optimiser steps.
            rank: Index of this process.
            world: Number of processes.
            device: Device of the pack, with `on_device`.
        """
        loop = recipe.loop
        lengths = [len(instances) for instances in self.sources]
        mix = MixSampler(lengths, self.shares, seed=loop.seed, rank=rank, ranks=world)
        stream = SampleStream(mix, done * loop.accumulate * loop.batch_size)
        if loop.on_device:
            instances, frames = self._on_device(device)
            dataset = next(iter(self.datasets), None)
            return DeviceLoader(
                instances, stream, loop.batch_size, **_options(recipe, dataset), frames=frames
            )
        return DataLoader(
            self.dataset(recipe),
            loop.batch_size,
            sampler=stream,
            num_workers=loop.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def dataset(self, recipe: Recipe) -> PoseDataset | JointDataset:
        """Return the dataset of all instances with the augmentation of a stage's recipe."""
        if not self.datasets:
            return PoseDataset(self.sources, **_options(recipe))
        parts = []
        for number, dataset in enumerate(self.datasets):
            indexed = zip(self.dataset_indices, self.sources, strict=True)
            sources = [source for index, source in indexed if index == number]
            parts.append(PoseDataset(sources, **_options(recipe, dataset)))
        return JointDataset(parts)

    def pixels(self, recipe: Recipe, count: int = 256) -> Float[Tensor, "b 3 hc wc"]:
        """Return normalised crops of about `count` instances at regular intervals."""
        dataset, spec = self.dataset(recipe), make_spec(recipe)
        rows = range(0, len(self), max(1, len(self) // count))
        pixels = np.stack([dataset[row]["pixels"].numpy() for row in rows])
        return torch.from_numpy(normalise(pixels, *spec.scale_and_offset))

    def _on_device(self, device: torch.device) -> tuple[Packed, CropFrames]:
        """Return the packs and their pixels on the device; copied once for all stages."""
        if self._device_pack is None:
            instances = join_packs([cast("Packed", source) for source in self.sources])
            self._device_pack = instances, CropFrames(instances, device)
        return self._device_pack


class SampleStream(Sampler[tuple[int, int]]):
    """The keys of a `MixSampler` in all epochs, without end.

    Args:
        mix: The sampler of one process.
        start: Number of its samples to skip.
    """

    def __init__(self, mix: MixSampler, start: int) -> None:
        self.mix, self.start = mix, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.mix.set_epoch(0)
        self.mix.advance(self.start)
        while True:
            yield from self.mix
            self.mix.set_epoch(self.mix.epoch + 1)


def read_source(source: Source) -> TrainingAnnotations:
    """Read a source of a recipe.

    Raises:
        InputError: It cannot be read.
        SkeletonError: Its keypoints have no names, or the given skeleton does not fit.
    """
    if source.pack:
        return read_pack(source.pack)
    return read_training_annotations(source.annotations, source.images or None, source.skeleton)


def _options(recipe: Recipe, dataset: DatasetSpec | None = None) -> dict[str, Any]:
    """Return the arguments of `PoseDataset` and `DeviceLoader` for a recipe, with the conventions of a dataset."""
    options = {
        "spec": make_spec(recipe, dataset),
        "augmentation": recipe.augmentation,
        "seed": recipe.loop.seed,
        "joint_weights": recipe.target.joint_weights,
    }
    if dataset is None:
        return options
    augmentation = replace(recipe.augmentation, half_body_joints=dataset.half_body)
    if not dataset.half_body:
        augmentation = replace(augmentation, half_body=0.0)
    if not dataset.shift_centre:
        augmentation = replace(augmentation, shift_probability=0.0)
    return options | {"augmentation": augmentation}


def make_spec(recipe: Recipe, dataset: DatasetSpec | None = None) -> ModelSpec:
    """Return the spec of a head of the trained network.

    Args:
        recipe: The recipe.
        dataset: The dataset of the head. Default: the first, or one with the skeleton and targets of the recipe.
    """
    if dataset is None:
        plain = {"warp": "plain", "target": "msra", "decode": "quarter", "shift_heatmap": True}
        conventions = {} if recipe.target.convention == "udp" else plain
        undeclared = DatasetSpec.of_skeleton(recipe.skeleton_of(), **conventions)
        dataset = next(iter(recipe.datasets), undeclared)
    return ModelSpec(dataset=dataset, input_size=Size(width=recipe.model.width, height=recipe.model.height))
