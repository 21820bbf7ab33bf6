"""What a training learns from: people of all its sources, and endless batches of them.

Owns how a recipe's sources become batches, on the CPU or where a pack lives. Knows no network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Sampler

from ..boxes import Size
from ..data.annotations import Annotations, read_annotations
from ..data.dataset import MixSampler, PoseDataset
from ..data.device import DeviceLoader, Frames
from ..data.pack import Packed, join_packs, read_pack
from ..processing import VitPoseImageProcessor
from ..skeleton import Skeleton
from .recipe import Recipe, Source

logger = logging.getLogger(__name__)


class Samples:
    """The people of a recipe's sources, for all its stages.

    What is broken in the sources is logged.

    Args:
        recipe: The training.

    Raises:
        InputError: A source cannot be read, or has nobody.
    """

    def __init__(self, recipe: Recipe) -> None:
        skeleton = Skeleton.load(recipe.model.skeleton)
        self.sources = [read_source(source).map_to(skeleton) for source in recipe.sources]
        for people in self.sources:
            logger.info("%s", people.report)
        weights = [source.weight for source in recipe.sources if source.weight is not None]
        self.shares = weights or None
        self._living: tuple[Packed, Frames] | None = None

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
        loop, processor = recipe.loop, make_processor(recipe)
        mix = MixSampler(
            [len(people) for people in self.sources], self.shares, seed=loop.seed, rank=rank, ranks=world
        )
        stream = Stream(mix, done * loop.accumulate * loop.batch_size)
        options: dict[str, Any] = {"seed": loop.seed, "sigma": recipe.target.sigma}
        if loop.on_device:
            people, frames = self._on_device(device)
            return DeviceLoader(
                people, stream, loop.batch_size, processor, recipe.augmentation, frames=frames, **options
            )
        return DataLoader(
            PoseDataset(self.sources, processor, recipe.augmentation, **options),
            loop.batch_size,
            sampler=stream,
            num_workers=loop.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _on_device(self, device: torch.device) -> tuple[Packed, Frames]:
        """Brings the packs there once; later stages find them there."""
        if self._living is None:
            people = join_packs([cast("Packed", source) for source in self.sources])
            self._living = people, Frames(people, device)
        return self._living


class Stream(Sampler[tuple[int, int]]):
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


def read_source(source: Source) -> Annotations:
    """Reads what a recipe calls a source.

    Raises:
        InputError: It cannot be read.
    """
    if source.pack:
        return read_pack(source.pack)
    return read_annotations(source.annotations, source.images or None, source.skeleton)


def make_processor(recipe: Recipe) -> VitPoseImageProcessor:
    """Returns how the trained network wants its crops and its maps read."""
    size = Size(width=recipe.model.width, height=recipe.model.height)
    if recipe.target.convention == "udp":
        return VitPoseImageProcessor(size=size)
    return VitPoseImageProcessor(size=size, warp="plain", decode="quarter", shift_heatmap=True)
