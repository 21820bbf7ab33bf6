"""Devices of torch by name; torch is imported on the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")


def choose_device(name: Any) -> torch.device:
    """Returns the device of a name; "auto" is the first available accelerator, else the CPU.

    Args:
        name: "auto", or any device of torch: "cpu", "cuda:1", 0, a `torch.device`.

    Raises:
        UnknownNameError: The name is not that of a device.
        InputError: The device is not available on this machine.
    """
    import torch

    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        return torch.empty(0, device=f"cuda:{name}" if str(name).isdigit() else name).device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        if str(name).split(":")[0] in ("cuda", "mps") or str(name).isdigit():
            reason = str(error).splitlines()[0]
            raise InputError(
                f"device {str(name)!r} is not available on this machine: {reason}; choose 'cpu' or 'auto'"
            ) from error
        raise UnknownNameError("device", str(name), DEVICES) from error
