from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitpose.keypoints.similarity import (
    FALLBACK_SIGMA,
    mean_similarities,
    point_similarities,
    sigmas_of,
    suppress_repeated,
)
from vitpose.keypoints.skeleton import Skeleton


def similarity(a: np.ndarray, b: np.ndarray, area: float, sigmas: np.ndarray) -> float:
    terms = [
        math.exp(-((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2) / (2 * area * (2 * s) ** 2))
        for p, q, s in zip(a, b, sigmas, strict=True)
    ]
    return sum(terms) / len(terms)


def test_similarity_is_coco_oks() -> None:
    xy, other = np.zeros((1, 2, 2)), np.array([[[3.0, 4.0], [0.0, 0.0]]])
    found = point_similarities(xy, other, np.array([100.0]), np.array([0.1, 0.1]))
    assert found[0, 0] == pytest.approx(math.exp(-25 / (2 * 100 * 0.04)))
    assert found[0, 1] == 1
    assert mean_similarities(found, np.array([[False, True]])).tolist() == [1]
    assert mean_similarities(found, np.array([[False, False]])).tolist() == [0]


@given(seed=st.integers(0, 10**6), n=st.integers(0, 7), max_oks=st.sampled_from([0.3, 0.6, 0.9]))
def test_suppression_equals_brute_force(seed: int, n: int, max_oks: float) -> None:
    """The kept poses are the only set in which a pose is removed exactly if a kept pose of higher score is similar."""
    random = np.random.default_rng(seed)
    centres = random.choice([0.0, 3.0, 40.0], (n, 1, 1))
    xy = centres + random.normal(0, 1.5, (n, 4, 2))
    scores = random.permutation(n).astype(np.float64)
    areas, sigmas = random.uniform(50, 400, n), random.uniform(0.02, 0.1, 4)
    oks = np.array(
        [[similarity(xy[i], xy[j], (areas[i] + areas[j]) / 2, sigmas) for j in range(n)] for i in range(n)]
    ).reshape(n, n)

    def is_consistent(chosen: int) -> bool:
        kept = [bool(chosen >> i & 1) for i in range(n)]
        blocked = [
            any(kept[j] and scores[j] > scores[i] and oks[i, j] > max_oks for j in range(n)) for i in range(n)
        ]
        return all(keep != block for keep, block in zip(kept, blocked, strict=True))

    (expected,) = [chosen for chosen in range(2**n) if is_consistent(chosen)]
    found = suppress_repeated(xy, scores, areas, sigmas, max_oks)
    assert sum(1 << int(i) for i in found) == expected
    assert (np.diff(scores[found]) <= 0).all()


def test_a_skeleton_without_sigmas_gets_the_mean_of_coco() -> None:
    coco = Skeleton.load("coco")
    assert sigmas_of(coco).tolist() == list(coco.sigmas)
    assert sigmas_of(Skeleton("two", ("a", "b"))).tolist() == [FALLBACK_SIGMA] * 2
    assert pytest.approx(np.mean(coco.sigmas), abs=1e-3) == FALLBACK_SIGMA
