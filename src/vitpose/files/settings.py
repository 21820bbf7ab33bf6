"""Settings: dataclasses that are validated by their annotations and stored in a model's directory as a JSON file.

The base of the configurations and of the image processor: conversion to and from files and dictionaries, upload to the
hub, and handling of unknown keys.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tempfile
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, create_model

from ..errors import CheckpointError, InputError, UnknownNameError
from .hub import HUB_OPTIONS, resolve, upload_folder
from .paths import user_path
from .schemas import MAX_TEXT_BYTES, Schema, check, parse_json
from .writing import replace_file

if TYPE_CHECKING:
    from typing import Self

_NEAR = 0.8
"""Similarity (`difflib`'s ratio) from which an unknown key of a file is treated as a misspelling."""

MAX_KEYS = 4096
"""Limit on the keys of one table in a file; configurations of `transformers` have about a hundred."""


def at_most(longest: int) -> BeforeValidator:
    """Returns a validator that limits the length of a collection.

    It runs before the entries are validated, because pydantic validates all entries and collects every error.
    """

    def refuse_longer(value: Any) -> Any:
        if hasattr(value, "__len__") and len(value) > longest:
            raise ValueError(f"{len(value)} entries; {longest} at most")
        return value

    return BeforeValidator(refuse_longer)


class Settings:
    """Base of dataclasses that correspond to a JSON file of a model.

    Attributes are validated when an instance is created: strict types, annotated limits, and then `_complete`. None
    stands for the default of an attribute that cannot be None. Scalars and arrays of NumPy and torch are converted to
    Python's types.
    """

    FILE: ClassVar[str]
    """Name of the file in a model's directory."""
    __no_type_check__ = True
    """Attributes are validated by pydantic and not by runtime type checkers, which the tests use."""

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Rejects unknown keywords with the nearest known one, which Python's own error lacks."""
        cls._refuse_unknown(values)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        kind: type = type(self)
        hints = _hints(kind)
        values = {name: _plain(getattr(self, name)) for name in hints}
        for field in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            if values[field.name] is None and type(None) not in typing.get_args(hints[field.name]):
                values[field.name] = _default(field)
        checked = check(_read_class(kind)[1], values, kind.__name__)
        vars(self).update({name: getattr(checked, name) for name in hints})
        self._complete()

    def _complete(self) -> None:
        """Checks attributes against each other and derives further ones; overridden by subclasses."""

    def _reset_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns new values of attributes that conflict with changes to others; overridden by subclasses."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary that is stored in the file."""
        raise NotImplementedError

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the constructor from a file's dictionary."""
        names = _hints(cls)
        if len(table) > MAX_KEYS:
            raise InputError(f"it has {len(table)} keys; {MAX_KEYS} at most")
        for key in table:
            # Files have keys of all versions of `transformers`, so only keys similar to a known one are errors.
            if key not in names and difflib.get_close_matches(str(key), names, cutoff=_NEAR):
                raise UnknownNameError("key", key, names)
        return {name: table[name] for name in names if name in table}

    @classmethod
    def from_dict(cls, table: Any, source: object = "the dictionary", **changes: Any) -> Self:
        """Creates an instance from the dictionary of a file; keys of other models are ignored.

        Args:
            table: The dictionary.
            source: Name of the file in messages.
            **changes: Attributes that override those of the dictionary.

        Raises:
            CheckpointError: The dictionary is not one, or has an invalid value or a misspelt key.
            InputError: A value in `changes` is invalid.
            UnknownNameError: A name in `changes` is not an attribute.
        """
        if not isinstance(table, Mapping):
            raise CheckpointError(
                f"{source} is a {type(table).__name__}; a {cls.__name__} must be a JSON object"
            )
        try:
            settings = cls(**cls._values_of(table))
        except InputError as error:
            raise CheckpointError(f"{source} cannot be used: {error}") from error
        return settings.changed(changes) if changes else settings

    @classmethod
    def from_json_file(cls, path: str | Path, **changes: Any) -> Self:
        """Creates an instance from a JSON file.

        Args:
            path: Path of the file (`~` is expanded).
            **changes: Attributes that override those of the file.

        Raises:
            CheckpointError: The file cannot be read, or is invalid as in `from_dict`.
            InputError: A value in `changes` is invalid.
            UnknownNameError: A name in `changes` is not an attribute.
        """
        path = user_path(path, CheckpointError)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}; check the path") from error
        return cls.from_dict(parse_json(text, path, CheckpointError), path, **changes)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self:
        """Creates an instance from the file of a model.

        Args:
            name: A short name, a directory, a hub repository ("owner/name"), or the path of a `.json` file.
            **options: Arguments of `vitpose.files.hub.resolve` (revision, token, …), and attributes that override
                those of the file.

        Raises:
            UnknownNameError: There is no such model, or an option is neither of these.
            CheckpointError: The file is missing or invalid.
            InputError: The value of an attribute in `options` is invalid.
        """
        hub = {key: options.pop(key) for key in HUB_OPTIONS if key in options}
        cls._refuse_unknown(options, HUB_OPTIONS)
        if str(name).endswith(".json"):
            return cls.from_json_file(name, **options)
        return cls.from_dict(
            resolve(name, **hub).read_json(cls.FILE), f"{cls.FILE} of {str(name)!r}", **options
        )

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Returns a copy with other values; derived attributes that conflict with them are derived again.

        Raises:
            UnknownNameError: There is no such attribute.
            InputError: A value is invalid.
        """
        self._refuse_unknown(changes)
        return replace(self, **{**self._reset_by(changes), **changes})  # type: ignore[type-var]

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns the entries of `to_dict()` that differ from the defaults, and the type of the model."""
        defaults = type(self)().to_dict()
        kinds = ("model_type", "image_processor_type")
        return {
            key: value for key, value in self.to_dict().items() if key in kinds or value != defaults.get(key)
        }

    def to_json_string(self) -> str:
        """Returns the content of the file: `to_dict()` as JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | Path) -> None:
        """Writes the settings to a JSON file.

        Raises:
            OutputError: The file cannot be written.
        """
        with replace_file(Path(path)) as partial:
            partial.write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, folder: str | Path, push_to_hub: bool = False, **hub: Any) -> list[str]:
        """Writes the file to a directory, which is created if necessary.

        Args:
            folder: The directory.
            push_to_hub: Upload the file too.
            **hub: Arguments of `push_to_hub`, only if it is True; `repo_id` defaults to the name of the directory.

        Returns:
            The paths of the written files.

        Raises:
            OutputError: The file cannot be written.
            CheckpointError: The upload failed.
            InputError: There are arguments of the hub without push_to_hub.
        """
        if hub and not push_to_hub:
            raise InputError(
                f"{', '.join(hub)} without push_to_hub=True would have no effect; set it or remove these arguments"
            )
        path = Path(folder) / self.FILE
        self.to_json_file(path)
        if push_to_hub:
            self.push_to_hub(**{"repo_id": path.absolute().parent.name, **hub})
        return [str(path)]

    def push_to_hub(self, repo_id: str, **upload: Any) -> str:
        """Uploads the file to a hub repository, which is created if necessary.

        Args:
            repo_id: The repository ("owner/name"); a name without an owner belongs to the owner of the token.
            **upload: private, token, revision and commit_message, as in `vitpose.files.hub.upload_folder`.

        Returns:
            The URL of the commit.

        Raises:
            CheckpointError: The upload failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_folder(folder, repo_id, **upload)

    @classmethod
    def _refuse_unknown(cls, values: Iterable[str], also_known: Iterable[str] = ()) -> None:
        known = [*_hints(cls), *also_known]
        for name in values:
            if name not in known:
                raise UnknownNameError(f"argument of {cls.__name__}", name, known)


class MutableSettings(Settings):
    """Settings with attributes that can be assigned; assignments are validated like arguments of the constructor."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _hints(type(self)) and name not in vars(self):
            object.__setattr__(
                self, name, value
            )  # by the constructor, which validates all attributes together
        else:
            self.update({name: value})

    def update(self, changes: Mapping[str, Any]) -> None:
        """Sets several attributes at once; derived attributes that conflict with them are derived again.

        Raises:
            UnknownNameError: There is no such attribute.
            InputError: A value is invalid; no attribute is changed then.
        """
        vars(self).update(vars(self.changed(changes)))


def _hints(cls: type) -> Mapping[str, Any]:
    """Returns the annotations of a dataclass's fields."""
    return _read_class(cls)[0]


@cache
def _read_class(cls: type) -> tuple[dict[str, Any], type[BaseModel]]:
    """Returns the annotations of a dataclass's fields, and a schema with these fields."""
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations |= inspect.get_annotations(base, eval_str=True)
    hints = {field.name: annotations[field.name] for field in fields(cls)}
    attributes: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items()}
    return hints, create_model(cls.__name__, __base__=Schema, **attributes)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()
