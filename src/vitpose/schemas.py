"""Parsing JSON and TOML, and checking what was parsed against a schema.

Schemas are classes of pydantic. Owns the limits of parsing and the wording of the errors: the file, the path of
the key, its value, and for an unknown key the nearest known one. Knows no file of its own.
"""

from __future__ import annotations

import json
import reprlib
import tomllib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import InputError, UnknownNameError, VitPoseError

T = TypeVar("T")

MAX_TEXT_BYTES = 64 * 2**20
"""Largest text that is parsed unless the caller allows more; configurations have a few kilobytes."""

Row = Annotated[tuple[T, ...], Field(strict=False)]
"""A JSON or TOML array as a tuple."""


class Schema(BaseModel):
    """The base of all schemas: no unknown keys, no conversions between types, only finite numbers, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def parse_json(
    text: str | bytes,
    source: object,
    error: type[VitPoseError] = InputError,
    max_bytes: int = MAX_TEXT_BYTES,
) -> Any:
    """Parses JSON.

    Args:
        text: The text, or its bytes in UTF-8.
        source: How messages name the file.
        error: The exception to raise.
        max_bytes: The largest text that is accepted.

    Raises:
        VitPoseError: `error`, for text that is too large, not UTF-8, not JSON, nested too deeply, or with numbers
            that are not finite or have thousands of digits.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    return _parse(
        lambda decoded: json.loads(decoded, parse_constant=refuse_constant),
        text,
        "JSON",
        source,
        error,
        max_bytes,
    )


def parse_toml(text: str | bytes, source: object, error: type[VitPoseError] = InputError) -> dict[str, Any]:
    """Parses TOML; arguments and errors as of `parse_json`.

    Raises:
        VitPoseError: `error`, as of `parse_json`.
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
        return parse(text if isinstance(text, str) else text.decode())
    except RecursionError as cause:
        raise error(f"{source} is not valid {form}: it is nested too deeply") from cause
    except ValueError as cause:  # the parsers' errors, UnicodeDecodeError, and integers of too many digits
        raise error(f"{source} is not valid {form}: {cause}") from cause


def check(schema: Any, data: Any, source: object, error: type[VitPoseError] = InputError) -> Any:
    """Returns parsed data as an instance of a schema.

    Args:
        schema: A class of pydantic, or any type that it understands.
        data: What was parsed, or handed in.
        source: How messages name the file or argument.
        error: The exception to raise.

    Raises:
        VitPoseError: `error`: the data does not fit; the message names every wrong key (five at most).
    """
    try:
        return TypeAdapter(schema).validate_python(data)
    except ValidationError as invalid:
        known = sorted(schema.model_fields) if hasattr(schema, "model_fields") else []
        # Without the cause: it repeats the whole input.
        raise error(f"{source}: {describe_invalid(invalid, known)}") from None


def describe_invalid(invalid: ValidationError, known: Iterable[str] = ()) -> str:
    """Returns pydantic's findings as one sentence.

    Args:
        invalid: What pydantic raised.
        known: The keys of the outermost table, of which the nearest is offered for an unknown one.
    """
    found = invalid.errors(include_url=False)
    lines = [_describe_one(entry, list(known)) for entry in found[:5]]
    return "; ".join(lines + [f"and {len(found) - 5} more"] * (len(found) > 5))


def _describe_one(entry: Any, known: list[str]) -> str:
    path = ".".join(str(part) for part in entry["loc"])
    if entry["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return str(UnknownNameError("key", path, known if len(entry["loc"]) == 1 else ()))
    if entry["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{path} is missing"
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "value_error":  # of a validator of ours, which names the value itself
        return f"{path}: {message}" if path else message
    message = message[0].lower() + message[1:]
    value = reprlib.repr(entry["input"])
    return f"{path} is {value}; {message}" if path else f"{value}: {message}"
