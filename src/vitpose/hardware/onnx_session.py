"""ONNX Runtime: opening a file on a device. Knows neither detectors nor poses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, require
from ..files.external_data import refuse_foreign_data
from .threads import thread_limit


def open_session(path: str | Path, device: str) -> Any:
    """Opens an ONNX file.

    Args:
        path: The file.
        device: "cpu", "cuda", "cuda:1"; "auto" is cuda where ONNX Runtime has it.

    Raises:
        CheckpointError: The file is missing, not ONNX, or takes weights from elsewhere than beside it.
        InputError: The device is none, or ONNX Runtime does not have it.
        MissingDependencyError: onnxruntime is not installed.
    """
    providers = find_providers(path, device)
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of an .onnx file")
    refuse_foreign_data(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_limit()
    # The format that was checked, whatever the file's suffix.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Its threads would spin while they wait, and take the time of those who cut crops and of other programs. Measured
    # with vitpose-tiny on a busy machine: on one core 62 ms without in place of 140 ms, on four 146 in place of 221.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise CheckpointError(f"{path} cannot be loaded as ONNX: {error}") from error
    if device.startswith("cuda") and session.get_providers()[0] != "CUDAExecutionProvider":
        raise InputError(
            f"ONNX Runtime fell back to the CPU where device {device!r} was asked for: its CUDA libraries could not be "
            "loaded, as it says above; mend that, or take device 'cpu'"
        )
    return session


def find_providers(what: str | Path, device: str) -> list[Any]:
    """Returns the providers for a device of the ONNX Runtime that is installed.

    Args:
        what: What shall be run, for the message.
        device: As in `open_session`.

    Raises:
        InputError: The device is none, or ONNX Runtime does not have it.
        MissingDependencyError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime", "onnx", f"to run {what}")
    return choose_providers(device, onnxruntime.get_available_providers())


def nearest_device(what: str | Path, device: Any) -> str:
    """Returns where ONNX Runtime runs beside a network of another runtime.

    That is the same device; the CPU where ONNX Runtime has no CUDA, since the package without it is the usual one also
    beside a torch with CUDA.

    Args:
        what: What shall be run, for the message.
        device: As torch names it.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime", "onnx", f"to run {what}")
    name = f"cuda:{device}" if str(device).isdigit() else str(device)
    if not name.startswith("cuda"):
        return "cpu" if name == "cpu" else "auto"
    return name if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def choose_providers(device: str, available: Sequence[str]) -> list[Any]:
    """Returns ONNX Runtime's providers for a device.

    Raises:
        InputError: The device is none, or ONNX Runtime does not have it.
    """
    cuda = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    has_cuda = "CUDAExecutionProvider" in available
    if device == "cpu" or (device == "auto" and not has_cuda):
        return ["CPUExecutionProvider"]
    if cuda is None:
        raise InputError(f"device {device!r} is not understood; ONNX files run on auto, cpu, cuda or cuda:N")
    if not has_cuda:
        raise InputError(
            f"device {device!r} needs ONNX Runtime's CUDAExecutionProvider, and there is only "
            f"{', '.join(available)}; install onnxruntime-gpu, or take device 'cpu'"
        )
    return [("CUDAExecutionProvider", {"device_id": cuda[1] or "0"}), "CPUExecutionProvider"]
