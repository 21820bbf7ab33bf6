"""Files of parameters, read without trust and written whole. Knows no network."""

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
    """Returns the parameters of a safetensors file, under the file's own names.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return load_file(path)
    except Exception as error:  # types that torch lacks and shapes that it cannot count raise what they like
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is not a whole safetensors file: {reason}; fetch it again") from error


def read_pickle(path: Path, keys: Sequence[str] = ("state_dict",)) -> State:
    """Returns the parameters of a torch file, under the file's own names, without running what it holds.

    Args:
        path: The file.
        keys: Under the first of these that is there the parameters lie; without any they are the file.

    Raises:
        CheckpointError: It is missing, damaged, unsafe, or holds no parameters.
    """
    found = existing_path(path)
    if found is None or not found.is_file():
        raise CheckpointError(f"{path!s:.300} does not exist; give the path of an original checkpoint")
    path = found
    _refuse_packed(path)
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way there is
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise CheckpointError(
                f"{path} holds more than weights ({foreign[1]}) and is refused, because loading it could run "
                "foreign code. Where you trust the file, save its 'state_dict' alone with torch.save"
            ) from error
        raise CheckpointError(f"{path} is not a whole torch file of weights; fetch it again") from error
    key = next((key for key in keys if isinstance(file, dict) and key in file), None)
    return _checked(file if key is None else file[key], path)


def _refuse_packed(path: Path) -> None:
    """Refuses archives that unpack to more than they are; torch never compresses its own."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # of torch's older form, or damaged, which torch says
    if unpacked > path.stat().st_size:
        raise CheckpointError(
            f"{path} is a compressed archive of {unpacked} bytes, which torch does not write; save its "
            "'state_dict' with torch.save"
        )


def _checked(state: Any, path: Path) -> State:
    """Returns the parameters if they are named, dense, and as large as the file says they are."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds no 'state_dict' of tensors; it is no original ViTPose checkpoint"
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
                f"{path} declares the parameter {name:.100} as {tuple(tensor.shape)} and stores {stored} bytes of it; "
                "save tensors with all their values"
            )
    return dict(state)


def write_safetensors(file: Path, state: State) -> None:
    """Writes parameters to a safetensors file.

    Raises:
        OutputError: It cannot be written.
    """
    # Copies, because safetensors takes no two tensors in one piece of memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replace_file(file) as path:
        try:
            save_file(whole, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
