"""Atomic writing and replacement of files and directories."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError

PARTIAL = ".part"
"""Suffix of unfinished files and directories; files have a leading dot too. A killed process may leave one."""

ASIDE = ".old"
"""Suffix of a complete directory while it is being replaced."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` if the block succeeds.

    A partly written file is never visible under `path`, and the previous file remains if the block fails. A new file
    has the permissions of the umask; a replaced one keeps its permissions.

    Args:
        path: The file to create or replace; its directory is created if necessary.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, mode = _make_partial(path)
    except (OSError, ValueError) as error:  # ValueError: the name has a null character
        raise _not_written(path, error) from error
    try:
        yield partial
        _move(partial, path, mode)
    except OutputError:  # of another file, written in the same block
        raise
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> OutputError:
    return OutputError(f"{path} cannot be written: {error}; choose another directory or free disk space")


def _make_partial(path: Path) -> tuple[Path, int]:
    """Creates an empty file beside a path, and returns its path and its permissions by the umask."""
    # Not `tempfile`, whose files only their owner can read: here the operating system applies the umask, which
    # Python cannot read without changing it for all threads.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return partial, stat.S_IMODE(partial.stat().st_mode)


def _move(file: Path, path: Path, mode: int) -> None:
    """Moves a file to a path, with the permissions of the file that it replaces; default: `mode`."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    file.chmod(mode)  # the writer may have created the file again with other permissions
    file.replace(path)


@contextmanager
def stage_files(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a temporary directory, for output of several files.

    If the block succeeds, all files in that directory are moved beside `path`, with `path` last, so that its presence
    implies that of the others. If it fails, no file is left and the previous files remain.

    Args:
        path: The main file to create or replace; its directory is created if necessary.

    Raises:
        OutputError: The files cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            staged = Path(folder) / path.name
            partial, mode = _make_partial(staged)
            partial.unlink()
            yield staged
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == staged):
                _move(file, path.parent / file.name, mode)
    except OSError as error:
        raise _not_written(path, error) from error


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Writes a JSON file with sorted keys.

    Raises:
        OutputError: The file cannot be written.
    """
    with replace_file(path) as partial:
        partial.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def remove_file(path: Path) -> None:
    """Removes a file if it exists.

    Raises:
        OutputError: The file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _not_removed(path, error) from error


def _not_removed(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path} cannot be removed: {error}; correct its permissions or choose another directory"
    )


def replace_folder(path: Path, partial: Path) -> None:
    """Renames a finished directory, replacing the one of that name.

    If the process is killed, a complete directory remains under that name or with the suffix `ASIDE`, from which
    `recover_folders` restores it.

    Args:
        path: The new name.
        partial: The finished directory, in the same parent directory.

    Raises:
        OutputError: The directory cannot be renamed or removed.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        if path.exists():
            remove_folder(aside)
            path.rename(aside)
        partial.rename(path)
        remove_folder(aside)
    except OSError as error:
        with suppress(OSError):  # there is no previous directory, or the new one has replaced it already
            aside.rename(path)
        raise _not_written(path, error) from error


def remove_folder(path: Path) -> None:
    """Removes a directory if it exists, renaming it first so that a partly removed one never has its name.

    Raises:
        OutputError: The directory cannot be removed.
    """
    renamed = path.with_name(path.name + PARTIAL)
    try:
        if path.exists():
            shutil.rmtree(renamed, ignore_errors=True)
            path.rename(renamed)
            shutil.rmtree(renamed)
    except OSError as error:
        raise _not_removed(path, error) from error


def recover_folders(folder: Path) -> None:
    """Restores the directories in a directory after a process was killed.

    A directory with the suffix `ASIDE` gets its name back unless its replacement exists; partly written and partly
    removed directories are removed. Must not be called while another process writes there.
    """
    for aside in folder.glob(f"*{ASIDE}"):
        path = aside.with_name(aside.name.removesuffix(ASIDE))
        if path.exists():
            remove_folder(aside)
        else:
            aside.rename(path)
    for partial in folder.glob(f"*{PARTIAL}"):
        shutil.rmtree(partial, ignore_errors=True)
