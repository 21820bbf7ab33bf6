"""What all tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads of tests that run side by side would wait for each other most of the time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for programs in a process of their own
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
