"""The simple and the classic decoder: tokens on their grid in, heatmaps out (paper, section 3.1).

Parameter names are those of the original checkpoints.

Heatmaps are computed and returned in at least float32: around a peak, neighbouring cells differ by less than the
spacing of bfloat16 numbers, and the sub-cell offset is computed from that difference.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CLASSIC_WIDTH = 256
"""Output channels of the classic decoder's deconvolutions, the same in every released checkpoint."""


def widened(values: Tensor) -> Tensor:
    """Converts half precision (float16, bfloat16) to float32; other dtypes are returned unchanged."""
    return values.float() if values.element_size() < 4 else values


class SimpleDecoder(nn.Module):
    """ReLU, bilinear upsampling and one 3x3 convolution, with the convolution's products taken before upsampling.

    Convolution and upsampling are both linear, so their order can be changed: each token is first projected to nine
    values per keypoint, one for each tap of the kernel; only these are upsampled, shifted by the offset of their tap
    and summed. Upsampling and shifting along one axis are one small matrix (border included), so what remains is
    one matrix product from the left and one from the right: a sixteenth of the operations, equal within rounding.

    Args:
        width: Number of channels d of the tokens.
        num_keypoints: Number of keypoints k.
        scale: Upsampling factor.
    """

    def __init__(self, width: int, num_keypoints: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.final_layer = nn.Conv2d(width, num_keypoints, 3, padding=1)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k hm wm"]:
        """Returns one heatmap per keypoint, `scale` times as large as the grid of tokens."""
        height, width = features.shape[2:]
        weight, bias = widened(self.final_layer.weight), widened(cast("Tensor", self.final_layer.bias))
        projection = weight.permute(0, 2, 3, 1).flatten(0, 2)  # 9k d
        taps = F.linear(widened(F.relu(features)).permute(0, 2, 3, 1), projection)  # b h w 9k
        taps = taps.unflatten(-1, (weight.shape[0], 3, 3)).permute(0, 3, 4, 1, 5, 2)  # b k y h x w
        across = taps.flatten(4) @ _spread(width, self.scale, taps).T  # b k y h wm
        heatmaps = _spread(height, self.scale, taps) @ across.flatten(2, 3)  # b k hm wm
        return widened(heatmaps) + bias[:, None, None]


def _spread(count: int, scale: int, like: Tensor) -> Float[Tensor, "to three_count"]:
    """Returns the matrix that upsamples three rows of cells, one per tap, and sums them shifted by their taps.

    Its columns are grouped by tap. Cells outside the upsampled row count as zero, as with the zero padding of the
    convolution.
    """
    cells = torch.eye(count, device=like.device)[None]
    up = F.interpolate(cells, scale_factor=scale, mode="linear", align_corners=False)[0].T  # to from
    padded = F.pad(up, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + len(up)] for tap in range(3)], dim=1).to(like.dtype)


class ClassicDecoder(nn.Module):
    """Two 4x4 deconvolutions that double the grid, each with BatchNorm and ReLU, and a 1x1 convolution.

    Args:
        width: Number of channels d of the tokens.
        num_keypoints: Number of keypoints k.
    """

    def __init__(self, width: int, num_keypoints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (width, CLASSIC_WIDTH):
            deconvolution = nn.ConvTranspose2d(channels, CLASSIC_WIDTH, 4, stride=2, padding=1, bias=False)
            layers += [deconvolution, nn.BatchNorm2d(CLASSIC_WIDTH), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(CLASSIC_WIDTH, num_keypoints, 1)

    def forward(self, features: Float[Tensor, "b d h w"]) -> Float[Tensor, "b k hm wm"]:
        """Returns one heatmap per keypoint, four times as large as the grid of tokens."""
        enlarged, layer = widened(self.deconv_layers(features)), self.final_layer
        return widened(F.conv2d(enlarged, widened(layer.weight), widened(cast("Tensor", layer.bias))))
