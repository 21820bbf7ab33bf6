"""Heatmaps: encoding keypoints into targets, decoding maps into keypoints, merging a mirrored pass.

All points here are (x, y) in cells of the map, (0, 0) being the middle of the first cell. Knows no
image and no network.
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
    """How the place of a keypoint is read from its map.

    Attributes:
        refine: "dark": one Newton step on the logarithm of the blurred map (Zhang et al., Distribution-Aware
            Coordinate Representation, CVPR 2020; evaluated as in UDP); "quarter": a quarter of a cell
            towards the larger neighbour; "argmax": the highest cell.
        kernel_size: Side of the Gaussian blur before DARK's step, cells; odd.
        blur_sigma: Its standard deviation, cells; without it what OpenCV derives from the kernel and so the
            original uses, 2.0 for a kernel of 11. `transformers` uses 0.8.
        border: What the blur sees outside the map. "zero": nothing; "mirror": the map mirrored about its
            last cell, as the original has it; "reflect": mirrored about its edge, as `transformers`
            has it. Both repeat the border's values for the step's derivatives; "zero" continues there.
        max_step: DARK's step is cut to this many cells, and not taken where the map has no peak; None
            trusts it whatever it is, as the original and `transformers` do.

    Raises:
        UnknownNameError: A choice is not known.
        InputError: The kernel or sigma is impossible.
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
                f"max_step {self.max_step} must not be negative, in cells; None trusts every step"
            )

    @property
    def sigma(self) -> float:
        """Standard deviation of the blur, cells; OpenCV's rule is that of `getGaussianKernel`."""
        return 0.3 * ((self.kernel_size - 1) / 2 - 1) + 0.8 if self.blur_sigma is None else self.blur_sigma


TRANSFORMERS_DECODING = Decoding(blur_sigma=0.8, border="reflect", max_step=None)
"""What `transformers` 5.23 does, for comparison."""


def decode(
    maps: Float[np.ndarray, "n k hm wm"], decoding: Decoding | None = None
) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
    """Reads the keypoints from heatmaps.

    Args:
        maps: Predicted maps, any floating type.
        decoding: How; UDP's DARK without it.

    Returns:
        Points in cells of the map and their scores: the maxima of the unblurred maps.

    Raises:
        InputError: A map holds NaN or infinity.
    """
    decoding = decoding or Decoding()
    n, k, height, width = maps.shape
    flat = maps.reshape(n * k, height, width).astype(np.float32, copy=False)
    highest = flat.reshape(n * k, height * width).argmax(axis=1)
    rows, columns = np.divmod(highest, width)
    scores = flat[np.arange(n * k), rows, columns]
    refuse_unreadable(scores)
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    if decoding.refine == "dark":
        points += _dark_steps(flat, rows, columns, decoding)
    elif decoding.refine == "quarter":
        points += _quarter_steps(flat, rows, columns)
    return points.reshape(n, k, 2), scores.reshape(n, k)


def refuse_unreadable(scores: Float[np.ndarray, "..."]) -> None:
    """Raises if a map's maximum says that it holds NaN or infinity.

    Raises:
        InputError: It does.
    """
    if not np.isfinite(scores).all():
        raise InputError(
            "the heatmaps hold NaN or infinity; the weights or the precision of the network are at fault, try float32"
        )


def _quarter_steps(
    maps: Float[np.ndarray, "m hm wm"], rows: Int[np.ndarray, " m"], columns: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m 2"]:
    height, width = maps.shape[1:]
    each = np.arange(len(maps))
    inside = (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)
    # Steps are only taken inside; clipping merely keeps the unused indices valid.
    left, right = np.clip(columns - 1, 0, None), np.clip(columns + 1, None, width - 1)
    above, below = np.clip(rows - 1, 0, None), np.clip(rows + 1, None, height - 1)
    steps = np.stack(
        [
            np.sign(maps[each, rows, right] - maps[each, rows, left]),
            np.sign(maps[each, below, columns] - maps[each, above, columns]),
        ],
        axis=1,
    )
    return (0.25 * steps * inside[:, None]).astype(np.float32)


def _dark_steps(
    maps: Float[np.ndarray, "m hm wm"],
    rows: Int[np.ndarray, " m"],
    columns: Int[np.ndarray, " m"],
    decoding: Decoding,
) -> Float[np.ndarray, "m 2"]:
    """Returns Newton's step to the peak of the logarithm of the blurred map, in cells."""
    # The clip is the original's: it keeps the logarithm finite.
    log = np.log(np.clip(_blurred_around(maps, rows, columns, decoding), 0.001, 50))
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
    epsilon = np.finfo(np.float32).eps  # the original's guard against a flat map
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
    maps: Float[np.ndarray, "m hm wm"],
    rows: Int[np.ndarray, " m"],
    columns: Int[np.ndarray, " m"],
    decoding: Decoding,
) -> Float[np.ndarray, "m 3 3"]:
    """Returns the blurred map at each peak and its eight neighbours, and blurs nothing else."""
    height, width = maps.shape[1:]
    taps = blur_taps(decoding)
    around = np.arange(taps.shape[1]) - taps.shape[1] // 2
    row, row_inside = continued(rows[:, None] + around, height, decoding.border)
    column, column_inside = continued(columns[:, None] + around, width, decoding.border)
    patches = maps[np.arange(len(maps))[:, None, None], row[:, :, None], column[:, None, :]].astype(
        np.float64
    )
    patches *= row_inside[:, :, None] & column_inside[:, None, :]
    blurred = taps @ patches @ taps.T
    if decoding.border != "zero":
        for axis, peak, count in ((1, rows, height), (2, columns, width)):
            side = np.moveaxis(blurred, axis, 0)
            side[0, peak == 0] = side[1, peak == 0]
            side[2, peak == count - 1] = side[1, peak == count - 1]
    return blurred


