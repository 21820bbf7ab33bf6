"""Opens ONNX files with ONNX Runtime on a device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, require
from ..files.external_data import refuse_foreign_data
from ..files.paths import user_path
from .threads import thread_limit


def open_session(path: str | Path, device: str) -> Any:
    """Open an ONNX file.

    Args:
        path: The file.
        device: "cpu", "cuda", "cuda:1"; "auto": CUDA if ONNX Runtime supports it, else the CPU.

    Returns:
        The `onnxruntime.InferenceSession`.

    Raises:
        CheckpointError: The file is missing, not ONNX, or refers to weights outside its directory.
        InputError: The device is unknown, or unavailable in ONNX Runtime.
        MissingDependencyError: onnxruntime is not installed.
    """
    providers = find_providers(path, device)
    path = user_path(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of an .onnx file")
    refuse_foreign_data(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_limit()
    # Only the ONNX format has been checked; by default the file's suffix decides.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Spinning threads would slow down the threads that crop and other programs. Measured with vitpose-tiny on a busy
    # machine: on one core 140 ms with spinning and 62 ms without, on four 221 and 146 ms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise CheckpointError(f"{path} cannot be loaded as ONNX: {error}") from error
    if device.startswith("cuda") and session.get_providers()[0] != "CUDAExecutionProvider":
        raise InputError(
            f"ONNX Runtime fell back to the CPU although device {device!r} was requested: its CUDA libraries could not "
            "be loaded, see its log above; install them, or use device 'cpu'"
        )
    return session


def find_providers(what: str | Path, device: str) -> list[Any]:
    """Return the providers of the installed ONNX Runtime for a device.

    Args:
        what: Name of the model, for the message.
        device: As in `open_session`.

    Raises:
        InputError: The device is unknown, or unavailable in ONNX Runtime.
        MissingDependencyError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime", "onnx", f"to run {what}")
    return choose_providers(device, onnxruntime.get_available_providers())


def nearest_device(what: str | Path, device: Any) -> str:
    """Return the device for ONNX Runtime that corresponds to the device of another network.

    That is the same device, or the CPU if ONNX Runtime has no CUDA provider: its usual package has none, also where
    torch has CUDA.

    Args:
        what: Name of the model, for the message.
        device: A device name or index of torch.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime", "onnx", f"to run {what}")
    name = f"cuda:{device}" if str(device).isdigit() else str(device)
    if not name.startswith("cuda"):
        return "cpu" if name == "cpu" else "auto"
    return name if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def choose_providers(device: str, available: Sequence[str]) -> list[Any]:
    """Return ONNX Runtime's providers for a device.

    Args:
        device: As in `open_session`.
        available: Names of the providers of the installed ONNX Runtime.

    Raises:
        InputError: The device is unknown, or unavailable in ONNX Runtime.
    """
    cuda = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    has_cuda = "CUDAExecutionProvider" in available
    if device == "cpu" or (device == "auto" and not has_cuda):
        return ["CPUExecutionProvider"]
    if cuda is None:
        raise InputError(f"unknown device {device!r} for ONNX Runtime; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if not has_cuda:
        raise InputError(
            f"device {device!r} requires ONNX Runtime's CUDAExecutionProvider, but only {', '.join(available)} is "
            "available; install onnxruntime-gpu, or use device 'cpu'"
        )
    return [("CUDAExecutionProvider", {"device_id": cuda[1] or "0"}), "CPUExecutionProvider"]
