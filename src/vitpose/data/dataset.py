"""PyTorch datasets of labelled instances, and a sampler that mixes several sources.

A sample depends only on the seed, the pass and the instance: neither on the number of workers nor on the samples
before it. Depends on no network.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch.utils.data import Dataset, Sampler

from ..errors import ImageError, InputError, counted
from ..geometry.boxes import Size
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.model_spec import ModelSpec
from .annotations import TrainingAnnotations, shared_skeleton
from .augment import Augmentation, View
from .pack import Packed

STRIDE = 4
"""Pixels of the crop per heatmap cell, in both directions."""


class PoseDataset(Dataset[dict[str, Any]]):
    """Instances of one or several sources, as crops and keypoints.

    Samples are indexed by (pass, index), as `MixSampler` yields them, or by the index alone for pass 0. A sample has

        pixels     the crop, uint8 (hc wc 3)
        keypoints  (x, y) in cells of the heatmap, float32 (k 2)
        weights    weight of each keypoint, 0 if unlabelled, float32 (k)
        meta       integers: index, pass, source, id

    `vitpose.training.targets.encode` makes target heatmaps of the keypoints, a batch at a time, where the network is.

    An image that cannot be read results in a black crop with weights of 0, and in a warning that names the image.

    Args:
        sources: Annotations, packed or not, with the same skeleton (see `TrainingAnnotations.map_to`).
        spec: Size, aspect and warp of the crops. Default: the default of `ModelSpec`.
        augmentation: Random views. Default: no augmentation.
        seed: Seed of all random numbers.
        joint_weights: Multiply the weights by those of the skeleton; the original does not.

    Raises:
        InputError: There are no sources, their skeletons differ, or the margin of a pack is too small.
    """

    def __init__(
        self,
        sources: TrainingAnnotations | Sequence[TrainingAnnotations],
        spec: ModelSpec | None = None,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        joint_weights: bool = False,
    ) -> None:
        self.sources = (sources,) if isinstance(sources, TrainingAnnotations) else tuple(sources)
        self.skeleton = shared_skeleton(self.sources)
        self.spec = spec or ModelSpec(dataset=DatasetSpec.of_skeleton(self.skeleton))
        self.augmentation, self.seed, self.joint_weights = augmentation, seed, joint_weights
        self._starts = np.cumsum([0, *map(len, self.sources)])
        for source in self.sources:
            if isinstance(source, Packed):
                source.refuse_short_margin(augmentation, self.spec)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        turn, index = key if isinstance(key, tuple) else (0, key)
        source, row = _locate(index, self._starts)
        person = self.sources[source].select(slice(row, row + 1))
        view = self.draw_view(person, turn, int(index))
        keypoints, weights = in_cells(person, view, self.joint_weights)
        try:
            pixels = view.crop(person.read_image(0))
        except ImageError as error:
            warnings.warn(
                f"annotation {person.ids[0]} of {person.report.source} is skipped: {error}", stacklevel=1
            )
            pixels, weights = np.zeros((self.size.height, self.size.width, 3), np.uint8), weights * 0
        return {
            "pixels": torch.from_numpy(pixels),
            "keypoints": torch.from_numpy(keypoints[0]),
            "weights": torch.from_numpy(weights[0]),
            "meta": {"index": int(index), "pass": int(turn), "source": source, "id": int(person.ids[0])},
        }

    @property
    def size(self) -> Size:
        """Size of the crops."""
        return self.spec.input_size

    def draw_view(self, person: TrainingAnnotations, turn: int, index: int) -> View:
        """Return the view of an instance in a pass.

        Args:
            person: The one instance.
            turn: Number of the pass.
            index: Index of the instance in this dataset.
        """
        rng = np.random.default_rng([self.seed, turn, index])
        return draw_views(person, self.spec, self.augmentation, rng)


def heatmap_size(crop: Size) -> Size:
    """Return the size of the heatmaps of a crop."""
    return Size(width=crop.width // STRIDE, height=crop.height // STRIDE)


def draw_views(
    instances: TrainingAnnotations,
    spec: ModelSpec,
    augmentation: Augmentation | None,
    rng: np.random.Generator,
) -> View:
    """Return a random view of each instance, or without augmentation the view as in testing.

    Args:
        instances: The instances.
        spec: Size, aspect and warp of the crops.
        augmentation: The augmentation; None for none.
        rng: Source of all random numbers.
    """
    if augmentation is None:
        return View.plain(instances.boxes, spec.input_size, spec.dataset.warp, spec.dataset.aspect)
    return augmentation.draw(instances, spec.input_size, spec.dataset.warp, rng, spec.dataset.aspect)


def in_cells(
    instances: TrainingAnnotations, view: View, joint_weights: bool = False
) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
    """Return the keypoints of instances in cells of their views' heatmaps, and the keypoints' weights.

    Args:
        instances: The n instances.
        view: Their n views.
        joint_weights: Multiply the weights by those of the skeleton; the original does not.

    Returns:
        Keypoints, 0 where unlabelled, and weights, 0 where unlabelled and otherwise 1 or the skeleton's; float32.
    """
    skeleton, grid = instances.skeleton, heatmap_size(view.warp.size)
    keypoints, labelled = view.to_grid(instances.xy, instances.labelled, skeleton.mirror, grid)
    weights = labelled * np.array(skeleton.weights if joint_weights else 1.0)
    return np.where(labelled[:, :, None], keypoints, 0).astype(np.float32), weights.astype(np.float32)


class JointDataset(Dataset[dict[str, Any]]):
    """Concatenation of datasets with different skeletons and conventions.

    Samples are those of `PoseDataset` with an additional `dataset`, the index of their part; keypoints and weights are
    padded with zeros to the largest number of keypoints.

    Args:
        parts: The datasets; indices run through all of them.

    Raises:
        InputError: There are no parts, or their crops differ in size.
    """

    def __init__(self, parts: Sequence[PoseDataset]) -> None:
        self.parts = tuple(parts)
        if len({part.size for part in self.parts}) != 1:
            sizes = ", ".join(str(part.size) for part in self.parts)
            raise InputError(f"datasets that are trained together require the same crop size, not {sizes}")
        self.max_keypoints = max(len(part.skeleton) for part in self.parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        turn, index = key if isinstance(key, tuple) else (0, key)
        number, row = _locate(index, self._starts)
        sample = self.parts[number][turn, row]
        missing = self.max_keypoints - len(sample["weights"])
        sample["keypoints"] = F.pad(sample["keypoints"], (0, 0, 0, missing))
        sample["weights"] = F.pad(sample["weights"], (0, missing))
        return sample | {"dataset": number, "meta": sample["meta"] | {"index": int(index)}}


def _locate(index: int, starts: Int[np.ndarray, " s"]) -> tuple[int, int]:
    """Return the part that contains an index, and the index within it; `starts` are the first indices of the parts."""
    if not 0 <= index < starts[-1]:
        raise IndexError(
            f"index {index} is out of range for a dataset of {counted(int(starts[-1]), 'instance')}"
        )
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, int(index - starts[part])


class MixSampler(Sampler[tuple[int, int]]):
    """Yield (pass, index) of instances from several sources in a seeded random order.

    Each source has its passes, in each of which every instance occurs once, in a new order. So all instances of a
    source with a small weight are seen eventually, and those of one with a large weight are augmented differently in
    every pass. The state is (epoch, position); nothing else is required to resume. Iterating does not change it: data
    loaders prefetch, so the training loop reports with `advance` how many samples it has used.

    Args:
        lengths: Number of instances of each source, in the order of the dataset.
        weights: Relative share of each source in an epoch. Default: in proportion to `lengths`, each instance once.
        length: Number of samples in an epoch. Default: the number of instances.
        seed: Seed of the order.
        rank: Index of this process; each process yields every `ranks`-th sample.
        ranks: Number of processes.

    Raises:
        InputError: A length, weight or rank is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float | int] | None = None,
        *,
        length: int | None = None,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        given = [float(count) for count in lengths] if weights is None else [float(w) for w in weights]
        if not lengths or min(lengths) < 1:
            raise InputError(f"the sources have {list(lengths)} instances; each requires at least one")
        if len(given) != len(lengths) or not np.isfinite(given).all() or min(given) < 0 or not sum(given):
            raise InputError(
                f"the weights are {given} for {counted(len(lengths), 'source')}; give one per source, none below 0 and "
                "not all 0"
            )
        if not 0 <= rank < ranks:
            raise InputError(
                f"rank {rank} is out of range for {counted(ranks, 'process', 'processes')}; ranks start at 0"
            )
        self.lengths, self.shares = [int(count) for count in lengths], np.array(given) / sum(given)
        self.length = sum(self.lengths) if length is None else length
        if self.length < ranks:
            raise InputError(
                f"an epoch of {counted(self.length, 'sample')} is too short for {ranks} processes"
            )
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return self.length // self.ranks - self.position

    def __iter__(self) -> Iterator[tuple[int, int]]:
        keys = self.keys(self.epoch)[self.rank :: self.ranks][: self.length // self.ranks]
        yield from map(tuple, keys[self.position :].tolist())

    def keys(self, epoch: int) -> np.ndarray:
        """Return (pass, index) of all samples of an epoch, for all processes."""
        # Counted from the first epoch, so that rounding errors do not accumulate.
        before, after = self._drawn(epoch), self._drawn(epoch + 1)
        starts = np.cumsum([0, *self.lengths]).tolist()
        parts = [
            self._source_keys(source, before[source], after[source], starts[source])
            for source in range(len(self.lengths))
        ]
        keys = np.concatenate(parts)
        return np.random.default_rng([self.seed, 0, epoch]).permutation(keys)

    def _drawn(self, epochs: int) -> list[int]:
        """Return how many samples of each source the first epochs contain."""
        ends = np.floor(np.cumsum(self.shares) * epochs * self.length + 0.5).astype(int)
        ends[-1] = epochs * self.length
        return np.diff(ends, prepend=0).tolist()

    def _source_keys(self, source: int, first: int, last: int, start: int) -> np.ndarray:
        """Return (pass, index) of a source's samples from number `first` to before `last`; indices start at `start`."""
        count, keys = self.lengths[source], [np.zeros((0, 2), int)]
        for turn in range(first // count, -(-last // count)):
            order = np.random.default_rng([self.seed, 1, source, turn]).permutation(count)
            taken = order[max(first - turn * count, 0) : last - turn * count]
            keys.append(np.stack([np.full(len(taken), turn), start + taken], axis=1))
        return np.concatenate(keys)

    def advance(self, samples: int) -> None:
        """Advance the state by a number of samples that this process has used, into later epochs if necessary."""
        per_epoch = self.length // self.ranks
        epochs, self.position = divmod(self.position + samples, per_epoch)
        self.epoch += epochs

    def set_epoch(self, epoch: int) -> None:
        """Set the state to the start of an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the position in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state of `state_dict`."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
