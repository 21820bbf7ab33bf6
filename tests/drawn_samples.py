"""Drawn figures in the forms of the published datasets, for tests that want annotated images where no others are.

The files have the names and the forms of the originals' samples; people are standing figures of lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vitpose.keypoints.skeleton import Skeleton

WIDTH, HEIGHT = 360, 300
PEOPLE = 3  # in each of the images
FILES = {
    "coco/test_coco.json": "coco", "coco/test_coco_wholebody.json": "coco-wholebody", "aic/test_aic.json": "aic",
    "ap10k/test_ap10k.json": "ap10k", "crowdpose/test_crowdpose.json": "crowdpose",
    "ochuman/test_ochuman.json": "ochuman", "mpii/test_mpii.json": "mpii",
}  # fmt: skip
# Of coco-wholebody's points: how the file's fields follow one another.
PARTS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def draw_samples(folder: Path) -> Path:
    """Writes a file of each dataset and its images."""
    for number, (file, name) in enumerate(FILES.items()):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        skeleton = Skeleton.load(name)
        images = [_draw_people(rng, skeleton) for _ in range(3)]
        files = [f"{number}{index}.jpg" for index in range(len(images))]
        for image_name, (image, _) in zip(files, images, strict=True):
            image.save(path.parent / image_name)
        people = [(index, points) for index, (_, everyone) in enumerate(images) for points in everyone]
        form = _mpii_rows(people, files) if name == "mpii" else _coco_table(people, files, skeleton)
        path.write_text(json.dumps(form))
    return folder


def _draw_people(rng: np.random.Generator, skeleton: Skeleton) -> tuple[Image.Image, list[np.ndarray]]:
    """Draws figures side by side on a smooth ground; returns the points (k 2) of each."""
    ground = rng.integers(60, 200, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen, everyone = ImageDraw.Draw(image), []
    heights = np.linspace(0.1, 0.9, len(skeleton))
    for person in range(PEOPLE):
        size = rng.uniform([60, 150], [90, 240])
        corner = [20 + 110 * person, rng.uniform(5, HEIGHT - size[1] - 5)]
        points = np.column_stack([rng.uniform(0.15, 0.85, len(skeleton)), heights]) * size + corner
        colour = tuple(rng.integers(0, 255, 3).tolist())
        for a, b in skeleton.edges:
            pen.line([*points[a], *points[b]], fill=colour, width=5)
        for x, y in points:
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(250, 250, 250))
        everyone.append(points)
    return image, everyone


def _coco_table(people: list[tuple[int, np.ndarray]], files: list[str], skeleton: Skeleton) -> dict[str, Any]:
    whole = skeleton.name == "coco-wholebody"
    names = list(skeleton.keypoints[: PARTS["keypoints"]] if whole else skeleton.keypoints)
    annotations = []
    for number, (image, points) in enumerate(people):
        left_top, right_bottom = points.min(axis=0) - 5, points.max(axis=0) + 5
        width, height = right_bottom - left_top
        seen = np.where(np.arange(len(points)) % 5 == 4, 1, 2)
        seen[number % len(seen)] = 0
        flat = (np.column_stack([points, seen]) * (seen > 0)[:, None]).round(2)
        ends = np.cumsum(list(PARTS.values()) if whole else [len(points)])
        parts = np.split(flat, ends[:-1])
        annotations.append(
            {
                "id": number + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
                "bbox": [*left_top.round(2), width.round(2), height.round(2)],
                "area": round(0.7 * width * height, 2), "num_keypoints": int((parts[0][:, 2] > 0).sum()),
                **{f"{part}_valid": True for part in ("face", "foot", "lefthand", "righthand") if whole},
                **{key: part.ravel().tolist() for key, part in zip(PARTS, parts, strict=False)},
            }
        )  # fmt: skip
    extra = {"crowdIndex": 0.3} if skeleton.name == "crowdpose" else {}
    images = [
        {"id": index, "file_name": file, "width": WIDTH, "height": HEIGHT, **extra}
        for index, file in enumerate(files)
    ]
    edges = [[a + 1, b + 1] for a, b in skeleton.edges if max(a, b) < len(names)]
    category = {"id": 1, "name": "person", "keypoints": names, "skeleton": edges}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _mpii_rows(people: list[tuple[int, np.ndarray]], files: list[str]) -> list[dict[str, Any]]:
    """Counts from 1; the centre lies 15 px of the box's 200 above that of the figure."""
    rows = []
    for image, points in people:
        scale = float(np.ptp(points[:, 1]) / 200)
        center = (points.min(axis=0) + points.max(axis=0)) / 2 + 1 - [0, 15 * scale]
        rows.append(
            {
                "image": files[image], "scale": scale, "center": center.tolist(),
                "joints": (points + 1).tolist(), "joints_vis": [1] * len(points),
            }
        )  # fmt: skip
    return rows
