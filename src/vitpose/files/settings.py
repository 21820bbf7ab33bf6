"""Settings: dataclasses that are checked against their annotations, and lie in a model's folder as a JSON file.

The base of the configurations and of the image processor. Owns their common way to and from files, dictionaries and
hubs, and what happens to unknown keys. Knows none of their attributes.
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
from .hub import find_file, read_json, upload_folder
from .schemas import MAX_TEXT_BYTES, Schema, check, parse_json
from .writing import replace_file

if TYPE_CHECKING:
    from typing import Self

_NEAR = 0.8
"""From this similarity on (`difflib`'s ratio) an unknown key of a file is taken for a misspelt one."""

MAX_KEYS = 4096
"""Keys of one table in a file; configurations of `transformers` have some hundred."""


def at_most(longest: int) -> BeforeValidator:
    """Refuses longer collections before their entries are looked at: pydantic checks all, and keeps every error."""

    def refuse_longer(value: Any) -> Any:
        if hasattr(value, "__len__") and len(value) > longest:
            raise ValueError(f"{len(value)} entries; {longest} at most")
        return value

    return BeforeValidator(refuse_longer)


class Settings:
    """The base of dataclasses that are the JSON file of a model.

    Attributes are checked when an instance is made: types strictly and limits as annotated, and then `_complete`. None
    stands for the default of an attribute that cannot be None itself. Scalars and arrays of NumPy and torch are taken
    as Python's.
    """

    FILE: ClassVar[str]
    """Name of the file in a model's folder."""
    __no_type_check__ = True
    """Pydantic checks the attributes: runtime type checkers of annotations, as the tests use, need not do it before."""

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Refuses unknown keywords, which Python would do without the nearest known one."""
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
        """Checks attributes against each other and fills in what follows from them; overridden."""

    def _reset_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns new values for attributes that changes to others make meaningless; overridden."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain dictionary that the file holds."""
        raise NotImplementedError

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values in a file's dictionary, for the constructor."""
        names = _hints(cls)
        if len(table) > MAX_KEYS:
            raise InputError(f"it has {len(table)} keys; {MAX_KEYS} at most")
        for key in table:
            # Files carry keys of every version of `transformers`, so that only a near miss can be told for an error.
            if key not in names and difflib.get_close_matches(str(key), names, cutoff=_NEAR):
                raise UnknownNameError("key", key, names)
        return {name: table[name] for name in names if name in table}

    @classmethod
    def from_dict(cls, table: Any, source: object = "the dictionary", **changes: Any) -> Self:
        """Reads the dictionary of a file; keys that mean nothing to ViTPose are left aside.

        Args:
            table: The dictionary.
            source: How messages name it.
            **changes: Attributes that differ from it.

        Raises:
            CheckpointError: The dictionary is of something else, or has a value or key that cannot be used.
            InputError: A change cannot be used.
            UnknownNameError: A change is of no attribute.
        """
        if not isinstance(table, Mapping):
            raise CheckpointError(f"{source} is a {type(table).__name__}; a {cls.__name__} is a JSON object")
        try:
            settings = cls(**cls._values_of(table))
        except InputError as error:
            raise CheckpointError(f"{source} cannot be used: {error}") from error
        return settings.changed(changes) if changes else settings

    @classmethod
    def from_json_file(cls, path: str | Path, **changes: Any) -> Self:
        """Reads one file, wherever it is; `changes` and errors as of `from_dict`.

        Raises:
            CheckpointError: It cannot be read or used.
        """
        try:
            with Path(path).expanduser().open("rb") as file:
                text = file.read(MAX_TEXT_BYTES + 1)
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{str(path)[:300]} cannot be read: {error!s:.300}; check the path"
            ) from error
        return cls.from_dict(parse_json(text, path, CheckpointError), path, **changes)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self:
        """Reads the file of a model.

        Args:
            name: A short name, a directory, a hub repository ("owner/name"), or the path of a `.json` file.
            **options: Arguments of `vitpose.files.hub.find_file` (revision, token, …), and attributes that differ from
                the file's.

        Raises:
            UnknownNameError: There is no such model, or an option is neither of these.
            CheckpointError: The file is missing or cannot be used.
            InputError: An attribute cannot have that value.
        """
        of_hub = [
            p.name for p in inspect.signature(find_file).parameters.values() if p.kind == p.KEYWORD_ONLY
        ]
        hub = {key: options.pop(key) for key in of_hub if key in options}
        cls._refuse_unknown(options, of_hub)
        if str(name).endswith(".json"):
            return cls.from_json_file(name, **options)
        table = read_json(name, cls.FILE, **hub)
        return cls.from_dict(table, f"{cls.FILE} of {str(name)!r}", **options)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Returns these settings with other values; what they contradict is derived anew.

        Raises:
            UnknownNameError: There is no such attribute.
            InputError: The values cannot be used.
        """
        self._refuse_unknown(changes)
        return replace(self, **{**self._reset_by(changes), **changes})  # type: ignore[type-var]

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns what differs from the defaults, and what the dictionary is of."""
        usual = type(self)().to_dict()
        kinds = ("model_type", "image_processor_type")
        return {
            key: value for key, value in self.to_dict().items() if key in kinds or value != usual.get(key)
        }

    def to_json_string(self) -> str:
        """Returns the text of the file."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | Path) -> None:
        """Writes one file, wherever it is to be.

        Raises:
            OutputError: It cannot be written.
        """
        with replace_file(Path(path)) as partial:
            partial.write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, folder: str | Path, push_to_hub: bool = False, **hub: Any) -> list[str]:
        """Writes the file into a directory, made if need be.

        Args:
            folder: The directory.
            push_to_hub: Upload the file too.
            **hub: Then the arguments of `push_to_hub`; default of `repo_id`: the directory's name.

        Returns:
            The paths that were written.

        Raises:
            OutputError: The file cannot be written.
            CheckpointError: It cannot be uploaded.
            InputError: There are arguments of the hub without push_to_hub.
        """
        if hub and not push_to_hub:
            raise InputError(
                f"{', '.join(hub)} without push_to_hub=True would do nothing; give it or leave them out"
            )
        path = Path(folder) / self.FILE
        self.to_json_file(path)
        if push_to_hub:
            self.push_to_hub(**{"repo_id": path.absolute().parent.name, **hub})
        return [str(path)]

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload ViTPose",
    ) -> str:
        """Uploads the file to a hub repository, made if need be.

        Returns:
            The URL of the commit.

        Raises:
            CheckpointError: The hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_folder(
                folder, repo_id, private=private, token=token, revision=revision, message=commit_message
            )

    @classmethod
    def _refuse_unknown(cls, values: Iterable[str], also_known: Iterable[str] = ()) -> None:
        known = [*_hints(cls), *also_known]
        for name in values:
            if name not in known:
                raise UnknownNameError(f"argument of {cls.__name__}", name, known)


class MutableSettings(Settings):
    """Settings whose attributes can be set. An assignment is checked like the rest: what contradicts is refused."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _hints(type(self)) and name not in vars(self):
            object.__setattr__(self, name, value)  # by the constructor, which checks all of them together
        else:
            self.update({name: value})

    def update(self, changes: Mapping[str, Any]) -> None:
        """Sets several attributes at once; those that they contradict are derived anew.

        Raises:
            UnknownNameError: There is no such attribute.
            InputError: The values cannot be used; nothing is changed then.
        """
        vars(self).update(vars(self.changed(changes)))


def _hints(cls: type) -> Mapping[str, Any]:
    """Returns the annotations of a dataclass's fields."""
    return _read_class(cls)[0]


@cache
def _read_class(cls: type) -> tuple[dict[str, Any], type[BaseModel]]:
    """Returns the annotations of a dataclass's fields, and the schema that they make."""
    hints = inspect.get_annotations(cls, eval_str=True)
    own = {field.name: hints[field.name] for field in fields(cls)}
    attributes: dict[str, Any] = {name: (hint, ...) for name, hint in own.items()}
    return own, create_model(cls.__name__, __base__=Schema, **attributes)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()
