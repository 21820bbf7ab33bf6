"""Conversion of keypoints from one skeleton to another.

The rules, in this order:

    1. a target keypoint is the source keypoint of the same name in any spelling ("L_Eye" is "left_eye"), or of a
       synonym ("top_head" is "head_top");
    2. a target keypoint that is the midpoint of two others ("pelvis") is computed from them, with the lower of their
       scores;
    3. a target keypoint without a source has NaN coordinates and score 0.

Skeletons of different kinds (person, animal, hand) are not converted to each other, although they share names. The
number of keypoints does not matter. Synonyms, midpoints and kinds are data, in `mappings.toml`.
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


def canonical_name(keypoint: str) -> str:
    """Returns the canonical name of a keypoint: one for all spellings and synonyms."""
    plain = plain_name(keypoint)
    return _rules().same.get(plain, plain)


@dataclass(frozen=True)
class KeypointMapping:
    """How the keypoints of a target skeleton are computed from those of a source skeleton.

    Attributes:
        source: Skeleton to convert from.
        target: Skeleton to convert to.
        sources: For each target keypoint the indices of its source keypoints: one, two (their midpoint), or none.
    """

    source: Skeleton
    target: Skeleton
    sources: tuple[tuple[int, ...], ...]

    @classmethod
    def between(cls, source: Skeleton, target: Skeleton) -> KeypointMapping:
        """Returns the mapping from one skeleton to another.

        Raises:
            SkeletonError: The skeletons are of different kinds, or have no keypoint in common.
        """
        kinds = {skeleton.name: _kind_of(skeleton) for skeleton in (source, target)}
        if len(set(kinds.values()) - {None}) > 1:
            described = " and ".join(f"{name!r} ({kind})" for name, kind in kinds.items())
            raise SkeletonError(
                f"the skeletons {described} are of different kinds; choose a target of the same kind"
            )
        indices = {canonical_name(name): index for index, name in enumerate(source.keypoints)}
        sources = tuple(_sources(canonical_name(name), indices) for name in target.keypoints)
        if not any(sources):
            raise SkeletonError(
                f"the skeletons {source.name!r} and {target.name!r} have no keypoint in common: "
                f"{', '.join(source.keypoints[:5])}, … and {', '.join(target.keypoints[:5])}, …; "
                "choose another target or rename its keypoints"
            )
        return cls(source, target, sources)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the target keypoints that have no source."""
        rows = zip(self.target.keypoints, self.sources, strict=True)
        return tuple(name for name, sources in rows if not sources)

    def convert(
        self, xy: Float[np.ndarray, "n s 2"], scores: Float[np.ndarray, "n s"]
    ) -> tuple[Float[np.ndarray, "n k 2"], Float[np.ndarray, "n k"]]:
        """Converts keypoints of the source skeleton to the target skeleton.

        Args:
            xy: Keypoints of the source, in any frame.
            scores: Their scores.

        Returns:
            Keypoints and scores of the target, NaN and 0 where a keypoint has no source.
        """
        target_xy = np.full((len(xy), len(self.target), 2), np.nan, xy.dtype)
        target_scores = np.zeros((len(xy), len(self.target)), scores.dtype)
        for index, sources in enumerate(self.sources):
            if sources:
                target_xy[:, index] = xy[:, list(sources)].mean(axis=1)
                target_scores[:, index] = scores[:, list(sources)].min(axis=1)
        return target_xy, target_scores


def _sources(name: str, indices: dict[str, int]) -> tuple[int, ...]:
    """Returns the indices of the source keypoints of a target keypoint, by its canonical name."""
    if name in indices:
        return (indices[name],)
    ends = _rules().middle.get(name, ())
    return tuple(indices[end] for end in ends) if ends and all(end in indices for end in ends) else ()


def _kind_of(skeleton: Skeleton) -> str | None:
    kinds = _rules().kinds
    return next((kind for kind, names in kinds.items() if skeleton.name in names), None)


@cache
def _rules() -> _Rules:
    name = "mappings.toml"
    return check(_Rules, parse_toml((resources.files("vitpose.keypoints") / name).read_bytes(), name), name)
