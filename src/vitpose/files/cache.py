"""The files of models and detectors with short names: in the package, in a cache, or downloaded into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, OutputError
from .download import Report, check_sha256, download_file
from .hub import REPOSITORY_FILES, download_repository
from .paths import user_path
from .registry import Card, DetectorCard, weights_folder


def cache_folder() -> Path:
    """Returns the directory of downloaded files that are not from the hub.

    This is the directory in the environment variable VITPOSE_CACHE; default: `vitpose` in the user's cache directory.

    Raises:
        InputError: The environment variable is not a path.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vitpose"
    try:
        return user_path(os.environ.get("VITPOSE_CACHE") or default)
    except InputError as error:
        raise InputError(f"the environment variable VITPOSE_CACHE is wrong: {error}") from error


def find_local_files(card: Card) -> list[Path]:
    """Returns the files of a model or detector if all of them are on this machine, else an empty list."""
    paths: list[Any]
    if card.in_repository:
        from huggingface_hub import try_to_load_from_cache

        paths = [try_to_load_from_cache(card.source, name) for name in REPOSITORY_FILES]
    elif isinstance(card, DetectorCard):
        paths = [_detector_path(card)]
    else:
        paths = [weights_folder() / name for name in REPOSITORY_FILES]
    found = [
        Path(path) for path in paths if isinstance(path, str | Path)
    ]  # not the hub's marks of missing files
    return found if len(found) == len(paths) and all(path.is_file() for path in found) else []


def download(card: Card, report: Report | None = None) -> list[Path]:
    """Downloads the files of a model or detector, unless they are on this machine, and returns their paths.

    Args:
        card: The model or detector.
        report: Called with the number of bytes so far and the total, for files that are not from the hub; the hub's
            client has its own progress bars.

    Raises:
        CheckpointError: The download failed, or a file is not the expected one; the message says what to do.
        OutputError: The cache cannot be written.
    """
    if card.in_repository:
        folder = download_repository(card.source)
        return [folder / name for name in REPOSITORY_FILES]
    return [find_detector_file(card, report)] if isinstance(card, DetectorCard) else find_local_files(card)


def find_detector_file(card: DetectorCard, report: Report | None = None) -> Path:
    """Returns the path of a detector's only file, which is downloaded if necessary.

    Args:
        card: The detector.
        report: As in `download`.

    Raises:
        CheckpointError: As in `download`.
        OutputError: As in `download`.
    """
    path = _detector_path(card)
    if not card.in_package and path.is_file():
        check_sha256(path, card.sha256, str(path))
    elif not card.in_package:
        try:
            download_file(card.source, path, card.sha256, card.file, report)
        except CheckpointError as error:
            what = f"{card.file} of {card.source}" if card.file else card.source
            raise CheckpointError(
                f"{error}. With a network connection, run: vitpose download {card.name}. Or copy {what} to {path}"
            ) from error
        except OutputError as error:
            raise OutputError(
                f"{error}; the environment variable VITPOSE_CACHE names another directory"
            ) from error
    return path


def _detector_path(card: DetectorCard) -> Path:
    if card.in_package:
        return weights_folder() / card.file
    return cache_folder() / "detectors" / f"{card.name}{Path(card.file or card.source).suffix}"
