from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vitpose.video.ahead import RunAhead


def test_items_keep_their_order() -> None:
    with RunAhead(range(1000), 3) as ahead:
        assert list(ahead) == list(range(1000))
    assert ahead.dropped == 0


def test_it_runs_no_farther_ahead_than_told() -> None:
    made = []

    def items() -> Iterator[int]:
        for index in range(100):
            made.append(index)
            yield index

    with RunAhead(items(), 4) as ahead:
        assert next(ahead) == 0
        time.sleep(0.1)
        assert 5 <= len(made) <= 6  # one taken, four waiting, one in hand


def test_the_newest_are_kept() -> None:
    done = threading.Event()

    def items() -> Iterator[int]:
        yield from range(50)
        done.set()

    with RunAhead(items(), 2, newest=True) as ahead:
        assert done.wait(5)
        assert list(ahead) == [48, 49]
        assert ahead.dropped == 48


def test_errors_come_where_the_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    with RunAhead(items(), 5) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="no second"):
            next(ahead)
        assert list(ahead) == []


def test_closing_ends_the_thread_and_the_generator() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with RunAhead(items(), 2) as ahead:
        next(ahead)
    assert closed.wait(5)
    assert list(ahead) == []


def test_two_stages_work_at_the_same_time() -> None:
    def slowly(items: Iterator[int] | range) -> Iterator[int]:
        for item in items:
            time.sleep(0.02)
            yield item

    start = time.perf_counter()
    with RunAhead(slowly(range(25)), 4) as first, RunAhead(slowly(first), 4) as second:
        assert list(slowly(second)) == list(range(25))
    assert time.perf_counter() - start < 0.02 * 25 * 2  # one after the other would be three times
