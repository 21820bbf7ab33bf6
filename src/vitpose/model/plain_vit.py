"""Weights of plain vision transformers: files of MAE and timm, and repositories of timm."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ..errors import CheckpointError
from ..files.hub import ORIGINAL_SUFFIXES, ModelFiles
from ..files.paths import existing_path
from .checkpoint import WEIGHTS_FILE
from .names import State
from .weights import read_pickle, read_safetensors

_NOT_OF_BACKBONE = re.compile(r"cls_token|mask_token|decoder_|head|fc_norm|pre_logits")
"""Other parameters in files of MAE and ImageNet ViTs: class token, MAE decoder, classification head."""


def read_plain_vit(files: ModelFiles) -> State | None:
    """Return the backbone's parameters in the weights of a plain ViT; None if the files are of anything else.

    These files have timm's parameter names: `pos_embed`, `patch_embed.proj`, `blocks.0.norm1`, `norm`.

    Args:
        files: A file, or a directory or repository of timm.

    Raises:
        CheckpointError: The weights cannot be read, or have no position embeddings of a square grid of patches.
    """
    path = _find_weights(files)
    if path is None:
        return None
    pickled = path.suffix in ORIGINAL_SUFFIXES
    state = read_pickle(path, ("model", "state_dict")) if pickled else read_safetensors(path)
    if "pos_embed" not in state:
        return None
    shape = tuple(state["pos_embed"].shape)
    # The first position embedding belongs to the class token.
    if len(shape) != 3 or shape[1] < 1 or math.isqrt(shape[1] - 1) ** 2 != shape[1] - 1:
        raise CheckpointError(
            f"the shape of 'pos_embed' in {files.name} is {shape}, not (1, 1 + n x n, width), which one class "
            "token and a square grid of patches have; choose a plain ViT with one class token"
        )
    kept = {key: tensor for key, tensor in state.items() if not _NOT_OF_BACKBONE.match(key)}
    return {f"backbone.{re.sub('^norm[.]', 'last_norm.', key)}": tensor for key, tensor in kept.items()}


def _find_weights(files: ModelFiles) -> Path | None:
    """Return the file that may be of a plain ViT: a single file, or the weights in a directory or repository."""
    path = existing_path(files.name)
    if path is not None and path.is_file():
        return path if path.suffix in (*ORIGINAL_SUFFIXES, ".safetensors") else None
    if files.is_original or "architecture" not in files.config:
        return None
    return files.find(WEIGHTS_FILE)
