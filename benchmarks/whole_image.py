"""Measure the accuracy without a detector, when a box is refined from the pose, starting from the whole image.

    python benchmarks/whole_image.py ../shared/data/coco/train.json ../shared/data/coco/images [--most 150]

Prints the mean object keypoint similarity (OKS) on images with exactly one well-labelled person: with the ground-truth
box, with the whole image as the box, and with the box refined iteratively from the whole image.
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


def images_with_one_person(annotations: Path, most: int) -> list[tuple[str, dict]]:
    table = json.loads(annotations.read_text())
    people: dict[int, list[dict]] = {}
    for row in table["annotations"]:
        people.setdefault(row["image_id"], []).append(row)
    single = [
        (image["file_name"], people[image["id"]][0])
        for image in table["images"]
        if len(people.get(image["id"], ())) == 1 and people[image["id"]][0]["num_keypoints"] >= 12
    ]
    order = np.random.default_rng(0).permutation(len(single))[:most]
    return [single[index] for index in order]


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
    refined = vitpose.Pipeline(WholeImage(), pipe.estimator)
    sigmas = np.array(pipe.estimator.skeleton.sigmas)
    results: dict[str, list[float]] = {
        "ground-truth box": [],
        "whole image": [],
        "whole image, refined": [],
    }
    for name, person in images_with_one_person(options.annotations, options.most):
        image = vitpose.read_image(options.images / name)
        labelled = np.array(person["keypoints"], float).reshape(-1, 3)
        box = vitpose.xyxy_from_xywh(np.array([person["bbox"]], np.float32))
        whole = [[0, 0, image.shape[1], image.shape[0]]]
        found = (pipe(image, boxes=box), pipe(image, boxes=whole), refined(image))
        for scores, poses in zip(results.values(), found, strict=True):
            scores.append(oks(poses.xy[0], labelled, person["area"], sigmas))
    for name, scores in results.items():
        print(f"{name:24} mean OKS {np.mean(scores):.3f} over {len(scores)} people")


if __name__ == "__main__":
    main()