def blur_taps(decoding: Decoding) -> Float[np.ndarray, "3 t"]:
    """Returns what blurs a row around a peak: at the cell before it, at the peak, and at the cell after it."""
    reach = decoding.kernel_size // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / decoding.sigma) ** 2)
    taps = np.zeros((3, len(weights) + 2))
    for shift in range(3):
        taps[shift, shift : shift + len(weights)] = weights / weights.sum()
    return taps


def continued(
    index: Int[np.ndarray, "..."], count: int, border: str
) -> tuple[Int[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Maps indices outside 0..count-1 to the cells that stand for them, and tells which stand for something."""
    if border == "zero":
        return np.clip(index, 0, count - 1), (index >= 0) & (index < count)
    period = max(2 * count - 2, 1) if border == "mirror" else 2 * count
    folded = np.mod(index, period)
    last = period - folded if border == "mirror" else period - 1 - folded
    return np.where(folded < count, folded, last), np.ones(index.shape, bool)


def encode(
    points: Float[np.ndarray, "n k 2"],
    labelled: Bool[np.ndarray, "n k"],
    size: Size,
    sigma: float = 2.0,
    unbiased: bool = True,
) -> tuple[Float[np.ndarray, "n k hm wm"], Float[np.ndarray, "n k"]]:
    """Makes the target maps of keypoints: a Gaussian around each, cut at three sigma.

    Args:
        points: In cells of the map.
        labelled: Which points have a label.
        size: Size of the maps.
        sigma: Standard deviation, cells.
        unbiased: Centre on the point itself (UDP); False rounds the centre to a cell (MSRA, Xiao et
            al., Simple Baselines, ECCV 2018).

    Returns:
        The maps, and a weight a keypoint: 0 where it has no label or its support lies wholly outside.
    """
    nearest = np.floor(np.where(labelled[:, :, None], points, 0) + 0.5)
    reach = 3 * sigma
    limits = np.array([size.width, size.height])
    seen = labelled & ((nearest - reach < limits) & (nearest + reach + 1 > 0)).all(axis=2)
    centres = np.where(labelled[:, :, None], points, 0) if unbiased else nearest
    profiles = []
    for axis, count in ((1, size.height), (0, size.width)):
        cells = np.arange(count)
        profile = np.exp(-0.5 * ((cells - centres[:, :, axis, None]) / sigma) ** 2)
        profiles.append(profile * (np.abs(cells - nearest[:, :, axis, None]) <= reach))
    maps = np.einsum("nkh,nkw->nkhw", *profiles) * seen[:, :, None, None]
    return maps.astype(np.float32), seen.astype(np.float32)


def merge_flipped(
    maps: Float[np.ndarray, "n k hm wm"],
    mirrored: Float[np.ndarray, "n k hm wm"],
    mirror: Int[np.ndarray, " k"],
    shift: bool = False,
) -> Float[np.ndarray, "n k hm wm"]:
    """Averages the maps of crops with those of their mirror images (the flip test).

    Args:
        maps: Maps of the crops.
        mirrored: Maps of the mirrored crops, as they came.
        mirror: Each keypoint's mirror image (`Skeleton.mirror`).
        shift: Shift the returned maps right by one cell: the plain warp needs it, UDP must not have it.
    """
    back = mirrored[:, mirror, :, ::-1]
    if shift:
        back = np.concatenate([back[..., :1], back[..., :-1]], axis=-1)
    return (maps + back) / 2
