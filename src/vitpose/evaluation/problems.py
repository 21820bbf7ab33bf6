"""Input that could not be used, counted and named, so that nothing is dropped silently."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Problems:
    """Names of the items that could not be used, by kind of problem.

    Attributes:
        names: The names under each kind, in the order in which they were added.
        images: Names of images without a prediction because of an error, each with the error's message.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Add an item under a kind of problem."""
        self.names.setdefault(kind, []).append(name)

    def __len__(self) -> int:
        return sum(map(len, self.names.values())) + len(self.images)
