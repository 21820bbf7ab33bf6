"""Files that are written whole or not at all. Knows no form but JSON, and no model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import OutputError


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
            dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as file:
            partial = Path(file.name)
        yield partial
        partial.chmod(0o644)  # temporary files are for their owner's eyes, models are for everybody's
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}; choose another folder or make room") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


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
