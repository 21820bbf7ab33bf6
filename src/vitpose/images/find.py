"""Directories, globs and URLs -> a list of images."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from PIL import Image

from ..errors import ImageError, counted
from ..files.paths import user_path
from .download import is_url
from .pillow import FORMATS

_MAX_NAMES_COMPARED = 5000
"""File names compared with that of a missing file; limits the time in large directories."""


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | Path]:
    """Returns the images in files, directories, globs and URLs, as sources of `read_image`.

    Args:
        sources: One or several of:

            - a file with any suffix, even if its name looks like a glob (`a[1].jpg`);
            - a directory: the images in it and its subdirectories, sorted, without hidden files and
              directories (a leading dot) and links to directories. Images are recognised by the suffixes of
              `FORMATS`;
            - a glob (`*`, `?`, `[…]`, and `**` for any depth): the matching images, sorted, or all matching
              files if the pattern has a suffix without wildcards (`*.dat`);
            - an `http(s)://` URL, which is returned as it is.

    Returns:
        URLs as strings and files as paths, in the order of `sources`, without duplicates.

    Raises:
        ImageError: A file does not exist, a directory contains no images or cannot be listed, a glob does not
            match, or a source is not a path.
    """
    several = isinstance(sources, Iterable) and not isinstance(sources, (str, os.PathLike))
    found: dict[str, str | Path] = {}
    for source in cast("Iterable[Any]", sources if several else [sources]):
        if isinstance(source, str) and is_url(source):
            found.setdefault(source, source)
            continue
        path = user_path(source, ImageError)
        try:
            for file in _find_images(path):
                found.setdefault(os.path.normpath(file.absolute()), file)
        except ImageError:
            raise
        except (OSError, ValueError) as error:
            raise ImageError(f"{path} cannot be accessed: {error}; check its name and permissions") from error
    return list(found.values())


def missing_file(path: Path) -> ImageError:
    """Returns the error for a file that does not exist, with the nearest names in its directory."""
    try:
        if not path.parent.is_dir():
            return ImageError(f"{path} does not exist, nor does the directory {path.parent}; check the path")
        names = [entry.name for entry in itertools.islice(path.parent.iterdir(), _MAX_NAMES_COMPARED)]
    except OSError:  # a directory that cannot be listed
        names = []
    folded = {name.casefold(): name for name in names if name != path.name}
    near = difflib.get_close_matches(path.name.casefold(), folded, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(folded[name] for name in near)}?" if near else "check the path"
    return ImageError(f"{path} does not exist; {advice}")


def find_files(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Returns the files with one of the suffixes in a directory, or matching a glob, sorted.

    Args:
        path: A directory, which is searched with its subdirectories, without hidden files and directories (a leading
            dot) and links to directories; or a glob.
        suffixes: Suffixes in lower case, with their dots.

    Raises:
        OSError: A directory cannot be listed.
    """
    files = _files_under(path) if path.is_dir() else _files_matching(path)
    return sorted(file for file in files if file.suffix.lower() in suffixes)


def _find_images(path: Path) -> list[Path]:
    if path.exists() and not path.is_dir():
        return [path]
    suffixes, is_glob = image_suffixes(), any(sign in str(path) for sign in "*?[")
    if not path.exists() and not is_glob:
        raise missing_file(path)
    if found := find_files(path, suffixes):
        return found
    if path.is_dir():
        raise ImageError(
            f"the directory {path} and its subdirectories contain no images; images are recognised by their "
            f"suffix: {' '.join(sorted(suffixes))}"
        )
    matches = _files_matching(path)
    if matches and path.suffix and not any(sign in path.suffix for sign in "*?["):
        return matches
    others = f"; {counted(len(matches), 'other file does', 'other files do')}" if matches else ""
    raise ImageError(f"no image matches {path}{others}; check the pattern, in which ** matches any depth")


def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of images, in lower case, with their dots."""
    return frozenset(suffix for suffix, key in Image.registered_extensions().items() if key in FORMATS)


def _files_under(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory, onerror=_raise):
        directories[:] = [name for name in directories if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


def _files_matching(pattern: Path) -> list[Path]:
    # Relative to the deepest existing directory, so that brackets in its name are not wildcards.
    base = next((directory for directory in pattern.parents if directory.is_dir()), Path())
    names = glob.glob(str(pattern.relative_to(base)), root_dir=base, recursive=True)  # noqa: PTH207 (skips hidden)
    return sorted(base / name for name in names if (base / name).is_file())
