"""Ctrl-C and termination as a wish, not a blow: the work ends where its files are valid."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@contextmanager
def stop_when_asked(what: str) -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C (or SIGTERM) sets; the second one ends the program at once.

    Args:
        what: What is still done after the first, for the message.
    """
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        typer.echo(f"stopping: {what}; again to stop at once", err=True)

    if threading.current_thread() is not threading.main_thread():  # where Python sets no handlers
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
