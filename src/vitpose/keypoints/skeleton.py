"""Skeletons: names, edges and symmetries of the keypoints of a model.

A skeleton is data. The shipped skeletons are TOML files in `skeletons/`; custom ones have the same format:

    name = "scissors"
    keypoints = ["pivot", "left_tip", "right_tip"]      # in the order of the heatmaps
    edges = [["pivot", "left_tip"], ["pivot", "right_tip"]]
    flip_pairs = [["left_tip", "right_tip"]]            # swapped when the image is mirrored

Optional keys are `title`, `upper_body`, `lower_body` (lists of names) and the tables `[sigmas]` (of OKS), `[weights]`
(of the training loss) and `[colours]` ("#rrggbb"), with one row for each keypoint. A third entry of an edge is its
colour. This module does not depend on images or heatmaps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int
from pydantic import Field, StrictInt

from ..errors import SkeletonError, UnknownNameError
from ..files.paths import read_toml_file
from ..files.schemas import Row, Schema, check, parse_toml

LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR = "#00ff00", "#ff8000", "#3399ff"
_COLOUR = "^#[0-9a-fA-F]{6}$"

Sigma = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Colour = Annotated[str, Field(pattern=_COLOUR)]
Pair = Annotated[tuple[StrictInt, StrictInt], Field(strict=False)]
Names = Annotated[tuple[str, str], Field(strict=False)]
ColouredNames = Annotated[tuple[str, str, Colour], Field(strict=False)]


class _Form(Schema):
    """The schema of a skeleton's file."""

    name: Annotated[str, Field(min_length=1)]
    keypoints: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    title: str = ""
    edges: Row[Names | ColouredNames] = ()
    flip_pairs: Row[Names] = ()
    upper_body: Row[str] = ()
    lower_body: Row[str] = ()
    sigmas: dict[str, Sigma] = Field(default_factory=dict)
    weights: dict[str, Weight] = Field(default_factory=dict)
    colours: dict[str, Colour] = Field(default_factory=dict)


class _Parts(Schema):
    """The schema of the attributes of a `Skeleton`."""

    name: str
    keypoints: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    edges: Row[Pair]
    flip_pairs: Row[Pair]
    title: str
    sigmas: Row[Sigma]
    weights: Row[Weight]
    upper_body: Row[int]
    lower_body: Row[int]
    colours: Row[Colour]
    edge_colours: Row[Annotated[str, Field(pattern=f"{_COLOUR}|^$")]]


