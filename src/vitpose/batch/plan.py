"""The plan of a run: which images belong to which shard, its settings, and which shards are done.

Stored in the directory of the results, in files whose names start with `_`, which readers of Parquet directories
skip. Does not know poses or workers.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, require
from ..files.schemas import check, parse_json
from ..files.writing import PARTIAL
from .storage import Directory

_SETTINGS = "_job.json"
_PART = re.compile(r"part-(\d+)\.parquet")
_PLAN = re.compile(r"_plan-\d+\.parquet")


@dataclass(frozen=True)
class Shard:
    """Images that are processed together.

    Attributes:
        number: Index in the plan, from 0.
        images: Paths and URLs.
    """

    number: int
    images: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the shard's files."""
        return f"part-{self.number:06d}.parquet"


def start_or_resume(directory: Directory, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a new run, or checks that a run is resumed with the same settings.

    Args:
        directory: Directory of the results.
        settings: All that the results depend on.

    Raises:
        InputError: The directory holds other files, its settings are damaged, or the run in it was started with
            other settings.
        OutputError: The settings cannot be written.
    """
    names = directory.names()
    for name in names:
        if name.startswith(".") and name.endswith(PARTIAL):  # left by a killed run
            directory.remove(name)
    if _SETTINGS not in names:
        names = [name for name in names if not name.startswith(".")]
        if names:
            raise InputError(
                f"{directory.name} is not empty and holds no earlier run (it contains {names[0]}); choose another --out"
            )
        directory.write(_SETTINGS, json.dumps(settings, indent=2, sort_keys=True).encode())
        return
    source = f"{directory.name}/{_SETTINGS}"
    before = check(dict[str, Any], parse_json(directory.read(_SETTINGS), source), source)
    now = json.loads(json.dumps(settings))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        name = sorted(changed)[0]
        raise InputError(
            f"{directory.name} was started with {name} {before.get(name)!r}, not {now.get(name)!r}; use the same "
            "arguments to resume, or choose another --out"
        )


def plan_shards(directory: Directory, images: Sequence[str], size: int) -> list[Shard]:
    """Returns all shards: those planned before, then new ones for the images that are in none of them.

    An image keeps its shard, so that no image is processed twice although images were added or removed.

    Args:
        directory: Directory of the results; new shards are added to the plan in it.
        images: All images of this run.
        size: Maximum number of images in a new shard.

    Raises:
        InputError: A file of the plan is damaged.
        OutputError: The plan cannot be written.
        MissingDependencyError: pyarrow is not installed.
    """
    shards = read_plan(directory)
    known = {image for shard in shards for image in shard.images}
    fresh = [image for image in images if image not in known]
    starts = range(0, len(fresh), size)
    added = [
        Shard(number, tuple(fresh[start : start + size]))
        for number, start in enumerate(starts, start=len(shards))
    ]
    if added:
        _write_plan(directory, added)
    return shards + added


def read_plan(directory: Directory) -> list[Shard]:
    """Returns the shards planned so far.

    Raises:
        InputError: A file of the plan is damaged.
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = require("pyarrow", "tables", "for results in Parquet")
    shards = []
    for name in sorted(name for name in directory.names() if _PLAN.fullmatch(name)):
        try:
            shards += _read_shards(directory.read(name))
        except (arrow.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{directory.name}/{name} is damaged ({reason}); choose another --out, or delete {directory.name} and "
                "start again"
            ) from error
    return shards


def _read_shards(content: bytes) -> list[Shard]:
    parquet = require("pyarrow.parquet", "tables", "for results in Parquet")
    table = parquet.read_table(io.BytesIO(content))
    return [
        Shard(int(number), tuple(os.fsdecode(image) for image in images))
        for number, images in zip(table["shard"].to_pylist(), table["images"].to_pylist(), strict=True)
    ]


def _write_plan(directory: Directory, shards: Sequence[Shard]) -> None:
    arrow = require("pyarrow", "tables", "for results in Parquet")
    parquet = require("pyarrow.parquet", "tables", "for results in Parquet")
    # As bytes: file names on Linux need not be valid Unicode.
    images = [[os.fsencode(image) for image in shard.images] for shard in shards]
    columns = {
        "shard": arrow.array([shard.number for shard in shards], arrow.int64()),
        "images": arrow.array(images, arrow.list_(arrow.binary())),
    }
    content = io.BytesIO()
    parquet.write_table(arrow.table(columns), content, compression="zstd")
    directory.write(f"_plan-{shards[0].number:06d}.parquet", content.getvalue())


def done_shards(directory: Directory) -> set[int]:
    """Returns the numbers of the shards whose results exist.

    Raises:
        InputError: The directory cannot be listed.
    """
    matches = (_PART.fullmatch(name) for name in directory.names())
    return {int(match[1]) for match in matches if match}
