"""Colours of drawings."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .poses import Poses

Colour = tuple[int, int, int]

DARK: Colour = (16, 16, 16)
LIGHT: Colour = (255, 255, 255)
INSTANCE_COLOURS = (
    "#d62728", "#2a8a2a", "#1f5fb4", "#b85a00", "#8e44ad",
    "#00807a", "#c2185b", "#7a5230", "#6b6b00", "#30308f",
)  # fmt: skip
"""Colours of boxes and tags, dark enough for white text; they repeat after ten."""
UNTRACKED_COLOUR = "#5c5c5c"
"""Colour of instances without a track where tracking was used."""


def instance_colour(pose: Poses, number: int) -> str:
    """Returns the colour of an instance by its track ID, or by its index if tracking was not used."""
    if pose.ids is None:
        return INSTANCE_COLOURS[number % len(INSTANCE_COLOURS)]
    id = pose.ids[0]
    return INSTANCE_COLOURS[id % len(INSTANCE_COLOURS)] if id >= 0 else UNTRACKED_COLOUR


@cache
def rgb(colour: str) -> Colour:
    """Returns the channels of a colour "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


@cache
def lighter(colour: str) -> str:
    """Returns a colour "#rrggbb" mixed with a third of white, for thin lines on dark images."""
    return "#" + "".join(f"{channel + (255 - channel) // 3:02x}" for channel in rgb(colour))
