"""The class names of detectors: COCO's, and choosing among names.

Knows no detector and no file but the shipped `coco_classes.txt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType

from ..errors import InputError, UnknownNameError

Labels = Sequence[str] | str | None
"""Class names to find; one name may stand alone; None or "all" is every class."""

OWN_LABELS = "own"
"""The classes that a dataset is for: the default wherever labels can be given."""


@cache
def coco_labels() -> Mapping[int, str]:
    """Returns COCO's 80 class names by category id (1 to 90, with gaps).

    Networks trained on COCO count them in this order, from 0.
    """
    text = (resources.files("vitpose.detectors") / "coco_classes.txt").read_text(encoding="utf-8")
    rows = (line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({int(number): name for number, name in rows})


def choose_labels(labels: Labels, known: Iterable[str]) -> frozenset[str]:
    """Returns the chosen names.

    Args:
        labels: Names to choose; None or "all" chooses every known one.
        known: The names there are.

    Raises:
        UnknownNameError: A label is not among them.
        InputError: As of `read_labels`.
    """
    names, chosen = frozenset(known), read_labels(labels)
    if chosen is None:
        return names
    for label in sorted(chosen - names):
        raise UnknownNameError("label", label, names, 'labels="all" takes every class.')
    return chosen


def read_labels(labels: Labels) -> frozenset[str] | None:
    """Returns the names that are asked for, None for every class.

    Raises:
        InputError: They are no names, or none at all.
    """
    if labels is None or labels == "all":
        return None
    names = [labels] if isinstance(labels, str) else labels
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names) or not names:
        raise InputError(
            f'labels {labels!r:.100} must be one or more class names; labels="all" takes every class'
        )
    return frozenset(names)
