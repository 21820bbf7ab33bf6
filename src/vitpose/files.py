"""Files and folders that are written whole or not at all. Knows no form but JSON, and no model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import OutputError

PARTIAL = ".part"
"""What the names of unfinished files end with; they begin with a dot. A kill may leave one behind."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to, which takes the place of `path` once the block has ended well.

    So a half-written file is never taken for a model's, and what stood there before outlives a failure.

    Args:
        path: The file to make or replace; its folder is made if need be.

    Raises:
        OutputError: It cannot be written.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False
        ) as file:
            partial = Path(file.name)
        yield partial
        partial.chmod(0o644)  # temporary files are for their owner's eyes, models are for everybody's
        partial.replace(path)
    except OutputError:  # of another file, written in the same block
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; choose another folder or make room") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


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
            yield staged
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == staged):
                file.chmod(0o644)  # as in replace_file
                file.replace(path.parent / file.name)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; choose another folder or make room") from error


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
    """Gives a finished folder its name; what has that name goes.

    Under the name there is a whole folder or none, whenever the process is killed.

    Args:
        path: The name.
        partial: The finished folder, beside it.

    Raises:
        OutputError: It cannot be done.
    """
    try:
        remove_folder(path)
        partial.rename(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; choose another folder or make room") from error


def remove_folder(path: Path) -> None:
    """Removes a folder, if it is there; first its name, so that half of it is never taken for the whole."""
    doomed = path.with_name(f"{path.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.exists():
        path.rename(doomed)
        shutil.rmtree(doomed)
