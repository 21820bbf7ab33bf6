from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vitpose.video.run_ahead import RunAhead


def test_items_keep_their_order() -> None:
    with RunAhead(range(1000), 3) as ahead:
        assert list(ahead) == list(range(1000))
    assert ahead.dropped == 0


def test_it_runs_at_most_size_items_ahead() -> None:
    """Ahead of the consumer are four waiting items, one in the thread, and one that is being passed over."""
    taken, lead = 0, []
    far = threading.Event()

    def items() -> Iterator[int]:
        for index in range(100):
            lead.append(index + 1 - taken)
            if index == 5:
                far.set()
            yield index

    with RunAhead(items(), 4) as ahead:
        for item in ahead:
            taken += 1
            if item == 0:
                assert far.wait(60), "no item was read ahead"
    assert taken == 100
    assert max(lead) <= 6


def test_the_newest_are_kept() -> None:
    done = threading.Event()

    def items() -> Iterator[int]:
        yield from range(50)
        done.set()

    with RunAhead(items(), 2, newest=True) as ahead:
        assert done.wait(5)
        assert list(ahead) == [48, 49]
        assert ahead.dropped == 48


def test_errors_are_raised_in_the_order_of_the_items() -> None:
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


def test_stages_run_at_the_same_time() -> None:
    """Each stage waits, while it processes an item, until the two others process one too."""
    together = threading.Barrier(3, timeout=60)

    def meeting(items: Iterator[int] | range, meeting_item: int) -> Iterator[int]:
        for item in items:
            if item == meeting_item:
                together.wait()
            yield item

    with RunAhead(meeting(range(25), 2), 4) as first, RunAhead(meeting(first, 1), 4) as second:
        assert list(meeting(second, 0)) == list(range(25))
