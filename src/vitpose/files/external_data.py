"""Checks that the external data of an ONNX file is in plain files beside it. Requires no ONNX library.

A tensor of an ONNX file may refer to another file that holds its data, by any path, and runtimes accept special names
that refer to memory addresses. An untrusted file could make them read any file, or crash.

This check and the runtime parse the file with different parsers, but cannot see different names: the check rejects
every invalid string of every external data entry, whatever the key of the string, and includes all occurrences of a
repeated field, so that it does not matter which one a parser uses. Encodings that parsers treat differently (groups,
overlong varints) are rejected. Protobuf stores strings contiguously and uncompressed, so that none can be hidden.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError

_FORBIDDEN = frozenset('/\\:*?"<>|\0')
"""Characters that a plain file name cannot contain on some operating system."""

# The fields of onnx.proto on every path from a model to the external data of a tensor: number and message.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {2: "value"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Content = mmap.mmap | bytes


def refuse_foreign_data(path: Path) -> None:
    """Check that the tensors of an ONNX file are inside it or in plain files beside it.

    Args:
        path: The file, which must exist.

    Raises:
        CheckpointError: It refers to anything else, or is not an ONNX file.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size:  # an empty file cannot be mapped
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    values = set(_values(content))
            else:
                values = set()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be loaded as ONNX: {error}") from error
    for value in sorted(values):
        _refuse_foreign(path, value)


def _refuse_foreign(path: Path, value: str) -> None:
    if not value or value in (".", "..") or not _FORBIDDEN.isdisjoint(value):
        raise CheckpointError(
            f"{path} refers to external weights {value!r:.200}, which is not the name of a file beside it; such a name "
            "could read any file of this machine. Export the model again, with its weights in the same directory"
        )
    directories = {path.parent.resolve(), path.resolve().parent}  # two if the model itself is a link
    for directory in directories:
        if (directory / value).resolve().parent not in directories:
            raise CheckpointError(
                f"{path} refers to external weights {value!r:.200}, a link to {(directory / value).resolve()} outside "
                "the model's directory; replace the link with the file"
            )


def _values(content: _Content) -> Iterator[str]:
    """Yield every value of the external data entries.

    Raises:
        ValueError: The content is not a valid protobuf message.
    """
    pending = [("model", 0, len(content))]
    while pending:
        kind, start, end = pending.pop()
        if kind == "value":
            yield content[start:end].decode()
            continue
        for number, first, last in _fields(content, start, end):
            if number in _FIELDS[kind]:
                pending.append((_FIELDS[kind][number], first, last))


def _fields(content: _Content, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, start and end of each length-delimited field of a message.

    Raises:
        ValueError: The message is damaged.
    """
    while at < end:
        tag, at = _read_varint(content, at, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"it is damaged at byte {at}")
        if kind == _VARINT:
            _, at = _read_varint(content, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, at = _read_varint(content, at, end)
            if length <= end - at:
                yield number, at, at + length
            at += length
        else:
            raise ValueError(f"it is damaged at byte {at}, or uses groups, which ONNX does not have")
        if at > end:
            raise ValueError("it is damaged: a field ends beyond its message")


def _read_varint(content: _Content, at: int, end: int) -> tuple[int, int]:
    """Return a varint (seven bits per byte, the lowest first), and where it ends.

    Raises:
        ValueError: The varint is truncated or longer than ten bytes.
    """
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is truncated: it ends within a number")
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError(f"it is damaged: the number before byte {at} is too long")
