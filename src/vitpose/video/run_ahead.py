"""Work done in a thread of its own, a bounded way ahead of whoever wants its results.

Knows nothing of video. FFmpeg, OpenCV and the networks let other threads run while they work, so decoding,
inference and encoding overlap when each is one `RunAhead` of the next.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_LEAVE_S = 2.0  # a thread that waits for a silent network is left behind after this


class RunAhead(Generic[T]):
    """Iterates over something in a thread, up to `size` items ahead, from the first item or `with` on.

    An exception in the thread is raised where its item would have come. Close it, or leave its `with` block, to
    end the thread before the items do.

    Args:
        items: What to iterate over; used in the thread alone.
        size: How many items wait at most.
        newest: When that many wait, drop the oldest rather than stop the thread.

    Attributes:
        dropped: How many items were dropped.
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
        """Begins, once: not before it is wanted, since a thread that is never closed never ends."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, daemon=True, name="vitpose-ahead")
            self._thread.start()

    def _work(self) -> None:
        iterator: Any = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:  # whatever it is, it belongs to the one who waits
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
        """Ends the thread. Items that wait are dropped."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LEAVE_S)

    def __enter__(self) -> RunAhead[T]:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
