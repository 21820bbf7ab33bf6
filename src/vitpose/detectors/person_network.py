"""The network of the person detector that ships: anchor-free, one class, about a million parameters.

A convolutional backbone, a feature pyramid in both directions (arXiv 1803.01534), and at each cell of three grids the
logit of a person and the distances from the cell's centre to the four sides of a box (FCOS, arXiv 1904.01355).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (8, 16, 32)
"""Pixels of the input between neighbouring cells of each grid; the input's sides are multiples of the last."""
WIDTHS = (16, 32, 64, 128, 192)
"""Channels at strides 2 to 32."""
NECK = 64
"""Channels of the pyramid and of the heads."""
GREY = 114.0
"""Grey level around a letterboxed image; the network subtracts it, so padding is zero."""


class PersonNetwork(nn.Module):
    """Predicts, for every cell of the three grids, the logit of a person and an xyxy box in pixels of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, WIDTHS[0], 3, 2), _conv(WIDTHS[0], WIDTHS[1], 3, 2))
        self.stages = nn.ModuleList(
            nn.Sequential(_conv(before, width, 3, 2), AggregationBlock(width, depth))
            for before, width, depth in zip(WIDTHS[1:], WIDTHS[2:], (2, 2, 1), strict=False)
        )
        self.context = PyramidPooling(WIDTHS[-1])
        self.lateral = nn.ModuleList(_conv(width, NECK, 1) for width in WIDTHS[2:])
        self.down = nn.ModuleList(AggregationBlock(NECK, 1) for _ in STRIDES[1:])
        self.stride = nn.ModuleList(_conv(NECK, NECK, 3, 2) for _ in STRIDES[1:])
        self.up = nn.ModuleList(AggregationBlock(NECK, 1) for _ in STRIDES[1:])
        self.heads = nn.ModuleList(GridHead() for _ in STRIDES)
        for parameter in self.parameters():
            if parameter.ndim == 4:  # the order in which images arrive, and the quickest
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Return the logits and the boxes of all cells, the finest grid first.

        Args:
            images: RGB from 0 to 255; the sides are multiples of 32.
        """
        return self.predict(self.features(images))

    def features(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c _ _"]]:
        """Return the features of the three grids, the finest first."""
        x = self.stem((images - GREY) / 58.0)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels[-1] = self.context(levels[-1])
        p3, p4, p5 = (lateral(level) for lateral, level in zip(self.lateral, levels, strict=True))
        p4 = self.down[0](p4 + F.interpolate(p5, scale_factor=2.0))
        p3 = self.down[1](p3 + F.interpolate(p4, scale_factor=2.0))
        p4 = self.up[0](p4 + self.stride[0](p3))
        p5 = self.up[1](p5 + self.stride[1](p4))
        return [p3, p4, p5]

    def predict(
        self, features: list[Float[Tensor, "b c _ _"]]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        """Return the logits and the boxes of all cells from the features of the grids."""
        logits, boxes = [], []
        for head, level, stride in zip(self.heads, features, STRIDES, strict=True):
            logit, sides = head(level)
            points = cell_centres(level.shape[2], level.shape[3], stride).to(level.device)
            distances = stride * sides.flatten(2).transpose(1, 2).float().clamp(-6, 5).exp()
            boxes.append(torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1))
            logits.append(logit.flatten(1).float())
        return torch.cat(logits, dim=1), torch.cat(boxes, dim=1)


class GridHead(nn.Module):
    """Predicts one grid: a logit and the logarithms of four distances, in strides, for every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.person = nn.Sequential(_conv(NECK, NECK, 3), nn.Conv2d(NECK, 1, 1))
        self.box = nn.Sequential(_conv(NECK, NECK, 3), nn.Conv2d(NECK, 4, 1))
        biases = self.get_parameter("person.1.bias"), self.get_parameter("box.1.bias")
        nn.init.constant_(biases[0], -4.6)  # a hundredth of the cells shows a person (arXiv 1708.02002)
        nn.init.constant_(biases[1], 1.0)

    def forward(
        self, x: Float[Tensor, "b c hm wm"]
    ) -> tuple[Float[Tensor, "b 1 hm wm"], Float[Tensor, "b 4 hm wm"]]:
        """Return logits and logarithms of distances."""
        return self.person(x), self.box(x)


class AggregationBlock(nn.Module):
    """Residual units on half of the channels, all of whose outputs are merged (as in ELAN, arXiv 2211.04800)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        half = width // 2
        self.split = _conv(width, width, 1)
        self.units = nn.ModuleList(
            nn.Sequential(_conv(half, half, 3), _conv(half, half, 3)) for _ in range(depth)
        )
        self.merge = _conv(width + depth * half, width, 1)

    def forward(self, x: Float[Tensor, "b c hm wm"]) -> Float[Tensor, "b c hm wm"]:
        """Return features of the same shape."""
        parts = list(self.split(x).chunk(2, dim=1))
        for unit in self.units:
            parts.append(parts[-1] + unit(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class PyramidPooling(nn.Module):
    """Maxima over 5, 9 and 13 cells beside the features themselves, so a cell sees a person that fills the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = _conv(width, width // 2, 1)
        self.merge = _conv(2 * width, width, 1)

    def forward(self, x: Float[Tensor, "b c hm wm"]) -> Float[Tensor, "b c hm wm"]:
        """Return features of the same shape."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, stride=1, padding=2))
        return self.merge(torch.cat(parts, dim=1))


def cell_centres(height: int, width: int, stride: int) -> Float[Tensor, "n 2"]:
    """Return the centres (x, y) of a grid's cells, row by row, in pixels of the input."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride


def fold(network: PersonNetwork) -> PersonNetwork:
    """Merge every batch normalisation into its convolution, in place: the same predictions for less work."""
    for layers in (module for module in network.modules() if isinstance(module, nn.Sequential)):
        for index, (layer, norm) in enumerate(pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[index], layers[index + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.03, eps=1e-3),
        nn.SiLU(inplace=True),
    )
