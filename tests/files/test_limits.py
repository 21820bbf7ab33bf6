from __future__ import annotations

from vitpose.files import limits
from vitpose.model.presets import SIZES


def test_published_sizes_are_far_below_the_limits() -> None:
    for size in SIZES.values():
        assert size["hidden_size"] * 10 < limits.MAX_WIDTH
        assert size.get("num_hidden_layers", 12) * 6 < limits.MAX_LAYERS
        assert max(size.get("image_size", (256, 192))) * 7 < limits.MAX_INPUT_SIDE_PX
