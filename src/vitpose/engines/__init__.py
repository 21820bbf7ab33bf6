"""Engines: what runs the network. All are behind one protocol, `Engine`.

    TorchEngine       a checkpoint                 torch
    OnnxEngine        .onnx                        onnxruntime
    OpenVinoEngine    .xml with its .bin, .onnx    openvino
    ProgramEngine     .pt2                         torch
    TensorRtEngine    .engine                      tensorrt

Importing this package loads none of the libraries that run networks: an engine loads its own when it is made.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, UnknownNameError, require
from .metadata import ExportedEngine

ENGINES = ("torch", "onnxruntime", "openvino", "tensorrt")
"""What networks are run with."""
RUNS = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
    ".engine": ("tensorrt",),
}
"""What runs an exported file of each kind; the first by default."""


def is_exported(name: str | Path) -> bool:
    """Tells whether a name is that of an exported file."""
    return Path(name).suffix in RUNS


def runs_code(name: str | Path) -> bool:
    """Tells whether loading a file runs whatever code its maker put in."""
    return Path(name).suffix == ".pt2"


def check_trust(name: str | Path, trust: bool) -> None:
    """Refuses a file that runs code and is not trusted, and trust where there is nothing to trust.

    Args:
        name: The file or checkpoint.
        trust: Whether the caller trusts who made it.

    Raises:
        InputError: It is refused.
    """
    if trust and not runs_code(name):
        raise InputError(
            f"trust=True is for .pt2 files, which run code when they are loaded, and {name} is none; leave it out"
        )
    if runs_code(name) and not trust:
        raise InputError(
            f"{name} is a program of torch.export, and loading one runs any code that its maker put into it; if you "
            "trust them as you would to run their code, pass trust=True (--trust). ONNX files run no code: take one "
            "instead, 'vitpose export MODEL --to onnx' writes it"
        )


def check_engine(name: str, path: str | Path | None = None) -> str:
    """Returns the engine of that name; "auto" is the one that a file is made for, and torch for a checkpoint.

    Args:
        name: One of `ENGINES`, or "auto".
        path: An exported file; None for a checkpoint.

    Raises:
        UnknownNameError: No such engine.
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
            f"engine {name!r} does not run {what}, but {', '.join(runs)} can; take that, leave it at 'auto', or export "
            "the model for it"
        )
    return name


def check_conversion(model: str | Path, engine: str, device: str, dtype: str) -> None:
    """Refuses what would fail only after a checkpoint has been converted for an engine.

    Args:
        model: Name of the checkpoint, for the messages.
        engine: "onnxruntime" or "openvino".
        device: As in `open_engine`.
        dtype: As in `open_engine`.

    Raises:
        InputError: The engine has no such device or type.
        MissingDependencyError: What converts or runs it is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export", f"to convert {model} for engine {engine!r}")
    if engine == "openvino":
        from .openvino import choose_place

        choose_place(model, device, dtype)
    else:
        from ..hardware.onnx_session import find_providers
        from .onnx import check_dtype

        find_providers(model, device)
        check_dtype(model, dtype, "float32")


def open_engine(
    path: str | Path,
    engine: str = "auto",
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust: bool = False,
) -> ExportedEngine:
    """Opens an exported file.

    Args:
        path: The file.
        engine: What runs it, of `ENGINES`; "auto" is what it is made for.
        device: Where; the names are those of each engine, "auto" and "cpu" are everybody's.
        dtype: "auto", or a type that the engine can be told.
        trust: Open a `.pt2` file, which runs the code in it.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: The engine does not run the file, or has no such device or type; or the file runs code and is
            not trusted, or is trusted and runs none.
        MissingDependencyError: What runs it is not installed.
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
