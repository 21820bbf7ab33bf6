"""Class names of detectors: COCO's names (`coco_classes.txt`), and the selection of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType

from ..errors import InputError, UnknownNameError

Labels = Sequence[str] | str | None
"""Class names to detect: a sequence of names or one name; "all": every class; None: the default."""


@cache
def coco_labels() -> Mapping[int, str]:
    """Return COCO's 80 class names by category id (1 to 90, with gaps).

    Networks trained on COCO number the classes in this order, from 0.
    """
    text = (resources.files("vitpose.detectors") / "coco_classes.txt").read_text(encoding="utf-8")
    rows = (line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({int(number): name for number, name in rows})


def choose_labels(labels: Labels, known: Iterable[str]) -> frozenset[str]:
    """Return the selected class names.

    Args:
        labels: Names to select; default: "person"; "all": every known name.
        known: The known names.

    Raises:
        UnknownNameError: A label is not a known name.
        InputError: The labels are not class names, or the sequence is empty.
    """
    names, chosen = frozenset(known), read_labels(labels)
    if chosen is None:
        return names
    for label in sorted(chosen - names):
        raise UnknownNameError("label", label, names, 'labels="all" selects every class.')
    return chosen


def read_labels(labels: Labels, default: Labels = "person") -> frozenset[str] | None:
    """Return the requested class names; None for every class.

    Args:
        labels: Names to select; "all": every class; None: `default`.
        default: Names to select if there are no labels.

    Raises:
        InputError: The labels are not class names, or the sequence is empty.
    """
    labels = default if labels is None else labels
    if labels == "all":
        return None
    names = [labels] if isinstance(labels, str) else labels
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names) or not names:
        raise InputError(
            f'labels {labels!r:.100} must be one or more class names; labels="all" selects every class'
        )
    return frozenset(names)
