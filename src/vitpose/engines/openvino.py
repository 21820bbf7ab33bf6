"""The engine that runs exported files with OpenVINO: `.xml` with the `.bin` beside it, or `.onnx`.

Does not require torch.
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
from ..files.paths import user_path
from ..hardware.threads import thread_limit
from .metadata import INPUT, KEY, OUTPUT, Metadata, empty_heatmaps

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoEngine:
    """An engine that runs an exported file with OpenVINO, including the normalisation of the crops.

    Args:
        path: The `.xml` file, or an `.onnx` file.
        device: "cpu", or another device that OpenVINO lists ("gpu", "npu"); "auto": the CPU.
        dtype: "float32", "bfloat16" or "float16"; "auto": OpenVINO's default, which is bfloat16 on CPUs with bfloat16
            units.

    Raises:
        CheckpointError: The file is missing, damaged, or not exported by vitpose.
        InputError: There is no such device.
        UnknownNameError: There is no such dtype.
        MissingDependencyError: openvino is not installed.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        openvino_device, precision = choose_device_and_precision(path, device, dtype)
        core = shared_core()
        options = {"PERFORMANCE_HINT": "LATENCY", **precision}
        if thread_limit():
            options["INFERENCE_NUM_THREADS"] = str(thread_limit())
        network = _read(core, user_path(path, CheckpointError))
        self.metadata = Metadata.from_json(_metadata_in(network), path)
        self._shape = self.metadata.check_shapes(
            [(_name_of(port), _shape_of(port)) for port in network.inputs],
            [(_name_of(port), _shape_of(port)) for port in network.outputs],
            path,
        )
        scale, offset = self.metadata.spec.scale_and_offset
        self._compiled = core.compile_model(
            _with_uint8_input(network, scale, offset), openvino_device, options
        )
        kind = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        computed = {short: name for name, short in _TYPES.items()}.get(kind, kind)
        quantised = "int8 with " if self.metadata.precision == "int8" else ""
        self.description = f"OpenVINO, {openvino_device.lower()}, {quantised}{computed}"

    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops."""
        if not len(crops):
            return empty_heatmaps(self._shape)
        # A new request for each call: threads would overwrite each other's results in a shared one.
        return self._compiled.infer_new_request(np.ascontiguousarray(crops))[0]


def require_unreported(module: str, extra: str, purpose: str) -> ModuleType:
    """Import OpenVINO or NNCF without their telemetry.

    Both send no telemetry if the package `openvino_telemetry` is missing, so it is hidden during the import.

    Args:
        module: As in `vitpose.errors.require`.
        extra: As in `vitpose.errors.require`.
        purpose: As in `vitpose.errors.require`.

    Raises:
        MissingDependencyError: The module is not installed.
    """
    telemetry = "openvino_telemetry"
    before = {name: loaded for name, loaded in sys.modules.items() if name == telemetry}
    sys.modules[telemetry] = None  # type: ignore[assignment]
    try:
        return require(module, extra, purpose)
    finally:
        del sys.modules[telemetry]
        sys.modules.update(before)


@cache
def shared_core() -> Any:
    """Return the only `openvino.Core` of this process, which is never destroyed.

    The CPU plugin of each core installs an alternate signal stack for the main thread and frees it with the core. With
    several cores a freed stack may remain installed, and the next signal (Ctrl-C, the exit of a child) is a crash.
    Models are read into memory instead of mapped, so that their files can be deleted.
    """
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the CPU plugin now, before that of any other core
    return core


def choose_device_and_precision(what: str | Path, device: str, dtype: str) -> tuple[str, dict[str, str]]:
    """Return OpenVINO's name of a device, and its option for the dtype.

    Args:
        what: Name of the model, for the message.
        device: As in `OpenVinoEngine`.
        dtype: As in `OpenVinoEngine`.

    Raises:
        InputError: There is no such device.
        UnknownNameError: There is no such dtype.
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
            f"device {device!r} is not available in OpenVINO on this machine, only {', '.join(known)}; use one of "
            "these, 'auto' or another engine"
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
            weights = f", or {path.with_suffix('.bin').name} beside it is not the file written with it"
        raise CheckpointError(
            f"{path} cannot be loaded by OpenVINO: {reason} It is damaged{weights}; export the model again"
        ) from error


def _metadata_in(network: Any) -> str | None:
    """Return the metadata of a file, or None. OpenVINO stores that of an ONNX file under "framework"."""
    for keys in ([KEY], ["framework", KEY]):
        if network.has_rt_info(keys):
            return network.get_rt_info(keys).astype(str)
    return None


def _name_of(port: Any) -> str:
    names = port.get_names()
    return next((name for name in (INPUT, OUTPUT) if name in names), ", ".join(sorted(names)) or "?")


def _shape_of(port: Any) -> list[Any]:
    return ["b" if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]


def _with_uint8_input(network: Any, scale: np.ndarray, offset: np.ndarray) -> Any:
    """Return the network with uint8 crops (n hc wc 3) as input, which OpenVINO normalises and transposes."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    preprocessor = PrePostProcessor(network)
    preprocessor.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    preprocessor.input().model().set_layout(Layout("NCHW"))
    steps = preprocessor.input().preprocess().convert_element_type(Type.f32)
    steps.mean((-offset / scale).tolist()).scale((1 / scale).tolist())
    return preprocessor.build()
