"""From the name of a model to its files: inside the package, in a folder, or on the hub.

The only place that talks to a hub. Knows no network and no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import CheckpointError, UnknownNameError
from .schemas import MAX_TEXT_BYTES, Schema, check, parse_json, parse_toml

DEFAULT_MODEL = "vitpose-tiny"
_PACKAGE = "package"
_LISTING = "models.toml"
_MAX_NAME = 300


class ModelCard(Schema):
    """What is known of a model with a short name.

    Attributes:
        name: The short name.
        source: Its hub repository, or "package".
        parameters: Number of parameters, in millions.
        input: Width x height of its input in pixels.
        skeleton: Name of its skeleton.
        experts: Number of experts.
        licence: Licence of the weights.
        note: One line for people.
    """

    name: str
    source: str
    parameters: float
    input: str
    skeleton: str
    experts: int
    licence: str
    note: str

    @property
    def ships(self) -> bool:
        """Whether the weights are inside the package."""
        return self.source == _PACKAGE


@cache
def list_models() -> Mapping[str, ModelCard]:
    """Returns the models that have a short name."""
    table = parse_toml((resources.files("vitpose.files") / _LISTING).read_bytes(), _LISTING)
    rows = {name: {"name": name, **row} for name, row in table.items()}
    return MappingProxyType(check(dict[str, ModelCard], rows, _LISTING))


def existing_path(name: str | Path) -> Path | None:
    """Returns the file or directory of that name, or None if there is none or no file system takes such a name."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown user, or with a null character
        return None


def find_file(
    name: str | Path,
    filename: str,
    *,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Returns the path of one file of a model, downloading it if need be.

    Args:
        name: A short name, a directory, or a hub repository ("owner/name").
        filename: The file's name inside it, without a directory.
        subfolder: The directory inside it in which the model's files are ("weights/coco").
        revision: Branch, tag or commit of the repository.
        token: Access token for the hub; True takes the stored one.
        cache_dir: Where downloads are kept; default: the hub's cache.
        local_files_only: Never ask the network.

    Raises:
        UnknownNameError: The name is neither a short name, nor a directory, nor of a repository's form.
        CheckpointError: The directory or repository has no such file, the hub cannot be reached, or
            `filename` (which may come out of a file) or `subfolder` leads out of the directory.
    """
    if not re.fullmatch(r"\w[\w.-]{0,200}", filename):
        raise CheckpointError(
            f"{_brief(filename)} is no plain file name; a model's files all lie in one directory"
        )
    parts = Path(subfolder).parts
    if any(not re.fullmatch(r"[\w-][\w. -]{0,200}", part) for part in parts):
        raise CheckpointError(
            f"subfolder {_brief(subfolder)} must be a directory inside the model's directory"
        )
    card = list_models().get(str(name))
    if card is not None and card.ships:
        found: Path | None = Path(str(resources.files("vitpose") / "weights"))
    else:
        found = existing_path(name)
    if found is not None and (found.is_dir() or card is None):
        return _file_in(found, "/".join((*parts, filename)))
    repository = card.source if card is not None else str(name)
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")) or len(repository) > _MAX_NAME:
        hint = "A directory, an original .pth file or a hub repository ('owner/name') works too."
        raise UnknownNameError("model", _brief(name).strip("'"), list_models(), hint)
    return _download(repository, "/".join((*parts, filename)), revision, token, cache_dir, local_files_only)


def _file_in(directory: Path, filename: str) -> Path:
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory} is a file; give the directory it is in, {str(directory.parent)!r}, with all files of the "
            "model, or an original file ending in .pth or .pt"
        )
    if not (directory / filename).is_file():
        raise CheckpointError(
            f"the directory {directory} has no {filename}; the directory of a checkpoint has one"
        )
    return directory / filename


def _brief(name: object) -> str:
    text = str(name)
    return repr(text if len(text) <= _MAX_NAME else text[:80] + "..." + text[-20:])


def _download(
    repository: str, filename: str, revision: str | None, token: Any, cache_dir: Any, local_files_only: bool
) -> Path:
    from huggingface_hub import hf_hub_download

    options = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    try:
        return Path(hf_hub_download(repository, filename, **options))
    except Exception as error:  # the hub's client and the HTTP library below it have no error in common
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{filename} of {repository!r} could not be had from the hub: {reason}. Check the name and the "
            f"network, or give a folder with the files; {DEFAULT_MODEL!r} ships inside the package"
        ) from error


def read_json(name: str | Path, filename: str, **hub: Any) -> dict[str, Any]:
    """Reads a JSON file of a model; arguments and errors as of `find_file`.

    Raises:
        CheckpointError: The file is not a JSON object.
    """
    path = find_file(name, filename, **hub)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; correct its permissions") from error
    table = parse_json(content, path, CheckpointError)
    if not isinstance(table, dict):
        raise CheckpointError(
            f"{path} holds a {type(table).__name__}, not a JSON object; it is not a model's file"
        )
    return table


def upload_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    message: str = "Upload ViTPose",
) -> str:
    """Uploads the files of a folder to a hub repository, made if need be.

    Args:
        folder: What to upload.
        repo_id: The repository; one of the token's owner where only its second half is given.
        private: Whether a new repository is private.
        token: Access token for the hub; the stored one without it.
        revision: Branch to upload to.
        message: What the commit says.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The hub cannot be reached or does not let us.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repository, folder_path=str(folder), revision=revision, commit_message=message
        )
    except Exception as error:  # as in _download
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"nothing could be uploaded to {repo_id!r}: {reason}. Check the name, the network and the token "
            "('hf auth login' stores one)"
        ) from error
    return str(commit.commit_url)
