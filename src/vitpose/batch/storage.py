"""Directories and images on this machine or on any file system of fsspec: s3://, gs://, memory://, ….

Files are written whole or not at all: by renaming on this machine, and in a transaction of fsspec elsewhere. Does not
know poses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ImageError, InputError, MissingDependencyError, OutputError, require
from ..files.paths import user_path
from ..files.writing import replace_file
from ..images import find_images
from ..images.find import image_suffixes

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def is_remote(name: str | Path) -> bool:
    """Returns whether a name is the URL of another file system; http and https do not count."""
    scheme = _URL.match(name) if isinstance(name, str) else None
    return scheme is not None and scheme[1].lower() not in ("http", "https")


class Directory:
    """A directory on this machine or on another file system.

    Args:
        name: A path or a URL.

    Raises:
        InputError: The scheme of the URL is unknown, or no directory can have the name.
        MissingDependencyError: The package for the URL's file system is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("file://")
        self._local = None if is_remote(self.name) else user_path(self.name)
        self._files, self._root = _file_system(self.name) if self._local is None else _local(self._local)

    def names(self) -> list[str]:
        """Returns the names of the files in the directory; none if it does not exist.

        Raises:
            InputError: The directory cannot be listed.
        """
        try:
            if not self._files.exists(self._root):
                return []
            if self._files.isfile(self._root):
                raise NotADirectoryError("it is a file")
            return [PurePosixPath(path).name for path in self._files.ls(self._root, detail=False)]
        except OSError as error:
            raise InputError(f"{self.name} cannot be listed: {error}; give a directory") from error

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            InputError: The file cannot be read.
        """
        try:
            content: bytes = self._files.cat_file(self._at(name))
        except OSError as error:
            raise InputError(f"{self.name}/{name} cannot be read: {error}") from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._local is not None:  # a transaction of fsspec is not atomic here: it moves a file from /tmp
            with replace_file(self._local / name) as partial:
                partial.write_bytes(content)
            return
        try:
            self._files.makedirs(self._root, exist_ok=True)
            with self._files.transaction:
                self._files.pipe_file(self._at(name), content)
        except Exception as error:  # each file system raises other exceptions
            raise OutputError(f"{self.name}/{name} cannot be written: {error}; check the URL") from error

    def remove(self, name: str) -> None:
        """Removes a file if it exists.

        Raises:
            OutputError: The file cannot be removed.
        """
        try:
            if self._files.exists(self._at(name)):
                self._files.rm_file(self._at(name))
        except OSError as error:
            raise OutputError(
                f"{self.name}/{name} cannot be removed: {error}; check its permissions"
            ) from error

    def count_rows(self) -> int:
        """Returns the number of rows of the Parquet files in the directory; 0 if there are none.

        Raises:
            InputError: A file is not Parquet or cannot be read.
            MissingDependencyError: pyarrow is not installed.
        """
        dataset = require("pyarrow.dataset", "tables", "for results in Parquet")
        files = [self._at(name) for name in self.names() if re.fullmatch(r"[^_.].*\.parquet", name)]
        try:
            rows: int = dataset.dataset(files, filesystem=self._files).count_rows() if files else 0
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name} has a damaged file: {error}; delete it and run again") from error
        return rows

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def find_sources(sources: Sequence[str]) -> list[str]:
    """Returns the paths and URLs of the images in files, directories, globs and URLs, each once.

    Raises:
        ImageError: A source has no images or cannot be listed.
        InputError: The scheme of a URL is unknown.
        MissingDependencyError: The package for a URL's file system is not installed.
    """
    found: dict[str, None] = {}
    for source in sources:
        source = source.removeprefix("file://")
        names = _find_remote(source) if is_remote(source) else [str(path) for path in find_images(source)]
        found.update(dict.fromkeys(names))
    return list(found)


def _find_remote(url: str) -> list[str]:
    files, root = _file_system(url)
    try:
        find = files.glob if any(sign in root for sign in "*?[") else files.find  # a file is found as itself
        paths = find(root)
    except OSError as error:
        raise ImageError(f"{url} cannot be listed: {error}; check the URL") from error
    suffixes = image_suffixes()
    images = [path for path in paths if PurePosixPath(path).suffix.lower() in suffixes or path == root]
    if not images:
        raise ImageError(f"{url} has no images; check the URL")
    return [files.unstrip_protocol(path) for path in sorted(images)]


def read_remote(url: str) -> bytes:
    """Returns the content of a file on another file system.

    Raises:
        ImageError: The file cannot be read.
        InputError: The scheme of the URL is unknown.
        MissingDependencyError: The package for its file system is not installed.
    """
    files, path = _file_system(url)
    try:
        return files.cat_file(path)
    except Exception as error:  # each file system raises other exceptions
        raise ImageError(f"{url} cannot be read: {error or type(error).__name__}; check the URL") from error


def _local(path: Path) -> tuple[Any, str]:
    import fsspec

    return fsspec.filesystem("file"), str(path.absolute())


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec  # comes with torch and huggingface_hub

    try:
        return fsspec.url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(f"{url} cannot be opened: {error}") from error
    except ValueError as error:
        raise InputError(f"{url} is not a URL that fsspec supports: {error}") from error
