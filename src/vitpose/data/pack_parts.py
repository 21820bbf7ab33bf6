"""The parts of a pack: safetensors files of encoded crops and the annotations of their instances.

Each part contains the encoded crops one after another, where each of them ends, and one column per attribute of
`Packed`, in px of the crops. Owns this file format; does not encode or decode crops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import ImageError, InputError, counted
from ..files.writing import replace_file
from .pack_index import INDEX_FILE

COLUMNS = {
    "boxes": ("f4", (4,)),
    "xy": ("f4", (-1, 2)),
    "visibility": ("u1", (-1,)),
    "areas": ("f4", ()),
    "ids": ("i8", ()),
    "sources": ("i8", ()),
    "sizes": ("i8", (2,)),
    "origins": ("i8", (2,)),
    "factors": ("f8", ()),
}
"""The columns of a part: dtype and shape per instance, in which -1 stands for the number of keypoints."""

_HEADER_BYTES = 4096
"""Upper limit of the size of a part's header; about one kilobyte in practice."""


@dataclass
class PartWriter:
    """Write instances to consecutive parts of limited size.

    Attributes:
        directory: Directory of the pack.
        limit: Largest part, bytes.
        codes: Encoded crops of the part in progress.
        columns: Their annotations.
        bytes: Their size.
        parts: Names and numbers of instances of the written parts.
    """

    directory: Path
    limit: int
    codes: list[np.ndarray] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    parts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: np.ndarray, columns: dict[str, Any]) -> None:
        """Add an instance; starts a new part if it does not fit into the current one.

        Args:
            code: The encoded crop.
            columns: Its values of `COLUMNS`.

        Raises:
            OutputError: A part cannot be written.
        """
        size = (
            code.size + 8 + sum(value.nbytes for value in columns.values())
        )  # 8 bytes for the end of the crop
        if self.codes and self.bytes + size > self.limit - _HEADER_BYTES:
            self._flush()
        self.codes.append(code.ravel())
        self.columns.append(columns)
        self.bytes += size

    def finish(self) -> list[dict[str, Any]]:
        """Write the last part; returns the names and numbers of instances of all parts.

        Raises:
            OutputError: The part cannot be written.
        """
        if self.codes:
            self._flush()
        return self.parts

    def _flush(self) -> None:
        tensors = {name: np.stack([row[name] for row in self.columns]) for name in COLUMNS}
        tensors["crops"] = np.concatenate(self.codes)
        tensors["ends"] = np.cumsum([code.size for code in self.codes]).astype(np.int64)
        name = f"part-{len(self.parts):04d}.safetensors"
        with replace_file(self.directory / name) as path:
            path.write_bytes(save(tensors))  # raises OSError on failure, unlike save_file
        self.parts.append({"file": name, "instances": len(self.codes)})
        self.codes, self.columns, self.bytes = [], [], 0


def read_part(path: Path, instances: int, keypoints: int, sources: int) -> dict[str, np.ndarray]:
    """Read the columns of a part and `ends`, where in its crops each crop ends.

    Args:
        path: The part.
        instances: Number of instances according to the index of the pack.
        keypoints: Number of keypoints of its skeleton.
        sources: Number of sources in the index.

    Raises:
        InputError: The part cannot be read, or does not match the index.
    """
    try:
        part = _open_part(path)
        columns = {name: part.get_tensor(name) for name in (*COLUMNS, "ends")}
        crops = part.get_slice("crops")
        layout = crops.get_dtype(), crops.get_shape()
    except (
        OSError,
        SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # the last three: odd dtypes
        raise InputError(f"{path} cannot be read: {error}; pack the dataset again") from error
    if columns["boxes"].shape[:1] != (instances,):
        count = len(np.atleast_1d(columns["boxes"]))
        raise InputError(
            f"{path} contains {counted(count, 'instance')} instead of {instances}; pack the dataset again"
        )
    for name, (kind, rest) in COLUMNS.items():
        expected = np.dtype(kind), (instances, *(keypoints if side < 0 else side for side in rest))
        found = columns[name].dtype, columns[name].shape
        if found != expected:
            raise InputError(
                f"{path}: the dtype and shape of {name} are {found} instead of {expected}; pack the dataset again"
            )
    ends = columns["ends"]
    total = ends[-1] if ends.shape == (instances,) else -1
    if layout != ("U8", [total]) or (np.diff(ends, prepend=0) <= 0).any():
        raise InputError(f"{path}: the ends of its crops are inconsistent; pack the dataset again")
    if not ((columns["sources"] >= 0) & (columns["sources"] < sources)).all():
        raise InputError(f"{path}: it has a source that {INDEX_FILE} does not list; pack the dataset again")
    return columns


def read_code(path: Path, row: int, start: int, end: int) -> UInt8[np.ndarray, " _"]:
    """Read an encoded crop.

    Args:
        path: The part.
        row: Index of the crop in the part, for messages.
        start: First byte of the crop.
        end: Byte after its last.

    Raises:
        ImageError: The part cannot be read.
    """
    try:
        return _open_part(path).get_slice("crops")[start:end]
    except (OSError, SafetensorError) as error:
        raise ImageError(f"crop {row} of {path} cannot be read: {error}; pack the dataset again") from error


def _open_part(path: Path) -> Any:
    return _open_version(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _open_version(path: Path, modified_ns: int) -> Any:
    # Memory-mapped, so that all workers of a machine share it. A rewritten part is another cache entry.
    return safe_open(path, framework="numpy")
