"""Heatmaps: encoding keypoints as targets, decoding keypoints from heatmaps, merging a flipped pass.

All keypoints here are (x, y) in cells of the heatmap, (0, 0) being the centre of the first cell. This module does
not depend on images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InputError, UnknownNameError
from .boxes import Size

REFINEMENTS = ("dark", "quarter", "argmax")
BORDERS = ("zero", "mirror", "reflect")


@dataclass(frozen=True)
class Decoding:
    """Options for decoding a keypoint's position from its heatmap.

    Attributes:
        refine: "dark": one Newton step on the logarithm of the blurred heatmap (Zhang et al., Distribution-Aware
            Coordinate Representation, CVPR 2020; evaluated as in UDP); "quarter": a quarter of a cell
            towards the larger neighbour; "argmax": the highest cell.
        kernel_size: Side of the Gaussian blur before DARK's step, cells; odd.
        blur_sigma: Standard deviation of the blur, cells; default: derived from the kernel size as OpenCV and so
            the original do, 2.0 for a kernel of 11. `transformers` uses 0.8.
        border: Padding of the blur outside the heatmap. "zero": zeros; "mirror": mirrored about the last cell,
            as in the original; "reflect": mirrored about the edge, as in `transformers`. The latter two repeat the
            border's values for the derivatives of the step; "zero" continues the zeros there.
        max_step: DARK's step is clipped to this many cells, and skipped where the heatmap has no peak; None
            takes every step unclipped, as the original and `transformers` do.

    Raises:
        UnknownNameError: `refine` or `border` is unknown.
        InputError: `kernel_size`, `blur_sigma` or `max_step` is out of range.
    """

    refine: str = "dark"
    kernel_size: int = 11
    blur_sigma: float | None = None
    border: str = "zero"
    max_step: float | None = 1.0

    def __post_init__(self) -> None:
        if self.refine not in REFINEMENTS:
            raise UnknownNameError("decoding", self.refine, REFINEMENTS)
        if self.border not in BORDERS:
            raise UnknownNameError("border", self.border, BORDERS)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size {self.kernel_size} must be odd and positive, such as 11")
        if not 0 < self.sigma < np.inf:
            raise InputError(f"blur_sigma {self.blur_sigma} must be finite and positive, in cells")
        if self.max_step is not None and not self.max_step >= 0:
            raise InputError(
                f"max_step {self.max_step} must not be negative, in cells; None takes every step unclipped"
            )

    @property
    def sigma(self) -> float:
        """Standard deviation of the blur, cells; the default follows OpenCV's `getGaussianKernel`."""
        return 0.3 * ((self.kernel_size - 1) / 2 - 1) + 0.8 if self.blur_sigma is None else self.blur_sigma


TRANSFORMERS_DECODING = Decoding(blur_sigma=0.8, border="reflect", max_step=None)
"""The decoding of `transformers` 5.23, for comparison."""


def decode(
    heatmaps: Float[np.ndarray, "n k hm wm"], decoding: Decoding | None = None
) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
    """Decodes keypoints from heatmaps.

    Args:
        heatmaps: Predicted heatmaps, any floating type.
        decoding: Options; default: DARK as in UDP.

    Returns:
        Keypoints in cells of the heatmap and their scores: the maxima of the unblurred heatmaps.

    Raises:
        InputError: A heatmap contains NaN or infinity.
    """
    decoding = decoding or Decoding()
    n, k, height, width = heatmaps.shape
    flat = heatmaps.reshape(n * k, height, width).astype(np.float32, copy=False)
    highest = flat.reshape(n * k, height * width).argmax(axis=1)
    rows, columns = np.divmod(highest, width)
    scores = flat[np.arange(n * k), rows, columns]
    refuse_unreadable(scores)
    keypoints = np.stack([columns, rows], axis=1).astype(np.float32)
    if decoding.refine == "dark":
        keypoints += _dark_steps(flat, rows, columns, decoding)
    elif decoding.refine == "quarter":
        keypoints += _quarter_steps(flat, rows, columns)
    return keypoints.reshape(n, k, 2), scores.reshape(n, k)


