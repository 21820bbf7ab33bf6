"""The engine that runs the network with PyTorch, on a CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..model.pose import VitPoseForPoseEstimation


def choose_dtype(dtype: str, device: torch.device) -> str:
    """Returns the name of the floating-point type; "auto" is bfloat16 on a CUDA GPU that has it, else float32."""
    if dtype != "auto":
        return dtype
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):  # older GPUs emulate it, slowly
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


class TorchEngine:
    """Runs a dense network with PyTorch.

    Args:
        model: The network, on the device and in the type it shall run in.
        scale: What each channel of a crop is multiplied by.
        offset: What is added then.
    """

    def __init__(
        self,
        model: VitPoseForPoseEstimation,
        scale: Float[np.ndarray, " 3"],
        offset: Float[np.ndarray, " 3"],
    ) -> None:
        self.model = model.eval()
        self.scale = torch.from_numpy(scale).to(model.device)
        self.offset = torch.from_numpy(offset).to(model.device)
        self.description = f"torch, {model.device}, {str(model.dtype).removeprefix('torch.')}"

    @torch.inference_mode()
    def heatmaps(self, crops: UInt8[np.ndarray, "n hc wc 3"]) -> Float[np.ndarray, "n k hm wm"]:
        """Returns the maps of RGB crops; they go up as bytes and are normalised there."""
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self.model.device)
        pixels = (pixels * self.scale + self.offset).to(self.model.dtype).permute(0, 3, 1, 2)
        return self.model(pixels).heatmaps.float().cpu().numpy()
