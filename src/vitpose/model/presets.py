"""The published sizes of ViTPose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UnknownNameError

# Width, layers, heads, expert width, drop path: from the paper (table 1) and the released
# configurations. G is the paper's plain ViT of about one billion parameters; it was never released.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "part_features": 48, "drop_path_rate": 0.0},
    "small": {"hidden_size": 384, "num_attention_heads": 12, "part_features": 96, "drop_path_rate": 0.1},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "part_features": 192, "drop_path_rate": 0.3},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "part_features": 256,
        "drop_path_rate": 0.5,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "part_features": 320,
        "drop_path_rate": 0.55,
    },
    "giant": {
        "hidden_size": 1408,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "part_features": 352,
        "drop_path_rate": 0.55,
        "image_size": (576, 432),
    },
}


def backbone_of_size(size: str) -> dict[str, Any]:
    """Returns the attributes of a published size's backbone.

    Args:
        size: "tiny" (not part of the paper), "small", "base", "large", "huge" or "giant", or its first letter.

    Raises:
        UnknownNameError: The size is unknown.
    """
    names = {name: name for name in SIZES} | {name[0]: name for name in SIZES}
    if size.lower() not in names:
        raise UnknownNameError("size", size, SIZES)
    # The original's epsilon; the default of `transformers` differs.
    return {"layer_norm_eps": 1e-6, **SIZES[names[size.lower()]]}
