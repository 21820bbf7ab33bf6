"""How many threads a runtime may use in this process, where it is one of several. Knows no runtime."""

from __future__ import annotations

_limit = 0


def limit_threads(count: int) -> None:
    """Says how many threads each runtime that is opened from now on may use; 0 leaves it to the runtime."""
    global _limit
    _limit = count


def thread_limit() -> int:
    """Returns what was said last, or 0."""
    return _limit
