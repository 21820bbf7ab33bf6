"""Training images: random windows of one image, or of four (mosaic), with the boxes that remain visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ...data.annotation_file import coco_tables, read_json
from ...detectors.given import CocoBoxes
from ...detectors.onnx import PAD_GREY
from ...errors import InputError
from ...geometry.boxes import Size
from ...images import read_image
from .recipe import DetectorSource

LEAST_VISIBLE = 0.25
"""Share of a box that must remain in the window, else the person is not counted as annotated."""
TRIES = 10
"""Random windows that are tried for one without annotated people."""


class Sample(NamedTuple):
    """An image and the boxes (xyxy, px) of its annotated people."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float[np.ndarray, "g 4"]


class ImageSource:
    """The images of a COCO file and the boxes of its people; each image is decoded once and kept.

    Args:
        source: The files.

    Raises:
        InputError: The annotations cannot be read, are not in COCO format, or list no image.
    """

    def __init__(self, source: DetectorSource) -> None:
        path = Path(source.annotations)
        self.weight, self._folder, self._boxes = source.weight, Path(source.images), CocoBoxes(path)
        rows = coco_tables(path, read_json(path, "a COCO file"))[0]
        self._names = [image.file_name for image in rows.values() if image.file_name]
        if not self._names:
            raise InputError(f"{path} lists no image with a file name; give a COCO file with `images`")
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._kept:
            name = self._names[index]
            image = read_image(self._folder / name)
            self._kept[index] = Sample(image, self._boxes.detect([image], [name])[0].boxes)
        return self._kept[index]


@dataclass(frozen=True)
class SampleComposer:
    """How random images are composed.

    Args:
        sources: Images and their boxes.
        mosaic: Probability of four images in one.
        background: Probability of a window without annotated people, if one is found.
        scale_octaves: Half the range of the scale, in powers of two, around the scale that fits an image into `fit_px`.
        fit_px: Long side of an image at scale 1, as in inference.
    """

    sources: Sequence[ImageSource]
    mosaic: float = 0.4
    background: float = 0.0
    scale_octaves: float = 0.8
    fit_px: int = 320

    def draw(self, random: np.random.Generator, side_px: int) -> Sample:
        """Return a random square image."""
        if random.random() >= self.mosaic:
            sample = self._window(random, side_px, side_px, 0.0)
        else:
            sample = self._mosaic(random, side_px)
        return Sample(_recolour(random, sample.image), sample.boxes)

    def _mosaic(self, random: np.random.Generator, side_px: int) -> Sample:
        canvas, boxes = np.empty((side_px, side_px, 3), np.uint8), []
        x, y = (random.uniform(0.3, 0.7, 2) * side_px).astype(int).tolist()
        for (left, right), (top, bottom) in product(((0, x), (x, side_px)), ((0, y), (y, side_px))):
            part = self._window(random, right - left, bottom - top, -0.6)
            canvas[top:bottom, left:right] = part.image
            boxes.append(part.boxes + np.array([left, top, left, top], np.float32))
        return Sample(canvas, np.concatenate(boxes))

    def _window(self, random: np.random.Generator, width: int, height: int, octaves: float) -> Sample:
        """Return a random window of a random image; of background, if that is drawn and found."""
        weights = np.array([source.weight for source in self.sources])
        background = random.random() < self.background
        for _ in range(TRIES if background else 1):
            source = self.sources[random.choice(len(weights), p=weights / weights.sum())]
            image, boxes = source[int(random.integers(len(source)))]
            least = 0.0 if background else -self.scale_octaves
            scale = 2.0 ** (octaves + random.uniform(least, self.scale_octaves))
            zoom, shift = self._place(random, Size.of(image), scale, width, height)
            if not len(visible(boxes, zoom, shift, width, height, 0.0)):
                break
        return warp(image, boxes, zoom, shift, width, height)

    def _place(
        self, random: np.random.Generator, size: Size, scale: float, width: int, height: int
    ) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
        """Return a random zoom, negative if mirrored, and shift of an image in a window."""
        zoom = self.fit_px / max(size.width, size.height) * scale * np.exp(random.uniform(-0.1, 0.1, 2))
        room = np.array([width, height]) - zoom * [size.width, size.height]
        shift = random.uniform(np.minimum(room, 0) - 0.05 * width, np.maximum(room, 0) + 0.05 * width)
        if random.random() < 0.5:
            zoom[0], shift[0] = -zoom[0], width - shift[0]
        return zoom, shift


def warp(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "g 4"],
    zoom: Float[np.ndarray, " 2"],
    shift: Float[np.ndarray, " 2"],
    width: int,
    height: int,
) -> Sample:
    """Return the window (0, 0, width, height) of an image scaled by `zoom`, then moved by `shift` (x, y in pixels).

    Boxes are clipped to it; those of which less than `LEAST_VISIBLE` or fewer than four pixels remain are dropped.
    """
    if abs(zoom).min() < 0.6:  # what bilinear interpolation would alias is reduced first
        h, w = image.shape[:2]
        reduced = (max(1, round(w * abs(zoom[0]))), max(1, round(h * abs(zoom[1]))))
        image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        boxes = boxes * np.array([reduced[0] / w, reduced[1] / h] * 2, np.float32)
        zoom = zoom * np.array([w / reduced[0], h / reduced[1]])
    matrix = np.array(
        [[zoom[0], 0, shift[0] + zoom[0] / 2 - 0.5], [0, zoom[1], shift[1] + zoom[1] / 2 - 0.5]]
    )
    window = cv2.warpAffine(image, matrix, (width, height), borderValue=(PAD_GREY,) * 3)
    return Sample(window, visible(boxes, zoom, shift, width, height, LEAST_VISIBLE))


def visible(
    boxes: Float[np.ndarray, "g 4"],
    zoom: Float[np.ndarray, " 2"],
    shift: Float[np.ndarray, " 2"],
    width: int,
    height: int,
    least: float,
) -> Float[np.ndarray, "m 4"]:
    """Return the boxes in a window as in `warp`, clipped to it: those of which at least this share is inside."""
    corners = (boxes.reshape(-1, 2, 2) * zoom + shift).astype(np.float32)
    whole = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    seen = np.clip(whole, 0, np.array([width, height] * 2, np.float32))
    sides = seen[:, 2:] - seen[:, :2]
    share = sides.prod(axis=1) / np.maximum((whole[:, 2:] - whole[:, :2]).prod(axis=1), 1e-6)
    return seen[(share >= least) & (sides.min(axis=1) >= 4)]


def _recolour(random: np.random.Generator, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return the image with random brightness, contrast and colour, one in ten without colour."""
    if random.random() < 0.1:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    gain = random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
    levels = np.arange(256)[:, None] * gain + random.uniform(-25, 25)
    return cv2.LUT(np.ascontiguousarray(image), np.clip(levels, 0, 255).astype(np.uint8)[None])
