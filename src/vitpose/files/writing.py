"""Files and folders that are written whole or not at all. Knows no form but JSON, and no model."""

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
"""What the names of unfinished files and folders end with; those of files begin with a dot. A kill may leave one."""

ASIDE = ".old"
"""What the name of a whole folder ends with while another one takes its place."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once the block has ended well.

    So a half-written file is never taken for a model's, and what stood there before outlives a failure. A new file
    has the permissions that the umask gives, a replaced one keeps its own.

    Args:
        path: The file to make or replace; its folder is made if need be.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial, mode = _make_partial(path)
    except (OSError, ValueError) as error:  # the latter for names that no file can have
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
    return OutputError(f"{path} cannot be written: {error}; choose another folder or make room")


def _make_partial(path: Path) -> tuple[Path, int]:
    """Makes an empty file beside a path, and returns the permissions that the umask has given to it."""
    # Not `tempfile`, whose files are for their owner alone: here the operating system applies the umask, which
    # cannot be asked for without changing it for all threads.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return partial, stat.S_IMODE(partial.stat().st_mode)


def _move(file: Path, path: Path, mode: int) -> None:
    """Moves a file to its name, with the permissions of what it replaces, or else those given."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    file.chmod(mode)  # who wrote it may have made it anew, for its owner alone
    file.replace(path)


@contextmanager
def stage_files(path: Path) -> Iterator[Path]:
    """Yields a path of the same name in a folder of its own, for what is written as several files.

    Once the block has ended well, all files in that folder move beside `path`, itself the last, so that where it
    stands the others stand too; after a failure nothing is left and what stood there before still does.

    Args:
        path: The file to make or replace; its folder is made if need be.

    Raises:
        OutputError: They cannot be written.
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
        OutputError: It cannot be written.
    """
    with replace_file(path) as partial:
        partial.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def remove_file(path: Path) -> None:
    """Removes a file, if it is there.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error}; choose another folder") from error


def replace_folder(path: Path, partial: Path) -> None:
    """Gives a finished folder its name; what has that name goes, once the new one stands there.

    Whenever the process is killed, a whole folder is left under the name, or set aside where `recover_folders` finds
    it.

    Args:
        path: The name.
        partial: The finished folder, beside it.

    Raises:
        OutputError: It cannot be done.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        if path.exists():
            remove_folder(aside)
            path.rename(aside)
        partial.rename(path)
        remove_folder(aside)
    except OSError as error:
        with suppress(OSError):  # it is not there, or the new one has the name already
            aside.rename(path)
        raise _not_written(path, error) from error


def remove_folder(path: Path) -> None:
    """Removes a folder, if it is there; first its name, so that half of it is never taken for the whole.

    Raises:
        OutputError: It cannot be removed.
    """
    doomed = path.with_name(path.name + PARTIAL)
    try:
        if path.exists():
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error}; choose another folder") from error


def recover_folders(folder: Path) -> None:
    """Puts in order what a killed process left of the folders in a folder.

    One that was set aside, with none under its name yet, gets its name back; what is half written or half removed goes.
    To be called while nobody writes there.
    """
    for aside in folder.glob(f"*{ASIDE}"):
        path = aside.with_name(aside.name.removesuffix(ASIDE))
        if path.exists():
            remove_folder(aside)
        else:
            aside.rename(path)
    for partial in folder.glob(f"*{PARTIAL}"):
        shutil.rmtree(partial, ignore_errors=True)
