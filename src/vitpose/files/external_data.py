"""Where the tensors of an ONNX file lie: inside it, or in plain files beside it. Needs no library of ONNX.

A tensor of an ONNX file may name another file that holds its numbers, by any path, and runtimes know names that are no
files but addresses in memory. A file from elsewhere could make them read what it likes, or crash.

The check reads the file with a reader of its own, the runtime with another one. They cannot come to different names:
all messages of an entry that names a file are judged, whichever of them a reader takes where a field stands twice, and
every string in such an entry, whatever it stands for. What differs between readers (groups, numbers that are too long)
is refused. Strings stand in these files as they are, neither compressed nor cut up.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ..errors import CheckpointError

_FORBIDDEN = frozenset('/\\:*?"<>|\0')
"""No part of a plain file name on one system or another."""

# Field numbers of onnx.proto that lead from a model to the entries of its tensors, and what they lead to.
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
    """Makes sure that an ONNX file takes its tensors from itself and from plain files beside it only.

    Args:
        path: The file, which exists.

    Raises:
        CheckpointError: It names something else, or is no ONNX file.
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
            f"{path} wants to read weights from {value!r:.200}, which is no file beside it, and is refused: it could "
            "read anything on this machine. Weights must be files in the model's directory; export the model again"
        )
    homes = {path.parent.resolve(), path.resolve().parent}  # two where the model itself is a link
    for home in homes:
        if (home / value).resolve().parent not in homes:
            raise CheckpointError(
                f"{path} wants to read weights from {value!r:.200}, which is a link to {(home / value).resolve()} and "
                "leads out of the model's directory; put the file itself there"
            )


def _values(content: _Content) -> Iterator[str]:
    """Yields every string in the entries that name where a tensor lies.

    Raises:
        ValueError: This is no protobuf message.
    """
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "value":
            yield content[start:end].decode()
            continue
        for number, first, last in _fields(content, start, end):
            if number in _FIELDS[kind]:
                waiting.append((_FIELDS[kind][number], first, last))


def _fields(content: _Content, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields the number of each field with bytes in a message, and where these begin and end."""
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
            raise ValueError(f"it is damaged at byte {at}, or uses groups, which ONNX has not")
        if at > end:
            raise ValueError("it is damaged: a field ends beyond its message")


def _read_varint(content: _Content, at: int, end: int) -> tuple[int, int]:
    """Returns a number of seven bits a byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is damaged: it ends within a number")
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError(f"it is damaged: the number before byte {at} is too long")
