"""What the tests of measures share: invented people, and an average precision written independently."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.keypoints.skeleton import Skeleton

Rows = list[dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes something as JSON."""

    def write_json(content: Any, name: str = "file.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write_json


@pytest.fixture
def invent() -> Callable[..., dict[str, Any]]:
    """Makes an annotation file of invented people: some with few points, some without any, some crowds."""

    def annotations(skeleton: str = "coco", images: int = 30, seed: int = 0) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        bones = Skeleton.load(skeleton)
        people = []
        for image in range(images):
            for _ in range(random.integers(0, 5)):
                width, height = random.uniform(20, 200, 2)
                left, top = random.uniform(0, 300, 2)
                xy = random.uniform([left, top], [left + width, top + height], (len(bones), 2))
                labelled = random.choice([0, 1, 2], len(bones), p=[0.3, 0.2, 0.5]) * (random.random() > 0.1)
                points = np.concatenate([xy * (labelled > 0)[:, None], labelled[:, None]], axis=1)
                people.append(
                    {
                        "id": len(people) + 1,
                        "image_id": image + 100,
                        "category_id": 1,
                        "bbox": [left, top, width, height],
                        "area": width * height * random.uniform(0.4, 0.7),
                        "iscrowd": int(random.random() < 0.05),
                        "num_keypoints": int((labelled > 0).sum()),
                        "keypoints": points.ravel().tolist(),
                    }
                )
        rows = [
            {
                "id": image + 100,
                "file_name": f"{image}.png",
                "width": 500,
                "height": 500,
                "crowdIndex": image / images,
            }
            for image in range(images)
        ]
        category = {"id": 1, "name": "person", "keypoints": list(bones.keypoints), "skeleton": []}
        return {"images": rows, "annotations": people, "categories": [category]}

    return annotations


@pytest.fixture
def guess() -> Callable[..., Rows]:
    """Makes results for annotations: near, far, twice, and where nobody is."""

    def results(content: dict[str, Any], seed: int = 1) -> Rows:
        random = np.random.default_rng(seed)
        rows = []
        for one in content["annotations"]:
            points = np.array(one["keypoints"]).reshape(-1, 3)
            for _ in range(random.integers(0, 3)):
                away = random.normal(0, random.choice([1, 4, 12]), (len(points), 2))
                found = np.concatenate([points[:, :2] + away, random.random((len(points), 1))], axis=1)
                rows.append(
                    {
                        "image_id": one["image_id"],
                        "category_id": 1,
                        "keypoints": found.ravel().tolist(),
                        "score": round(float(random.random()), 2),  # so that some are equal
                        "bbox": one["bbox"],
                    }
                )
        return rows

    return results


@pytest.fixture
def plain_ap() -> Callable[..., float]:
    """The average precision of COCO at all areas, from its description and not from its code."""
    return _plain_ap


def _plain_ap(people: Rows, results: Rows, sigmas: Sequence[float]) -> float:
    """Both kinds of rows need image_id, keypoints; people area, bbox, ignore; results score."""
    precisions = []
    for threshold in np.linspace(0.5, 0.95, 10):
        hits: list[tuple[float, bool]] = []
        for image in sorted({one["image_id"] for one in people} | {one["image_id"] for one in results}):
            theirs = [one for one in people if one["image_id"] == image]
            found = sorted(
                (one for one in results if one["image_id"] == image), key=lambda one: -one["score"]
            )
            hits += _hits(theirs, found[:20], sigmas, threshold)
        hits.sort(key=lambda hit: -hit[0])
        truths = np.array([good for _, good in hits], bool)
        wanted = sum(not one["ignore"] for one in people)
        recall = np.cumsum(truths) / wanted
        precision = np.cumsum(truths) / np.arange(1, len(truths) + 1)
        for level in np.linspace(0, 1, 101):
            precisions.append(max(precision[recall >= level], default=0.0))
    return float(np.mean(precisions))


def _hits(theirs: Rows, found: Rows, sigmas: Sequence[float], threshold: float) -> list[tuple[float, bool]]:
    taken: set[int] = set()
    hits = []
    for one in found:
        similar = [_similarity(person, one, sigmas) for person in theirs]
        for ignored in (False, True):  # somebody who counts comes before somebody who does not
            free = [
                (alike, row)
                for row, alike in enumerate(similar)
                if theirs[row]["ignore"] == ignored
                and alike >= threshold
                and (row not in taken or theirs[row].get("iscrowd"))
            ]
            if free:
                _, row = max(free)
                taken.add(row)
                if not ignored:
                    hits.append((one["score"], True))
                break
        else:
            hits.append((one["score"], False))
    return hits


def _similarity(person: dict[str, Any], result: dict[str, Any], sigmas: Sequence[float]) -> float:
    total, count = 0.0, 0
    truth = np.array(person["keypoints"]).reshape(-1, 3)
    left, top, width, height = person["bbox"]
    nothing = not (truth[:, 2] > 0).any()
    for (x, y, v), (a, b, _), sigma in zip(
        truth, np.array(result["keypoints"]).reshape(-1, 3), sigmas, strict=True
    ):
        if nothing:  # the distance from the box, doubled to each side
            dx = max(left - width - a, 0) + max(a - left - 2 * width, 0)
            dy = max(top - height - b, 0) + max(b - top - 2 * height, 0)
        elif v > 0:
            dx, dy = a - x, b - y
        else:
            continue
        total += np.exp(-(dx**2 + dy**2) / (2 * person["area"] * (2 * sigma) ** 2))
        count += 1
    return total / count
