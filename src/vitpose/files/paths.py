"""Paths given by users: `~` is expanded, and names that no file can have are rejected."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError, VitPoseError


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


def read_toml_file(
    name: Any, kind: str, type_name: str, shipped: Sequence[str], error: type[VitPoseError]
) -> tuple[Path, bytes]:
    """Reads a `.toml` file given by a user where the name of a shipped one is accepted too.

    Args:
        name: Path of the file; `~` is expanded.
        kind: What the file describes, for messages: "skeleton".
        type_name: The class of it that is accepted too, for messages.
        shipped: Names of the shipped ones.
        error: Type of the exception to raise.

    Returns:
        The path and the content of the file.

    Raises:
        UnknownNameError: The name is not that of an existing file.
        VitPoseError: `error`: it is neither a string nor a path, or the `.toml` file does not exist or cannot be read.
    """
    names = ", ".join(shipped)
    if not isinstance(name, str | Path):
        raise error(
            f"a {kind} must be a name, a .toml file or a {type_name}, not {name!r:.80}; known names: {names}"
        )
    path = existing_path(name)
    if path is None or not path.is_file():
        if str(name).endswith(".toml"):
            raise error(
                f"there is no file {str(name)[-300:]}; give the path of a {kind}'s .toml file, or one of the "
                f"names: {names}"
            )
        hint = f"The path of a {kind}'s .toml file works too."
        raise UnknownNameError(kind, str(name)[:300], shipped, hint)
    try:
        return path, path.read_bytes()
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}); give a readable .toml file") from cause


def _unusable(name: Any, reason: object) -> str:
    shown = repr(name)
    shown = shown if len(shown) <= 200 else f"{shown[:120]}...{shown[-60:]}"
    return f"{shown} cannot be a path: {reason}; pass a string or a pathlib.Path that a file can have"
