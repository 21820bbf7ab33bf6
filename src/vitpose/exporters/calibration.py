"""The crops that an int8 export measures the ranges of its numbers on."""

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
from ..processing.image_processor import VitPoseImageProcessor

PEOPLE = 256
"""How many are looked at, evenly spread over the source."""
FEWEST = 16
"""Of fewer, the ranges would be those of a few images."""


def read_crops(source: str | Path, processor: VitPoseImageProcessor) -> UInt8[np.ndarray, "n hc wc 3"]:
    """Returns crops of people like those that the network will see.

    Args:
        source: Annotations of COCO's or MPII's form (FILE, or FILE=FOLDER with the folder of the images), or
            images of one person each (a folder, a glob, a file).
        processor: How the network wants its crops.

    Raises:
        InputError: There are fewer than `FEWEST` people, or nothing can be read.
    """
    crops = []
    for read, box in _people(str(source)):
        try:
            image = read()
        except ImageError:
            continue  # `vitpose data check --images` names them; there are others
        size = Size.of(image)
        own = np.array([[0, 0, size.width, size.height]], np.float32) if box is None else box[None]
        crops.append(processor.warp_boxes(own).crop(image))
    if len(crops) < FEWEST:
        raise InputError(
            f"int8 needs {FEWEST} people or more to measure its ranges on, and {source} has {len(crops)} that can be "
            f"read; give more, {PEOPLE} are plenty"
        )
    return np.concatenate(crops)


def _people(source: str) -> Iterator[tuple[Any, Float[np.ndarray, " 4"] | None]]:
    """Yields how to read each person's image, and the box; None for the whole image."""
    file, folder = split_source(source)
    if Path(file).suffix == ".json":
        people = read_training_annotations(file, folder)
        for row in _spread(len(people)):
            yield lambda row=row: people.read_image(row), people.boxes[row]
        return
    images = find_images(source)
    for row in _spread(len(images)):
        yield lambda row=row: read_image(images[row]), None


def _spread(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, PEOPLE).astype(int)).tolist() if count else []
