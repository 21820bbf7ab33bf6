"""Folders and images on this machine or wherever fsspec reaches: s3://, gs://, memory://, ….

Knows no poses. Files are written whole or not at all: by renaming here, and in one request elsewhere, which is how
object stores do it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ImageError, InputError, MissingDependencyError, OutputError
from ..files.writing import remove_file, replace_file
from ..images import find_images

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".png",
        ".webp",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".ppm",
        ".pgm",
        ".mpo",
    ]
)


def is_remote(name: str | Path) -> bool:
    """Tells whether a name is an address of a file system other than this machine's (http is none)."""
    scheme = _URL.match(name) if isinstance(name, str) else None
    return scheme is not None and scheme[1].lower() not in ("http", "https")


class Place:
    """A folder, here or elsewhere.

    Args:
        name: A path or an address.

    Raises:
        InputError: No such kind of address is known.
        MissingDependencyError: The package for it is not installed.
    """

    def __init__(self, name: str) -> None:
        name = name.removeprefix("file://")
        self.name = name
        self._files: Any = None
        self._root = ""
        if is_remote(name):
            self._files, self._root = _file_system(name)
        try:
            self._path = Path(name).expanduser()
        except RuntimeError as error:  # ~nobody
            raise InputError(f"{name} cannot be a directory: {error}; give its whole path") from error

    def names(self) -> list[str]:
        """Returns the names of the files in the folder; none where there is no folder."""
        try:
            if self._files is None:
                return [path.name for path in self._path.iterdir()] if self._path.exists() else []
            found = self._files.ls(self._root, detail=False) if self._files.exists(self._root) else []
        except (OSError, ValueError) as error:  # the latter for names that no file can have
            raise InputError(f"{self.name} cannot be listed: {error}; give a folder") from error
        return [PurePosixPath(one).name for one in found]

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return (
                (self._path / name).read_bytes()
                if self._files is None
                else self._files.cat_file(self._at(name))
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name}/{name} cannot be read: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        if self._files is None:
            with replace_file(self._path / name) as partial:
                partial.write_bytes(content)
            return
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._at(name), content)
        except Exception as error:  # every store has errors of its own
            raise OutputError(f"{self.name}/{name} cannot be written: {error}; check the address") from error

    def remove(self, name: str) -> None:
        """Removes a file if it is there.

        Raises:
            OutputError: It cannot be removed.
        """
        if self._files is None:
            remove_file(self._path / name)
        elif self._files.exists(self._at(name)):
            self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def find_sources(sources: Sequence[str]) -> list[str]:
    """Turns files, folders, globs and addresses into the names of images, each once.

    Raises:
        ImageError: One of them gives none.
        InputError: No such kind of address is known.
        MissingDependencyError: The package for it is not installed.
    """
    found: dict[str, None] = {}
    for source in sources:
        source = source.removeprefix("file://")
        names = _find_remote(source) if is_remote(source) else [str(one) for one in find_images(source)]
        found.update(dict.fromkeys(names))
    return list(found)


def _find_remote(address: str) -> list[str]:
    files, root = _file_system(address)
    try:
        look = files.glob if any(sign in root for sign in "*?[") else files.find  # of a file: the file itself
        paths = look(root)
    except OSError as error:
        raise ImageError(f"{address} cannot be listed: {error}; check the address") from error
    images = [path for path in paths if PurePosixPath(path).suffix.lower() in _IMAGES or path == root]
    if not images:
        raise ImageError(f"{address} gives no images; check the address")
    return [files.unstrip_protocol(path) for path in sorted(images)]


def read_remote(address: str) -> bytes:
    """Returns the content of a file elsewhere.

    Raises:
        ImageError: It cannot be read.
    """
    files, path = _file_system(address)
    try:
        return files.cat_file(path)
    except Exception as error:  # every store has errors of its own
        raise ImageError(
            f"{address} cannot be read: {error or type(error).__name__}; check the address"
        ) from error


def _file_system(address: str) -> tuple[Any, str]:
    import fsspec  # comes with torch and huggingface_hub

    try:
        return fsspec.url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{address} cannot be reached: {error}") from error
    except ValueError as error:
        raise InputError(f"{address} is no address that fsspec knows: {error}") from error
