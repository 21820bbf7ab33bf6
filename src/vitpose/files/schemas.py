"""Parsing of JSON and TOML, and validation against schemas.

Schemas are pydantic models. This module defines the limits of parsing and the format of error messages: the file, the
path of the key, its value, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import json
import re
import reprlib
import tomllib
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import InputError, UnknownNameError, VitPoseError

T = TypeVar("T")

MAX_TEXT_BYTES = 64 * 2**20
"""Default limit on the size of a file; configurations have a few kilobytes."""

_QUOTED = re.compile("'([^']*)'")
"""The choices of a `Literal` in pydantic's messages."""

Row = Annotated[tuple[T, ...], Field(strict=False)]
"""A JSON or TOML array as a tuple."""


class Schema(BaseModel):
    """Base of all schemas: no unknown keys, no conversions between types, only finite numbers, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def parse_json(
    text: str | bytes,
    source: object,
    error: type[VitPoseError] = InputError,
    max_bytes: int = MAX_TEXT_BYTES,
    allow_nan: bool = False,
) -> Any:
    """Parses JSON.

    Args:
        text: The content of the file as a string, or as bytes in UTF-8 with or without a byte order mark.
        source: Name of the file in messages.
        error: Type of the exception to raise.
        max_bytes: Limit on the length of the content.
        allow_nan: Accept NaN and Infinity, which some programs write.

    Returns:
        Dictionaries, lists, strings and numbers.

    Raises:
        VitPoseError: `error`: the content is too large, not UTF-8, not JSON, nested too deeply, or has numbers that are
            not finite or have thousands of digits.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    return _parse(
        lambda decoded: json.loads(decoded, parse_constant=None if allow_nan else refuse_constant),
        text,
        "JSON",
        source,
        error,
        max_bytes,
    )


def parse_toml(text: str | bytes, source: object, error: type[VitPoseError] = InputError) -> dict[str, Any]:
    """Parses TOML; the arguments are those of `parse_json`.

    Raises:
        VitPoseError: `error`: the content is too large, not UTF-8, not TOML, nested too deeply, or has integers of
            thousands of digits.
    """
    return _parse(tomllib.loads, text, "TOML", source, error, MAX_TEXT_BYTES)


def _parse(
    parse: Callable[[str], Any],
    text: str | bytes,
    form: str,
    source: object,
    error: type[VitPoseError],
    max_bytes: int,
) -> Any:
    if len(text) > max_bytes:
        raise error(f"{source} has {len(text)} bytes; a file of this kind may have {max_bytes} at most")
    try:
        return parse(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError as cause:
        raise error(f"{source} is not valid {form}: it is nested too deeply") from cause
    except ValueError as cause:  # the parsers' errors, UnicodeDecodeError, and integers of too many digits
        raise error(f"{source} is not valid {form}: {cause}") from cause


def check(schema: Any, data: Any, source: object, error: type[VitPoseError] = InputError) -> Any:
    """Validates data and returns it as an instance of a schema.

    Args:
        schema: A pydantic model, or any type that pydantic supports. A dataclass is as strict as `Schema` if it
            has `__pydantic_config__ = Schema.model_config`.
        data: Parsed data or an argument.
        source: Name of the file or argument in messages.
        error: Type of the exception to raise.

    Raises:
        VitPoseError: `error`: the data is invalid; the message names the wrong keys (at most five).
    """
    adapter = TypeAdapter(schema)
    try:
        if is_dataclass(schema):  # in strict mode pydantic builds dataclasses from JSON only
            return adapter.validate_json(json.dumps(data, default=str))
        return adapter.validate_python(data)
    except ValidationError as invalid:
        # Without the cause, which would repeat the whole input.
        raise error(f"{source}: {describe_invalid(invalid, schema)}") from None
    except (OverflowError, ValueError) as cause:  # integers beyond the range of floats and of JSON
        raise error(f"{source} has a number that is too large: {cause}") from cause


def describe_invalid(invalid: ValidationError, schema: Any = None) -> str:
    """Formats pydantic's errors as one sentence.

    Args:
        invalid: The exception of pydantic.
        schema: The schema, whose keys are suggested for unknown ones.
    """
    found = invalid.errors(include_url=False)
    lines = [_describe_one(entry, schema) for entry in found[:5]]
    return "; ".join(lines + [f"and {len(found) - 5} more"] * (len(found) > 5))


def _describe_one(entry: Any, schema: Any) -> str:
    path = ".".join(str(part) for part in entry["loc"])
    if entry["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return str(UnknownNameError("key", path, _paths_beside(schema, entry["loc"])))
    if entry["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{path} is missing"
    if entry["type"] == "literal_error" and isinstance(entry["input"], str):
        return str(
            UnknownNameError(f"value of {path}", entry["input"], _QUOTED.findall(entry["ctx"]["expected"]))
        )
    if entry["type"] in ("model_type", "dataclass_type", "dict_type"):
        table = f"{_shown(entry['input'])}; it must be a table"
        return f"{path} is {table}" if path else table
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":  # of a validator in this package, whose message contains the value
        return f"{path}: {message}" if path else message
    message = message[0].lower() + message[1:]
    value = _shown(entry["input"])
    return f"{path} is {value}; {message}" if path else f"{value}: {message}"


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not format integers of more than 4300 digits
        return "an integer of thousands of digits"


def _paths_beside(schema: Any, path: tuple[Any, ...]) -> list[str]:
    """Returns the known keys, as paths, to suggest for an unknown one.

    They are the keys of the same table, or a nested table's key of the same name if there is one.
    """
    tables = list(_tables_of(schema))
    for part in path[:-1]:
        inner = [keys[part] for keys in tables if part in keys]
        if inner:  # otherwise an index, the key of a mapping or a member of a union, which keep the tables
            tables = [table for kind in inner for table in _tables_of(kind)]
    known = {key: kind for keys in tables for key, kind in keys.items()}
    below = [
        f"{key}.{path[-1]}"
        for key, kind in known.items()
        if any(path[-1] in keys for keys in _tables_of(kind))
    ]
    before = "".join(f"{part}." for part in path[:-1])
    return [before + key for key in below or known]


def _tables_of(kind: Any) -> Iterator[dict[str, Any]]:
    """Yields the keys and their types of each table in a type, including those in unions and lists."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield {name: field.annotation for name, field in kind.model_fields.items()}
    elif isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        yield {field.name: hints[field.name] for field in fields(kind)}
    for part in typing.get_args(kind):
        yield from _tables_of(part)
