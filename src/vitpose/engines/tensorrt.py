"""The engine that runs `.engine` files: the metadata of vitpose, followed by a plan of TensorRT.

A plan runs only on the GPU model and with the version of TensorRT that built it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import CheckpointError, InputError, require
from ..files.paths import user_path
from ..hardware.devices import choose_device
from .metadata import INPUT, OUTPUT, Metadata, check_dtype, empty_heatmaps

MAGIC = b"vitpose plan"
LARGEST_BATCH = 64
"""Largest batch of a plan; more crops are run in several batches."""
_LENGTH = 8


def pack(metadata: Metadata, plan: bytes) -> bytes:
    """Return the content of a file: the magic number, the length of the metadata, the metadata, the plan."""
    text = metadata.to_json().encode()
    return MAGIC + len(text).to_bytes(_LENGTH, "little") + text + plan


def unpack(path: Path) -> tuple[Metadata, bytes]:
    """Return the metadata and the plan of a file.

    Raises:
        CheckpointError: The file is missing, or does not start with valid metadata.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the path of an exported .engine file")
    content = path.read_bytes()
    start = len(MAGIC) + _LENGTH
    end = start + int.from_bytes(content[len(MAGIC) : start], "little")
    text = content[start:end].decode(errors="replace") if content.startswith(MAGIC) else None
    return Metadata.from_json(text, path), content[end:]


class TensorRtEngine:
    """An engine that runs an exported `.engine` file with TensorRT.

    Args:
        path: The file.
        device: "auto", "cuda", "cuda:1".
        dtype: "auto" or the dtype of the plan, in which it runs.

    Raises:
        CheckpointError: The file is missing, damaged, not exported by vitpose, or built for another GPU.
        UnknownNameError: There is no such device.
        InputError: This machine does not have the device, it is not a CUDA GPU, or the dtype is not that of the plan.
        MissingDependencyError: tensorrt is not installed.
    """

    def __init__(self, path: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        self.metadata, plan = unpack(user_path(path, CheckpointError))
        check_dtype(path, dtype, self.metadata.precision, "tensorrt")
        tensorrt = require("tensorrt", "tensorrt", f"to run {path}")
        self._device = choose_device(device)
        if self._device.type != "cuda":
            raise InputError(
                f"{path} runs on NVIDIA GPUs only, not on {self._device}; export to another format"
            )
        self._path = path
        with torch.cuda.device(self._device):
            self._plan, self._context = open_plan(plan, tensorrt, path)
        self._lock = threading.Lock()  # a context runs one batch at a time
        self._shape = self.metadata.check_shapes(*_shapes(self._plan, tensorrt), path)
        parts = self.metadata.spec.scale_and_offset
        self._scale, self._offset = (torch.from_numpy(part).to(self._device) for part in parts)
        self.description = f"TensorRT, {self._device}, {self.metadata.precision}"

    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops.

        Raises:
            CheckpointError: TensorRT refuses a batch.
        """
        parts = [self._run(crops[i : i + LARGEST_BATCH]) for i in range(0, len(crops), LARGEST_BATCH)]
        return np.concatenate(parts) if parts else empty_heatmaps(self._shape)

    def _run(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        with self._lock, torch.cuda.device(self._device):
            pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
            pixels = (pixels * self._scale + self._offset).permute(0, 3, 1, 2).contiguous()
            heatmaps = torch.empty(len(crops), *self._shape, device=self._device)
            enqueue(self._context, pixels, heatmaps, torch.cuda.current_stream().cuda_stream, self._path)
            return heatmaps.cpu().numpy()


def open_plan(plan: bytes, tensorrt: Any, path: str | Path) -> tuple[Any, Any]:
    """Return TensorRT's engine and its execution context.

    Args:
        plan: The serialised plan.
        tensorrt: The module `tensorrt`.
        path: The file, for messages.

    Raises:
        CheckpointError: TensorRT cannot load the plan or create a context for it, or an input or output is not float32.
    """
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is None:
        raise CheckpointError(
            f"{path} cannot be loaded by TensorRT {tensorrt.__version__}: it is damaged, or was built by "
            "another version or for another GPU; export the model again on this machine"
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    kinds = {name: engine.get_tensor_dtype(name) for name in names}
    if any(kind != tensorrt.float32 for kind in kinds.values()):
        raise CheckpointError(
            f"{path} has the inputs and outputs {', '.join(f'{name} {kind}' for name, kind in kinds.items())}, but all "
            "must be float32; export the model again with 'vitpose export'"
        )
    context = engine.create_execution_context()
    if context is None:
        raise CheckpointError(
            f"{path} cannot be run by TensorRT {tensorrt.__version__}: no execution context could be created, usually "
            "because of too little GPU memory; see its log above. Free some memory, or use another device"
        )
    return engine, context


def enqueue(context: Any, pixels: Tensor, heatmaps: Tensor, stream: int, path: str | Path) -> None:
    """Enqueue the inference of a batch on a CUDA stream.

    Args:
        context: TensorRT's execution context.
        pixels: The batch, contiguous.
        heatmaps: The output buffer, contiguous.
        stream: The handle of the CUDA stream.
        path: The file, for messages.

    Raises:
        CheckpointError: TensorRT refuses a step, or would write heatmaps of another shape; nothing was written.
    """
    steps = {
        f"a batch of {tuple(pixels.shape)}": lambda: context.set_input_shape(INPUT, tuple(pixels.shape)),
        "the pointer to the crops": lambda: context.set_tensor_address(INPUT, pixels.data_ptr()),
        "the pointer to the heatmaps": lambda: context.set_tensor_address(OUTPUT, heatmaps.data_ptr()),
        f"heatmaps of {tuple(heatmaps.shape)}": lambda: (
            tuple(context.get_tensor_shape(OUTPUT)) == tuple(heatmaps.shape)
        ),
        "the run": lambda: context.execute_async_v3(stream),
    }
    for what, step in steps.items():
        if not step():
            raise CheckpointError(
                f"TensorRT refused {what} for {path}; see its log above. Export the model again on this machine, or "
                "use an .onnx file with engine 'onnxruntime'"
            )


def _shapes(plan: Any, tensorrt: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    found = [(name, tuple(plan.get_tensor_shape(name)), plan.get_tensor_mode(name)) for name in names]
    inputs = [(name, shape) for name, shape, mode in found if mode == tensorrt.TensorIOMode.INPUT]
    return inputs, [(name, shape) for name, shape, mode in found if mode == tensorrt.TensorIOMode.OUTPUT]
