"""How many threads runtimes may use in this process, where it is one of several, and how they wait.

Knows no runtime.
"""

from __future__ import annotations

import os

_limit = 0


def limit_threads(count: int) -> None:
    """Says how many threads each runtime that is opened from now on may use; 0 leaves it to the runtime."""
    global _limit
    _limit = count


def thread_limit() -> int:
    """Returns what was said last, or 0."""
    return _limit


def wait_passively() -> None:
    """Lets the threads of OpenMP sleep while they wait, unless the environment says otherwise.

    For programs, not for libraries: it changes the environment of this process and of those that it starts, and counts
    only where OpenMP (torch's, which ships GNU's) is loaded later. Without it, threads that wait take the cores that
    others need: measured with vitpose-tiny, one crop, two threads on two cores with some ten other busy processes,
    38 ms in place of 2.4 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
