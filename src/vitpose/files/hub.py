"""From a short name, a directory or a hub repository to files, downloading them if necessary.

The only module that uses the hub. It does not depend on networks or weights.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnknownNameError
from .paths import existing_path
from .registry import DEFAULT_MODEL, Card, list_detectors, list_models, weights_folder
from .schemas import MAX_TEXT_BYTES, parse_json

CONFIG_FILE = "config.json"
ORIGINAL_SUFFIXES = (".pth", ".pt")
REPOSITORY_FILES = (CONFIG_FILE, "preprocessor_config.json", "model.safetensors")
"""The files of a model or detector in the format of `transformers`."""
_MAX_NAME = 300


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model, of which the name has been resolved.

    Attributes:
        name: The name as given, for messages.
        directory: The directory of the files, or the original file; None: they are in a repository of the hub.
        repository: The hub repository, "owner/name".
        subfolder: Subdirectory that contains the files ("weights/coco").
        hub: The keyword arguments of `download_from_hub`.
    """

    name: str
    directory: Path | None
    repository: str = ""
    subfolder: str = ""
    hub: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_original(self) -> bool:
        """Whether the model is a single file of the original repository, by its suffix."""
        return self.name.endswith(ORIGINAL_SUFFIXES)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`, which is read once.

        Raises:
            CheckpointError: As in `read_json`.
        """
        return self.read_json(CONFIG_FILE)

    def find(self, filename: str) -> Path:
        """Returns the path of a file, downloading it if necessary.

        Args:
            filename: Name of the file, without a directory.

        Raises:
            CheckpointError: The directory or repository has no such file, the download failed, or `filename` (which
                may come from a file) leads out of the directory.
        """
        if not re.fullmatch(r"\w[\w.-]{0,200}", filename):
            raise CheckpointError(
                f"{_brief(filename)} is not a plain file name; all files of a model must be in one directory"
            )
        path = "/".join((*Path(self.subfolder).parts, filename))
        if self.directory is not None:
            return _file_in(self.directory, path)
        return download_from_hub(self.repository, path, **self.hub)

    def read_json(self, filename: str) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            CheckpointError: As in `find`; or the file cannot be read or is not a JSON object.
        """
        path = self.find(filename)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}; correct its permissions") from error
        table = parse_json(content, path, CheckpointError)
        if not isinstance(table, dict):
            raise CheckpointError(
                f"{path} contains a {type(table).__name__}, not a JSON object; give the directory of a checkpoint"
            )
        return table


def resolve(
    name: str | Path,
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Resolves the name of a model to its files.

    Args:
        name: A short name, a directory (`~` is expanded), a hub repository ("owner/name"), or an original `.pth` or
            `.pt` file.
        subfolder: As in `ModelFiles`, as are the others.
        revision: Branch, tag or commit of the repository.
        token: Access token of the hub; True: the stored one.
        cache_dir: Directory of downloaded files; default: the hub's cache.
        local_files_only: Do not use the network.

    Raises:
        UnknownNameError: The name is not a short name, a path, or a repository in the form "owner/name".
        CheckpointError: `subfolder` leads out of the directory.
    """
    if any(not re.fullmatch(r"[\w-][\w. -]{0,200}", part) for part in Path(subfolder).parts):
        raise CheckpointError(
            f"subfolder {_brief(subfolder)} must be a directory inside the model's directory"
        )
    card = list_models().get(str(name))
    if card is not None and card.in_package:
        found: Path | None = weights_folder()
    else:
        found = existing_path(name)
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    files = ModelFiles(str(name), found, "", subfolder, hub)
    if files.is_original:
        return replace(files, directory=Path(name))
    if found is not None and (found.is_dir() or card is None):
        return files
    repository = card.source if card is not None else str(name)
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")) or len(repository) > _MAX_NAME:
        hint = "A directory, an original .pth file or a hub repository ('owner/name') works too."
        raise UnknownNameError("model", _brief(name).strip("'"), list_models(), hint)
    return replace(files, directory=None, repository=repository)


HUB_OPTIONS = tuple(inspect.signature(resolve).parameters)[1:]
"""Names of the keyword arguments of `resolve`."""


def _file_in(directory: Path, filename: str) -> Path:
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory} {'is a file' if directory.exists() else 'does not exist'}; give its directory, "
            f"{str(directory.parent)!r}, with all files of the model, or an original file ending in .pth or .pt"
        )
    if not (directory / filename).is_file():
        raise CheckpointError(
            f"the directory {directory} has no {filename}; give the directory of a checkpoint, which has one"
        )
    return directory / filename


def _brief(name: object) -> str:
    text = str(name)
    return repr(text if len(text) <= _MAX_NAME else text[:80] + "..." + text[-20:])


def download_repository(repository: str, **options: Any) -> Path:
    """Returns the directory of the `REPOSITORY_FILES` of a hub repository, downloading those that are not in the cache.

    Args:
        repository: The repository ("owner/name").
        **options: Those of `download_from_hub`.

    Raises:
        CheckpointError: The download failed.
    """
    return [download_from_hub(repository, name, **options) for name in REPOSITORY_FILES][-1].parent


def download_from_hub(
    repository: str,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Returns the path of a file of a hub repository, downloading it if it is not in the cache or has changed.

    Args:
        repository: The repository ("owner/name").
        filename: Path of the file in the repository.
        revision: As in `resolve`.
        token: As in `resolve`.
        cache_dir: As in `resolve`.
        local_files_only: As in `resolve`.

    Raises:
        CheckpointError: The download failed.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    options: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
    try:
        if not local_files_only and not isinstance(
            try_to_load_from_cache(repository, filename, **options), str
        ):
            # Fails at once without a network, where `hf_hub_download` tries again for half a minute.
            with suppress(HfHubHTTPError):  # an answer of the server
                get_hf_file_metadata(hf_hub_url(repository, filename, revision=revision), token=token)
        return Path(
            hf_hub_download(repository, filename, token=token, local_files_only=local_files_only, **options)
        )
    except Exception as error:  # the hub's client and its HTTP library have no common error class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"download of {filename} of {repository!r} failed: {reason.rstrip('.')}. {_advice(repository)}"
        ) from error


def _advice(repository: str) -> str:
    """Returns what to do if a file of a repository cannot be downloaded."""
    cards: dict[str, Card] = {**list_models(), **list_detectors()}
    name = next((name for name, card in cards.items() if card.source == repository), None)
    first = (
        "Check the name and the network"
        if name is None
        else f"With a network connection, run: vitpose download {name}"
    )
    give = "its path as rtdetr:DIRECTORY" if name in list_detectors() else "its path instead of the name"
    other = f"; {DEFAULT_MODEL!r} is included in the package" if name in list_models() else ""
    return (
        f"{first}. Or put {', '.join(REPOSITORY_FILES)} of https://huggingface.co/{repository} into a directory and "
        f"give {give}{other}"
    )


def upload_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload ViTPose",
) -> str:
    """Uploads the files of a directory to a hub repository, which is created if necessary.

    Args:
        folder: Directory to upload.
        repo_id: The repository ("owner/name"); a name without an owner belongs to the owner of the token.
        private: Whether a new repository is private.
        token: Access token of the hub; default: the stored one.
        revision: Branch to upload to.
        commit_message: Message of the commit.

    Returns:
        The URL of the commit.

    Raises:
        CheckpointError: The hub cannot be reached or rejects the upload.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repository, folder_path=str(folder), revision=revision, commit_message=commit_message
        )
    except Exception as error:  # as in _download
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"upload to {repo_id!r} failed: {reason}. Check the name, the network and the token "
            "('hf auth login' stores one)"
        ) from error
    return str(commit.commit_url)
