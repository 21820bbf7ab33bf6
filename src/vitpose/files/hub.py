"""From the name of a model to its files: in the package, in a directory, or on the Hugging Face Hub.

The only module that uses the hub. It does not depend on networks or weights.
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
from .paths import existing_path
from .schemas import MAX_TEXT_BYTES, Schema, check, parse_json, parse_toml

DEFAULT_MODEL = "vitpose-tiny"
DEFAULT_DETECTOR = "rtdetr"
"""The detector of `vitpose.load` and of the command line."""
_PACKAGE = "package"
_LISTING = "models.toml"
_MAX_NAME = 300


class ModelCard(Schema):
    """Description of a model with a short name.

    Attributes:
        name: The short name.
        source: Hub repository, or "package" for weights in the package.
        parameters: Number of parameters, in millions.
        input: Width x height of the input in pixels.
        skeleton: Name of the skeleton.
        experts: Number of experts.
        licence: Licence of the weights.
        note: Remark in one line.
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
        """Whether the weights are in the package."""
        return self.source == _PACKAGE


@cache
def list_models() -> Mapping[str, ModelCard]:
    """Returns the models with a short name, by that name."""
    table = parse_toml((resources.files("vitpose.files") / _LISTING).read_bytes(), _LISTING)
    rows = {name: {"name": name, **row} for name, row in table.items()}
    return MappingProxyType(check(dict[str, ModelCard], rows, _LISTING))


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
    """Returns the path of one file of a model, downloading it if necessary.

    Args:
        name: A short name, a directory (`~` is expanded), or a hub repository ("owner/name").
        filename: Name of the file in the model's directory, without a directory.
        subfolder: Subdirectory that contains the model's files ("weights/coco").
        revision: Branch, tag or commit of the repository.
        token: Access token of the hub; True: the stored one.
        cache_dir: Directory of downloaded files; default: the hub's cache.
        local_files_only: Do not use the network.

    Raises:
        UnknownNameError: The name is not a short name, a directory, or a repository in the form "owner/name".
        CheckpointError: The directory or repository has no such file, the download failed, or `filename` (which may
            come from a file) or `subfolder` leads out of the directory.
    """
    if not re.fullmatch(r"\w[\w.-]{0,200}", filename):
        raise CheckpointError(
            f"{_brief(filename)} is not a plain file name; all files of a model must be in one directory"
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
            f"{directory} is a file; give its directory, {str(directory.parent)!r}, with all files of the model, or an "
            "original file ending in .pth or .pt"
        )
    if not (directory / filename).is_file():
        raise CheckpointError(
            f"the directory {directory} has no {filename}; give the directory of a checkpoint, which has one"
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
    except Exception as error:  # the hub's client and its HTTP library have no common error class
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"download of {filename} of {repository!r} failed: {reason}. Check the name and the network, or give a "
            f"directory with the files; {DEFAULT_MODEL!r} is included in the package"
        ) from error


def read_json(name: str | Path, filename: str, **hub: Any) -> dict[str, Any]:
    """Reads a JSON file of a model.

    Args:
        name: As in `find_file`.
        filename: As in `find_file`.
        **hub: Further arguments of `find_file`.

    Raises:
        UnknownNameError: As in `find_file`.
        CheckpointError: As in `find_file`; or the file cannot be read or is not a JSON object.
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
            f"{path} contains a {type(table).__name__}, not a JSON object; give the directory of a checkpoint"
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
    """Uploads the files of a directory to a hub repository, which is created if necessary.

    Args:
        folder: Directory to upload.
        repo_id: The repository ("owner/name"); a name without an owner belongs to the owner of the token.
        private: Whether a new repository is private.
        token: Access token of the hub; default: the stored one.
        revision: Branch to upload to.
        message: Commit message.

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
            repo_id=repository, folder_path=str(folder), revision=revision, commit_message=message
        )
    except Exception as error:  # as in _download
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"upload to {repo_id!r} failed: {reason}. Check the name, the network and the token "
            "('hf auth login' stores one)"
        ) from error
    return str(commit.commit_url)
