"""Iterates in a thread, a bounded number of items ahead of the consumer.

FFmpeg, OpenCV and the networks release the global interpreter lock, so decoding, inference and encoding overlap when
each stage consumes a `RunAhead` of the previous one. Does not know video.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_JOIN_TIMEOUT_S = 2.0  # a thread that waits for a stalled network is not joined any longer


class RunAhead(Generic[T]):
    """Iterator over items that a thread reads up to `size` items ahead.

    The thread starts with the first item or on entering a `with` block. An exception of the items is raised in their
    order. Call `close`, or leave the `with` block, to end the thread before the items end.

    Args:
        items: Items to iterate over; used in the thread only.
        size: Maximum number of waiting items.
        newest: When `size` items wait, drop the oldest one instead of blocking the thread.

    Attributes:
        dropped: Number of dropped items.
    """

    def __init__(self, items: Iterable[T], size: int, newest: bool = False) -> None:
        self._items, self._size, self._newest = items, size, newest
        self._waiting: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()
        self.dropped = 0
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        """Starts the thread, once; not in the constructor, since a thread that is never closed never ends."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, daemon=True, name="vitpose-ahead")
            self._thread.start()

    def _work(self) -> None:
        iterator: Any = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:  # any exception is raised in the consumer's thread
            self._error = error
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            if self._newest and len(self._waiting) >= self._size:
                self._waiting.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._waiting) < self._size or self._closed)
            if not self._closed:
                self._waiting.append(item)
                self._changed.notify_all()
            return not self._closed

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._start()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._closed)
            if self._waiting and not self._closed:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
        error, self._error = self._error, None
        raise StopIteration if error is None or self._closed else error

    def close(self) -> None:
        """Ends the thread and discards the waiting items."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT_S)

    def __enter__(self) -> RunAhead[T]:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
