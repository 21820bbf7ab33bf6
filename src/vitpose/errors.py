"""The exceptions that vitpose raises on purpose.

Every one of them can be caught as `VitPoseError`, and the message says what was wrong, with the
value, and what to do about it.

    VitPoseError
    ├── InputError (also ValueError)        what the caller handed in cannot be used
    │   ├── ImageError                      not a readable image
    │   ├── VideoError                      not a readable video, camera or stream
    │   ├── BoxError                        boxes that are no boxes
    │   ├── SkeletonError                   a skeleton that does not hold together
    │   └── UnknownNameError                a name nobody knows; the nearest are offered
    ├── CheckpointError (also ValueError)   weights or configurations that do not fit
    ├── WorkerError (also RuntimeError)     a process or cluster that works for us and is gone
    ├── OutputError (also OSError)          a file or folder that cannot be written
    └── MissingDependencyError (also ImportError)   an optional package is not installed
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
    """The root of everything that vitpose raises on purpose."""


class InputError(VitPoseError, ValueError):
    """An argument that cannot be used."""


class ImageError(InputError):
    """An image that cannot be read, or is larger than allowed."""


class VideoError(InputError):
    """A video, camera or stream that cannot be read, or has no images."""


class BoxError(InputError):
    """Boxes that are not finite, have no area, or lie outside their image."""


class SkeletonError(InputError):
    """A skeleton, or a skeleton file, that does not hold together."""


class UnknownNameError(InputError):
    """A name (of a model, a skeleton, a detector, a key) that is not known.

    Args:
        kind: What the name was meant to name, in the singular ("model").
        name: The name as given.
        known: All names that would have been understood.
        hint: A further sentence on what else could be passed.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "") -> None:
        # The arguments as they came, so that the error survives pickling on its way out of a worker.
        super().__init__(kind, name, sorted(known), hint)

    def __str__(self) -> str:
        kind, name, known, hint = self.args
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        nearest = f"did you mean {' or '.join(near)}?" if near else ""
        listing = f"known: {', '.join(known)}."
        return " ".join(filter(None, [f"unknown {kind} {name!r};", nearest, listing, hint]))


class CheckpointError(VitPoseError, ValueError):
    """A checkpoint or configuration that is missing, damaged, or does not fit the model."""


class WorkerError(VitPoseError, RuntimeError):
    """A worker process died, or a cluster cannot be reached."""


class OutputError(VitPoseError, OSError):
    """A file or folder that cannot be written."""


class MissingDependencyError(VitPoseError, ImportError):
    """An optional package is needed and not installed."""


def check_number(name: str, value: Any, low: float | int = -math.inf, high: float | int = math.inf) -> None:
    """Checks that an argument is a finite number of a range.

    Args:
        name: Name of the argument.
        value: Its value.
        low: The smallest that is accepted.
        high: The largest that is accepted.

    Raises:
        InputError: It is no number, not finite, or out of the range.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and -math.inf < value < math.inf and low <= value <= high:
        return
    bounds = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a finite number from {low:g}"
    raise InputError(f"{name} {value!r:.100} must be {bounds if math.isfinite(low) else 'a finite number'}")


def check_count(name: str, value: Any, low: int = 1, high: int = 1_000_000) -> None:
    """Checks that an argument is a whole number of a range; arguments and errors as of `check_number`.

    Raises:
        InputError: It is no whole number, or out of the range.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or int(value) not in range(low, high + 1):
        raise InputError(f"{name} {value!r:.100} must be a whole number from {low} to {high}")


def require(module: str, extra: str | None, purpose: str) -> ModuleType:
    """Imports a package that may not be there, or says how to install it.

    Args:
        module: Name of the module to import.
        extra: The extra of vitpose that brings it; None is vitpose itself, installed without all it depends on.
        purpose: What it is needed for, as it should read after "is needed".

    Raises:
        MissingDependencyError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        what = "vitpose" if extra is None else f"'vitpose[{extra}]'"
        raise MissingDependencyError(
            f"the package {module!r} is needed {purpose}; install it with: pip install {what}"
        ) from error
