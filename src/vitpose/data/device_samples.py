"""Training samples computed on an accelerator, from a pack in its memory.

The same samples as in `dataset`, a batch at a time: views and keypoints are computed by the same NumPy code, which
takes little time; pixels are computed by torch. Depends on no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..hardware.devices import choose_device
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.model_spec import ModelSpec
from .augment import Augmentation, View
from .dataset import MixSampler, draw_views, in_cells
from .pack import Packed

_DECODERS = 8


class CropFrames:
    """The crops of a pack as bytes on a device, each in the top left corner of a black square.

    Args:
        instances: The pack.
        device: The device; see `choose_device`.
    """

    def __init__(self, instances: Packed, device: Any = "auto") -> None:
        self.device = choose_device(device)
        self.side = int(instances.sizes.max(initial=1))
        shape = (len(instances), self.side, self.side, 3)
        self.pixels: UInt8[Tensor, "n side side 3"] = torch.zeros(
            shape, dtype=torch.uint8, device=self.device
        )
        with ThreadPoolExecutor(_DECODERS) as pool:  # decoding releases the GIL
            for start in range(0, len(instances), 1024):
                rows = range(start, min(start + 1024, len(instances)))
                for row, crop in zip(rows, pool.map(instances.read_image, rows), strict=True):
                    self.pixels[row, : crop.shape[0], : crop.shape[1]] = torch.from_numpy(crop).to(
                        self.device
                    )

    def crop(self, rows: Int[np.ndarray, " b"], view: View) -> Float[Tensor, "b 3 hc wc"]:
        """Return the crops of instances, with colour transforms and occlusion, in levels 0..255.

        Args:
            rows: Indices of the instances in the pack.
            view: Their views.
        """
        frames = self.pixels[torch.from_numpy(rows).to(self.device)].permute(0, 3, 1, 2).float()
        crops = F.grid_sample(frames, self._grid(view), align_corners=True)
        colours = self._tensor(view.colours)
        crops = torch.einsum("bij,bjhw->bihw", colours[:, :, :3], crops) + colours[:, :, 3:, None]
        return torch.where(
            self._hidden(view)[:, None], self._tensor(view.covers)[:, :, None, None], crops.clamp(0, 255)
        )

    def _grid(self, view: View) -> Float[Tensor, "b hc wc 2"]:
        """Return sampling coordinates for `grid_sample`: -1 and 1 are the centres of a frame's first and last pixel."""
        size = view.warp.size
        matrices = view.warp.matrices(size) * 2 / max(self.side - 1, 1)
        matrices[:, :, 2] -= 1
        affine = self._tensor(matrices)
        x = torch.arange(size.width, device=self.device, dtype=torch.float32)
        y = torch.arange(size.height, device=self.device, dtype=torch.float32)
        columns = affine[:, None, None, :, 0] * x[:, None]
        return columns + affine[:, None, None, :, 1] * y[:, None, None] + affine[:, None, None, :, 2]

    def _hidden(self, view: View) -> Bool[Tensor, "b hc wc"]:
        left, top, right, bottom = self._tensor(view.hidden_cells)[:, :, None].unbind(1)
        x = torch.arange(view.warp.size.width, device=self.device)
        y = torch.arange(view.warp.size.height, device=self.device)
        return ((x >= left) & (x < right))[:, None, :] & ((y >= top) & (y < bottom))[:, :, None]

    def _tensor(self, array: np.ndarray) -> Float[Tensor, "..."]:
        return torch.from_numpy(array.astype(np.float32)).to(self.device, non_blocking=True)


class DeviceLoader:
    """Batches of a pack, computed on the device that trains on them.

    Iterates over a sampler like a `DataLoader`. A batch has `pixels` (levels 0..255, float32, b 3 hc wc), `keypoints`
    (cells of the heatmap, b k 2), `weights` (b k) and `meta` (`index` and `pass`, NumPy). It depends only on the seed
    and its (pass, index) keys. Random numbers are drawn for a whole batch at once, so they differ from those of
    `PoseDataset` but have the same distribution.

    Args:
        instances: The pack.
        sampler: Keys (pass, index) as of a `MixSampler`; may be endless. Its lengths are that of the pack, or those of
            `instances.by_source()` if the instances of each source are contiguous.
        batch_size: Instances per batch; an incomplete last batch is dropped.
        spec: Size, aspect and warp of the crops. Default: the default of `ModelSpec`.
        augmentation: Random views. Default: no augmentation.
        seed: Seed of all random numbers.
        joint_weights: Multiply the weights by those of the skeleton.
        frames: The pack's pixels, if they are already on a device.
        device: The device to copy them to otherwise.

    Raises:
        InputError: The margin of the pack is too small.
    """

    def __init__(
        self,
        instances: Packed,
        sampler: Iterable[tuple[int, int]],
        batch_size: int,
        spec: ModelSpec | None = None,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        joint_weights: bool = False,
        frames: CropFrames | None = None,
        device: Any = "auto",
    ) -> None:
        self.instances, self.sampler, self.batch_size = instances, sampler, batch_size
        self.spec = spec or ModelSpec(dataset=DatasetSpec.of_skeleton(instances.skeleton))
        self.augmentation = augmentation
        self.seed, self.joint_weights = seed, joint_weights
        instances.refuse_short_margin(augmentation, self.spec)
        self.frames = frames or CropFrames(instances, device)

    def __len__(self) -> int:
        return len(cast("MixSampler", self.sampler)) // self.batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        keys = iter(self.sampler)
        while len(chosen := list(islice(keys, self.batch_size))) == self.batch_size:
            turns, rows = np.array(chosen, np.int64).T
            rng = np.random.default_rng([self.seed, *turns.tolist(), *rows.tolist()])
            yield self.make(rows, rng) | {"meta": {"pass": turns, "index": rows}}

    def make(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator) -> dict[str, Any]:
        """Return a batch of these instances, in views drawn with the generator."""
        view = draw_views(self.instances.select(rows), self.spec, self.augmentation, rng)
        return self.make_views(rows, view)

    def make_views(self, rows: Int[np.ndarray, " b"], view: View) -> dict[str, Any]:
        """Return a batch of these instances, in the given views."""
        keypoints, weights = in_cells(self.instances.select(rows), view, self.joint_weights)
        device = self.frames.device
        return {
            "pixels": self.frames.crop(rows, view),
            "keypoints": torch.from_numpy(keypoints).to(device, non_blocking=True),
            "weights": torch.from_numpy(weights).to(device, non_blocking=True),
        }
