"""Checks of the options for backbones of other libraries, so that no configuration can make them run code.

A `config.json` may come from an untrusted source. Its options for a timm or `transformers` backbone are passed to that
library, which can be configured to run code from a repository; only options that cannot do so are accepted here.
"""

from __future__ import annotations

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
"""The keywords that `backbone_kwargs` may contain."""

_CODE_KEYS = frozenset({
    "auto_map", "code_revision", "configuration_files", "custom_pipelines", "quantization_config", "trust_remote_code",
})  # fmt: skip

_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flex_attention")
"""Attention implementations inside `transformers`. Any other name is a hub repository with kernels, which are code."""

_LAYER_COUNT = re.compile(r"depths?|.*_(layers|depths?|blocks|stages|levels)")
_WIDTH = re.compile(r".*(hidden|embed|embedding|intermediate|channels?).*(_sizes?|_dim|channels?)|embed_dim")
_MAX_NUMBER = 1_000_000
_MAX_LENGTH = 4096


def checked_kwargs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `backbone_kwargs` after checking that every keyword is allowed.

    Args:
        given: The keyword arguments.

    Raises:
        UnknownNameError: A keyword is not in `BACKBONE_KWARGS`.
        InputError: A value has an unsupported type or is out of range.
    """
    for name in given:
        if name not in BACKBONE_KWARGS:
            raise UnknownNameError("key of backbone_kwargs", name, BACKBONE_KWARGS)
    return {name: _checked(value, name, f"backbone_kwargs.{name}") for name, value in given.items()}


def checked_backbone(table: Mapping[str, Any], path: str = "backbone_config") -> dict[str, Any]:
    """Returns the dictionary of a `transformers` backbone after checking that no entry refers to code.

    Keys with a leading underscore, which are internal to that library, are dropped.

    Args:
        table: The dictionary.
        path: Its name in error messages.

    Raises:
        InputError: A key refers to code, or a value has an unsupported type or is out of range.
    """
    kept = {}
    if len(table) > MAX_KEYS:
        raise InputError(f"{path} has {len(table)} keys; the maximum is {MAX_KEYS}")
    for name, value in table.items():
        if not isinstance(name, str):
            raise InputError(f"{path} has the key {name!r}; keys must be strings")
        if name in _CODE_KEYS and value:
            raise InputError(
                f"{path}.{name} would let another library run code from the checkpoint; remove it"
            )
        if name.endswith("_implementation") and value not in _ATTENTIONS:
            raise InputError(
                f"{path}.{name} is {value!r}, which may name code to download; give one of {_ATTENTIONS}"
            )
        if not name.startswith("_") and name not in _CODE_KEYS:
            kept[name] = _checked(value, name, f"{path}.{name}")
    return kept


def _checked(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping):
        return checked_backbone({str(key): entry for key, entry in value.items()}, path)
    if isinstance(value, list | tuple):
        if len(value) > _MAX_LENGTH:
            raise InputError(f"{path} has {len(value)} entries; the maximum is {_MAX_LENGTH}")
        return [_checked(entry, name, path) for entry in value]
    if isinstance(value, str) and len(value) > _MAX_LENGTH:
        raise InputError(f"{path} has {len(value)} characters; the maximum is {_MAX_LENGTH}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        largest = _largest(name)
        if not abs(value) <= largest:  # NaN compares as false
            raise InputError(f"{path} is out of range; the maximum is {largest}")
        return value
    if value is None or isinstance(value, str | bool):
        return value
    raise InputError(f"{path} is a {type(value).__name__}; use numbers, strings, lists and dictionaries only")


def _largest(name: str) -> int:
    if _LAYER_COUNT.fullmatch(name):
        return MAX_LAYERS
    return MAX_WIDTH if _WIDTH.fullmatch(name) else _MAX_NUMBER
