"""Which type the engines compute in: every test that asks for `precision` runs in float32 and in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vitpose.engines.torch import has_bf16_units


@dataclass(frozen=True)
class Precision:
    """A floating-point type, and how far heatmaps (peaks of about 1) may differ because of its rounding.

    Attributes:
        dtype: Its name.
        same: Between two ways of computing the same.
        exact: From what is computed in float32.
        points_px: How far half of the keypoints may be apart, where a cell has 5 px.
    """

    dtype: str
    same: float
    exact: float
    points_px: float


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    if request.param == "bfloat16" and not has_bf16_units():
        pytest.skip("this processor has no bfloat16 units")
    return {
        "float32": Precision("float32", same=1e-5, exact=1e-5, points_px=0.1),
        "bfloat16": Precision("bfloat16", same=0.03, exact=0.03, points_px=0.5),
    }[request.param]
