"""Cropping, network and decoding on an accelerator: each image is uploaded once, only keypoints and scores come back.

Reimplements in torch what `geometry.warp` and `geometry.heatmaps` do in NumPy, equal up to rounding; the sources of the
formulas are given there.
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
from ..keypoints.model_spec import ModelSpec
from ..model.pose import VitPoseForPoseEstimation
from .protocol import DecodingOptions
from .torch import TorchEngine


class DeviceEngine(TorchEngine):
    """An engine that crops, runs a dense network and decodes its heatmaps on one device; see `ImageEngine`.

    On CUDA the network is replayed as a CUDA graph, one for each batch size, which saves the time of launching hundreds
    of kernels. Batches are padded to powers of two.

    Args:
        model: As in `TorchEngine`.
        spec: As in `TorchEngine`.
        compiled: As in `TorchEngine`.
    """

    def __init__(self, model: VitPoseForPoseEstimation, spec: ModelSpec, compiled: bool = False) -> None:
        super().__init__(model, spec, compiled)
        if self.device.type == "cuda" and not compiled:  # torch.compile records graphs itself
            self.network, self.fixed_sizes = GraphedNetwork(self.network), True

    def upload(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "h w 3"]:
        """Upload an RGB image to the device, as uint8."""
        return torch.tensor(image, device=self.device)

    @torch.inference_mode()
    def find_keypoints(
        self, images: Sequence[UInt8[Tensor, "_ _ 3"]], warps: Sequence[Warp], options: DecodingOptions
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"], Size]:
        """Estimate the keypoints in crops of images; see `ImageEngine`."""
        crops = [sample(image, warp) for image, warp in zip(images, warps, strict=True)]
        pixels = self.normalise(torch.cat(crops))
        heatmaps = self.run(pixels).float()
        if options.mirror is not None:
            mirrored = self.run(pixels.flip(-1)).float()
            heatmaps = merge_flipped(heatmaps, mirrored, options)
        keypoints, scores = decode(heatmaps, options.decoding)
        found = torch.cat([keypoints, scores[..., None]], dim=2).cpu().numpy()  # one transfer for both
        refuse_unreadable(found[..., 2])
        return found[..., :2], found[..., 2], Size(width=heatmaps.shape[3], height=heatmaps.shape[2])


_GRAPHS = threading.Lock()
"""Held while any network of this process captures or replays a graph: all graphs share memory and a stream."""


@cache
def _shared(device: torch.device) -> tuple[Any, Any]:
    """Return the memory pool and the stream shared by all graphs of a device."""
    return torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)


class GraphedNetwork:
    """A network that is captured as a CUDA graph for each input shape, and then replayed.

    All graphs of a device share one memory pool, so that further shapes and networks use little additional memory. This
    is safe because the graphs run one after another on one stream, and each output is copied before the next replay.

    Args:
        network: A function on CUDA that does not synchronise and whose weights do not change.
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self.network = network
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Return the heatmaps of normalised crops."""
        with _GRAPHS:
            pool, stream = _shared(pixels.device)
            current = torch.cuda.current_stream(pixels.device)
            if pixels.shape not in self._graphs:
                self._graphs[pixels.shape] = self._capture(pixels, pool, stream)
            graph, graph_input, graph_output = self._graphs[pixels.shape]
            # Allocated outside the graph's stream: the current stream uses and frees it.
            heatmaps = torch.empty_like(graph_output)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                graph_input.copy_(pixels)
                graph.replay()
                heatmaps.copy_(graph_output)
            current.wait_stream(stream)
            return heatmaps

    def _capture(self, pixels: Tensor, pool: Any, stream: Any) -> tuple[Any, Tensor, Tensor]:
        """Return a graph, its input and its output."""
        graph_input, current = pixels.clone(), torch.cuda.current_stream(pixels.device)
        stream.wait_stream(current)
        # Warm-up: libraries select their kernels and allocate workspace before the capture.
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.network(graph_input)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # With "thread_local", CUDA calls of other threads during the capture, such as allocations, are no errors.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            graph_output = self.network(graph_input)
        return graph, graph_input, graph_output


def sample(image: UInt8[Tensor, "h w 3"], warp: Warp) -> Float[Tensor, "n 3 hc wc"]:
    """Sample all crops of an image at once: bilinear, 0 outside the image, values 0 to 255."""
    size, height, width = warp.size, *image.shape[:2]
    # To the units of grid_sample: -1 and 1 are the outer edges of the first and the last pixel.
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
    heatmaps: Float[Tensor, "n k hm wm"], mirrored: Float[Tensor, "n k hm wm"], options: DecodingOptions
) -> Float[Tensor, "n k hm wm"]:
    """Average heatmaps with those of the mirrored crops, as `geometry.heatmaps.merge_flipped` does."""
    back = mirrored[:, torch.from_numpy(options.mirror).to(heatmaps.device)].flip(-1)
    if options.shift:
        back = torch.cat([back[..., :1], back[..., :-1]], dim=-1)
    return (heatmaps + back) / 2


def decode(
    heatmaps: Float[Tensor, "n k hm wm"], decoding: Decoding
) -> tuple[Float[Tensor, "n k 2"], Float[Tensor, "n k"]]:
    """Decode keypoints (in cells) and scores from heatmaps (float32), as `geometry.heatmaps.decode` does."""
    flat = heatmaps.flatten(0, 1)
    scores, highest = flat.flatten(1).max(dim=1)
    rows, columns = highest // heatmaps.shape[3], highest % heatmaps.shape[3]
    keypoints = torch.stack([columns, rows], dim=1).float()
    if decoding.refine == "dark":
        keypoints += _dark_steps(flat, rows, columns, decoding)
    elif decoding.refine == "quarter":
        keypoints += _quarter_steps(flat, rows, columns)
    return keypoints.unflatten(0, heatmaps.shape[:2]), scores.unflatten(0, heatmaps.shape[:2])


def _quarter_steps(
    heatmaps: Float[Tensor, "m hm wm"], rows: Int[Tensor, " m"], columns: Int[Tensor, " m"]
) -> Float[Tensor, "m 2"]:
    height, width = heatmaps.shape[1:]
    each = torch.arange(len(heatmaps), device=heatmaps.device)
    inside = (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)
    left, right = (columns - 1).clamp(min=0), (columns + 1).clamp(max=width - 1)
    above, below = (rows - 1).clamp(min=0), (rows + 1).clamp(max=height - 1)
    slopes = torch.stack(
        [
            heatmaps[each, rows, right] - heatmaps[each, rows, left],
            heatmaps[each, below, columns] - heatmaps[each, above, columns],
        ],
        dim=1,
    )
    return 0.25 * slopes.sign() * inside[:, None]


def _dark_steps(
    heatmaps: Float[Tensor, "m hm wm"],
    rows: Int[Tensor, " m"],
    columns: Int[Tensor, " m"],
    decoding: Decoding,
) -> Float[Tensor, "m 2"]:
    log = _blurred_around(heatmaps, rows, columns, decoding).clamp(0.001, 50).log()
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
    heatmaps: Float[Tensor, "m hm wm"],
    rows: Int[Tensor, " m"],
    columns: Int[Tensor, " m"],
    decoding: Decoding,
) -> Float[Tensor, "m 3 3"]:
    taps = torch.from_numpy(blur_taps(decoding).astype(np.float32)).to(heatmaps.device)
    (row, down), (column, across) = (
        _taps_within(peak, count, taps, decoding.border)
        for peak, count in zip((rows, columns), heatmaps.shape[1:], strict=True)
    )
    each = torch.arange(len(heatmaps), device=heatmaps.device)[:, None, None]
    blurred = down @ heatmaps[each, row[:, :, None], column[:, None, :]] @ across.transpose(1, 2)
    if decoding.border == "zero":
        return blurred
    # Cells outside the heatmap have the blurred value of the nearest border cell.
    beside = torch.arange(-1, 2, device=heatmaps.device)
    row, column = (
        (peak[:, None] + beside).clamp(0, count - 1) - peak[:, None] + 1
        for peak, count in zip((rows, columns), heatmaps.shape[1:], strict=True)
    )
    return blurred[each, row[:, :, None], column[:, None, :]]


def _taps_within(
    peaks: Int[Tensor, " m"], count: int, taps: Float[Tensor, "3 t"], border: str
) -> tuple[Int[Tensor, "m t"], Float[Tensor, "m 3 t"]]:
    """Return the indices of the cells around each peak along one axis, and their blur weights.

    With the border "zero", the weights of cells outside the heatmap are 0.
    """
    reach = taps.shape[1] // 2
    cells, inside = continued(np.arange(-reach, count + reach), count, border)
    around = peaks[:, None] + torch.arange(taps.shape[1], device=peaks.device)
    seen = torch.from_numpy(inside).to(peaks.device)[around]
    return torch.from_numpy(cells).to(peaks.device)[around], taps * seen[:, None]
