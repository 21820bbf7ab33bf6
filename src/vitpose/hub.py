"""From the name of a model to its files: inside the package, in a folder, or on the hub.

The only place that talks to a hub. Knows no network and no weights.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import CheckpointError, UnknownNameError

DEFAULT_MODEL = "vitpose-tiny"
_PACKAGE = "package"


@dataclass(frozen=True)
class ModelCard:
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
    text = (resources.files("vitpose") / "models.toml").read_text(encoding="utf-8")
    return MappingProxyType({name: ModelCard(name=name, **row) for name, row in tomllib.loads(text).items()})


def find_file(
    name: str | Path,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Returns the path of one file of a model, downloading it if need be.

    Args:
        name: A short name, a folder, or a hub repository ("owner/name").
        filename: The file's name inside it, without a folder.
        revision: Branch, tag or commit of the repository.
        token: Access token for the hub; True takes the stored one.
        cache_dir: Where downloads are kept; the hub's own cache without it.
        local_files_only: Never ask the network.

    Raises:
        UnknownNameError: The name is neither a short name, nor a folder, nor of a repository's form.
        CheckpointError: The folder or repository has no such file, the hub cannot be reached, or
            `filename` (which may come out of a file) names a place outside the folder.
    """
    if not re.fullmatch(r"\w[\w.-]*", filename):
        raise CheckpointError(f"{filename!r} is no plain file name; a model's files all lie in one folder")
    card = list_models().get(str(name))
    folder: Path | None
    if card is not None and card.ships:
        folder = Path(str(resources.files("vitpose") / "weights"))
    else:
        folder = _existing_folder(name)
    if folder is not None:
        if not (folder / filename).is_file():
            raise CheckpointError(f"the folder {folder} has no {filename}; a checkpoint's folder has one")
        return folder / filename
    if folder is not None and folder.is_file():
        raise CheckpointError(
            f"{folder} is a file; give the folder it is in, or an original file ending in .pth or .pt"
        )
    repository = card.source if card is not None else str(name)
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        hint = "A folder, an original .pth file or a hub repository ('owner/name') works too."
        raise UnknownNameError("model", str(name), list_models(), hint)
    return _download(repository, filename, revision, token, cache_dir, local_files_only)


def _existing_folder(name: str | Path) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name that no file system takes: too long, or of an unknown user
        return None


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
        table = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
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
