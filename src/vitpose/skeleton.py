"""Skeletons: what the keypoints of a model are called and how they hang together.

A skeleton is data. The shipped ones are TOML files in `skeletons/`, a user's own has the same form:

    name = "scissors"
    keypoints = ["pivot", "left_tip", "right_tip"]      # in the order of the heat maps
    limbs = [["pivot", "left_tip"], ["pivot", "right_tip"]]
    flip_pairs = [["left_tip", "right_tip"]]            # swapped when the picture is mirrored

and may add `title`, `upper_body`, `lower_body` (lists of names) and the tables `[sigmas]` (COCO's
per-keypoint fall-off), `[weights]` (of the training loss) and `[colours]` ("#rrggbb"), one row a
keypoint; a limb may carry its colour as a third entry. This module knows no pictures and no heat maps.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from .errors import SkeletonError, UnknownNameError

LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR = "#00ff00", "#ff8000", "#3399ff"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_KEYS = {
    "name", "title", "keypoints", "limbs", "flip_pairs", "upper_body", "lower_body",
    "sigmas", "weights", "colours",
}  # fmt: skip


@dataclass(frozen=True)
class Skeleton:
    """Names, limbs and symmetries of k keypoints.

    Attributes:
        name: Short name, as in `Skeleton.load`.
        keypoints: The k names, in the order of the heat maps.
        limbs: Pairs of keypoint indices to draw a line between.
        flip_pairs: Pairs of keypoint indices that swap when the picture is mirrored.
        title: One line for people.
        sigmas: COCO's per-keypoint fall-off for OKS (relative to the square root of the area), or
            empty where the data set defines none.
        weights: Weight of each keypoint in the training loss.
        upper_body: Indices of the upper half, for half-body augmentation; may be empty.
        lower_body: Indices of the lower half; may be empty.
        colours: One "#rrggbb" a keypoint.
        limb_colours: One "#rrggbb" a limb; an empty one is taken from the limb's ends.

    Raises:
        SkeletonError: Names repeat, an index is out of range, a list has the wrong length, a sigma is
            not above 0, or a colour is not of the form "#rrggbb".
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    title: str = ""
    sigmas: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    upper_body: tuple[int, ...] = ()
    lower_body: tuple[int, ...] = ()
    colours: tuple[str, ...] = field(default=(), repr=False)
    limb_colours: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        self._check_indices()
        self._check_entries()
        # Empty optional lists get their meaning here, so that readers never meet an empty one.
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self))
        if not self.colours:
            object.__setattr__(self, "colours", tuple(map(_side_colour, self.keypoints)))
        own = self.limb_colours or ("",) * len(self.limbs)
        ends = [_limb_colour(self.colours[a], self.colours[b]) for a, b in self.limbs]
        object.__setattr__(self, "limb_colours", tuple(o or e for o, e in zip(own, ends, strict=True)))

    def _check_indices(self) -> None:
        if not self.keypoints:
            raise self._error("keypoints", "must hold at least one name")
        for what in ("limbs", "flip_pairs", "upper_body", "lower_body"):
            for index in np.ravel(getattr(self, what)).astype(int):
                if not 0 <= index < len(self):
                    there = f"there are {len(self)} keypoints, 0 to {len(self) - 1}"
                    raise self._error(what, f"has the index {index}, but {there}")
        paired = [self.keypoints[index] for pair in self.flip_pairs for index in pair]
        for what, names in (("keypoints", list(self.keypoints)), ("flip_pairs", paired)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise self._error(what, f"may have each name once, but has {', '.join(repeated)} more often")

    def _check_entries(self) -> None:
        k = len(self)
        wanted = {"sigmas": k, "weights": k, "colours": k, "limb_colours": len(self.limbs)}
        for what, count in wanted.items():
            given = len(getattr(self, what))
            if given not in (0, count):
                raise self._error(what, f"has {given} entries and needs {count}, or none")
        for sigma in self.sigmas:
            if not 0 < sigma < math.inf:
                raise self._error("sigmas", f"must be finite and above 0, not {sigma}")
        for what in ("colours", "limb_colours"):
            for colour in getattr(self, what):
                if not _COLOUR.fullmatch(colour) and (colour or what == "colours"):
                    raise self._error(what, f'must look like "#rrggbb", not {colour!r}')

    def _error(self, what: str, why: str) -> SkeletonError:
        return SkeletonError(f"skeleton {self.name!r}: {what} {why}")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def mirror(self) -> Int[np.ndarray, " k"]:
        """The index of each keypoint's mirror image (its own where it has none)."""
        order = np.arange(len(self))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return order

    @property
    def supervision_edges(self) -> list[tuple[int, int]]:
        """The limbs as supervision's annotators count them: from 1."""
        return [(a + 1, b + 1) for a, b in self.limbs]

    def index(self, keypoint: str) -> int:
        """Returns the index of a keypoint by its name.

        Raises:
            UnknownNameError: There is no such keypoint.
        """
        if keypoint not in self.keypoints:
            raise UnknownNameError(f"keypoint of the skeleton {self.name!r}", keypoint, self.keypoints)
        return self.keypoints.index(keypoint)

    @staticmethod
    def available() -> list[str]:
        """Returns the names of the shipped skeletons."""
        return sorted(
            entry.name.removesuffix(".toml") for entry in _shipped().iterdir() if entry.name.endswith(".toml")
        )

    @classmethod
    def load(cls, name: str | Path | Skeleton) -> Skeleton:
        """Returns a shipped skeleton by its name, or reads one from a `.toml` file.

        Raises:
            UnknownNameError: The name is neither a shipped skeleton nor an existing file.
            SkeletonError: There is no such `.toml` file, or it does not hold together; the message says in which line.
        """
        if isinstance(name, Skeleton):
            return name
        if str(name) in cls.available():
            return _load_shipped(str(name))
        path = Path(name)
        if not path.is_file():
            if path.suffix == ".toml":
                raise SkeletonError(
                    f"there is no file {path.absolute()}; give the path of a skeleton's .toml file, or a shipped name: "
                    f"{', '.join(cls.available())}"
                )
            raise UnknownNameError(
                "skeleton", str(name), cls.available(), "A path to a skeleton's .toml file works too."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SkeletonError(f"{path} is not a text file ({error}); a skeleton is a .toml file") from error
        return cls.from_toml(text, source=str(path))

    @classmethod
    def from_toml(cls, text: str, source: str = "skeleton") -> Skeleton:
        """Reads a skeleton from TOML text; `source` is how messages call it.

        Raises:
            SkeletonError: The text is not TOML or not a skeleton; the message says in which line.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            where = f"line {line[1]}" if line else "the last line"
            raise SkeletonError(f"{source}, {where}: not valid TOML: {error}") from error
        return _TomlReader(table, text, source).skeleton()

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: str = "skeleton") -> Skeleton:
        """Reads a skeleton from a table of the files' form; `source` is how messages call it.

        Raises:
            SkeletonError: The table is not a skeleton.
        """
        return _TomlReader(dict(table), "", source).skeleton()

    def to_dict(self) -> dict[str, Any]:
        """Returns the table of the files' form, complete, of plain values."""
        names = self.keypoints
        coloured = zip(self.limbs, self.limb_colours, strict=True)
        table: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "keypoints": list(names),
            "limbs": [[names[a], names[b], colour] for (a, b), colour in coloured],
            "flip_pairs": [[names[a], names[b]] for a, b in self.flip_pairs],
            "upper_body": [names[index] for index in self.upper_body],
            "lower_body": [names[index] for index in self.lower_body],
        }
        rows = {"sigmas": self.sigmas, "weights": self.weights, "colours": self.colours}
        return table | {key: dict(zip(names, row, strict=True)) for key, row in rows.items() if row}

    @classmethod
    def from_labels(
        cls, labels: Mapping[int, str] | Sequence[str], edges: Sequence[Sequence[int]] | None
    ) -> Skeleton:
        """Makes a skeleton of the `id2label` and `edges` of a model's configuration.

        A shipped skeleton is returned if its names are these names (spelling such as "L_Eye" is
        understood), with other limbs where the edges differ; otherwise one is made whose sides are read from the names.

        Raises:
            SkeletonError: The labels or edges do not hold together.
        """
        labels = labels if isinstance(labels, Mapping) else dict(enumerate(labels))
        if sorted(labels) != list(range(len(labels))):
            raise SkeletonError(f"labels must be numbered 0 to {len(labels) - 1}, not {list(labels)}")
        names = [labels[index] for index in range(len(labels))]
        plain = tuple(map(plain_name, names))
        for edge in edges or ():
            if len(edge) != 2:
                raise SkeletonError(f"edges must be pairs of keypoints' indices, not {edge!r}")
        limbs = tuple((int(a), int(b)) for a, b in edges or ())
        for known in map(_load_shipped, cls.available()):
            if tuple(map(plain_name, known.keypoints)) == plain:
                same = edges is None or {frozenset(limb) for limb in limbs} == set(
                    map(frozenset, known.limbs)
                )
                return known if same else replace(known, name="custom", limbs=limbs, limb_colours=())
        sides = {name: index for index, name in enumerate(plain)}
        pairs = tuple(
            (index, sides[name.replace("left", "right")])
            for name, index in sides.items()
            if "left" in name and name.replace("left", "right") in sides
        )
        return cls("custom", tuple(names), limbs, pairs, title="from the model's configuration")


def _shipped() -> Any:
    return resources.files("vitpose") / "skeletons"


@cache
def _load_shipped(name: str) -> Skeleton:
    return Skeleton.from_toml(
        (_shipped() / f"{name}.toml").read_text(encoding="utf-8"), source=f"{name}.toml"
    )


def plain_name(name: str) -> str:
    """Returns a keypoint's name, spelt in one way: "L_Eye", "Left-Eye" and "left_eye" are the same.

    So are AP-10K's own "L_F_Paw" and its files' "left_front_paw".
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", plain))
    return re.sub(r"_f_paw$", "_front_paw", re.sub(r"_b_paw$", "_back_paw", plain))


def _side_colour(name: str) -> str:
    plain = plain_name(name)
    return LEFT_COLOUR if "left" in plain else RIGHT_COLOUR if "right" in plain else MIDDLE_COLOUR


def _limb_colour(first: str, second: str) -> str:
    """A limb between two colours is the sided one's; between left and right it is the middle's."""
    if first == second or second == MIDDLE_COLOUR:
        return first
    return second if first == MIDDLE_COLOUR else MIDDLE_COLOUR


class _TomlReader:
    """Turns a parsed skeleton file into a Skeleton and finds the line of whatever is wrong."""

    def __init__(self, table: dict[str, Any], text: str, source: str) -> None:
        self.table, self.text, self.source = table, text, source
        for key in table:
            if key not in _KEYS:
                raise self._error(key, str(UnknownNameError("key", key, _KEYS)))
        self.names = self._names("keypoints")

    def skeleton(self) -> Skeleton:
        name = self._text("name")
        if not name:
            raise self._error("name", "name is missing; give the skeleton a short one")
        limbs, limb_colours = self._limbs()
        parts: dict[str, Any] = {
            "name": name,
            "title": self._text("title"),
            "keypoints": self.names,
            "limbs": limbs,
            "flip_pairs": tuple(self._pair("flip_pairs", pair) for pair in self._list("flip_pairs")),
            "sigmas": self._rows("sigmas", self._number),
            "weights": self._rows("weights", self._number),
            "upper_body": tuple(self._index("upper_body", part) for part in self._names("upper_body")),
            "lower_body": tuple(self._index("lower_body", part) for part in self._names("lower_body")),
            "colours": self._rows("colours", self._colour),
            "limb_colours": limb_colours,
        }
        try:
            return Skeleton(**parts)
        except SkeletonError as error:
            field = str(error).removeprefix(f"skeleton {name!r}: ").split()[0]
            raise self._error(field, str(error)) from error

    def _limbs(self) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
        limbs, colours = [], []
        for entry in self._list("limbs"):
            coloured = isinstance(entry, list) and len(entry) == 3
            limbs.append(self._pair("limbs", entry[:2] if coloured else entry))
            colours.append(self._colour("limbs", str(entry[2]), entry[2]) if coloured else "")
        return tuple(limbs), tuple(colours)

    def _text(self, key: str) -> str:
        value = self.table.get(key, "")
        if not isinstance(value, str):
            raise self._error(key, f"{key} must be a text, not {value!r}")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.table.get(key, [])
        if not isinstance(value, list):
            raise self._error(key, f"{key} must be a list, not {value!r}")
        return value

    def _names(self, key: str) -> tuple[str, ...]:
        names = self._list(key)
        for name in names:
            if not isinstance(name, str):
                raise self._error(key, f"{key} must hold names, not {name!r}", word=str(name))
        return tuple(names)

    def _pair(self, key: str, pair: Any) -> tuple[int, int]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise self._error(key, f"{key} must hold pairs of names, not {pair!r}")
        return self._index(key, pair[0]), self._index(key, pair[1])

    def _index(self, key: str, name: Any) -> int:
        if name not in self.names:
            message = f"in {key}: {UnknownNameError('keypoint', name, self.names)}"
            raise self._error(key, message, word=str(name))
        return self.names.index(name)

    def _rows(self, key: str, read: Callable[[str, str, Any], Any]) -> tuple[Any, ...]:
        """Reads one value a keypoint from a table such as [sigmas]."""
        table = self.table.get(key, {})
        if not isinstance(table, dict):
            raise self._error(key, f"{key} must be a table with one row a keypoint, not {table!r}")
        values = {self._index(key, name): read(key, name, value) for name, value in table.items()}
        missing = [name for name in self.names if name not in table]
        if table and missing:
            message = f"{key} has no row for {', '.join(missing)}; give every keypoint one, or none"
            raise self._error(key, message)
        return tuple(value for _, value in sorted(values.items()))

    def _number(self, key: str, word: str, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._error(key, f"in {key}: {word!r} must be a number, not {value!r}", word)
        return float(value)

    def _colour(self, key: str, word: str, value: Any) -> str:
        if not isinstance(value, str) or not _COLOUR.fullmatch(value):
            raise self._error(key, f'in {key}: a colour must look like "#rrggbb", not {value!r}', word)
        return value

    def _error(self, key: str, message: str, word: str = "") -> SkeletonError:
        """Names the line of a key, or the first one from there on that holds a word."""
        line = self._find(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[].=]""", 0)
        if word:
            whole = rf"""(["']){re.escape(word)}\1|(?<![\w"'-]){re.escape(word)}(?![\w"'-])"""
            line = self._find(rf".*?(?:{whole})", line or 0) or line
        where = self.source if line is None else f"{self.source}, line {line + 1}"
        return SkeletonError(f"{where}: {message}")

    def _find(self, pattern: str, start: int) -> int | None:
        """Returns the first line from `start` on that begins with the pattern and is no comment."""
        lines = enumerate(self.text.splitlines())
        found = (i for i, line in lines if i >= start and re.match(pattern, line) and line.lstrip()[0] != "#")
        return next(found, None)
