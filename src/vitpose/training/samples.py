"""What a training learns from: people of all its sources, and endless batches of them.

Owns how a recipe's sources become batches, on the CPU or where a pack lives. Knows no network.
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
from ..processing.image_processor import VitPoseImageProcessor
from .recipe import Recipe, Source

logger = logging.getLogger(__name__)


class Samples:
    """The people of a recipe's sources, for all its stages.

    What is broken in the sources is logged.

    Args:
        recipe: The training.

    Raises:
        InputError: A source cannot be read, has nobody, or is a pack that does not reach far enough.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.datasets = recipe.datasets
        # The people of a dataset lie together, as the parts of the dataset that is made of them do.
        names = list(dict.fromkeys(source.dataset for source in recipe.sources))
        ordered = sorted(recipe.sources, key=lambda source: names.index(source.dataset))
        self.places = [names.index(source.dataset) for source in ordered]
        skeletons = [own.skeleton for own in self.datasets] or [recipe.skeleton_of()]
        self.sources = []
        for source, place in zip(ordered, self.places, strict=True):
            people = read_source(source).map_to(skeletons[place])
            if not len(people):
                raise InputError(
                    f"nobody can be trained on: {people.report}\nmend the source, or give images, the folder of its "
                    "images"
                )
            logger.info("%s", people.report)
            self.sources.append(people.select(slice(source.limit)))
        weights = [source.weight for source in ordered if source.weight is not None]
        self.shares = weights or None
        self._living: tuple[Packed, CropFrames] | None = None
        for stage in recipe.split():
            self.dataset(stage)  # which refuses what a stage cannot use, before the first one runs

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def batches(
        self, recipe: Recipe, done: int, rank: int, world: int, device: torch.device
    ) -> Iterable[dict[str, Any]]:
        """Returns the endless batches of one process.

        Args:
            recipe: The training, or the stage of it.
            done: So many optimiser steps were taken.
            rank: Which of the processes this one is.
            world: How many there are.
            device: Where the pack lives, where it is wanted on a device.
        """
        loop = recipe.loop
        lengths = [len(people) for people in self.sources]
        mix = MixSampler(lengths, self.shares, seed=loop.seed, rank=rank, ranks=world)
        stream = SampleStream(mix, done * loop.accumulate * loop.batch_size)
        if loop.on_device:
            people, frames = self._on_device(device)
            own = next(iter(self.datasets), None)
            return DeviceLoader(people, stream, loop.batch_size, **_options(recipe, own), frames=frames)
        return DataLoader(
            self.dataset(recipe),
            loop.batch_size,
            sampler=stream,
            num_workers=loop.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def dataset(self, recipe: Recipe) -> PoseDataset | JointDataset:
        """Returns the people as the recipe, or a stage of it, wants them to be seen."""
        if not self.datasets:
            return PoseDataset(self.sources, **_options(recipe))
        parts = []
        for number, own in enumerate(self.datasets):
            people = [part for part, place in zip(self.sources, self.places, strict=True) if place == number]
            parts.append(PoseDataset(people, **_options(recipe, own)))
        return JointDataset(parts)

    def pixels(self, recipe: Recipe, count: int = 256) -> Float[Tensor, "b 3 hc wc"]:
        """Returns normalised crops of so many people, taken at equal distances."""
        dataset, processor = self.dataset(recipe), make_processor(recipe)
        rows = range(0, len(self), max(1, len(self) // count))
        pixels = np.stack([dataset[row]["pixels"].numpy() for row in rows])
        return torch.from_numpy(normalise(pixels, *processor.scale_and_offset))

    def _on_device(self, device: torch.device) -> tuple[Packed, CropFrames]:
        """Brings the packs there once; later stages find them there."""
        if self._living is None:
            people = join_packs([cast("Packed", source) for source in self.sources])
            self._living = people, CropFrames(people, device)
        return self._living


class SampleStream(Sampler[tuple[int, int]]):
    """The keys of a `MixSampler` epoch after epoch, without an end.

    Args:
        mix: The order of the people of one process.
        start: So many of its samples have been taken.
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
    """Reads what a recipe calls a source.

    Raises:
        InputError: It cannot be read.
    """
    if source.pack:
        return read_pack(source.pack)
    return read_training_annotations(source.annotations, source.images or None, source.skeleton)


def _options(recipe: Recipe, own: DatasetSpec | None = None) -> dict[str, Any]:
    """Returns what makes a sample, on the CPU or on a device, by a dataset's own conventions where it has some."""
    processor = make_processor(recipe)
    options = {
        "processor": processor,
        "augmentation": recipe.augmentation,
        "seed": recipe.loop.seed,
        "sigma": recipe.target.sigma,
        "joint_weights": recipe.target.joint_weights,
    }
    if own is None:
        return options
    varied = replace(recipe.augmentation, half_body_joints=own.half_body)
    if not own.half_body:
        varied = replace(varied, half_body=0.0)
    if not own.shift_centre:
        varied = replace(varied, shift_probability=0.0)
    special = {"processor": processor.with_dataset(own), "augmentation": varied}
    return options | special | {"unbiased": own.target == "udp"}


def make_processor(recipe: Recipe) -> VitPoseImageProcessor:
    """Returns how the trained network wants its crops and its maps read."""
    size = Size(width=recipe.model.width, height=recipe.model.height)
    if recipe.datasets:
        return VitPoseImageProcessor(size=size).with_dataset(recipe.datasets[0])
    if recipe.target.convention == "udp":
        return VitPoseImageProcessor(size=size)
    return VitPoseImageProcessor(size=size, warp="plain", decode="quarter", shift_heatmap=True)
