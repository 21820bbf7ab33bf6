"""Files of parameters: read without executing code from them, written atomically."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files.paths import existing_path
from ..files.writing import replace_file
from .names import State


def read_safetensors(path: Path) -> State:
    """Returns the parameters of a safetensors file, under the names in the file.

    Raises:
        CheckpointError: The file is damaged.
    """
    try:
        return load_file(path)
    except Exception as error:  # unsupported types and shapes raise errors of many types
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path} is not a valid safetensors file: {reason}; download it again"
        ) from error


def read_pickle(path: Path, keys: Sequence[str] = ("state_dict",)) -> State:
    """Returns the parameters of a torch file, under the names in the file, without executing code from it.

    Args:
        path: The file.
        keys: Possible keys of the parameters; the first that is present is used. If none is, the whole file is read
            as the parameters.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or contains no parameters.
    """
    found = existing_path(path)
    if found is None or not found.is_file():
        raise CheckpointError(f"{path!s:.300} does not exist; give the path of an original checkpoint")
    path = found
    _check_uncompressed(path)
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises errors of any type
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise CheckpointError(
                f"{path} contains more than weights ({foreign[1]}) and is not loaded, because that could execute "
                "code from the file. If you trust it, save its 'state_dict' alone with torch.save"
            ) from error
        raise CheckpointError(f"{path} is not a valid torch file of weights; download it again") from error
    key = next((key for key in keys if isinstance(file, dict) and key in file), None)
    return _checked(file if key is None else file[key], path)


def _check_uncompressed(path: Path) -> None:
    """Raises an error for compressed archives, which torch does not write and which may exhaust memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch's older format, or damaged, which torch.load reports
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} is a compressed archive of {unpacked} bytes, which torch does not write; save its "
            "'state_dict' with torch.save"
        )


def _checked(state: Any, path: Path) -> State:
    """Returns the parameters after checking that they are named, dense, and stored in their full size."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} contains no 'state_dict' of tensors; give an original ViTPose checkpoint"
        )
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path} has a parameter named {name!r:.100}; names must be strings")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(
                f"{path} has the parameter {name:.100} as {tensor.layout}, {tensor.dtype} on {tensor.device}; save "
                "plain dense tensors"
            )
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > stored:
            raise CheckpointError(
                f"{path} declares the parameter {name:.100} as {tuple(tensor.shape)} but stores only {stored} bytes; "
                "save tensors with all their values"
            )
    return dict(state)


def write_safetensors(file: Path, state: State) -> None:
    """Writes parameters to a safetensors file.

    Args:
        file: The file; created or replaced atomically.
        state: The parameters.

    Raises:
        OutputError: The file cannot be written.
    """
    # Copies, because safetensors rejects tensors that share memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replace_file(file) as path:
        try:
            save_file(whole, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
