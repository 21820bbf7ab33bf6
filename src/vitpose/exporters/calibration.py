"""Reads the crops with which an int8 export calibrates its value ranges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..data.annotations import read_training_annotations, split_source
from ..errors import ImageError, InputError
from ..geometry.boxes import Size
from ..images import find_images, read_image
from ..keypoints.model_spec import ModelSpec

PEOPLE = 256
"""Number of instances that are used, evenly spaced over the source."""
FEWEST = 16
"""Minimum number of instances; fewer do not represent the range of values."""


def read_crops(source: str | Path, spec: ModelSpec) -> UInt8[np.ndarray, "n hc wc 3"]:
    """Return crops of instances for the calibration.

    Args:
        source: Annotations in COCO's or MPII's format (FILE, or FILE=DIRECTORY with the directory of the images), or
            images with one person each (a directory, a glob, a file).
        spec: Defines the crops of the network.

    Returns:
        RGB crops (uint8); images that cannot be read are skipped.

    Raises:
        InputError: The source cannot be read, or fewer than `FEWEST` of its instances can.
    """
    crops = []
    for read, box in _instances(str(source)):
        try:
            image = read()
        except ImageError:
            continue  # `vitpose data check --images` reports them; a calibration can do without some images
        size = Size.of(image)
        boxes = np.array([[0, 0, size.width, size.height]], np.float32) if box is None else box[None]
        crops.append(spec.warp_boxes(boxes).crop(image))
    if len(crops) < FEWEST:
        raise InputError(
            f"the calibration of int8 requires at least {FEWEST} instances, and {len(crops)} in {source} can be read; "
            f"add images, up to {PEOPLE} instances are used"
        )
    return np.concatenate(crops)


def _instances(source: str) -> Iterator[tuple[Any, Float[np.ndarray, " 4"] | None]]:
    """Yield a function that reads the image of each instance, and the box (xyxy, px); None for the whole image."""
    file, folder = split_source(source)
    if Path(file).suffix == ".json":
        annotations = read_training_annotations(file, folder)
        for row in _spread(len(annotations)):
            yield lambda row=row: annotations.read_image(row), annotations.boxes[row]
        return
    images = find_images(source)
    for row in _spread(len(images)):
        yield lambda row=row: read_image(images[row]), None


def _spread(count: int) -> list[int]:
    """Return at most `PEOPLE` evenly spaced indices below the count."""
    return np.unique(np.linspace(0, count - 1, PEOPLE).astype(int)).tolist() if count else []
