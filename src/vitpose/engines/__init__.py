"""Engines run the network. All of them implement one protocol, `Engine`.

    TorchEngine       a checkpoint                 torch
    OnnxEngine        .onnx                        onnxruntime
    OpenVinoEngine    .xml with its .bin, .onnx    openvino
    ProgramEngine     .pt2                         torch
    TensorRtEngine    .engine                      tensorrt

Importing this package loads no inference library; each engine imports the library it uses when it is created.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, UnknownNameError, require
from .metadata import ExportedEngine, check_dtype

ENGINES = ("torch", "onnxruntime", "openvino", "tensorrt")
"""Names of the engines."""
RUNS = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
    ".engine": ("tensorrt",),
}
"""The engines that run each kind of exported file; the first is the default."""


def is_exported(name: str | Path) -> bool:
    """Return whether a name is that of an exported file."""
    return Path(name).suffix in RUNS


def runs_code(name: str | Path) -> bool:
    """Return whether loading a file can run arbitrary code contained in it."""
    return Path(name).suffix == ".pt2"


def check_trust(name: str | Path, trust: bool) -> None:
    """Check that `trust` is given exactly for the files that run code when they are loaded.

    Args:
        name: The file or checkpoint.
        trust: Whether the caller trusts the author of the file.

    Raises:
        InputError: The file runs code and is not trusted, or it runs none and trust is given.
    """
    if trust and not runs_code(name):
        raise InputError(
            f"trust=True is for .pt2 files, which run code when they are loaded, and {name} is not one; leave it out"
        )
    if runs_code(name) and not trust:
        raise InputError(
            f"{name} is a program of torch.export, and loading it runs any code contained in it; if you trust its "
            "author to run code on this machine, pass trust=True (--trust). ONNX files run no code: use one instead, "
            "written by 'vitpose export MODEL --to onnx'"
        )


def check_engine(name: str, path: str | Path | None = None) -> str:
    """Return the name of the engine to use; "auto" is the default engine of the file, and torch for a checkpoint.

    Args:
        name: One of `ENGINES`, or "auto".
        path: An exported file; None for a checkpoint.

    Raises:
        UnknownNameError: There is no such engine.
        InputError: The engine does not run that file.
    """
    runs = ("torch", "onnxruntime", "openvino") if path is None else RUNS[Path(path).suffix]
    if name == "auto":
        return runs[0]
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ("auto", *ENGINES))
    if name not in runs:
        what = "a checkpoint" if path is None else path
        raise InputError(
            f"engine {name!r} does not run {what}, only {', '.join(runs)} can; use one of these or 'auto', or export "
            f"the model for {name!r}"
        )
    return name


def check_conversion(model: str | Path, engine: str, device: str, dtype: str) -> None:
    """Check, before a checkpoint is converted for an engine, that the engine can run it.

    Args:
        model: Name of the checkpoint, for the messages.
        engine: "onnxruntime" or "openvino".
        device: As in `open_engine`.
        dtype: As in `open_engine`.

    Raises:
        UnknownNameError: The engine does not support the dtype.
        InputError: The engine does not support the device or the dtype.
        MissingDependencyError: A package that converts or runs the model is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export", f"to convert {model} for engine {engine!r}")
    if engine == "openvino":
        from .openvino import choose_device_and_precision

        choose_device_and_precision(model, device, dtype)
    else:
        from ..hardware.onnx_session import find_providers

        find_providers(model, device)
        check_dtype(model, dtype, "float32", engine)


def open_engine(
    path: str | Path,
    engine: str = "auto",
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust: bool = False,
) -> ExportedEngine:
    """Open an exported file.

    Args:
        path: The file.
        engine: One of `ENGINES`; "auto": the default engine of the file, see `RUNS`.
        device: "auto", "cpu", or another device name of the engine.
        dtype: "auto", or a dtype that the engine supports for this file.
        trust: Whether to load a `.pt2` file, which can run arbitrary code contained in it.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        UnknownNameError: There is no such engine, or the engine does not support the dtype.
        InputError: The engine does not run the file, or does not support the device or dtype; or the file runs code
            and is not trusted, or is trusted and runs none.
        MissingDependencyError: A package that runs the file is not installed.
    """
    runtime = check_engine(engine, path)
    check_trust(path, trust)
    match runtime:
        case "onnxruntime":
            from .onnx import OnnxEngine

            return OnnxEngine(path, device, dtype)
        case "openvino":
            from .openvino import OpenVinoEngine

            return OpenVinoEngine(path, device, dtype)
        case "tensorrt":
            require("torch", None, f"to run {path}")
            from .tensorrt import TensorRtEngine

            return TensorRtEngine(path, device, dtype)
    require("torch", None, f"to run {path}")
    from .program import ProgramEngine

    return ProgramEngine(path, device, dtype)
