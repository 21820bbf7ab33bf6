"""How well one person is found with no box at all: pose, box around it, pose again.

    python benchmarks/whole_image.py ../shared/data/coco/train.json ../shared/data/coco/images [--most 150]

Prints the mean object keypoint similarity (OKS) on images with exactly one well-labelled person, for the
given box, for the whole image as a box, and for the whole image settled in rounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import vitpose
from vitpose.detectors.given import WholeImage


def oks(found: np.ndarray, labelled: np.ndarray, area: float, sigmas: np.ndarray) -> float:
    seen = labelled[:, 2] > 0
    distances = ((found - labelled[:, :2]) ** 2).sum(axis=1)
    return float(np.exp(-distances / (8 * area * sigmas**2))[seen].mean())


def lone_people(annotations: Path, most: int) -> list[tuple[str, dict]]:
    table = json.loads(annotations.read_text())
    people: dict[int, list[dict]] = {}
    for row in table["annotations"]:
        people.setdefault(row["image_id"], []).append(row)
    lone = [
        (image["file_name"], people[image["id"]][0])
        for image in table["images"]
        if len(people.get(image["id"], ())) == 1 and people[image["id"]][0]["num_keypoints"] >= 12
    ]
    order = np.random.default_rng(0).permutation(len(lone))[:most]
    return [lone[index] for index in order]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--most", type=int, default=150)
    parser.add_argument("--model", default="vitpose-tiny")
    options = parser.parse_args()
    pipe = vitpose.load(options.model, detector=None)
    settled = vitpose.Pipeline(WholeImage(), pipe.estimator)
    sigmas = np.array(pipe.estimator.skeleton.sigmas)
    results: dict[str, list[float]] = {
        "given box": [],
        "whole image, once": [],
        "whole image, settled": [],
    }
    for name, person in lone_people(options.annotations, options.most):
        image = vitpose.read_image(options.images / name)
        labelled = np.array(person["keypoints"], float).reshape(-1, 3)
        box = vitpose.xyxy_from_xywh(np.array([person["bbox"]], np.float32))
        whole = [[0, 0, image.shape[1], image.shape[0]]]
        found = (pipe(image, boxes=box), pipe(image, boxes=whole), settled(image))
        for scores, poses in zip(results.values(), found, strict=True):
            scores.append(oks(poses.xy[0], labelled, person["area"], sigmas))
    for name, scores in results.items():
        print(f"{name:24} mean OKS {np.mean(scores):.3f} over {len(scores)} people")


if __name__ == "__main__":
    main()
