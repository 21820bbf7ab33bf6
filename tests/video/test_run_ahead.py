from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from vitpose.video.run_ahead import RunAhead


def test_items_keep_their_order() -> None:
    with RunAhead(range(1000), 3) as ahead:
        assert list(ahead) == list(range(1000))
    assert ahead.dropped == 0


def test_it_runs_no_farther_ahead_than_told() -> None:
    """Ahead of what was taken are the four that wait, one in hand, and one that is just being handed over."""
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
                assert far.wait(60), "nothing was made ahead"
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
    """Each stage waits, in the midst of an item, for the two others to be in the midst of one of theirs."""
    together = threading.Barrier(3, timeout=60)

    def meeting(items: Iterator[int] | range, at: int) -> Iterator[int]:
        for item in items:
            if item == at:
                together.wait()
            yield item

    with RunAhead(meeting(range(25), 2), 4) as first, RunAhead(meeting(first, 1), 4) as second:
        assert list(meeting(second, 0)) == list(range(25))
