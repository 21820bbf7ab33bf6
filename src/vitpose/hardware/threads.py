"""Limit on the threads of runtimes in this process, and how OpenMP's threads wait."""

from __future__ import annotations

import os

_limit = 0


def limit_threads(count: int) -> None:
    """Sets the number of threads of each runtime that is opened afterwards; 0: the runtime's default."""
    global _limit
    _limit = count


def thread_limit() -> int:
    """Returns the number set by `limit_threads`; default: 0."""
    return _limit


def wait_passively() -> None:
    """Makes OpenMP's threads sleep instead of spin while they wait, unless the environment sets OMP_WAIT_POLICY.

    For programs, not for libraries: it changes the environment of this process and its child processes, and takes
    effect only if OpenMP (torch includes GNU's) is loaded afterwards. Spinning threads occupy cores that other
    processes use: measured with vitpose-tiny, one crop, two threads on two cores and about ten other busy processes,
    38 ms instead of 2.4 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
