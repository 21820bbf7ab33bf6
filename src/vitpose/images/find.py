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
from .download import is_url
from .pillow import FORMATS

_MAX_NAMES_COMPARED = 5000  # keeps the message about a missing file quick in a folder of any size


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | Path]:
    """Turns files, folders, globs and addresses into a list of images, each of which `read_image` takes.

    Args:
        sources: One or several of:

            - a file, taken whatever its suffix and even if its name looks like a glob (`a[1].jpg`);
            - a folder, which gives the images in it and in the folders under it, sorted; hidden
              files and folders (a leading dot) and links to folders are passed over. Images are
              told by the suffixes of `FORMATS`;
            - a glob (`*`, `?`, `[…]`, and `**` for any depth), which gives the files it matches,
              sorted: the images among them, or all if it spells out a suffix (`*.dat`);
            - an `http(s)://` address, which is passed on.

    Returns:
        Addresses as text and files as paths, in the order of `sources`, each only once.

    Raises:
        ImageError: A file does not exist, a folder holds no images or cannot be listed, or a glob
            matches none.
    """
    several = isinstance(sources, Iterable) and not isinstance(sources, (str, os.PathLike))
    found: dict[str, str | Path] = {}
    for source in cast("Iterable[Any]", sources if several else [sources]):
        if isinstance(source, str) and is_url(source):
            found.setdefault(source, source)
            continue
        path = path_from(source)
        try:
            for file in _find_files(path):
                found.setdefault(os.path.normpath(file.absolute()), file)
        except ImageError:
            raise
        except (OSError, ValueError) as error:
            raise ImageError(
                f"{path} cannot be looked up: {error}; check its name and permissions"
            ) from error
    return list(found.values())


def path_from(source: Any) -> Path:
    """Returns a path, with `~` expanded.

    Raises:
        ImageError: It is empty or no path.
    """
    if source == "":  # which pathlib would take for the current folder
        raise ImageError("the path is an empty text; name a file or a folder ('.' is the current one)")
    try:
        return Path(source).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ImageError(
            f"{source!r:.200} cannot be a path: {error}; pass a text or a pathlib.Path"
        ) from error


def missing_file(path: Path) -> ImageError:
    """Returns the error that a file does not exist, with the nearest names in its directory."""
    try:
        if not path.parent.is_dir():
            return ImageError(f"{path} does not exist, nor does the folder {path.parent}; check the path")
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
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(place, name) for name in names if not name.startswith("."))
        found += [path for path in visible if path.suffix.lower() in suffixes]
    if not found:
        raise ImageError(
            f"the folder {folder} holds no images, nor do the folders in it; images are told by their "
            f"suffix: {' '.join(sorted(suffixes))}"
        )
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _images_matching(pattern: Path) -> list[Path]:
    # From the deepest folder that exists, so that brackets in the names of folders mean themselves.
    base = next((folder for folder in pattern.parents if folder.is_dir()), Path())
    names = glob.glob(str(pattern.relative_to(base)), root_dir=base, recursive=True)  # noqa: PTH207 (skips hidden)
    matches = [base / name for name in names if (base / name).is_file()]
    suffix, suffixes = pattern.suffix, _image_suffixes()
    spelt_out = suffix and not any(sign in suffix for sign in "*?[")
    found = [path for path in matches if spelt_out or path.suffix.lower() in suffixes]
    if not found:
        others = f"; {len(matches)} other files do" if matches else ""
        raise ImageError(
            f"no image matches {pattern}{others}; check the pattern, in which ** stands for any depth"
        )
    return sorted(found)
