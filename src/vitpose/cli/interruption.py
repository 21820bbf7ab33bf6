"""Shutdown on Ctrl-C or SIGTERM at a point where the files are valid."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


@contextmanager
def stop_on_signal(action: str) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one ends the program at once.

    Args:
        action: What is done before the program ends after the first signal, for the message.

    Raises:
        KeyboardInterrupt: A second signal has arrived.
    """
    requested = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        typer.echo(f"stopping: {action}; press Ctrl-C again to stop at once", err=True)

    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        yield requested
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