def refuse_unreadable(scores: Float[np.ndarray, "..."]) -> None:
    """Raises if the maximum of a heatmap is NaN or infinite.

    Args:
        scores: Maximum of each heatmap. `argmax` returns a cell with NaN if there is one, so the maxima suffice.

    Raises:
        InputError: A score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise InputError(
            "the heatmaps contain NaN or infinity, which the weights or the precision of the network cause; "
            "check the weights or try dtype='float32'"
        )


def _quarter_steps(
    heatmaps: Float[np.ndarray, "m hm wm"], rows: Int[np.ndarray, " m"], columns: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m 2"]:
    """Returns a quarter of a cell towards the larger neighbour of each peak, 0 near the border."""
    height, width = heatmaps.shape[1:]
    each = np.arange(len(heatmaps))
    inside = (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)
    # Steps near the border are zeroed below; clipping keeps their indices valid.
    left, right = np.clip(columns - 1, 0, None), np.clip(columns + 1, None, width - 1)
    above, below = np.clip(rows - 1, 0, None), np.clip(rows + 1, None, height - 1)
    steps = np.stack(
        [
            np.sign(heatmaps[each, rows, right] - heatmaps[each, rows, left]),
            np.sign(heatmaps[each, below, columns] - heatmaps[each, above, columns]),
        ],
        axis=1,
    )
    return (0.25 * steps * inside[:, None]).astype(np.float32)


def _dark_steps(
    heatmaps: Float[np.ndarray, "m hm wm"],
    rows: Int[np.ndarray, " m"],
    columns: Int[np.ndarray, " m"],
    decoding: Decoding,
) -> Float[np.ndarray, "m 2"]:
    """Returns the Newton step to the peak of the logarithm of the blurred heatmap, in cells."""
    # Clipped as in the original, which keeps the logarithm finite.
    log = np.log(np.clip(_blurred_around(heatmaps, rows, columns, decoding), 0.001, 50))
    gradient = 0.5 * np.stack([log[:, 1, 2] - log[:, 1, 0], log[:, 2, 1] - log[:, 0, 1]], axis=1)
    xx = log[:, 1, 2] - 2 * log[:, 1, 1] + log[:, 1, 0]
    yy = log[:, 2, 1] - 2 * log[:, 1, 1] + log[:, 0, 1]
    xy = 0.5 * (
        log[:, 2, 2]
        - log[:, 1, 2]
        - log[:, 2, 1]
        + 2 * log[:, 1, 1]
        - log[:, 1, 0]
        - log[:, 0, 1]
        + log[:, 0, 0]
    )
    epsilon = np.finfo(np.float32).eps  # as in the original, for flat heatmaps
    xx, yy = xx + epsilon, yy + epsilon
    determinant = xx * yy - xy * xy
    peaked = determinant != 0 if decoding.max_step is None else (determinant > 0) & (xx < 0)
    adjugate = np.stack(
        [yy * gradient[:, 0] - xy * gradient[:, 1], xx * gradient[:, 1] - xy * gradient[:, 0]], axis=1
    )
    steps = -adjugate / np.where(peaked, determinant, 1)[:, None]
    if decoding.max_step is not None:
        steps = np.clip(steps, -decoding.max_step, decoding.max_step)
    return np.where(peaked[:, None], steps, 0).astype(np.float32)


def _blurred_around(
    heatmaps: Float[np.ndarray, "m hm wm"],
    rows: Int[np.ndarray, " m"],
    columns: Int[np.ndarray, " m"],
    decoding: Decoding,
) -> Float[np.ndarray, "m 3 3"]:
    """Returns the blurred heatmap at each peak and its eight neighbours, without blurring other cells."""
    height, width = heatmaps.shape[1:]
    taps = blur_taps(decoding)
    around = np.arange(taps.shape[1]) - taps.shape[1] // 2
    row, row_inside = continued(rows[:, None] + around, height, decoding.border)
    column, column_inside = continued(columns[:, None] + around, width, decoding.border)
    each = np.arange(len(heatmaps))[:, None, None]
    patches = heatmaps[each, row[:, :, None], column[:, None, :]].astype(np.float64)
    patches *= row_inside[:, :, None] & column_inside[:, None, :]
    blurred = taps @ patches @ taps.T
    if decoding.border != "zero":
        for axis, peak, count in ((1, rows, height), (2, columns, width)):
            side = np.moveaxis(blurred, axis, 0)
            side[0, peak == 0] = side[1, peak == 0]
            side[2, peak == count - 1] = side[1, peak == count - 1]
    return blurred


def blur_taps(decoding: Decoding) -> Float[np.ndarray, "3 t"]:
    """Returns the filter taps that blur a row of cells before, at and after a peak.

    Args:
        decoding: Kernel size and sigma of the blur.

    Returns:
        One row of t = kernel_size + 2 taps for the cell before the peak, the peak, and the cell after it.
    """
    reach = decoding.kernel_size // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / decoding.sigma) ** 2)
    taps = np.zeros((3, len(weights) + 2))
    for shift in range(3):
        taps[shift, shift : shift + len(weights)] = weights / weights.sum()
    return taps


def continued(
    index: Int[np.ndarray, "..."], count: int, border: str
) -> tuple[Int[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Returns the cells that padding reads for indices outside 0..count-1, and which indices are not zero padding.

    Args:
        index: Indices along one axis, also outside the heatmap.
        count: Number of cells along that axis.
        border: "zero", "mirror" or "reflect"; see `Decoding.border`.
    """
    if border == "zero":
        return np.clip(index, 0, count - 1), (index >= 0) & (index < count)
    period = max(2 * count - 2, 1) if border == "mirror" else 2 * count
    folded = np.mod(index, period)
    last = period - folded if border == "mirror" else period - 1 - folded
    return np.where(folded < count, folded, last), np.ones(index.shape, bool)


