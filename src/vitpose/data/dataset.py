"""Torch datasets of people, and a sampler that mixes several sources.

A sample depends on the seed, the pass and the person alone: not on the number of workers, nor on what was
drawn before. Knows no network.
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

from ..errors import ImageError, InputError
from ..geometry.boxes import Size
from ..geometry.heatmaps import encode
from ..geometry.warp import normalise
from ..processing.image_processor import VitPoseImageProcessor
from .annotations import TrainingAnnotations, shared_skeleton
from .augment import Augmentation, View
from .pack import Packed

STRIDE = 4
"""Heatmaps are a quarter of the crop."""


class PoseDataset(Dataset[dict[str, Any]]):
    """People of one or several sources, as crops and target maps.

    A sample is asked for by (pass, index), as `MixSampler` gives them, or by its index alone, which is
    pass 0. It has

        pixels    the crop: uint8 (hc wc 3), or normalised float32 (3 hc wc)
        targets   target maps, float32 (k hm wm)
        weights   weight of each keypoint, 0 without a label, float32 (k)
        meta      numbers: index, pass, source, id

    An image that cannot be read gives a black crop whose weights are 0, and a warning that names it.

    Args:
        sources: TrainingAnnotations, packed or not, all of one skeleton (see `TrainingAnnotations.map_to`).
        processor: Size and aspect of the crops, the convention of warp and targets (UDP, or the plain warp with the
            targets of MSRA), and the normalisation.
        augmentation: What is varied; nothing without one.
        seed: Of all random numbers.
        sigma: Standard deviation of the targets, cells.
        normalised: Give normalised floats instead of bytes.
        unbiased: UDP's targets, or MSRA's; as the warp is without it.
        joint_weights: Multiply the weights by the skeleton's; the original leaves them out.

    Raises:
        InputError: There is no source, their skeletons differ, or a pack's crops end too near its people.
    """

    def __init__(
        self,
        sources: TrainingAnnotations | Sequence[TrainingAnnotations],
        processor: VitPoseImageProcessor | None = None,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        sigma: float = 2.0,
        normalised: bool = False,
        unbiased: bool | None = None,
        joint_weights: bool = False,
    ) -> None:
        self.sources = (sources,) if isinstance(sources, TrainingAnnotations) else tuple(sources)
        self.skeleton = shared_skeleton(self.sources)
        self.processor = processor or VitPoseImageProcessor()
        self.augmentation, self.seed, self.sigma = augmentation, seed, sigma
        self.normalised, self.joint_weights = normalised, joint_weights
        self.unbiased = self.processor.warp == "udp" if unbiased is None else unbiased
        self._starts = np.cumsum([0, *map(len, self.sources)])
        for source in self.sources:
            if isinstance(source, Packed):
                source.refuse_short_margin(augmentation, self.processor)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        turn, index = key if isinstance(key, tuple) else (0, key)
        source, row = _place_of(index, self._starts)
        person = self.sources[source].select(slice(row, row + 1))
        view = self.look_at(person, turn, int(index))
        targets, weights = targets_of(person, view, self.sigma, self.joint_weights, self.unbiased)
        try:
            pixels = view.crop(person.read_image(0))
        except ImageError as error:
            warnings.warn(
                f"person {person.ids[0]} of {person.report.source} is left out: {error}", stacklevel=2
            )
            pixels, weights = np.zeros((self.size.height, self.size.width, 3), np.uint8), weights * 0
        return {
            "pixels": torch.from_numpy(self._finished(pixels)),
            "targets": torch.from_numpy(targets[0]),
            "weights": torch.from_numpy(weights[0]),
            "meta": {"index": int(index), "pass": int(turn), "source": source, "id": int(person.ids[0])},
        }

    @property
    def size(self) -> Size:
        """Size of the crops."""
        return self.processor.size

    def look_at(self, person: TrainingAnnotations, turn: int, index: int) -> View:
        """Returns how a person is seen in a pass."""
        own = self.processor
        if self.augmentation is None:
            return View.plain(person.boxes, own.size, own.warp, own.aspect)
        rng = np.random.default_rng([self.seed, turn, index])
        return self.augmentation.draw(person, own.size, own.warp, rng, own.aspect)

    def _finished(self, pixels: np.ndarray) -> np.ndarray:
        return normalise(pixels[None], *self.processor.scale_and_offset)[0] if self.normalised else pixels


def map_size(crop: Size) -> Size:
    """Returns the size of the heatmaps over a crop."""
    return Size(width=crop.width // STRIDE, height=crop.height // STRIDE)


def targets_of(
    people: TrainingAnnotations,
    view: View,
    sigma: float = 2.0,
    joint_weights: bool = False,
    unbiased: bool | None = None,
) -> tuple[Float[np.ndarray, "n k hm wm"], Float[np.ndarray, "n k"]]:
    """Makes the target maps and weights of people as they are seen.

    Args:
        people: The n people.
        view: Their n views.
        sigma: Standard deviation of the targets, cells.
        joint_weights: Multiply the weights by the skeleton's; the original leaves them out.
        unbiased: UDP's sub-cell targets, or MSRA's; without it UDP's for the unbiased warp.
    """
    grid = map_size(view.warp.size)
    points, labelled = view.place(people.xy, people.labelled, people.skeleton.mirror, grid)
    unbiased = view.warp.convention == "udp" if unbiased is None else unbiased
    maps, weights = encode(points, labelled, grid, sigma, unbiased=unbiased)
    return maps, weights * np.array(people.skeleton.weights, np.float32) if joint_weights else weights


class JointDataset(Dataset[dict[str, Any]]):
    """People of several datasets, each seen by the conventions of its own.

    Samples are those of `PoseDataset`, and have `dataset`, the number of their dataset; targets and weights are
    padded with zeros to the largest number of keypoints.

    Args:
        parts: One dataset for each dataset; an index counts through all of them.

    Raises:
        InputError: There is no part, or their crops differ in size.
    """

    def __init__(self, parts: Sequence[PoseDataset]) -> None:
        self.parts = tuple(parts)
        if len({part.size for part in self.parts}) != 1:
            sizes = ", ".join(str(part.size) for part in self.parts)
            raise InputError(f"datasets that are trained together need one size of crops, not {sizes}")
        self.most = max(len(part.skeleton) for part in self.parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        turn, index = key if isinstance(key, tuple) else (0, key)
        number, row = _place_of(index, self._starts)
        sample = self.parts[number][turn, row]
        missing = self.most - len(sample["weights"])
        sample["targets"] = F.pad(sample["targets"], (0, 0, 0, 0, 0, missing))
        sample["weights"] = F.pad(sample["weights"], (0, missing))
        return sample | {"dataset": number, "meta": sample["meta"] | {"index": int(index)}}


def _place_of(index: int, starts: Int[np.ndarray, " s"]) -> tuple[int, int]:
    """Returns the part, and the place in it, of an index that counts through parts which begin at `starts`."""
    if not 0 <= index < starts[-1]:
        raise IndexError(f"index {index} of a dataset of {starts[-1]} people")
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, int(index - starts[part])


class MixSampler(Sampler[tuple[int, int]]):
    """Gives (pass, index) of people from several sources in an order that a seed decides.

    Every source is gone through in passes of its own, each in a new order, so that a source with a small weight
    is still seen whole in time, and one with a large weight is varied anew in every pass. Where the training
    stands is (epoch, position); nothing else has to be kept to resume. Iterating changes nothing: a loader
    runs ahead of the training, so the training says with `advance` how many samples it has taken.

    Args:
        lengths: Number of people of each source, in the dataset's order.
        weights: Share of each source in an epoch, in any unit; by length without them, each person once.
        length: Samples of an epoch; without it as many as there are people.
        seed: Of the order.
        rank: Which of the processes this one is; each gives every `ranks`-th sample.
        ranks: How many processes share the samples.

    Raises:
        InputError: A weight or a length is impossible.
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
            raise InputError(f"sources of {list(lengths)} people; each needs at least one")
        if len(given) != len(lengths) or not np.isfinite(given).all() or min(given) < 0 or not sum(given):
            raise InputError(
                f"weights {given} for {len(lengths)} sources; give one a source, none below 0, not all 0"
            )
        if not 0 <= rank < ranks:
            raise InputError(f"rank {rank} of {ranks} processes; ranks count from 0")
        self.lengths, self.shares = [int(count) for count in lengths], np.array(given) / sum(given)
        self.length = sum(self.lengths) if length is None else length
        if self.length < ranks:
            raise InputError(f"an epoch of {self.length} samples is too short for {ranks} processes")
        self.seed, self.rank, self.ranks = seed, rank, ranks
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return self.length // self.ranks - self.position

    def __iter__(self) -> Iterator[tuple[int, int]]:
        keys = self.keys(self.epoch)[self.rank :: self.ranks][: self.length // self.ranks]
        yield from map(tuple, keys[self.position :].tolist())

    def keys(self, epoch: int) -> np.ndarray:
        """Returns (pass, index) of all samples of an epoch, for all processes."""
        # Counted from the first epoch on, so that rounding does not favour a source for ever.
        before, after = self._drawn(epoch), self._drawn(epoch + 1)
        starts = np.cumsum([0, *self.lengths]).tolist()
        parts = [
            self._of_source(source, before[source], after[source], starts[source])
            for source in range(len(self.lengths))
        ]
        keys = np.concatenate(parts)
        return np.random.default_rng([self.seed, 0, epoch]).permutation(keys)

    def _drawn(self, epochs: int) -> list[int]:
        """How many samples of each source the first epochs take; they sum up to all."""
        ends = np.floor(np.cumsum(self.shares) * epochs * self.length + 0.5).astype(int)
        ends[-1] = epochs * self.length
        return np.diff(ends, prepend=0).tolist()

    def _of_source(self, source: int, first: int, last: int, start: int) -> np.ndarray:
        count, keys = self.lengths[source], [np.zeros((0, 2), int)]
        for turn in range(first // count, -(-last // count)):
            order = np.random.default_rng([self.seed, 1, source, turn]).permutation(count)
            taken = order[max(first - turn * count, 0) : last - turn * count]
            keys.append(np.stack([np.full(len(taken), turn), start + taken], axis=1))
        return np.concatenate(keys)

    def advance(self, samples: int) -> None:
        """Notes that so many samples of this process were used; a full epoch begins the next one."""
        per_epoch = self.length // self.ranks
        epochs, self.position = divmod(self.position + samples, per_epoch)
        self.epoch += epochs

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Returns where the training stands."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to where a training stood."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
