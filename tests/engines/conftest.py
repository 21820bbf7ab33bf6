"""Fixtures of the engines: `precision` runs a test in float32 and in bfloat16; `metadata` is a small example."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import vitpose
from vitpose.engines.metadata import Metadata
from vitpose.engines.torch import has_bf16_units


@dataclass(frozen=True)
class Precision:
    """A floating-point type, and the tolerances for its rounding of heatmaps (with peaks of about 1).

    Attributes:
        dtype: Its name.
        same: Tolerance between two implementations in this dtype.
        exact: Tolerance between this dtype and float32.
        keypoints_px: Tolerance of the median distance between keypoints, with cells of 5 px.
    """

    dtype: str
    same: float
    exact: float
    keypoints_px: float


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    if request.param == "bfloat16" and not has_bf16_units():
        pytest.skip("this processor has no bfloat16 units")
    return {
        "float32": Precision("float32", same=1e-5, exact=1e-5, keypoints_px=0.1),
        "bfloat16": Precision("bfloat16", same=0.03, exact=0.03, keypoints_px=0.5),
    }[request.param]


@pytest.fixture
def metadata() -> Metadata:
    skeleton = vitpose.Skeleton("two", ("left_end", "right_end"), ((0, 1),), ((0, 1),), sigmas=(0.1, 0.2))
    dataset = vitpose.DatasetSpec.of_skeleton(skeleton, warp="plain")
    size = vitpose.Size(width=48, height=64)
    return Metadata("m", "float32", vitpose.ModelSpec(dataset=dataset, input_size=size, max_step=None))
