"""Augmentation: random views of labelled instances for training.

Draws views and applies them to pixels and keypoints. All geometric changes are one `Warp` of the original pixels, in
which a mirrored view has a negative width; all colour changes are one affine transform of RGB. Random numbers
come only from the generator that is passed in. Uses neither files nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ..errors import InputError
from ..files.schemas import Schema
from ..geometry.boxes import Size
from ..geometry.warp import Warp, grow
from .annotations import TrainingAnnotations

GREY = 127.5
LUMA = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue (ITU-R BT.601)."""

_PROBABILITIES = (
    "flip",
    "half_body",
    "half_body_upper",
    "rotation_probability",
    "shift_probability",
    "occlusion",
)


@dataclass(frozen=True, eq=False)
class View:
    """Views of n instances: crop, colour transform and occluded rectangle.

    Attributes:
        warp: The crops; a negative width mirrors.
        colours: Affine transforms of (R, G, B, 1), in levels 0..255.
        hidden: xyxy of the occluded rectangle, as fractions of the crop; a rectangle without area hides nothing.
        covers: RGB colour of the rectangle, in levels 0..255.
    """

    warp: Warp
    colours: Float[np.ndarray, "n 3 4"]
    hidden: Float[np.ndarray, "n 4"]
    covers: Float[np.ndarray, "n 3"]

    @classmethod
    def plain(
        cls, boxes: Float[np.ndarray, "n 4"], size: Size, convention: str = "udp", aspect: str = "keep"
    ) -> View:
        """Return views without augmentation, as in testing; see `Warp.from_boxes` for the arguments."""
        n = len(boxes)
        colours = np.repeat(np.eye(3, 4)[None], n, axis=0)
        warp = Warp.from_boxes(boxes, size, convention, aspect=aspect)
        return cls(warp, colours, np.zeros((n, 4)), np.zeros((n, 3)))

    @property
    def mirrored(self) -> Bool[np.ndarray, " n"]:
        """Which views are mirrored."""
        return self.warp.extents[:, 0] < 0

    def crop(self, image: UInt8[np.ndarray, "h w 3"], row: int = 0) -> UInt8[np.ndarray, "hc wc 3"]:
        """Return the crop of one instance, with its colour transform and occlusion.

        Args:
            image: The image that contains the instance.
            row: Index of the instance.
        """
        crop = self.warp[row : row + 1].crop(image)[0]
        colours = self.colours[row]
        if not np.array_equal(colours, np.eye(3, 4)):
            levels = crop.astype(np.float32) @ colours[:, :3].T.astype(np.float32)
            crop = np.rint(np.clip(levels + colours[:, 3].astype(np.float32), 0, 255)).astype(np.uint8)
        left, top, right, bottom = self.hidden_cells[row]
        crop[top:bottom, left:right] = np.rint(self.covers[row]).astype(np.uint8)
        return crop

    @property
    def hidden_cells(self) -> Int[np.ndarray, "n 4"]:
        """The occluded rectangles in pixels of the crop: left and top inclusive, right and bottom exclusive."""
        size = self.warp.size
        return np.rint(self.hidden * np.array([size.width, size.height] * 2)).astype(int)

    def to_grid(
        self,
        xy: Float[np.ndarray, "n k 2"],
        labelled: Bool[np.ndarray, "n k"],
        mirror: Int[np.ndarray, " k"],
        grid: Size,
    ) -> tuple[Float[np.ndarray, "n k 2"], Bool[np.ndarray, "n k"]]:
        """Transform keypoints and labels from the images to a grid over the crops; mirrored views swap left and right.

        Args:
            xy: Keypoints in px of the image.
            labelled: Which keypoints are labelled.
            mirror: Index of each keypoint's mirrored keypoint (`Skeleton.mirror`).
            grid: Size of the grid: that of the crop or of the heatmap.

        Returns:
            Keypoints in cells of the grid, and which of them are labelled.
        """
        order = np.where(self.mirrored[:, None], mirror, np.arange(len(mirror)))
        keypoints = self.warp.to_grid(xy.astype(np.float64), grid)
        return np.take_along_axis(keypoints, order[:, :, None], 1), np.take_along_axis(labelled, order, 1)


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and strengths of the augmentations. The defaults are ViTPose's published recipe for COCO.

    Attributes:
        flip: Probability of mirroring.
        half_body: Probability of a crop of only the upper or lower body.
        half_body_upper: Probability of the upper body, if both halves have enough keypoints. The default is that of
            the released code, which compares a normal random number instead of a uniform one with 0.5.
        half_body_joints: Half-body crops require more labelled keypoints than this.
        half_body_padding: Size of a half-body crop as a multiple of the extent of its keypoints.
        scale_sigma: The size of the crop is multiplied by N(1, sigma), clipped to 1 ± `scale_limit`.
        scale_limit: Limit of the relative change in size.
        rotation_probability: Probability of rotation.
        rotation_sigma_deg: The angle is drawn from N(0, sigma) degrees, clipped to ± `rotation_limit_deg`.
        rotation_limit_deg: Largest angle in degrees.
        shift_probability: Probability of moving the centre.
        shift: Largest shift, as a fraction of the box's width and height.
        brightness: Levels are multiplied by a factor from 1 ± this.
        contrast: Differences from mid-grey are multiplied by a factor from 1 ± this.
        saturation: Differences from the grey value of the pixel are multiplied by a factor from 1 ± this.
        occlusion: Probability of hiding a rectangle of the crop. Hidden keypoints keep their labels.
        occlusion_limit: Largest width and height of the rectangle, as fractions of those of the crop.

    Raises:
        InputError: A value is outside its range.
    """

    __pydantic_config__ = Schema.model_config

    flip: float = 0.5
    half_body: float = 0.3
    half_body_upper: float = 0.6915
    half_body_joints: int = 8
    half_body_padding: float = 1.5
    scale_sigma: float = 0.5
    scale_limit: float = 0.5
    rotation_probability: float = 0.6
    rotation_sigma_deg: float = 40.0
    rotation_limit_deg: float = 80.0
    shift_probability: float = 0.3
    shift: float = 0.2
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    occlusion: float = 0.0
    occlusion_limit: float = 0.5

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise InputError(f"{name} {value} of the augmentation must be finite and not negative")
        for name in (*_PROBABILITIES, "occlusion_limit"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} {getattr(self, name)} of the augmentation must be at most 1")
        if self.scale_limit >= 1:
            raise InputError(
                f"scale_limit {self.scale_limit} must be below 1, otherwise a crop could have no area"
            )

    def draw(
        self,
        instances: TrainingAnnotations,
        size: Size,
        convention: str,
        rng: np.random.Generator,
        aspect: str = "keep",
    ) -> View:
        """Draw one view of each instance.

        Args:
            instances: The instances.
            size: Size of the crops.
            convention: "udp" or "plain"; see `Warp`.
            rng: Source of all random numbers; how many are drawn depends only on len(instances).
            aspect: "keep" or "stretch"; see `Warp.from_boxes`.
        """
        n = len(instances)
        chance, normal = rng.random((n, 6)), rng.standard_normal((n, 2))
        around, colour, hidden = rng.uniform(-1, 1, (n, 2)), rng.uniform(-1, 1, (n, 3)), rng.random((n, 7))
        full = View.plain(instances.boxes, size, convention, aspect).warp
        moved = (chance[:, :1] < self.shift_probability) * self.shift * around
        centres = full.centres + moved * (instances.boxes[:, 2:] - instances.boxes[:, :2])
        extents = full.extents
        upper, lower = self._halves(instances, size, aspect)
        halved = (chance[:, 1] < self.half_body) & (instances.labelled.sum(axis=1) > self.half_body_joints)
        is_upper = chance[:, 2] < self.half_body_upper
        centres, extents = _replace_by_half(centres, extents, upper, lower, halved, is_upper)
        scales = 1 + np.clip(normal[:, :1] * self.scale_sigma, -self.scale_limit, self.scale_limit)
        limit = self.rotation_limit_deg
        angles = np.clip(normal[:, 1] * self.rotation_sigma_deg, -limit, limit)
        angles = angles * (chance[:, 3] < self.rotation_probability)
        sides = np.where(chance[:, 4:5] < self.flip, [-1.0, 1.0], [1.0, 1.0])
        warp = Warp(centres, extents * scales * sides, size, convention, angles)
        shown = chance[:, 5] < self.occlusion
        return View(
            warp, self._colours(colour), self._rectangles(hidden[:, :4]) * shown[:, None], hidden[:, 4:] * 255
        )

    def reach(
        self, instances: TrainingAnnotations, size: Size, aspect: str = "keep"
    ) -> Float[np.ndarray, "n 4"]:
        """Return boxes (xyxy, px of the image) that contain every possible view of each instance.

        Args:
            instances: The instances.
            size: Size of the crops, which determines their aspect.
            aspect: "keep" or "stretch"; see `Warp.from_boxes`.
        """
        full = View.plain(instances.boxes, size, aspect=aspect).warp
        shift = (self.shift_probability > 0) * self.shift * (instances.boxes[:, 2:] - instances.boxes[:, :2])
        parts = [(full.centres, full.extents, shift)]
        if self.half_body:
            halves = self._halves(instances, size, aspect)
            parts += [(centres, extents, np.zeros_like(shift)) for centres, extents in halves]
        grown = 1 + (self.scale_sigma > 0) * self.scale_limit
        low, high = np.full((len(instances), 2), np.inf), np.full((len(instances), 2), -np.inf)
        for centres, extents, moved in parts:
            # A crop at any angle lies within the circle through its corners.
            radius = grown * np.linalg.norm(extents, axis=1, keepdims=True) / 2 + moved
            low, high = np.fmin(low, centres - radius), np.fmax(high, centres + radius)
        return np.concatenate([low, high], axis=1)

    def _halves(
        self, instances: TrainingAnnotations, size: Size, aspect: str
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return centres and extents of the upper and of the lower bodies, NaN where they cannot be cropped."""
        halves = []
        for part in (instances.skeleton.upper_body, instances.skeleton.lower_body):
            labelled = instances.labelled[:, list(part)]
            xy, count = instances.xy[:, list(part)].astype(np.float64), labelled.sum(axis=1)[:, None]
            used = labelled[:, :, None]
            centres = (xy * used).sum(axis=1) / np.maximum(count, 1)
            low = np.where(used, xy, np.inf).min(axis=1, initial=np.inf)
            sides = np.where(used, xy, -np.inf).max(axis=1, initial=-np.inf) - low
            extents = grow(sides, size, aspect) * self.half_body_padding
            # As in the original, a half body requires three labelled keypoints and a positive extent.
            known = (count[:, 0] > 2) & (extents[:, 0] > 0)
            usable = known[:, None]
            halves.append((np.where(usable, centres, np.nan), np.where(usable, extents, np.nan)))
        return halves

    def _colours(self, drawn: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 4"]:
        """Return brightness, contrast and saturation as one affine transform of RGB."""
        limits = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = (1 + drawn * limits).T[:, :, None, None]
        to_grey = np.tile(np.array(LUMA), (3, 1))
        linear = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * to_grey)
        offset = np.broadcast_to((1 - contrast) * GREY, (len(drawn), 3, 1))
        return np.concatenate([linear, offset], axis=2)

    def _rectangles(self, drawn: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        sides = drawn[:, 2:] * self.occlusion_limit
        low = drawn[:, :2] * (1 - sides)
        return np.concatenate([low, low + sides], axis=1)


def _replace_by_half(
    centres: np.ndarray, extents: np.ndarray, upper: Any, lower: Any, halved: np.ndarray, up: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Replace crops by available half-body crops where `halved`; `up` prefers the upper body to the lower."""
    has_upper, has_lower = (np.isfinite(half[0][:, 0]) for half in (upper, lower))
    take_upper = halved & has_upper & (up | ~has_lower)
    take_lower = halved & has_lower & ~take_upper
    for (half_centres, half_extents), take in ((upper, take_upper), (lower, take_lower)):
        centres = np.where(take[:, None], half_centres, centres)
        extents = np.where(take[:, None], half_extents, extents)
    return centres, extents
