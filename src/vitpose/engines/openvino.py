"""The engine that runs exported files with OpenVINO: its own `.xml` with the `.bin` beside it, or `.onnx`.

Needs no torch.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..errors import CheckpointError, InputError, UnknownNameError, require
from ..files.external_data import refuse_foreign_data
from ..hardware.threads import thread_limit
from .metadata import INPUT, KEY, OUTPUT, Metadata, no_maps

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoEngine:
    """Runs an exported file with OpenVINO, which normalises the crops as part of the network.

    Args:
        path: The `.xml` file, or an `.onnx` file.
        device: "cpu", or another that OpenVINO finds ("gpu", "npu"); "auto" is the CPU.
        dtype: "float32", "bfloat16" or "float16"; "auto" is what OpenVINO takes by itself, which is bfloat16 on
            processors that compute in it.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: There is no such device or type.
        MissingDependencyError: openvino is not installed.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        place, precision = choose_place(path, device, dtype)
        core = shared_core()
        options = {"PERFORMANCE_HINT": "LATENCY", **precision}
        if thread_limit():
            options["INFERENCE_NUM_THREADS"] = str(thread_limit())
        network = _read(core, Path(path).expanduser())
        self.metadata = Metadata.from_json(_text_in(network), path)
        self._shape = self.metadata.check_shapes(
            [(_name_of(one), _sides(one)) for one in network.inputs],
            [(_name_of(one), _sides(one)) for one in network.outputs],
            path,
        )
        scale, offset = self.metadata.processor.scale_and_offset
        self._compiled = core.compile_model(_from_bytes(network, scale, offset), place, options)
        kind = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        computed = {short: name for name, short in _TYPES.items()}.get(kind, kind)
        quantised = "int8 with " if self.metadata.precision == "int8" else ""
        self.description = f"OpenVINO, {place.lower()}, {quantised}{computed}"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of RGB crops."""
        if not len(crops):
            return no_maps(self._shape)
        # A request of its own: the network's one would be shared by threads, and the answers mixed up.
        return self._compiled.infer_new_request(np.ascontiguousarray(crops))[0]


def require_unreported(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports OpenVINO or NNCF without their reports of use to their makers, who were not asked for.

    They leave them out where the package that sends them is missing, so while they are imported it is.
    Arguments and errors are those of `vitpose.errors.require`.
    """
    sender = "openvino_telemetry"
    before = {name: own for name, own in sys.modules.items() if name == sender}
    sys.modules[sender] = None  # type: ignore[assignment]
    try:
        return require(module, extra, purpose)
    finally:
        del sys.modules[sender]
        sys.modules.update(before)


@cache
def shared_core() -> Any:
    """Returns the one `openvino.Core` of this process, which is never given up.

    The CPU plugin of each core moves the stack on which the main thread handles signals, and takes it away with the
    core; of several cores the wrong one may stay, and then the next signal (Ctrl-C, a child that ends) is a crash.
    Models are read whole rather than mapped, so that their files may go.
    """
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    core.get_property("CPU", "FULL_DEVICE_NAME")  # the plugin is there from now on, before anybody else's
    return core


def choose_place(what: str | Path, device: str, dtype: str) -> tuple[str, dict[str, str]]:
    """Returns OpenVINO's name of a device, and its option that sets the type.

    Args:
        what: What shall be run, for the message.
        device: As in `OpenVinoEngine`.
        dtype: As in `OpenVinoEngine`.

    Raises:
        InputError: There is no such device or type.
        MissingDependencyError: openvino is not installed.
    """
    require_unreported("openvino", "openvino", f"to run {what} with engine 'openvino'")
    return _choose_device(device, shared_core().available_devices), _precision(dtype)


def _choose_device(device: str, available: list[str]) -> str:
    known = [name.lower() for name in available]
    if device == "auto":
        return "CPU"
    if device not in known:
        raise InputError(
            f"device {device!r} cannot be used by OpenVINO here; it has {', '.join(known)}. Take one of these, 'auto', "
            "or another engine"
        )
    return device.upper()


def _precision(dtype: str) -> dict[str, str]:
    if dtype == "auto":
        return {}
    if dtype not in _TYPES:
        raise UnknownNameError("dtype of OpenVINO", dtype, ("auto", *_TYPES))
    return {"INFERENCE_PRECISION_HINT": _TYPES[dtype]}


def _read(core: Any, path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of an exported .xml or .onnx file")
    if path.suffix == ".onnx":
        refuse_foreign_data(path)
    try:
        return core.read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        weights = ""
        if path.suffix == ".xml":
            weights = f", or {path.with_suffix('.bin').name} beside it is not the file it was written with"
        raise CheckpointError(
            f"{path} cannot be loaded by OpenVINO: {reason} It is damaged{weights}; export it again"
        ) from error


def _text_in(network: Any) -> str | None:
    """Returns our entry of a file, or None. OpenVINO puts those of an ONNX file under "framework"."""
    for place in ([KEY], ["framework", KEY]):
        if network.has_rt_info(place):
            return network.get_rt_info(place).astype(str)
    return None


def _name_of(port: Any) -> str:
    names = port.get_names()
    return next((name for name in (INPUT, OUTPUT) if name in names), ", ".join(sorted(names)) or "?")


def _sides(port: Any) -> list[Any]:
    return ["b" if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]


def _from_bytes(network: Any, scale: np.ndarray, offset: np.ndarray) -> Any:
    """Returns the network with crops as they are for its input, so that one pass reads and normalises them."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    entrance = PrePostProcessor(network)
    entrance.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    entrance.input().model().set_layout(Layout("NCHW"))
    steps = entrance.input().preprocess().convert_element_type(Type.f32)
    steps.mean((-offset / scale).tolist()).scale((1 / scale).tolist())
    return entrance.build()
