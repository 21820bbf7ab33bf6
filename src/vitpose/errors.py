"""The exceptions of vitpose, checks of arguments, and numbers in messages.

All are subclasses of `VitPoseError`. A message states what was wrong, with the value, and what to do.

    VitPoseError
    ├── InputError (also ValueError)        an invalid argument
    │   ├── ImageError                      an image that cannot be read or written
    │   ├── VideoError                      a video, camera or stream that cannot be read
    │   ├── BoxError                        invalid boxes
    │   ├── SkeletonError                   an invalid skeleton
    │   └── UnknownNameError                an unknown name; the nearest are suggested
    ├── CheckpointError (also ValueError)   missing, damaged or mismatched weights or configurations
    ├── WorkerError (also RuntimeError)     a failed worker process or cluster
    ├── OutputError (also OSError)          a file or directory that cannot be written
    └── MissingDependencyError (also ImportError)   an optional package that is not installed
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from types import ModuleType
from typing import Any


class VitPoseError(Exception):
    """Base of all exceptions that vitpose raises."""


class InputError(VitPoseError, ValueError):
    """An invalid argument."""


class ImageError(InputError):
    """An image that cannot be read or written, or is larger than allowed."""


class VideoError(InputError):
    """A video, camera or stream that cannot be read or has no frames."""


class BoxError(InputError):
    """Boxes that are not finite, have no area, or lie outside their image."""


class SkeletonError(InputError):
    """An invalid skeleton or skeleton file."""


class UnknownNameError(InputError):
    """An unknown name of a model, skeleton, detector, key or other choice.

    Args:
        kind: What the name refers to, in the singular ("model").
        name: The name as given.
        known: All valid names.
        hint: A further sentence on other valid values.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "") -> None:
        # Unformatted arguments, so that the error can be pickled and returned by a worker process.
        super().__init__(kind, name, sorted(known), hint)

    def __str__(self) -> str:
        kind, name, known, hint = self.args
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        nearest = f"did you mean {' or '.join(near)}?" if near else ""
        listing = f"known: {', '.join(known)}."
        return " ".join(filter(None, [f"unknown {kind} {name!r};", nearest, listing, hint]))


class CheckpointError(VitPoseError, ValueError):
    """A checkpoint or configuration that is missing, damaged, or does not match the model."""


class WorkerError(VitPoseError, RuntimeError):
    """A worker process that failed, or a cluster that cannot be reached."""


class OutputError(VitPoseError, OSError):
    """A file or directory that cannot be written."""


class MissingDependencyError(VitPoseError, ImportError):
    """An optional package that is required and not installed."""


def check_number(name: str, value: Any, low: float | int = -math.inf, high: float | int = math.inf) -> None:
    """Checks that an argument is a finite number in a range.

    Args:
        name: Name of the argument.
        value: Its value.
        low: Smallest valid value.
        high: Largest valid value.

    Raises:
        InputError: The value is not a number, not finite, or out of range.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and -math.inf < value < math.inf and low <= value <= high:
        return
    bounds = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a finite number from {low:g}"
    raise InputError(f"{name} {value!r:.100} must be {bounds if math.isfinite(low) else 'a finite number'}")


def check_count(name: str, value: Any, low: int = 1, high: int = 1_000_000) -> None:
    """Checks that an argument is a whole number in a range; the arguments are those of `check_number`.

    Raises:
        InputError: The value is not a whole number or is out of range.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or int(value) not in range(low, high + 1):
        raise InputError(f"{name} {value!r:.100} must be a whole number from {low} to {high}")


def counted(number: int, singular: str, plural: str = "") -> str:
    """Returns a number with its noun, for messages: "1 image", "2 people".

    Args:
        number: The number.
        singular: The noun for 1.
        plural: The noun for other numbers; default: the singular with an "s".
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def require(module: str, extra: str | None, purpose: str) -> ModuleType:
    """Imports an optional package.

    Args:
        module: Name of the module to import.
        extra: The extra of vitpose that installs it; None: a dependency of vitpose itself.
        purpose: What the package is required for, as a phrase that continues "is required".

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: The package is not installed; the message has the command to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        target = "vitpose" if extra is None else f"'vitpose[{extra}]'"
        raise MissingDependencyError(
            f"the package {module!r} is required {purpose}; install it with: pip install {target}"
        ) from error
