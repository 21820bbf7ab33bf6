"""What could not be used, counted and named, so that nothing goes missing in silence. Knows no file and no measure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Problems:
    """Names of what could not be used, by what was wrong with it.

    Attributes:
        names: The names under each kind, in the order they were met.
        images: Names of images whose prediction failed, each with the reason.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Counts one more of a kind."""
        self.names.setdefault(kind, []).append(name)

    def __len__(self) -> int:
        return sum(map(len, self.names.values())) + len(self.images)
