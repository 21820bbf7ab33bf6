"""Small datasets of random instances in random images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitpose.data.annotations import TrainingAnnotations, read_training_annotations
from vitpose.keypoints.skeleton import Skeleton

COCO = Skeleton.load("coco")


def smooth_image(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return enlarged coarse noise: no two regions are alike, and neighbouring pixels differ by a few levels."""
    coarse = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_set(folder: Path, count: int = 5, skeleton: Skeleton = COCO, seed: int = 0) -> Path:
    """Write images with two instances each and their COCO file; returns the file."""
    rng = np.random.default_rng(seed)
    table: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    (folder / "images").mkdir(parents=True)
    for image in range(count):
        name = f"{image}.png"
        Image.fromarray(smooth_image(rng, 240, 200)).save(folder / "images" / name)
        table["images"].append({"id": image, "file_name": name, "width": 240, "height": 200})
        for person in range(2):
            box = [30.0 + 90 * person, 40.0 + 10 * image % 40, 60.0, 100.0]
            xy = rng.uniform(0, 1, (len(skeleton), 2)) * box[2:] + box[:2]
            seen = rng.integers(0, 3, (len(skeleton), 1))
            seen[0] = 2
            row = {
                "id": 10 * image + person,
                "image_id": image,
                "category_id": 1,
                "bbox": box,
                "area": 6000.0,
            }
            row["keypoints"] = np.concatenate([xy, seen], axis=1).ravel().tolist()
            table["annotations"].append(row)
    edges = [[a + 1, b + 1] for a, b in skeleton.edges]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.keypoints), "skeleton": edges}
    table["categories"].append(category)
    file = folder / "people.json"
    file.write_text(json.dumps(table))
    return file


@pytest.fixture
def people(tmp_path: Path) -> TrainingAnnotations:
    """Ten instances with COCO's skeleton in five images."""
    file = write_set(tmp_path / "set")
    return read_training_annotations(file)
