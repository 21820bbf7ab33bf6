"""Fixtures of the tests of metrics: synthetic annotations and results, and an independent average precision."""

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
    """Writes a JSON file."""

    def write_json(content: Any, name: str = "file.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write_json


@pytest.fixture
def invent() -> Callable[..., dict[str, Any]]:
    """Makes annotations of random people: some with few keypoints, some without any, some crowds."""

    def annotations(skeleton: str = "coco", images: int = 30, seed: int = 0) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        keypoints = Skeleton.load(skeleton).keypoints
        people = []
        for image in range(images):
            for _ in range(random.integers(0, 5)):
                width, height = random.uniform(20, 200, 2)
                left, top = random.uniform(0, 300, 2)
                xy = random.uniform([left, top], [left + width, top + height], (len(keypoints), 2))
                labelled = random.choice([0, 1, 2], len(xy), p=[0.3, 0.2, 0.5]) * (random.random() > 0.1)
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
        category = {"id": 1, "name": "person", "keypoints": list(keypoints), "skeleton": []}
        # pycocotools before 2.0.11 requires `info`.
        return {"info": {}, "images": rows, "annotations": people, "categories": [category]}

    return annotations


@pytest.fixture
def guess() -> Callable[..., Rows]:
    """Makes results for annotations: none, one or two for each person, near and far."""

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
    """COCO's average precision over all areas, implemented from its description."""
    return _plain_ap


def _plain_ap(people: Rows, results: Rows, sigmas: Sequence[float]) -> float:
    """Rows of people and results have image_id, keypoints; those of people area, bbox, ignore; results score."""
    precisions = []
    for threshold in np.linspace(0.5, 0.95, 10):
        hits: list[tuple[float, bool]] = []
        for image in sorted({one["image_id"] for one in people} | {one["image_id"] for one in results}):
            annotated = [one for one in people if one["image_id"] == image]
            found = sorted(
                (one for one in results if one["image_id"] == image), key=lambda one: -one["score"]
            )
            hits += _hits(annotated, found[:20], sigmas, threshold)
        hits.sort(key=lambda hit: -hit[0])
        truths = np.array([good for _, good in hits], bool)
        total = sum(not one["ignore"] for one in people)
        recall = np.cumsum(truths) / total
        precision = np.cumsum(truths) / np.arange(1, len(truths) + 1)
        for level in np.linspace(0, 1, 101):
            precisions.append(max(precision[recall >= level], default=0.0))
    return float(np.mean(precisions))


def _hits(
    annotated: Rows, found: Rows, sigmas: Sequence[float], threshold: float
) -> list[tuple[float, bool]]:
    taken: set[int] = set()
    hits = []
    for one in found:
        similarities = [_similarity(person, one, sigmas) for person in annotated]
        for ignored in (False, True):  # people that count are matched before ignored ones
            free = [
                (similarity, row)
                for row, similarity in enumerate(similarities)
                if annotated[row]["ignore"] == ignored
                and similarity >= threshold
                and (row not in taken or annotated[row].get("iscrowd"))
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
    unlabelled = not (truth[:, 2] > 0).any()
    for (x, y, v), (a, b, _), sigma in zip(
        truth, np.array(result["keypoints"]).reshape(-1, 3), sigmas, strict=True
    ):
        if unlabelled:  # the distance from the box, doubled to each side
            dx = max(left - width - a, 0) + max(a - left - 2 * width, 0)
            dy = max(top - height - b, 0) + max(b - top - 2 * height, 0)
        elif v > 0:
            dx, dy = a - x, b - y
        else:
            continue
        total += np.exp(-(dx**2 + dy**2) / (2 * person["area"] * (2 * sigma) ** 2))
        count += 1
    return total / count