def encode(
    keypoints: Float[np.ndarray, "n k 2"],
    labelled: Bool[np.ndarray, "n k"],
    size: Size,
    sigma: float = 2.0,
    unbiased: bool = True,
) -> tuple[Float[np.ndarray, "n k hm wm"], Float[np.ndarray, "n k"]]:
    """Encodes keypoints as target heatmaps: a Gaussian around each keypoint, truncated at three sigma.

    Args:
        keypoints: In cells of the heatmap.
        labelled: Which keypoints are labelled; the coordinates of others may be NaN.
        size: Size of the heatmaps.
        sigma: Standard deviation, cells.
        unbiased: Centre the Gaussian on the keypoint (UDP); False rounds the centre to a cell (MSRA, Xiao et
            al., Simple Baselines, ECCV 2018).

    Returns:
        The heatmaps, and a weight for each keypoint: 0 where it is not labelled or its Gaussian lies wholly outside
        the heatmap.
    """
    nearest = np.floor(np.where(labelled[:, :, None], keypoints, 0) + 0.5)
    reach = 3 * sigma
    limits = np.array([size.width, size.height])
    seen = labelled & ((nearest - reach < limits) & (nearest + reach + 1 > 0)).all(axis=2)
    centres = np.where(labelled[:, :, None], keypoints, 0) if unbiased else nearest
    profiles = []
    for axis, count in ((1, size.height), (0, size.width)):
        cells = np.arange(count)
        profile = np.exp(-0.5 * ((cells - centres[:, :, axis, None]) / sigma) ** 2)
        profiles.append(profile * (np.abs(cells - nearest[:, :, axis, None]) <= reach))
    heatmaps = np.einsum("nkh,nkw->nkhw", *profiles) * seen[:, :, None, None]
    return heatmaps.astype(np.float32), seen.astype(np.float32)


def merge_flipped(
    heatmaps: Float[np.ndarray, "n k hm wm"],
    mirrored: Float[np.ndarray, "n k hm wm"],
    mirror: Int[np.ndarray, " k"],
    shift: bool = False,
) -> Float[np.ndarray, "n k hm wm"]:
    """Averages the heatmaps of crops with those of the mirrored crops (the flip test).

    Args:
        heatmaps: Heatmaps of the crops.
        mirrored: Heatmaps of the mirrored crops, not yet flipped back.
        mirror: Index of each keypoint's mirror image (`Skeleton.mirror`).
        shift: Shift the mirrored heatmaps right by one cell after flipping them back: required for the plain warp,
            wrong for UDP.
    """
    back = mirrored[:, mirror, :, ::-1]
    if shift:
        back = np.concatenate([back[..., :1], back[..., :-1]], axis=-1)
    return (heatmaps + back) / 2
