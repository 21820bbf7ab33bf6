"""The engine that runs the network with PyTorch, on a CPU or a GPU: crops in, heatmaps out.

Owns the choice of the floating-point type and what is compiled. What the device also crops and decodes is
`engine.device`'s business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..model.fold import InferenceNetwork
from ..model.pose import VitPoseForPoseEstimation
from ..model.quantisation import is_quantised
from .side_by_side import SideBySide, one_thread_if_forked

_BF16_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of the units that multiply bfloat16: AMD's and Intel's, Intel's tiles, ARM's."""


def choose_dtype(dtype: str, device: torch.device) -> str:
    """Returns the name of the floating-point type; "auto" is bfloat16 where the hardware has it, else float32.

    That is a CUDA GPU that does not merely emulate it, and a CPU as `has_bf16_units` says. Nothing is timed, so that
    a machine always computes in the same type and finds the same keypoints. Measured with one thread of an AMD EPYC
    with AVX512-BF16: ViTPose-B 1.7 x as fast in bfloat16, vitpose-tiny 1.2 x.

    Args:
        dtype: The name of a type, or "auto".
        device: Where the network runs.
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
    """Tells whether this CPU multiplies bfloat16 itself and torch makes use of it, through oneDNN.

    Processors: Intel from Cooper Lake and Sapphire Rapids on, AMD from Zen 4 on (AVX512-BF16, AMX-BF16), and ARM with
    the extension BF16 (Graviton 3, Grace). Torch for macOS has no oneDNN. False where nothing tells.
    """
    return torch.backends.mkldnn.is_available() and not _BF16_UNITS.isdisjoint(_cpu_capabilities())


def _cpu_capabilities() -> set[str]:
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.10
        return {name for name, present in torch.cpu.get_capabilities().items() if present}
    flags = Path("/proc/cpuinfo")  # Linux, whose names of these units are torch's
    return set(flags.read_text().split()) if flags.is_file() else set()


class TorchEngine:
    """Runs a dense network with PyTorch.

    Args:
        model: The network, on the device and in the type it shall run in.
        scale: What each channel of a crop is multiplied by.
        offset: What is added then.
        compiled: Compile the network with `torch.compile`: the first batch of each size takes a minute, all later
            ones are faster. Batches are filled up to powers of two, so that there are few sizes.
    """

    def __init__(
        self,
        model: VitPoseForPoseEstimation,
        scale: Float[np.ndarray, " 3"],
        offset: Float[np.ndarray, " 3"],
        compiled: bool = False,
    ) -> None:
        self.device, self.dtype = model.device, model.dtype
        self.scale = torch.from_numpy(scale).to(self.device)[:, None, None]
        self.offset = torch.from_numpy(offset).to(self.device)[:, None, None]
        self.fixed_sizes = compiled
        self.network: Any = InferenceNetwork(model, in_place=False if compiled else None)
        if compiled:
            self.network = compile_network(self.network, self.device)
        elif self.device.type == "cpu":
            self.network = SideBySide(self.network)
        words = ["torch", str(self.device), str(self.dtype).removeprefix("torch.")]
        words += ["quantised weights"] * is_quantised(model) + ["compiled"] * compiled
        self.description = ", ".join(words)

    @one_thread_if_forked()
    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of RGB crops; they go up as bytes and are normalised there."""
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2)
        return self.run(self.normalise(pixels.contiguous().float())).float().cpu().numpy()

    def normalise(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n 3 hc wc"]:
        """Turns pixels, 0..255, into the network's input; what is handed in may be overwritten."""
        return pixels.mul_(self.scale).add_(self.offset).to(self.dtype)

    def run(self, pixels: Float[Tensor, "n 3 hc wc"]) -> Float[Tensor, "n k hm wm"]:
        """Returns the maps of normalised crops on the device."""
        count = len(pixels)
        if self.fixed_sizes:
            pixels = F.pad(pixels, (0, 0) * 3 + (0, filled_up(count) - count))
        return self.network(pixels)[:count]


def filled_up(count: int) -> int:
    """Returns the power of two that a batch is filled up to."""
    return 1 << max(count - 1, 0).bit_length()


def compile_network(network: InferenceNetwork, device: torch.device) -> Any:
    """Hands the network to `torch.compile`, with the weights as constants on a CPU and CUDA graphs on a GPU."""
    if device.type == "cpu":
        return torch.compile(network, dynamic=False, options={"freezing": True})
    replayed = torch.compile(network, dynamic=False, mode="reduce-overhead")
    return lambda pixels: replayed(pixels).clone()  # the next call writes over what this one returned