@dataclass(frozen=True)
class Skeleton:
    """Names, edges and symmetries of k keypoints.

    Attributes:
        name: Short name, as in `Skeleton.load`.
        keypoints: The k names, in the order of the heatmaps.
        edges: Pairs of keypoint indices that are connected by a line when drawn.
        flip_pairs: Pairs of keypoint indices that swap when the image is mirrored.
        title: Description in one line.
        sigmas: OKS sigma of each keypoint (relative to the square root of the area), or empty if the dataset
            defines none.
        weights: Weight of each keypoint in the training loss; default: 1.
        upper_body: Indices of the upper half, for half-body augmentation; may be empty.
        lower_body: Indices of the lower half; may be empty.
        colours: "#rrggbb" of each keypoint; default: by its side.
        edge_colours: "#rrggbb" of each edge; an empty string takes the colour of its ends.

    Raises:
        SkeletonError: A value has another type, names repeat, an index is out of range, a list has the wrong length,
            a sigma is not above 0, a weight is below 0, or a colour is not of the form "#rrggbb".
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    title: str = ""
    sigmas: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    upper_body: tuple[int, ...] = ()
    lower_body: tuple[int, ...] = ()
    colours: tuple[str, ...] = field(default=(), repr=False)
    edge_colours: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in check(_Parts, values, f"skeleton {self.name!r:.200}", SkeletonError):
            object.__setattr__(self, name, value)
        self._check_indices()
        self._check_counts()
        # Defaults are filled in here, so that users of these attributes need not handle empty ones.
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self))
        if not self.colours:
            object.__setattr__(self, "colours", tuple(map(_side_colour, self.keypoints)))
        given = self.edge_colours or ("",) * len(self.edges)
        ends = [_edge_colour(self.colours[a], self.colours[b]) for a, b in self.edges]
        object.__setattr__(self, "edge_colours", tuple(g or e for g, e in zip(given, ends, strict=True)))

    def _check_indices(self) -> None:
        pairs = {"edges": self.edges, "flip_pairs": self.flip_pairs}
        lists = {key: [index for pair in rows for index in pair] for key, rows in pairs.items()}
        for key, indices in (lists | {"upper_body": self.upper_body, "lower_body": self.lower_body}).items():
            for index in indices:
                if not 0 <= index < len(self):
                    valid = f"valid indices of the {len(self)} keypoints are 0 to {len(self) - 1}"
                    raise self._error(key, f"has the index {index}; {valid}")
        paired = [self.keypoints[index] for index in lists["flip_pairs"]]
        for key, names in (("keypoints", self.keypoints), ("flip_pairs", paired)):
            repeated = sorted(name for name, count in Counter(names).items() if count > 1)
            if repeated:
                raise self._error(key, f"must not repeat a name; remove duplicates of {', '.join(repeated)}")

    def _check_counts(self) -> None:
        k = len(self)
        expected = {"sigmas": k, "weights": k, "colours": k, "edge_colours": len(self.edges)}
        for key, count in expected.items():
            given = len(getattr(self, key))
            if given not in (0, count):
                raise self._error(key, f"has {given} entries; give {count} or none")

    def _error(self, key: str, reason: str) -> SkeletonError:
        return SkeletonError(f"skeleton {self.name!r}: {key} {reason}")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def mirror(self) -> Int[np.ndarray, " k"]:
        """Index of each keypoint's mirror image; of the keypoint itself if it is in no flip pair."""
        order = np.arange(len(self))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return order

    @property
    def supervision_edges(self) -> list[tuple[int, int]]:
        """The edges with indices from 1, as supervision's annotators require."""
        return [(a + 1, b + 1) for a, b in self.edges]

    def index(self, keypoint: str) -> int:
        """Returns the index of a keypoint by its name.

        Raises:
            UnknownNameError: The skeleton has no such keypoint.
        """
        if keypoint not in self.keypoints:
            raise UnknownNameError("keypoint", keypoint, self.keypoints, f"The skeleton is {self.name!r}.")
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

        Args:
            name: Name of a shipped skeleton, path of a `.toml` file (`~` is expanded), or a skeleton, which is
                returned as it is.

        Raises:
            UnknownNameError: The name is neither a shipped skeleton nor an existing file.
            SkeletonError: The `.toml` file does not exist, cannot be read, or is invalid.
        """
        if isinstance(name, Skeleton):
            return name
        if isinstance(name, str | Path) and str(name) in cls.available():
            return _load_shipped(str(name))
        path, content = read_toml_file(name, "skeleton", "vitpose.Skeleton", cls.available(), SkeletonError)
        return cls.from_toml(content, source=str(path))

    @classmethod
    def from_toml(cls, text: str | bytes, source: str = "skeleton") -> Skeleton:
        """Parses a skeleton from TOML.

        Args:
            text: The content of the file.
            source: Name of the file in messages.

        Raises:
            SkeletonError: The content is not valid TOML or not a skeleton; the message names the wrong key.
        """
        return cls.from_dict(parse_toml(text, source, SkeletonError), source)

    @classmethod
    def from_dict(cls, table: Any, source: str = "skeleton") -> Skeleton:
        """Makes a skeleton from a dictionary in the format of the files.

        Args:
            table: The dictionary.
            source: Name of the file or argument in messages.

        Raises:
            SkeletonError: The dictionary is not a skeleton; the message names the wrong key.
        """
        form = check(_Form, table, source, SkeletonError)
        try:
            return _skeleton_from(form)
        except (SkeletonError, UnknownNameError) as error:
            raise SkeletonError(f"{source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Returns a dictionary in the format of the files, with all keys, of lists, strings and numbers."""
        names = self.keypoints
        coloured = zip(self.edges, self.edge_colours, strict=True)
        table: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "keypoints": list(names),
            "edges": [[names[a], names[b], colour] for (a, b), colour in coloured],
            "flip_pairs": [[names[a], names[b]] for a, b in self.flip_pairs],
            "upper_body": [names[index] for index in self.upper_body],
            "lower_body": [names[index] for index in self.lower_body],
        }
        rows = {"sigmas": self.sigmas, "weights": self.weights, "colours": self.colours}
        return table | {key: dict(zip(names, row, strict=True)) for key, row in rows.items() if row}

    @classmethod
    def from_labels(cls, labels: Any, edges: Any) -> Skeleton:
        """Makes a skeleton from the `id2label` and `edges` of a model's configuration.

        Returns a shipped skeleton if it has the same names in any spelling ("L_Eye" is "left_eye"), with the given
        edges if they differ; otherwise a custom one, with flip pairs derived from the names.

        Args:
            labels: Names of the keypoints, by index or in order.
            edges: Pairs of indices; None: unknown.

        Raises:
            SkeletonError: The labels or edges are invalid.
        """
        if not isinstance(labels, Mapping):
            labels = dict(enumerate(check(Row[str], labels, "labels", SkeletonError)))
        labels = check(dict[int, str], labels, "labels", SkeletonError)
        if sorted(labels) != list(range(len(labels))):
            raise SkeletonError(f"labels must be numbered 0 to {len(labels) - 1}, not {list(labels)!r:.200}")
        names = [labels[index] for index in range(len(labels))]
        plain = tuple(map(plain_name, names))
        given = check(Row[Pair], edges or (), "edges", SkeletonError)
        for known in map(_load_shipped, cls.available()):
            if tuple(map(plain_name, known.keypoints)) == plain:
                same = edges is None or set(map(frozenset, given)) == set(map(frozenset, known.edges))
                return known if same else replace(known, name="custom", edges=given, edge_colours=())
        pairs = _pairs_by_name(plain)
        return cls("custom", tuple(names), given, pairs, title="from the model's configuration")


