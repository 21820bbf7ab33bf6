"""The two light decoders: tokens on their grid in, heat maps out (paper, section 3.1).

Parameter names are those of the original checkpoints. Knows no backbone and no files.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CLASSIC_WIDTH = 256
"""Channels of the classic decoder's deconvolutions, in every released checkpoint."""


class SimpleDecoder(nn.Module):
    """ReLU, bilinear upsampling and one 3x3 convolution."""

    def __init__(self, width: int, num_keypoints: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.final_layer = nn.Conv2d(width, num_keypoints, 3, padding=1)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k hm wm"]:
        """Returns one map a keypoint, `scale` times as large as the grid of tokens."""
        # Convolution and upsampling are both linear, so the nine taps are taken on the small grid, where they
        # cost a sixteenth, and their maps are enlarged, shifted and added: the same sums in another order.
        taps = self.final_layer.weight.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]
        maps = F.conv2d(F.relu(features), taps)
        maps = F.interpolate(maps, scale_factor=self.scale, mode="bilinear", align_corners=False)
        height, width = maps.shape[2:]
        shifted = F.pad(maps, (1, 1, 1, 1)).unflatten(1, (3, 3, -1))
        parts = [
            shifted[:, row, column, :, row : row + height, column : column + width]
            for row in range(3)
            for column in range(3)
        ]
        bias = cast("Tensor", self.final_layer.bias)
        return torch.stack(parts).sum(dim=0) + bias[:, None, None]


class ClassicDecoder(nn.Module):
    """Two 4x4 deconvolutions that double the grid, each with BatchNorm and ReLU, and a 1x1 convolution."""

    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (width, CLASSIC_WIDTH):
            deconvolution = nn.ConvTranspose2d(channels, CLASSIC_WIDTH, 4, stride=2, padding=1, bias=False)
            layers += [deconvolution, nn.BatchNorm2d(CLASSIC_WIDTH), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(CLASSIC_WIDTH, num_keypoints, 1)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k hm wm"]:
        """Returns one map a keypoint, four times as large as the grid of tokens."""
        return self.final_layer(self.deconv_layers(features))
