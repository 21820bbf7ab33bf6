"""Directories, globs and URLs -> a list of images."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from PIL import Image

from ..errors import ImageError
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
            for file in _find_files(path):
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


def _find_files(path: Path) -> list[Path]:
    if path.is_dir():
        return _images_under(path)
    if path.exists():
        return [path]
    if any(sign in str(path) for sign in "*?["):
        return _images_matching(path)
    raise missing_file(path)


def _image_suffixes() -> set[str]:
    return {suffix for suffix, key in Image.registered_extensions().items() if key in FORMATS}


def _images_under(folder: Path) -> list[Path]:
    suffixes, found = _image_suffixes(), []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in visible if path.suffix.lower() in suffixes]
    if not found:
        raise ImageError(
            f"the directory {folder} and its subdirectories contain no images; images are recognised by their "
            f"suffix: {' '.join(sorted(suffixes))}"
        )
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _images_matching(pattern: Path) -> list[Path]:
    # Relative to the deepest existing directory, so that brackets in its name are not wildcards.
    base = next((folder for folder in pattern.parents if folder.is_dir()), Path())
    names = glob.glob(str(pattern.relative_to(base)), root_dir=base, recursive=True)  # noqa: PTH207 (skips hidden)
    matches = [base / name for name in names if (base / name).is_file()]
    suffix, suffixes = pattern.suffix, _image_suffixes()
    any_suffix = suffix and not any(sign in suffix for sign in "*?[")
    found = [path for path in matches if any_suffix or path.suffix.lower() in suffixes]
    if not found:
        others = f"; {len(matches)} other files do" if matches else ""
        raise ImageError(
            f"no image matches {pattern}{others}; check the pattern, in which ** matches any depth"
        )
    return sorted(found)