def _shipped() -> Any:
    return resources.files("vitpose.keypoints") / "skeletons"


@cache
def _load_shipped(name: str) -> Skeleton:
    return Skeleton.from_toml(
        (_shipped() / f"{name}.toml").read_text(encoding="utf-8"), source=f"{name}.toml"
    )


def _pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Returns the flip pairs of plain names that differ in "left" and "right" only."""
    order = {name: index for index, name in enumerate(names)}
    return tuple(
        (index, order[name.replace("left", "right")])
        for name, index in order.items()
        if "left" in name and name.replace("left", "right") in order
    )


def plain_name(name: str) -> str:
    """Returns a keypoint's name in normalised spelling: "left_eye" for "L_Eye", "Left-Eye" and "left_eye".

    Also expands AP-10K's abbreviations: "L_F_Paw" becomes "left_front_paw".
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", plain))
    return re.sub(r"_f_paw$", "_front_paw", re.sub(r"_b_paw$", "_back_paw", plain))


def _side_colour(name: str) -> str:
    plain = plain_name(name)
    return LEFT_COLOUR if "left" in plain else RIGHT_COLOUR if "right" in plain else MIDDLE_COLOUR


def _edge_colour(first: str, second: str) -> str:
    """Returns the colour of the end on a side of the body, or the middle's for an edge between left and right."""
    if first == second or second == MIDDLE_COLOUR:
        return first
    return second if first == MIDDLE_COLOUR else MIDDLE_COLOUR


def _skeleton_from(form: _Form) -> Skeleton:
    """Returns the skeleton of a file, in which names are replaced by indices."""
    order = {name: index for index, name in enumerate(form.keypoints)}

    def index(key: str, name: str) -> int:
        if name not in order:
            raise SkeletonError(f"{key}: {UnknownNameError('keypoint', name, form.keypoints)}")
        return order[name]

    def pairs(key: str, rows: Sequence[Sequence[str]]) -> tuple[tuple[int, int], ...]:
        return tuple((index(f"{key}.{i}", row[0]), index(f"{key}.{i}", row[1])) for i, row in enumerate(rows))

    def column(key: str, table: Mapping[str, Any]) -> tuple[Any, ...]:
        for name in table:
            index(key, name)
        missing = [name for name in form.keypoints if name not in table]
        if table and missing:
            raise SkeletonError(
                f"{key} has no row for {', '.join(missing)}; give one for every keypoint, or none"
            )
        return tuple(table[name] for name in form.keypoints if table)

    return Skeleton(
        name=form.name,
        keypoints=form.keypoints,
        edges=pairs("edges", form.edges),
        flip_pairs=pairs("flip_pairs", form.flip_pairs),
        title=form.title,
        sigmas=column("sigmas", form.sigmas),
        weights=column("weights", form.weights),
        upper_body=tuple(index("upper_body", name) for name in form.upper_body),
        lower_body=tuple(index("lower_body", name) for name in form.lower_body),
        colours=column("colours", form.colours),
        edge_colours=tuple(row[2] if len(row) == 3 else "" for row in form.edges),
    )
