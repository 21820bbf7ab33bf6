"""The whole way on an accelerator: an image goes up once, only keypoints and scores come back.

Does there in torch what `crop` and `heatmap` do in numpy, equal up to rounding; the formulas and their sources
stand there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..geometry.boxes import Size
from ..geometry.heatmaps import Decoding, blur_taps, continued, refuse_unreadable
from ..geometry.warp import Warp
from ..model.pose import VitPoseForPoseEstimation
from .protocol import Reading
from .torch import TorchEngine


class DeviceEngine(TorchEngine):
    """Runs a dense network and all around it on its device; see `ImageEngine`.

    On CUDA the network is replayed as a graph, one for each size of a batch, so that no time goes into
    launching its hundreds of kernels; batches are filled up to powers of two.

    Args: as those of `TorchEngine`.
    """

    def __init__(
        self,
        model: VitPoseForPoseEstimation,
        scale: Float[np.ndarray, " 3"],
        offset: Float[np.ndarray, " 3"],
        compiled: bool = False,
    ) -> None:
        super().__init__(model, scale, offset, compiled)
        if self.device.type == "cuda" and not compiled:  # compiled networks have their own
            self.network, self.fixed_sizes = GraphedNetwork(self.network), True

    def upload(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "h w 3"]:
        """Brings an RGB image to the device, as bytes."""
        return torch.tensor(image, device=self.device)

    @torch.inference_mode()
    def find_points(
        self, images: Sequence[UInt8[Tensor, "_ _ 3"]], warps: Sequence[Warp], reading: Reading
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Finds the keypoints in crops of images; see `ImageEngine`."""
        crops = [sample(image, warp) for image, warp in zip(images, warps, strict=True)]
        pixels = self.normalise(torch.cat(crops))
        maps = self.run(pixels).float()
        if reading.mirror is not None:
            mirrored = self.run(pixels.flip(-1)).float()
            maps = merge_flipped(maps, mirrored, reading)
        points, scores = decode(maps, reading.decoding)
        found = torch.cat([points, scores[..., None]], dim=2).cpu().numpy()  # one way back for both
        refuse_unreadable(found[..., 2])
        return found[..., :2], found[..., 2], Size(width=maps.shape[3], height=maps.shape[2])


_GRAPHS = threading.Lock()
"""Held while graphs are recorded and launched, by whichever network of this process: they share memory and a stream."""


@cache
def _shared(device: torch.device) -> tuple[Any, Any]:
    """Returns the memory pool of all graphs on a device, and the stream that they run on, one after another."""
    return torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)


class GraphedNetwork:
    """A network whose kernels are recorded once for each shape of its input, and then launched as one.

    All graphs on a device share one pool, so that those of further shapes and networks need hardly more memory. That is
    safe because they run one after another, on one stream, and what one gives is copied before the next one starts.

    Args:
        network: What runs on CUDA, without synchronising and with fixed weights.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Returns what the network returns."""
        with _GRAPHS:
            pool, stream = _shared(pixels.device)
            here = torch.cuda.current_stream(pixels.device)
            if pixels.shape not in self._graphs:
                self._graphs[pixels.shape] = self._record(pixels, pool, stream)
            graph, given, maps = self._graphs[pixels.shape]
            found = torch.empty_like(
                maps
            )  # of this stream's memory, which is where it is used and given back
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                given.copy_(pixels)
                graph.replay()
                found.copy_(maps)
            here.wait_stream(stream)
            return found

    def _record(self, pixels: Tensor, pool: Any, stream: Any) -> tuple[Any, Tensor, Tensor]:
        """Returns a graph, its input and its output."""
        given, here = pixels.clone(), torch.cuda.current_stream(pixels.device)
        stream.wait_stream(here)
        # Libraries choose their kernels and take their memory before the recording.
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.network(given)
        here.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # What other threads ask of CUDA meanwhile, such as memory, is no part of the graph and does not spoil it.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            maps = self.network(given)
        return graph, given, maps


def sample(image: UInt8[Tensor, "h w 3"], warp: Warp) -> Float[Tensor, "n 3 hc wc"]:
    """Samples every crop from an image in one go: bilinear, black outside it, 0..255."""
    size, height, width = warp.size, *image.shape[:2]
    # To grid_sample's units: -1 and 1 are the outer edges of the first and the last pixel.
    units = np.array([2 / width, 2 / height])
    matrices = warp.matrices(size) * units[:, None]
    matrices[:, :, 2] += units / 2 - 1
    affine = torch.from_numpy(matrices.astype(np.float32)).to(image.device)[:, None, None]  # n 1 1 2 3
    x = torch.arange(size.width, device=image.device, dtype=torch.float32)[:, None]
    y = torch.arange(size.height, device=image.device, dtype=torch.float32)[:, None, None]
    grid = affine[..., 0] * x + affine[..., 1] * y + affine[..., 2]  # n hc wc 2
    pixels = image.permute(2, 0, 1)[None].float()
    crops = F.grid_sample(pixels, grid.flatten(0, 1)[None], align_corners=False)  # 1 3 n*hc wc
    return crops[0].unflatten(1, (len(warp), size.height)).transpose(0, 1).contiguous()


