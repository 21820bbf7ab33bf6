"""What every engine gives and takes. Knows no particular one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8


@runtime_checkable
class Engine(Protocol):
    """Runs a network: crops in, heat maps out.

    Attributes:
        description: What runs where, for people: "torch, cpu, float32".
    """

    description: str

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps (float32) of RGB crops; n may be 0."""
        ...
