"""Target heatmaps of a batch, encoded from its keypoints on the device that trains."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.boxes import Size


def encode(
    keypoints: Float[Tensor, "b k 2"],
    weights: Float[Tensor, "b k"],
    size: Size,
    sigma: float = 2.0,
    unbiased: bool | Bool[Tensor, "#b"] = True,
) -> tuple[Float[Tensor, "b k hm wm"], Float[Tensor, "b k"]]:
    """Return target heatmaps, a Gaussian truncated at three sigma around each keypoint, and the keypoints' weights.

    Args:
        keypoints: In cells of the heatmap.
        weights: Weight of each keypoint; 0 where it is unlabelled.
        size: Size of the heatmaps.
        sigma: Standard deviation, cells.
        unbiased: Centre the Gaussian on the keypoint (UDP); False rounds the centre to a cell (MSRA, Xiao et al.,
            Simple Baselines, ECCV 2018). One value for all samples, or one for each.

    Returns:
        The heatmaps, which are 0 for keypoints of weight 0, and the weights, which are 0 also where the Gaussian
        lies wholly outside the heatmap.
    """
    nearest, reach = torch.floor(keypoints + 0.5), 3 * sigma
    limits = keypoints.new_tensor([size.width, size.height])
    weights = weights * ((nearest - reach < limits) & (nearest + reach + 1 > 0)).all(dim=2)
    exact = torch.as_tensor(unbiased, device=keypoints.device).view(-1, 1, 1)
    centres = torch.where(exact, keypoints, nearest)

    def profile(axis: int, count: int) -> Float[Tensor, "b k cells"]:
        cells = torch.arange(count, device=keypoints.device)
        gaussian = torch.exp(-0.5 * ((cells - centres[:, :, axis, None]) / sigma) ** 2)
        return gaussian * ((cells - nearest[:, :, axis, None]).abs() <= reach)

    rows = profile(1, size.height) * (weights != 0)[:, :, None]
    return rows[:, :, :, None] * profile(0, size.width)[:, :, None, :], weights
