"""What a configuration may say to another library about a backbone: shapes and names, and nothing that names code.

A `config.json` may come from a stranger. What it says about a backbone of timm or `transformers` is handed to that
library, which can be told to run code from a repository; so only what cannot passes here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, UnknownNameError
from ..files.limits import MAX_LAYERS, MAX_WIDTH
from ..files.settings import MAX_KEYS

BACKBONE_KWARGS = frozenset({
    "depth", "drop_path_rate", "drop_rate", "dynamic_img_size", "embed_dim", "image_size", "img_size", "in_chans",
    "mlp_ratio", "num_attention_heads", "num_channels", "num_heads", "num_hidden_layers", "out_features",
    "out_indices", "output_stride", "patch_size", "qkv_bias", "reshape_hidden_states", "revision", "window_size",
})  # fmt: skip
"""The keywords that `backbone_kwargs` may have."""

_NAMES_CODE = frozenset({
    "auto_map", "code_revision", "configuration_files", "custom_pipelines", "quantization_config", "trust_remote_code",
})  # fmt: skip

_KERNELS = (None, "eager", "sdpa", "flash_attention_2", "flex_attention")
"""Kernels inside `transformers`. Any other name is that of a hub repository with kernels, which are code."""

_COUNTS_LAYERS = re.compile(r"depths?|.*_(layers|depths?|blocks|stages|levels)")
_IS_WIDTH = re.compile(
    r".*(hidden|embed|embedding|intermediate|channels?).*(_sizes?|_dim|channels?)|embed_dim"
)
_LARGEST = 1_000_000
_LONGEST = 4096


def checked_kwargs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `backbone_kwargs` if every keyword is known to be harmless.

    Raises:
        UnknownNameError: A keyword is not.
        InputError: A value is neither plain nor of a possible size.
    """
    for name in given:
        if name not in BACKBONE_KWARGS:
            raise UnknownNameError("key of backbone_kwargs", name, BACKBONE_KWARGS)
    return {name: _checked(value, name, f"backbone_kwargs.{name}") for name, value in given.items()}


def checked_backbone(table: Mapping[str, Any], path: str = "backbone_config") -> dict[str, Any]:
    """Returns the dictionary of a backbone of `transformers` if nothing in it names code.

    Keys with a leading underscore, the notes of that library to itself, are left out.

    Raises:
        InputError: A key names code, or a value is neither plain nor of a possible size.
    """
    kept = {}
    if len(table) > MAX_KEYS:
        raise InputError(f"{path} has {len(table)} keys; {MAX_KEYS} at most")
    for name, value in table.items():
        if not isinstance(name, str):
            raise InputError(f"{path} has the key {name!r}; keys are strings")
        if name in _NAMES_CODE and value:
            raise InputError(
                f"{path}.{name} would let another library run code of the checkpoint's; remove it"
            )
        if name.endswith("_implementation") and value not in _KERNELS:
            raise InputError(
                f"{path}.{name} is {value!r}, which may name code to download; give one of {_KERNELS}"
            )
        if not name.startswith("_") and name not in _NAMES_CODE:
            kept[name] = _checked(value, name, f"{path}.{name}")
    return kept


def _checked(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping):
        return checked_backbone({str(key): entry for key, entry in value.items()}, path)
    if isinstance(value, list | tuple):
        if len(value) > _LONGEST:
            raise InputError(f"{path} has {len(value)} entries; {_LONGEST} at most")
        return [_checked(entry, name, path) for entry in value]
    if isinstance(value, str) and len(value) > _LONGEST:
        raise InputError(f"{path} has {len(value)} characters; {_LONGEST} at most")
    if isinstance(value, int | float) and not isinstance(value, bool):
        largest = (
            MAX_LAYERS
            if _COUNTS_LAYERS.fullmatch(name)
            else MAX_WIDTH
            if _IS_WIDTH.fullmatch(name)
            else _LARGEST
        )
        if not (math.isfinite(value) and abs(value) <= largest):
            raise InputError(f"{path} is out of range; it may be {largest} at most")
        return value
    if value is None or isinstance(value, str | bool):
        return value
    raise InputError(
        f"{path} is a {type(value).__name__}; only numbers, strings, lists and tables are possible"
    )
