"""Crops dealt out to threads: the same maps in the same order, and nothing left behind in torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vitpose.engine.side_by_side import CROPS_AT_ONCE, SideBySide


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 11, 22])
def test_every_crop_comes_back_in_its_place(count: int) -> None:
    seen: list[tuple[int, int, int]] = []

    def network(pixels: Tensor) -> Tensor:
        seen.append((threading.get_ident(), len(pixels), torch.get_num_threads()))
        return 2 * pixels

    pixels = torch.arange(count * 12.0).view(count, 3, 2, 2)
    torch.testing.assert_close(SideBySide(network)(pixels), 2 * pixels)
    here = [part for part in seen if part[0] == threading.get_ident()]
    elsewhere = [part for part in seen if part not in here]
    assert [(length, threads) for _, length, threads in here] == (
        [(count % 3, 3)] if count % 3 or not count else []
    )
    assert sum(length for _, length, _ in elsewhere) == count - count % 3
    assert all(length <= CROPS_AT_ONCE and threads == 1 for _, length, threads in elsewhere)


def test_other_threads_keep_what_torch_was_told() -> None:
    SideBySide(lambda pixels: pixels)(torch.zeros(3, 3, 2, 2))
    assert torch.get_num_threads() == 3
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append((torch.zeros(2) + 1, torch.get_num_threads())[1]))
    later.start()
    later.join()
    assert found == [3]


def test_an_error_in_a_thread_is_raised_here() -> None:
    def network(pixels: Tensor) -> Tensor:
        raise ValueError("odd pixels")

    with pytest.raises(ValueError, match="odd pixels"):
        SideBySide(network)(torch.zeros(3, 3, 2, 2))
