"""Layouts: from the points of one skeleton to those of another.

The rules, in this order, and there are no others:

    1. a point is the point of the same name, spelt in any way ("L_Eye" is "left_eye"), or of another name of the
       same place ("top_head" is "head_top");
    2. a point that lies in the middle of two others ("pelvis") is made of them, and scores what the worse does;
    3. a point without a partner is nowhere: its coordinates are NaN, its score is 0.

Skeletons of different kinds (a person, an animal, a hand) never become each other, though they share names. The number
of points plays no part. Names of places, middles and kinds are data, in `mappings.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float

from ..errors import SkeletonError
from ..files.schemas import Row, Schema, check, parse_toml
from .skeleton import Skeleton, plain_name


class _Rules(Schema):
    """The file `mappings.toml`."""

    same: dict[str, str]
    middle: dict[str, Row[str]]
    kinds: dict[str, Row[str]]


def place_name(keypoint: str) -> str:
    """Returns the one name of a keypoint's place, however it is called and spelt."""
    plain = plain_name(keypoint)
    return _rules().same.get(plain, plain)


@dataclass(frozen=True)
class Layout:
    """The way from one skeleton to another.

    Attributes:
        source: Whose points there are.
        target: Whose points are wanted.
        partners: For each point of the target the indices of the source's points that make it: one, two whose
            middle it is, or none.
    """

    source: Skeleton
    target: Skeleton
    partners: tuple[tuple[int, ...], ...]

    @classmethod
    def between(cls, source: Skeleton, target: Skeleton) -> Layout:
        """Finds the way.

        Raises:
            SkeletonError: The skeletons are of different kinds, or share no point.
        """
        kinds = {own.name: _kind_of(own) for own in (source, target)}
        if len(set(kinds.values()) - {None}) > 1:
            told = " and ".join(f"{name!r} that of {kind}" for name, kind in kinds.items())
            raise SkeletonError(f"the skeleton {told}: their points do not become each other")
        places = {place_name(name): index for index, name in enumerate(source.keypoints)}
        partners = tuple(_partners(place_name(name), places) for name in target.keypoints)
        if not any(partners):
            raise SkeletonError(
                f"the skeletons {source.name!r} and {target.name!r} share no point: "
                f"{', '.join(source.keypoints[:5])}, … and {', '.join(target.keypoints[:5])}, …"
            )
        return cls(source, target, partners)

    @property
    def missing(self) -> tuple[str, ...]:
        """The target's points that have no partner."""
        rows = zip(self.target.keypoints, self.partners, strict=True)
        return tuple(name for name, partners in rows if not partners)

    def convert(
        self, xy: Float[np.ndarray, "n s 2"], scores: Float[np.ndarray, "n s"]
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
        """Returns points and scores of the target made of those of the source; NaN and 0 without a partner."""
        places = np.full((len(xy), len(self.target), 2), np.nan, xy.dtype)
        worths = np.zeros((len(xy), len(self.target)), scores.dtype)
        for index, partners in enumerate(self.partners):
            if partners:
                places[:, index] = xy[:, list(partners)].mean(axis=1)
                worths[:, index] = scores[:, list(partners)].min(axis=1)
        return places, worths


def _partners(place: str, places: dict[str, int]) -> tuple[int, ...]:
    if place in places:
        return (places[place],)
    ends = _rules().middle.get(place, ())
    return tuple(places[end] for end in ends) if ends and all(end in places for end in ends) else ()


def _kind_of(skeleton: Skeleton) -> str | None:
    kinds = _rules().kinds
    return next((kind for kind, names in kinds.items() if skeleton.name in names), None)


@cache
def _rules() -> _Rules:
    name = "mappings.toml"
    return check(_Rules, parse_toml((resources.files("vitpose.keypoints") / name).read_bytes(), name), name)
