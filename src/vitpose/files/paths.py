"""Paths given by users: `~` is expanded, and names that no file can have are rejected."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from ..errors import InputError, VitPoseError


def user_path(name: Any, error: type[VitPoseError] = InputError) -> Path:
    """Returns a path given by a user as a `Path`, with `~` and `~user` expanded.

    The file need not exist. Later calls such as `exists` and `open` raise nothing but `OSError`, and `exists` not for
    the length of the name.

    Args:
        name: A string or `pathlib.Path`.
        error: Type of the exception to raise.

    Raises:
        VitPoseError: `error`: the name is empty or not a path, `~` is of an unknown user, or no file can have the name
            (too long, or with a null character).
    """
    if isinstance(name, str) and not name:  # pathlib would take it for the current directory
        raise error("the path is an empty string; give a file or a directory ('.' is the current one)")
    try:
        path = Path(name).expanduser()
        path.stat()
    except OSError as cause:
        if cause.errno == errno.ENAMETOOLONG:
            raise error(_unusable(name, cause.strerror)) from cause
    except (TypeError, ValueError, RuntimeError) as cause:  # not a path; a null character; an unknown user
        raise error(_unusable(name, cause)) from cause
    return path


def existing_path(name: str | Path) -> Path | None:
    """Returns the path of an existing file or directory, with `~` expanded, or None if there is none."""
    try:
        path = user_path(name)
        return path if path.exists() else None
    except (InputError, OSError):  # not the name of any file, or in a directory that cannot be searched
        return None


def _unusable(name: Any, reason: object) -> str:
    shown = repr(name)
    shown = shown if len(shown) <= 200 else f"{shown[:120]}...{shown[-60:]}"
    return f"{shown} cannot be a path: {reason}; pass a string or a pathlib.Path that a file can have"
