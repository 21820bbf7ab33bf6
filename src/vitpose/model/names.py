"""Conversion of parameter names between vitpose, `transformers` and the original repository.

The names of vitpose are those of the original repository with `head` for `keypoint_head`. Those of `transformers`,
which also splits query, key and value, are converted by a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]

BACKBONE = "backbone."
OTHER_HEADS = "associate_heads."

# Names of vitpose on the left, of `transformers` on the right; every name matches at most one row on either side.
_NAMES = [
    ("backbone.pos_embed", "backbone.embeddings.position_embeddings"),
    ("backbone.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
    ("backbone.blocks.#.norm1.", "backbone.encoder.layer.#.layernorm_before."),
    ("backbone.blocks.#.norm2.", "backbone.encoder.layer.#.layernorm_after."),
    ("backbone.blocks.#.attn.query.", "backbone.encoder.layer.#.attention.attention.query."),
    ("backbone.blocks.#.attn.key.", "backbone.encoder.layer.#.attention.attention.key."),
    ("backbone.blocks.#.attn.value.", "backbone.encoder.layer.#.attention.attention.value."),
    ("backbone.blocks.#.attn.proj.", "backbone.encoder.layer.#.attention.output.dense."),
    ("backbone.blocks.#.mlp.", "backbone.encoder.layer.#.mlp."),
    ("backbone.last_norm.", "backbone.layernorm."),
    ("head.deconv_layers.0.", "head.deconv1."),
    ("head.deconv_layers.1.", "head.batchnorm1."),
    ("head.deconv_layers.3.", "head.deconv2."),
    ("head.deconv_layers.4.", "head.batchnorm2."),
    ("head.final_layer.", "head.conv."),
]
_QKV = ("query", "key", "value")


def _renamer(rows: list[tuple[str, str]]) -> Callable[[str], str]:
    table = [
        (re.compile("^" + re.escape(old).replace(r"\#", r"(\d+)")), new.replace("#", r"\1"))
        for old, new in rows
    ]

    def rename(name: str) -> str:
        for pattern, new in table:
            if pattern.match(name):
                return pattern.sub(new, name)
        return name

    return rename


_to_transformers = _renamer(_NAMES)
_from_transformers = _renamer([(theirs, ours) for ours, theirs in _NAMES])


def state_for_transformers(state: Mapping[str, Tensor]) -> State:
    """Returns parameters of vitpose under the names of `transformers`: qkv split in three."""
    named = {}
    for name, tensor in state.items():
        if re.match(r"backbone\.blocks\.\d+\.attn\.qkv\.", name):
            for part, rows in zip(_QKV, tensor.chunk(3), strict=True):
                named[_to_transformers(name.replace("qkv", part))] = rows
        else:
            named[_to_transformers(name)] = tensor
    return named


def state_from_transformers(state: Mapping[str, Tensor]) -> State:
    """Returns parameters of `transformers` under the names of vitpose: query, key and value joined."""
    named = {_from_transformers(name): tensor for name, tensor in state.items()}
    for query in [name for name in named if re.match(r"backbone\.blocks\.\d+\.attn\.query\.", name)]:
        parts = [query.replace("query", part) for part in _QKV]
        found = [named[part] for part in parts if part in named]
        alike = len({(tensor.dtype, tensor.shape) for tensor in found}) == 1 and found[0].ndim > 0
        if len(found) == len(parts) and alike:  # others keep their names and are reported as unexpected later
            named[query.replace("query", "qkv")] = torch.cat([named.pop(part) for part in parts])
    return named


def state_from_original(state: Mapping[str, Tensor]) -> State:
    """Returns parameters of an original file under the names of vitpose."""
    # The network never uses the class token that some multi-task files contain.
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.cls_token")}
    return {
        re.sub(r"^(associate_)?keypoint_(heads?)\.", r"\1\2.", name): tensor for name, tensor in kept.items()
    }
