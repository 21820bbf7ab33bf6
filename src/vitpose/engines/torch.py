"""The engine that runs the network with PyTorch, on a CPU or a GPU: crops in, heatmaps out.

Chooses the floating-point type and compiles the network. `engines.accelerator` extends it by cropping and decoding on
the device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..keypoints.model_spec import ModelSpec
from ..model.fold import InferenceNetwork
from ..model.pose import VitPoseForPoseEstimation
from ..model.quantisation import is_quantised
from .cpu_threads import ThreadedNetwork, one_thread_if_forked

_BF16_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of the bfloat16 units of CPUs: AVX-512 of AMD and Intel, AMX of Intel, ARM."""


def choose_dtype(dtype: str, device: torch.device) -> str:
    """Return the name of the floating-point type; "auto" is bfloat16 if the hardware supports it, else float32.

    Supported means a CUDA GPU without emulation, or a CPU for which `has_bf16_units` is true. Nothing is timed, so that
    a machine always computes in the same dtype and returns the same keypoints. Measured with one thread of an AMD EPYC
    with AVX512-BF16, speedup of bfloat16 over float32: ViTPose-B 1.7, vitpose-tiny 1.2.

    Args:
        dtype: The name of a dtype, or "auto".
        device: The device of the network.
    """
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        with torch.cuda.device(device):
            gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        gains = device.type == "cpu" and has_bf16_units()
    return "bfloat16" if gains else "float32"


def has_bf16_units() -> bool:
    """Return whether this CPU has bfloat16 units that torch uses (through oneDNN).

    These are Intel CPUs from Cooper Lake and Sapphire Rapids on, AMD CPUs from Zen 4 on (AVX512-BF16, AMX-BF16), and
    ARM CPUs with the extension BF16 (Graviton 3, Grace). Torch for macOS has no oneDNN. False if the capabilities of
    the CPU are unknown.
    """
    return torch.backends.mkldnn.is_available() and not _BF16_UNITS.isdisjoint(_cpu_capabilities())


def _cpu_capabilities() -> set[str]:
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.10
        return {name for name, present in torch.cpu.get_capabilities().items() if present}
    flags = Path("/proc/cpuinfo")  # Linux names these units as torch does
    return set(flags.read_text().split()) if flags.is_file() else set()


class TorchEngine:
    """An engine that runs a dense network with PyTorch.

    Args:
        model: The network, with the device and the dtype to run with.
        spec: Normalisation of the crops.
        compiled: Whether to compile the network with `torch.compile`: the first batch of each size takes a minute, all
            later ones are faster. Batches are padded to powers of two, so that there are few sizes.
    """

    def __init__(self, model: VitPoseForPoseEstimation, spec: ModelSpec, compiled: bool = False) -> None:
        self.device, self.dtype = model.device, model.dtype
        scale, offset = (torch.from_numpy(part).to(self.device) for part in spec.scale_and_offset)
        self.scale, self.offset = scale[:, None, None], offset[:, None, None]
        self.fixed_sizes = compiled
        self.network: Any = InferenceNetwork(model, in_place=False if compiled else None)
        if compiled:
            self.network = compile_network(self.network, self.device)
        elif self.device.type == "cpu":
            self.network = ThreadedNetwork(self.network)
        words = ["torch", str(self.device), str(self.dtype).removeprefix("torch.")]
        words += ["quantised weights"] * is_quantised(model) + ["compiled"] * compiled
        self.description = ", ".join(words)

    @one_thread_if_forked()
    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Return the heatmaps (float32) of RGB crops, which are uploaded as uint8 and normalised on the device."""
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2)
        return self.run(self.normalise(pixels.contiguous().float())).float().cpu().numpy()

    def normalise(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n 3 hc wc"]:
        """Normalise pixels (0 to 255) and convert them to the network's dtype; the argument may be overwritten."""
        return pixels.mul_(self.scale).add_(self.offset).to(self.dtype)

    def run(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Return the heatmaps of normalised crops on the device."""
        count = len(pixels)
        if self.fixed_sizes:
            pixels = F.pad(pixels, (0, 0) * 3 + (0, filled_up(count) - count))
        return self.network(pixels)[:count]


def filled_up(count: int) -> int:
    """Return the power of two to which a batch is padded."""
    return 1 << max(count - 1, 0).bit_length()


def compile_network(network: InferenceNetwork, device: torch.device) -> Any:
    """Compile the network with `torch.compile`, with constant weights on a CPU and CUDA graphs on a GPU."""
    if device.type == "cpu":
        return torch.compile(network, dynamic=False, options={"freezing": True})
    replayed = torch.compile(network, dynamic=False, mode="reduce-overhead")
    return lambda pixels: replayed(pixels).clone()  # the next call overwrites the output of this one