def merge_flipped(
    maps: Float[Tensor, "n k hm wm"], mirrored: Float[Tensor, "n k hm wm"], reading: Reading
) -> Float[Tensor, "n k hm wm"]:
    """Averages maps with those of the mirrored crops, as `heatmap.merge_flipped` does."""
    back = mirrored[:, torch.from_numpy(reading.mirror).to(maps.device)].flip(-1)
    if reading.shift:
        back = torch.cat([back[..., :1], back[..., :-1]], dim=-1)
    return (maps + back) / 2


def decode(
    maps: Float[Tensor, "n k hm wm"], decoding: Decoding
) -> tuple[Float[Tensor, "n k 2"], Float[Tensor, "n k"]]:
    """Reads all keypoints from their maps (float32), as `heatmap.decode` does."""
    flat = maps.flatten(0, 1)
    scores, highest = flat.flatten(1).max(dim=1)
    rows, columns = highest // maps.shape[3], highest % maps.shape[3]
    points = torch.stack([columns, rows], dim=1).float()
    if decoding.refine == "dark":
        points += _dark_steps(flat, rows, columns, decoding)
    elif decoding.refine == "quarter":
        points += _quarter_steps(flat, rows, columns)
    return points.unflatten(0, maps.shape[:2]), scores.unflatten(0, maps.shape[:2])


def _quarter_steps(
    maps: Float[Tensor, "m hm wm"], rows: Int[Tensor, " m"], columns: Int[Tensor, " m"]
) -> Float[Tensor, "m 2"]:
    height, width = maps.shape[1:]
    each = torch.arange(len(maps), device=maps.device)
    inside = (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)
    left, right = (columns - 1).clamp(min=0), (columns + 1).clamp(max=width - 1)
    above, below = (rows - 1).clamp(min=0), (rows + 1).clamp(max=height - 1)
    slopes = torch.stack(
        [
            maps[each, rows, right] - maps[each, rows, left],
            maps[each, below, columns] - maps[each, above, columns],
        ],
        dim=1,
    )
    return 0.25 * slopes.sign() * inside[:, None]


def _dark_steps(
    maps: Float[Tensor, "m hm wm"], rows: Int[Tensor, " m"], columns: Int[Tensor, " m"], decoding: Decoding
) -> Float[Tensor, "m 2"]:
    log = _blurred_around(maps, rows, columns, decoding).clamp(0.001, 50).log()
    x = 0.5 * (log[:, 1, 2] - log[:, 1, 0])
    y = 0.5 * (log[:, 2, 1] - log[:, 0, 1])
    epsilon = torch.finfo(torch.float32).eps
    xx = log[:, 1, 2] - 2 * log[:, 1, 1] + log[:, 1, 0] + epsilon
    yy = log[:, 2, 1] - 2 * log[:, 1, 1] + log[:, 0, 1] + epsilon
    before, after = log[:, 1, 0] + log[:, 0, 1] - log[:, 0, 0], log[:, 1, 2] + log[:, 2, 1] - log[:, 2, 2]
    xy = log[:, 1, 1] - 0.5 * (before + after)
    determinant = xx * yy - xy * xy
    peaked = determinant != 0 if decoding.max_step is None else (determinant > 0) & (xx < 0)
    steps = (
        torch.stack([xy * y - yy * x, xy * x - xx * y], dim=1) / torch.where(peaked, determinant, 1)[:, None]
    )
    if decoding.max_step is not None:
        steps = steps.clamp(-decoding.max_step, decoding.max_step)
    return torch.where(peaked[:, None], steps, 0)


def _blurred_around(
    maps: Float[Tensor, "m hm wm"], rows: Int[Tensor, " m"], columns: Int[Tensor, " m"], decoding: Decoding
) -> Float[Tensor, "m 3 3"]:
    taps = torch.from_numpy(blur_taps(decoding).astype(np.float32)).to(maps.device)
    (row, down), (column, across) = (
        _taps_within(peak, count, taps, decoding.border)
        for peak, count in zip((rows, columns), maps.shape[1:], strict=True)
    )
    each = torch.arange(len(maps), device=maps.device)[:, None, None]
    blurred = down @ maps[each, row[:, :, None], column[:, None, :]] @ across.transpose(1, 2)
    if decoding.border == "zero":
        return blurred
    # The border's values go on beyond it.
    beside = torch.arange(-1, 2, device=maps.device)
    row, column = (
        (peak[:, None] + beside).clamp(0, count - 1) - peak[:, None] + 1
        for peak, count in zip((rows, columns), maps.shape[1:], strict=True)
    )
    return blurred[each, row[:, :, None], column[:, None, :]]


def _taps_within(
    peaks: Int[Tensor, " m"], count: int, taps: Float[Tensor, "3 t"], border: str
) -> tuple[Int[Tensor, "m t"], Float[Tensor, "m 3 t"]]:
    """Returns the cells of a row around each peak, and what blurs them: nothing comes from outside with "zero"."""
    reach = taps.shape[1] // 2
    cells, inside = continued(np.arange(-reach, count + reach), count, border)
    around = peaks[:, None] + torch.arange(taps.shape[1], device=peaks.device)
    seen = torch.from_numpy(inside).to(peaks.device)[around]
    return torch.from_numpy(cells).to(peaks.device)[around], taps * seen[:, None]
