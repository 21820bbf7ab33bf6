"""Which images make which shard, what a run was begun with, and which of its shards are done.

All of it lies in the folder of the results, in files whose names begin with `_`, which readers of Parquet folders
pass over. Knows no poses and no workers.
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
from .storage import Place

_SETTINGS = "_job.json"
_PART = re.compile(r"part-(\d+)\.parquet")
_PLAN = re.compile(r"_plan-\d+\.parquet")


@dataclass(frozen=True)
class Shard:
    """Images that are done together.

    Attributes:
        number: Its place in the plan.
        images: Paths and addresses.
    """

    number: int
    images: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"part-{self.number:06d}.parquet"


def begin_or_go_on(place: Place, settings: Mapping[str, Any]) -> None:
    """Notes what a run is begun with, or makes sure that it goes on with the same.

    Args:
        place: The folder of the results.
        settings: Whatever the results depend on.

    Raises:
        InputError: The folder holds something else, or a run that was begun with other settings.
    """
    names = place.names()
    for name in names:
        if name.startswith(".") and name.endswith(PARTIAL):  # what a killed run was writing
            place.remove(name)
    if _SETTINGS not in names:
        names = [name for name in names if not name.startswith(".")]
        if names:
            raise InputError(
                f"{place.name} is not empty and no run of ours ({names[0]} lies there); choose another --out"
            )
        place.write(_SETTINGS, json.dumps(settings, indent=2, sort_keys=True).encode())
        return
    source = f"{place.name}/{_SETTINGS}"
    before = check(dict[str, Any], parse_json(place.read(_SETTINGS), source), source)
    now = json.loads(json.dumps(settings))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        name = sorted(changed)[0]
        raise InputError(
            f"{place.name} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}; give the same command to "
            "go on, or choose another --out"
        )


def plan_shards(place: Place, images: Sequence[str], size: int) -> list[Shard]:
    """Returns all shards: those planned before, then new ones for images that are in none of them.

    An image stays in its shard, so that going on does nothing twice, though images may have come or gone.

    Args:
        place: The folder of the results; what is new of the plan is written there.
        images: All that are there now.
        size: How many images a new shard has at most.
    """
    shards = read_plan(place)
    known = {image for shard in shards for image in shard.images}
    fresh = [image for image in images if image not in known]
    starts = range(0, len(fresh), size)
    added = [
        Shard(number, tuple(fresh[start : start + size]))
        for number, start in enumerate(starts, start=len(shards))
    ]
    if added:
        _write_plan(place, added)
    return shards + added


def read_plan(place: Place) -> list[Shard]:
    """Returns the shards planned so far.

    Raises:
        InputError: A file of the plan is damaged.
    """
    arrow = require("pyarrow", "tables", "for results in Parquet")
    shards = []
    for name in sorted(name for name in place.names() if _PLAN.fullmatch(name)):
        try:
            shards += _read_shards(place.read(name))
        except (arrow.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{place.name}/{name} is damaged ({reason}); choose another --out, or delete {place.name} and begin "
                "again"
            ) from error
    return shards


def _read_shards(content: bytes) -> list[Shard]:
    parquet = require("pyarrow.parquet", "tables", "for results in Parquet")
    table = parquet.read_table(io.BytesIO(content))
    return [
        Shard(int(number), tuple(os.fsdecode(image) for image in images))
        for number, images in zip(table["shard"].to_pylist(), table["images"].to_pylist(), strict=True)
    ]


def _write_plan(place: Place, shards: Sequence[Shard]) -> None:
    arrow = require("pyarrow", "tables", "for results in Parquet")
    parquet = require("pyarrow.parquet", "tables", "for results in Parquet")
    # As bytes: file names on Linux may be no Unicode.
    images = [[os.fsencode(image) for image in shard.images] for shard in shards]
    columns = {
        "shard": arrow.array([shard.number for shard in shards], arrow.int64()),
        "images": arrow.array(images, arrow.list_(arrow.binary())),
    }
    content = io.BytesIO()
    parquet.write_table(arrow.table(columns), content, compression="zstd")
    place.write(f"_plan-{shards[0].number:06d}.parquet", content.getvalue())


def done_shards(place: Place) -> set[int]:
    """Returns the numbers of the shards whose results are there."""
    matches = (_PART.fullmatch(name) for name in place.names())
    return {int(match[1]) for match in matches if match}
